"""The report as one HTML file that needs nothing else: no network, no foreign script, pictures inside.

Ids, reasons and columns come from files that are anyone's: the template escapes every value, and a Content-Security-Policy
lets only this file's own style and script work.
"""

from __future__ import annotations

import base64
import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from anoaudit import __version__
from anoaudit.reports import charts, words
from anoaudit.reports.aggregates import Spread, groups, spread, unreadable
from anoaudit.reports.files import replacing
from anoaudit.reports.gallery import Card, Gallery, cards
from anoaudit.reports.heatmap import COLOURS
from anoaudit.reports.known import known_anomalies
from anoaudit.reports.metrics import metrics
from anoaudit.reports.timeline import timeline
from anoaudit.scoring.table import ScoreTable

if TYPE_CHECKING:
    import polars as pl

LISTED, GROUPS, STRIPS, KNOWN, UNREADABLE = 500, 50, 20, 50, 200  # rows of the list, and of the other tables
BINS, STRIP_PARTS = 40, 240


@dataclass(frozen=True)
class Provenance:
    """How to make the report again: commands, and the facts that show whether it is the same data and model."""

    commands: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()


def write_html(table: ScoreTable, out: Path, gallery: Gallery | None = None, origin: Provenance | None = None) -> None:
    """Write the report of `table` to `out`, whole or not at all. `gallery` is for images. Raises AuditError."""
    with replacing(out) as part, part.open("wb") as file:
        # A lone surrogate (a path that is no UTF-8) is written as its escape.
        file.write(render(table, gallery, origin).encode("utf-8", "backslashreplace"))


def render(
    table: ScoreTable, gallery: Gallery | None = None, origin: Provenance | None = None, written: datetime | None = None
) -> str:
    """The HTML text; `written` is now, or the time that SOURCE_DATE_EPOCH names."""
    summary, scores = table.summary, spread(table, BINS)
    origin = origin or Provenance()
    css, js = _text("report.css"), _text("report.js")
    rows = _rows(table, table.top(LISTED), scores)
    context: dict[str, Any] = {
        "css": Markup(css),
        "js": Markup(js),
        "policy": f"default-src 'none'; img-src data:; style-src '{_hash(css)}'; script-src '{_hash(js)}'; "
        "base-uri 'none'; form-action 'none'",
        "version": __version__,
        "written": (written or _now()).strftime("%Y-%m-%d %H:%M UTC"),
        "name": words.printable(PurePath(summary.source).name or summary.source) or "Score table",
        "lead": _lead(table),
        "tiles": _tiles(table),
        "facts": [
            (term, text)
            for term, text in words.facts(summary, table.has_time)
            if term not in ("items", "flagged", "threshold")
        ],
        "notes": [words.printable(note) for note in summary.notes],
        "rows": rows,
        "has": _has(rows, summary.kind),
        "listed": _listed(len(rows), summary.readable),
        "commands": [words.printable(command) for command in origin.commands],
        "provenance": [(term, words.printable(text)) for term, text in _provenance(table, origin)],
        **_truth(table),
        **_scores(scores, summary.threshold),
        **_gallery(table, gallery, scores),
        **_time(table),
        **_known(table),
        **_unreadable(table),
    }
    context |= _groups(table, context["figures"])
    context["sections"] = list(_sections(context))
    return _environment().get_template("report.html.j2").render(context)


