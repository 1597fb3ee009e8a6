"""The report as one HTML file that needs nothing else: no network, no foreign script, pictures inside.

Ids, reasons and columns come from files that are anyone's: the template escapes every value, and a Content-Security-Policy
lets only this file's own style and script work.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path, PurePath
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from anoaudit import __version__
from anoaudit.reports import page, words
from anoaudit.reports.aggregates import spread
from anoaudit.reports.files import replacing
from anoaudit.reports.gallery import Gallery
from anoaudit.scoring.table import ScoreTable

LISTED = 500  # rows of the list
BINS = 40


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
    rows = page.listing(table, table.top(LISTED), scores)
    context: dict[str, Any] = {
        "css": Markup(css),
        "js": Markup(js),
        "policy": f"default-src 'none'; img-src data:; style-src '{_hash(css)}'; script-src '{_hash(js)}'; "
        "base-uri 'none'; form-action 'none'",
        "version": __version__,
        "written": (written or _now()).strftime("%Y-%m-%d %H:%M UTC"),
        "name": words.printable(PurePath(summary.source).name or summary.source) or "Score table",
        "lead": page.lead(table),
        "tiles": page.tiles(table),
        "facts": [
            (term, text)
            for term, text in words.facts(summary, table.has_time)
            if term not in ("items", "flagged", "threshold")
        ],
        "notes": words.notes(summary),
        "rows": rows,
        "has": page.columns(rows),
        "listed": page.listed(len(rows), summary.readable),
        "commands": [words.printable(command) for command in origin.commands],
        "provenance": [(term, words.printable(text)) for term, text in _provenance(table, origin)],
        **page.truth_section(table),
        **page.scores_section(scores, summary.threshold),
        **page.gallery_section(table, gallery, scores),
        **page.time_section(table),
        **page.known_section(table),
        **page.unreadable_section(table),
    }
    context |= page.groups_section(table, context["figures"])
    context["sections"] = list(_sections(context))
    context["why_key"] = words.why_key(table.top(LISTED)["why"])
    context["why_at"] = next((at for at in ("cards", "known") if context[at]), "items")  # once, where it is met first
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
    yield "again", "Reproduce"


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
    environment = Environment(
        loader=PackageLoader("anoaudit.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breaks"] = page.breaks
    return environment


def _text(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
