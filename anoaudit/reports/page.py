"""What the sections of the HTML report hold: texts and numbers as the template wants them, which escapes them."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from anoaudit.reports import aggregates, charts, words
from anoaudit.reports.aggregates import Spread
from anoaudit.reports.gallery import Card, Gallery, cards
from anoaudit.reports.heatmap import COLOURS
from anoaudit.reports.known import known_anomalies
from anoaudit.reports.metrics import metrics
from anoaudit.reports.timeline import timeline
from anoaudit.scoring.table import ScoreTable

if TYPE_CHECKING:
    import polars as pl

GROUPS, STRIPS, KNOWN, UNREADABLE = 50, 20, 50, 200  # rows of these tables
STRIP_PARTS = 240


def lead(table: ScoreTable) -> str:
    """The result in one sentence."""
    summary = table.summary
    if not summary.readable:
        return f"None of {words.plural(summary.rows, 'item')} is readable."
    if not summary.flagged:
        return f"None of {words.plural(summary.readable, 'readable item')} is flagged."
    share = words.share(summary.flagged, summary.readable)
    return f"{summary.flagged:,} of {words.plural(summary.readable, 'readable item')} flagged ({share})."


def tiles(table: ScoreTable) -> list[tuple[str, str, bool]]:
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


def listed(shown: int, readable: int) -> str:
    """What the list leaves out."""
    left = readable - shown
    return f"The {shown:,} worst; {left:,} more readable ones are left out here." if left > 0 else "All readable items."


def listing(table: ScoreTable, frame: pl.DataFrame, scores: Spread | None) -> list[dict[str, Any]]:
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
                "why": _unbroken(words.printable(row["why"] or "")),
            }
        )
    return rows


def columns(rows: list[dict[str, Any]]) -> dict[str, bool]:
    """The columns that say anything."""
    found = {name: any(row[f"{name}_v"] != "" for row in rows) for name in ("p", "truth", "time")}
    return found | {
        "group": any(row["group"] and not row["within"] for row in rows),  # else the ids say it already
        "why": any(row["why"] for row in rows),
    }


def breaks(text: str) -> Markup:
    """The text as HTML that may break after the marks that part the words of names and paths."""
    return Markup("<wbr>").join(re.findall(r"[^/_.-]*[/_.-]+|[^/_.-]+", text))


def _unbroken(why: str) -> str:
    """With lines that break between its entries only."""
    return ", ".join(part.replace(" ", "\xa0") for part in why.split(", "))


def _plain(value: float | None) -> str:
    """A number for sorting; nothing where there is none."""
    return "" if value is None or not math.isfinite(value) else repr(value)


def truth_section(table: ScoreTable) -> dict[str, Any]:
    """The figures against the truth; `figures` are the numbers themselves."""
    figures = metrics(table)
    if figures is None:
        return {"truth": None, "figures": None}
    heading, lines = words.metric_heading(figures), words.metric_lines(figures)
    return {
        "truth": {"heading": heading, "lines": lines, "remarks": words.metric_remarks(figures)},
        "figures": figures,
    }


def scores_section(scores: Spread | None, threshold: float | None) -> dict[str, Any]:
    """The histogram and its legend."""
    if scores is None:
        return {"chart": None, "spread": "", "axis": 0, "log_scale": False, "wider": ""}
    chart = charts.histogram(scores, threshold)
    return {
        "chart": chart,
        "spread": words.spread(scores.low, scores.median, scores.high).capitalize(),
        "axis": 8 * max(len(tick.text) for tick in chart.y),
        "log_scale": scores.log_scale,
        "wider": words.wider_bins(scores),
    }


def gallery_section(table: ScoreTable, gallery: Gallery | None, scores: Spread | None) -> dict[str, Any]:
    """The cards of the worst images, and the heat's legend."""
    empty: dict[str, Any] = {"cards": [], "gallery_note": "", "scale": None, "stops": [], "worst": ""}
    if gallery is None or not gallery.rows.height:
        return empty
    found = cards(gallery)
    missing = Card(reason="the source is gone" if gallery.note else "not in the data any more")
    rows = listing(table, gallery.rows, scores)
    scale = gallery.scale
    last = len(COLOURS) - 1
    return {
        "cards": [row | {"card": found.get(row["raw"], missing)} for row in rows],
        "gallery_note": words.printable(gallery.note),
        "scale": None if scale is None else (words.number(scale.low), words.number(scale.high), scale.kind),
        "stops": [(f"{100 * i / last:.1f}", f"#{bytes(colour).hex()}") for i, colour in enumerate(COLOURS)],
        "worst": f"The {len(rows):,} worst of {table.summary.readable:,} readable items",
    }


def time_section(table: ScoreTable) -> dict[str, Any]:
    """The strips and the worst intervals."""
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


def known_section(table: ScoreTable) -> dict[str, Any]:
    """The known anomalies that are not flagged."""
    found = known_anomalies(table, KNOWN)
    if found is None:
        return {"known": None}
    score = words.numbers(found.rows["score"])
    rows = [
        (
            words.printable(row["id"]),
            f"{row['rank']:,}" if row["rank"] else words.MISSING,
            score(row["score"]),
            _unbroken(words.printable(row["why"] or "")),
        )
        for row in found.rows.iter_rows(named=True)
    ]
    heading = words.known_heading(found, table.summary.flagged)
    return {"known": {"heading": heading, "rows": rows, "left": found.below - len(rows)}}


def groups_section(table: ScoreTable, figures: dict[str, Any] | None) -> dict[str, Any]:
    """The groups compared, their AUROCs where there are any."""
    found = aggregates.groups(table)
    if len(found) < 2:
        return {"groups": []}
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
    return {
        "groups": rows,
        "groups_left": len(found) - len(rows),
        "groups_heading": words.groups_heading(len(found), table.summary.flagged),
        "groups_auroc": any(value is not None for value in aurocs.values()),
    }


def unreadable_section(table: ScoreTable) -> dict[str, Any]:
    """What could not be read, and why."""
    found = aggregates.unreadable(table, UNREADABLE)
    return {
        "unreadable": [(words.printable(item), words.printable(reason)) for item, reason in found],
        "unreadable_count": words.plural(table.summary.unreadable, "item"),
        "unreadable_left": table.summary.unreadable - len(found),
    }