def _sections(context: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Anchors and titles of the sections that there are."""
    yield "summary", "Summary"
    for anchor, title, key in (
        ("truth", "Truth", "truth"), ("scores", "Scores", "chart"), ("worst", "Most anomalous", "cards"),
        ("time", "Time", "time"), ("known", "Known anomalies", "known"), ("groups", "Groups", "groups"),
    ):  # fmt: skip
        if context[key]:
            yield anchor, title
    yield "items", "Items"
    if context["unreadable"]:
        yield "unreadable", "Unreadable"
    yield "again", "How to make it again"


def _lead(table: ScoreTable) -> str:
    summary = table.summary
    if not summary.readable:
        return f"None of {words.plural(summary.rows, 'item')} is readable."
    share = words.share(summary.flagged, summary.readable)
    return f"{summary.flagged:,} of {words.plural(summary.readable, 'readable item')} flagged ({share})."


def _tiles(table: ScoreTable) -> list[tuple[str, str, bool]]:
    """Figure, what it is, whether it stands out."""
    summary = table.summary
    kind = "frame" if table.has_time else {"images": "image", "table": "row"}.get(summary.kind, "item")
    tiles = [
        (f"{summary.rows:,}", kind if summary.rows == 1 else kind + "s", False),
        (f"{summary.flagged:,}", "flagged", summary.flagged > 0),
        (f"{summary.unreadable:,}", "unreadable", summary.unreadable > 0),
    ]
    if summary.ignored:
        tiles.append((f"{summary.ignored:,}", "other files ignored", False))
    if summary.threshold is not None and math.isfinite(summary.threshold):
        tiles.append((words.number(summary.threshold), "threshold", False))
    return tiles


def _listed(shown: int, readable: int) -> str:
    left = readable - shown
    return f"The {shown:,} worst; {left:,} more readable ones are left out here." if left > 0 else "All readable items."


def _rows(table: ScoreTable, frame: pl.DataFrame, scores: Spread | None) -> list[dict[str, Any]]:
    """What the list and the cards show of each row, the texts printable."""
    score = words.numbers(frame["score"])
    truths = {1: "anomaly", 0: "normal", None: words.MISSING}
    rows = []
    for place, row in enumerate(frame.iter_rows(named=True), 1):
        item, group, time = row["id"], row["group"], row.get("time")
        share = scores.above_median(row["score"]) if scores else 0.0
        rows.append(
            {
                "raw": item,
                "id": words.printable(item),
                "place": place,
                "rank": f"{row['rank'] or place:,}",
                "score": score(row["score"]),
                "score_v": repr(row["score"]),
                "percent": f"{100 * min(1.0, max(0.0, share)):.1f}",
                "p": words.p_value(row["p_value"]),
                "p_v": _plain(row["p_value"]),
                "flagged": bool(row["flagged"]),
                "truth": truths[row.get("truth")],
                "truth_v": _plain(row.get("truth")),
                "group": words.group_name(group) if group else "",
                "within": bool(group) and item.startswith((f"{group}/", f"{group}#")),
                "time": words.clock(time) if time is not None else words.MISSING,
                "time_v": _plain(time),
                "why": words.printable(row["why"] or ""),
            }
        )
    return rows


def _has(rows: list[dict[str, Any]], kind: str) -> dict[str, bool]:
    """The columns that say anything."""
    found = {name: any(row[f"{name}_v"] != "" for row in rows) for name in ("p", "truth", "time")}
    return found | {
        "group": any(row["group"] and not row["within"] for row in rows),  # else the ids say it already
        "why": any(row["why"] for row in rows),
    }


def _plain(value: float | None) -> str:
    """A number for sorting; nothing where there is none."""
    return "" if value is None or not math.isfinite(value) else repr(value)


def _truth(table: ScoreTable) -> dict[str, Any]:
    figures = metrics(table)
    if figures is None:
        return {"truth": None, "figures": None}
    heading, lines = words.metric_heading(figures), words.metric_lines(figures)
    return {
        "truth": {"heading": heading, "lines": lines, "remarks": words.metric_remarks(figures)},
        "figures": figures,
    }


def _scores(scores: Spread | None, threshold: float | None) -> dict[str, Any]:
    if scores is None:
        return {"chart": None, "spread": "", "axis": 0, "log_scale": False, "outer": False}
    chart = charts.histogram(scores, threshold)
    return {
        "chart": chart,
        "spread": words.spread(scores.low, scores.median, scores.high).capitalize(),
        "axis": 8 * max(len(tick.text) for tick in chart.y),
        "log_scale": scores.log_scale,
        "outer": scores.long_tail,
    }


def _gallery(table: ScoreTable, gallery: Gallery | None, scores: Spread | None) -> dict[str, Any]:
    empty: dict[str, Any] = {"cards": [], "gallery_note": "", "scale": None, "stops": [], "worst": ""}
    if gallery is None or not gallery.rows.height:
        return empty
    found = cards(gallery)
    missing = Card(reason="the source is gone" if gallery.note else "not in the data any more")
    rows = _rows(table, gallery.rows, scores)
    scale = gallery.scale
    last = len(COLOURS) - 1
    return {
        "cards": [row | {"card": found.get(row["raw"], missing)} for row in rows],
        "gallery_note": words.printable(gallery.note),
        "scale": None if scale is None else (words.number(scale.low), words.number(scale.high), scale.kind),
        "stops": [(f"{100 * i / last:.1f}", f"#{bytes(colour).hex()}") for i, colour in enumerate(COLOURS)],
        "worst": f"The {len(rows):,} worst of {table.summary.readable:,} readable items",
    }


def _time(table: ScoreTable) -> dict[str, Any]:
    found = timeline(table, worst=5, bins=STRIP_PARTS)
    if found is None:
        return {"time": None}
    return {
        "time": charts.time_chart(found.strips[:STRIPS], table.summary.threshold if table.summary.flagged else None),
        "strips_left": max(0, len(found.strips) - STRIPS),
        "intervals": charts.intervals(found),
        "intervals_left": found.more,
        "interval_heading": words.interval_heading(found, table.summary.flagged),
    }


def _known(table: ScoreTable) -> dict[str, Any]:
    found = known_anomalies(table, KNOWN)
    if found is None:
        return {"known": None}
    score = words.numbers(found.rows["score"])
    rows = [
        (
            words.printable(row["id"]),
            f"{row['rank']:,}" if row["rank"] else words.MISSING,
            score(row["score"]),
            words.printable(row["why"] or ""),
        )
        for row in found.rows.iter_rows(named=True)
    ]
    heading = words.known_heading(found, table.summary.flagged)
    return {"known": {"heading": heading, "rows": rows, "left": found.below - len(rows)}}


def _groups(table: ScoreTable, figures: dict[str, Any] | None) -> dict[str, Any]:
    found = groups(table)
    if len(found) < 2:
        return {"groups": [], "groups_left": 0}
    median = words.numbers(g.median for g in found[:GROUPS])
    aurocs = {part["group"]: part["auroc"] for part in figures["groups"]} if figures else {}
    rows = [
        {
            "name": words.group_name(g.group),
            "count": f"{g.items:,}",
            "flagged": f"{g.flagged:,}",
            "share": words.share(g.flagged, g.readable),
            "percent": f"{100 * g.flagged / max(1, g.readable):.1f}",
            "median": median(g.median),
            "auroc": words.metric(aurocs.get(g.group)),
        }
        for g in found[:GROUPS]
    ]
    return {"groups": rows, "groups_left": len(found) - len(rows)}


def _unreadable(table: ScoreTable) -> dict[str, Any]:
    found = unreadable(table, UNREADABLE)
    return {
        "unreadable": [(words.printable(item), words.printable(reason)) for item, reason in found],
        "unreadable_count": words.plural(table.summary.unreadable, "item"),
        "unreadable_left": table.summary.unreadable - len(found),
    }


def _provenance(table: ScoreTable, origin: Provenance) -> Iterator[tuple[str, str]]:
    summary = table.summary
    if summary.fingerprint:
        yield "data", f"SHA-256 {summary.fingerprint}"
    if summary.model.get("hash"):
        yield "model", f"{summary.model.get('name') or 'model.onnx'}, SHA-256 of its graph {summary.model['hash']}"
    if summary.provider:
        yield "computed by", summary.provider
    yield from origin.facts


def _now() -> datetime:
    fixed = os.environ.get("SOURCE_DATE_EPOCH", "")  # as reproducible builds set it
    return datetime.fromtimestamp(int(fixed), UTC) if fixed.isdigit() else datetime.now(UTC)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("anoaudit.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _text(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
