"""The report as GitHub Markdown, for job summaries and pull requests. Ids cannot break out of their cell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from anoaudit.reports import words
from anoaudit.reports.aggregates import groups, spread, unreadable
from anoaudit.reports.known import known_anomalies
from anoaudit.reports.metrics import metrics
from anoaudit.reports.timeline import timeline
from anoaudit.scoring.table import ScoreTable

_BAR = 30
_GROUPS = 20
_UNREADABLE = 10
# Entities stand for the character itself and can end neither a cell nor a code span; `\|` has readers that disagree.
_ENTITIES = {ord(c): f"&#{ord(c)};" for c in "\\|`*[]~$@#"} | {ord("<"): "&lt;", ord(">"): "&gt;", ord("&"): "&amp;"}
_OUTER_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")  # within a word it emphasises nothing
_QUIET = frozenset("-_./ ,:;+=%()0123456789")


def markdown(table: ScoreTable, top: int = 20) -> str:
    """The report of `table` with its `top` most anomalous items."""
    blocks = [
        "## anoaudit",
        _table(("", ""), ((f"**{name}**", _text(value)) for name, value in words.facts(table.summary, table.has_time))),
    ]
    blocks += _ranking(table, max(0, top))
    blocks += _histogram(table)
    blocks += _intervals(table)
    blocks += _known(table)
    blocks += _groups(table)
    blocks += _unreadable(table)
    blocks += _metrics(table)
    notes = words.notes(table.summary)
    if notes:
        blocks += ["### Notes", "\n".join(f"* {_text(note)}" for note in notes)]
    return "\n\n".join(blocks) + "\n"


def _text(value: str) -> str:
    return _OUTER_UNDERSCORE.sub("&#95;", words.printable(value).translate(_ENTITIES))


def _code(value: str) -> str:
    """An id as code, where GitHub looks for neither mentions nor links."""
    value = words.printable(value)
    if value == value.strip() and value and all(c.isalnum() or c in _QUIET for c in value):
        return f"`{value}`"
    return f"<code>{_text(value)}</code>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[int] = ()) -> str:
    rule = ("---:" if place in numeric else "---" for place in range(len(head)))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, tuple(rule), *rows))


def _more(n: int, what: str = "more") -> list[str]:
    return [f"… and {n:,} {what}"] if n > 0 else []


def _ranking(table: ScoreTable, top: int) -> list[str]:
    frame = table.top(top)
    if not table.summary.readable:
        return ["### Most anomalous", "No item is readable."]
    if not frame.height:
        return []
    score = words.numbers(frame["score"])
    truth = {1: "anomaly", 0: "normal", None: words.MISSING}
    head = ["rank", "score", "p", "flag", "id"]
    optional = [name for name in ("group", "truth", "why") if name in frame.columns and frame[name].count()]
    rows = []
    for place, row in enumerate(frame.iter_rows(named=True), 1):
        cells = [f"{row['rank'] or place:,}", score(row["score"]), words.p_value(row["p_value"])]
        cells += ["●" if row["flagged"] else "", _code(row["id"])]
        shown = {
            "group": _code(row["group"]) if row["group"] else "",
            "truth": truth[row.get("truth")],
            "why": _text(row["why"] or ""),
        }
        rows.append([*cells, *(shown[name] for name in optional)])
    hidden = table.summary.flagged - int(frame["flagged"].sum())
    listed = f"{frame.height:,} of {table.summary.readable:,} readable items."
    key = [f"{_text(text)}." for text in (words.why_key(frame["why"]),) if text]
    body = _table([*head, *optional], rows, (0, 1, 2))
    return ["### Most anomalous", listed, body, *_more(hidden, "more flagged"), *key]


def _histogram(table: ScoreTable) -> list[str]:
    scores = spread(table)
    if scores is None:
        return []
    label = words.numbers(b.low for b in scores.bins)
    edge = max(len(label(b.low)) for b in scores.bins)
    cut = f"{' ' * edge}  ─── threshold {words.number(table.summary.threshold)} ───"
    lines = []
    for place, part in enumerate(scores.bins):
        if place == scores.cut:
            lines.append(cut)
        bar = "█" * max(round(scores.length(part.items) * _BAR), 1 if part.items else 0)
        flagged = "flagged" if part.flagged == part.items else f"({part.flagged:,} flagged)"
        count = f"{bar} {part.items:,} {flagged if part.flagged else ''}".rstrip() + words.bin_remark(part, scores)
        lines.append(f"{label(part.low):>{edge}}  {count if part.items else ''}".rstrip())
    if scores.cut == len(scores.bins):
        lines.append(cut)
    remark = words.spread(scores.low, scores.median, scores.high).capitalize()
    remark += "; bars on a log scale." if scores.log_scale else "."
    return ["### Scores", remark, "\n".join(["```text", *lines, "```"])]


def _intervals(table: ScoreTable) -> list[str]:
    found = timeline(table)
    if found is None:
        return []
    score = words.numbers(i.peak_score for i in found.intervals)
    rows = [
        (
            words.clock(i.start),
            words.clock(i.end),
            score(i.peak_score),
            words.clock(i.peak_time),
            f"{i.frames:,}",
            _code(i.group) if i.group else words.group_name(i.group),
        )
        for i in found.intervals
    ]
    head = ("from", "to", "peak", "at", "frames", "in")
    listed = words.interval_heading(found, table.summary.flagged).capitalize()
    return ["### Worst intervals", f"{listed}.", _table(head, rows, (2, 4))]


def _known(table: ScoreTable) -> list[str]:
    found = known_anomalies(table)
    if found is None:
        return []
    blocks = ["### Known anomalies", f"{words.known_heading(found, table.summary.flagged).capitalize()}."]
    score = words.numbers(found.rows["score"])
    rows = [
        (f"{row['rank'] or words.MISSING}", score(row["score"]), _code(row["id"]), _text(row["why"] or ""))
        for row in found.rows.iter_rows(named=True)
    ]
    table_of = [_table(("rank", "score", "id", "why"), rows, (0, 1))] if rows else []
    return [*blocks, *table_of, *_more(found.below - len(rows))]


def _groups(table: ScoreTable) -> list[str]:
    found = groups(table)
    if len(found) < 2:
        return []
    shown = found[:_GROUPS]
    median = words.numbers(g.median for g in shown)
    rows = [
        (
            _code(g.group) if g.group else words.group_name(g.group),
            f"{g.items:,}",
            f"{g.flagged:,}",
            words.share(g.flagged, g.readable),
            median(g.median),
        )
        for g in shown
    ]
    head = ("group", "items", "flagged", "share", "median score")
    return ["### Groups", _table(head, rows, (1, 2, 3, 4)), *_more(len(found) - len(shown))]


def _unreadable(table: ScoreTable) -> list[str]:
    rows = unreadable(table, _UNREADABLE)
    if not rows:
        return []
    body = _table(("id", "reason"), ((_code(item), _text(reason)) for item, reason in rows))
    return ["### Unreadable", body, *_more(table.summary.unreadable - len(rows))]


def _metrics(table: ScoreTable) -> list[str]:
    figures = metrics(table)
    if figures is None:
        return []
    known = f"{words.metric_heading(figures)}."
    lines = words.metric_lines(figures)
    remarks = [f"{remark}." for remark in words.metric_remarks(figures)]
    return ["### Against the truth", known, _table(("figure", "value"), lines, (1,)), *remarks]
