"""The report people see first: a head, the ranking, the histogram, the time, groups, unreadable items, figures and notes."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from rich.cells import cell_len
from rich.console import Console

from anoaudit.reports import words
from anoaudit.reports.aggregates import Spread, groups, spread, unreadable
from anoaudit.reports.known import known_anomalies
from anoaudit.reports.look import Column, Look, make_console, share_out
from anoaudit.reports.metrics import metrics
from anoaudit.reports.timeline import Strip, timeline
from anoaudit.scoring.table import ScoreTable

__all__ = ["make_console", "render"]

_GROUPS = 20
_STRIPS = 6
_UNREADABLE = 10
_FLAGGED, _OTHER = "red", "cyan"


def render(table: ScoreTable, console: Console, top: int = 20) -> None:
    """Print the report of `table` with its `top` most anomalous items."""
    look = Look(console)
    scores, figures = spread(table), metrics(table)
    _head(table, look)
    if scores is None:
        look.title("Most anomalous", "no item is readable")
    else:
        _ranking(table, scores, look, max(0, top))
        _histogram(table, scores, look)
        _over_time(table, scores, look)
    _known(table, look)
    _groups(table, figures, look)
    _unreadable(table, look)
    if figures:
        _metrics(figures, look)
    notes = words.notes(table.summary)
    if notes:
        look.title("Notes")
        for note in notes:
            look.wrapped(note)


def _head(table: ScoreTable, look: Look) -> None:
    facts = words.facts(table.summary, table.has_time)
    label = max(len(name) for name, _ in facts) + 2
    for name, value in facts:
        style = ("bold red" if table.summary.flagged else "bold") if name == "flagged" else ""
        shown = look.middle(value, look.width - label) if name == "source" else value
        look.wrapped(shown, style, indent=0, lead=(f"{name:{label}}", "dim"))


def _ranking(table: ScoreTable, scores: Spread, look: Look, top: int) -> None:
    rows = table.top(top).to_dicts()
    if not rows:
        return
    marked = f", {look.mark} is flagged" if any(row["flagged"] for row in rows) else ""
    look.title("Most anomalous", f"{len(rows):,} of {table.summary.readable:,}{marked}")
    score = words.numbers(row["score"] for row in rows)
    hues = [_FLAGGED if row["flagged"] else _OTHER for row in rows]
    dim = ["dim"] * len(rows)
    columns = [
        Column("#", [f"{row['rank'] or place:,}" for place, row in enumerate(rows, 1)], dim, right=True),
        *([Column("", [look.mark if row["flagged"] else "" for row in rows], hues)] if marked else []),
        Column("score", [score(row["score"]) for row in rows], right=True),
    ]
    behind_score = len(columns)
    if any(row["p_value"] is not None for row in rows):
        columns.append(Column("p", [words.p_value(row["p_value"]) for row in rows], dim, right=True))
    if any(row.get("truth") is not None for row in rows):
        columns.append(Column("truth", [words.MISSING if row["truth"] is None else str(row["truth"]) for row in rows]))

    # id, group and why share what is left, each taking only what its texts need.
    texts = {"id": [row["id"] for row in rows]}
    if any(row["group"] and not row["id"].startswith((row["group"] + "/", row["group"] + "#")) for row in rows):
        texts["group"] = [row["group"] or "" for row in rows]  # else the ids say it already
    if any(row["why"] for row in rows):
        texts["why"] = [row["why"] or "" for row in rows]
    room = look.width - 2 - sum(look.needs(column) + 2 for column in columns) - 2 * (len(texts) - 1)
    needs = [look.needs(Column(name, cells)) for name, cells in texts.items()]
    if sum(needs) + 8 > room and "why" in texts:
        texts["why"] = [words.shorter_why(text) for text in texts["why"]]
        needs = [look.needs(Column(name, cells)) for name, cells in texts.items()]
    bar = _bar(room - sum(needs), look.width)
    if bar:
        lengths = [look.bar(scores.above_median(row["score"]), bar).ljust(bar) for row in rows]
        columns.insert(behind_score, Column("", lengths, hues))
        room -= bar + 2
    for (name, cells), width in zip(texts.items(), share_out(room, needs), strict=True):
        cut = look.entries if name == "why" else look.middle
        columns.append(Column(name, [cut(cell, width) for cell in cells], dim if name == "why" else ()))
    look.columns(columns)
    _more(table.summary.flagged - sum(row["flagged"] for row in rows), "more flagged", look)
    key = words.why_key(row["why"] for row in rows)
    if key:
        look.wrapped(key, "dim")


def _histogram(table: ScoreTable, scores: Spread, look: Look) -> None:
    remark = words.spread(scores.low, scores.median, scores.high)
    look.title("Scores", remark + (", bars on a log scale" if scores.log_scale else ""))
    label = words.numbers(b.low for b in scores.bins)
    edges = [label(b.low) for b in scores.bins]
    edge = max(map(len, edges))
    counts = [f" {b.items:,}{words.bin_remark(b, scores)}" if b.items else "" for b in scores.bins]
    room = look.width - 5 - edge  # the counts stand behind the bars
    fit = [(room - len(text)) / scores.length(b.items) for b, text in zip(scores.bins, counts, strict=True) if b.items]
    width = int(min(60, *fit))
    cut = (f"{' ' * edge}  {look.rule} threshold {words.number(table.summary.threshold)} {look.rule}", "yellow")
    for place, part in enumerate(scores.bins):
        if place == scores.cut:
            look.line(cut)
        bar = look.bar(scores.length(part.items), width)
        hue = _FLAGGED if part.flagged else _OTHER
        look.line((f"{edges[place]:>{edge}}  ", "dim"), (bar, hue), (counts[place], "dim"))
    if scores.cut == len(scores.bins):
        look.line(cut)


def _bar(left: int, width: int) -> int:
    """The cells of the scores' bars: what the texts leave; on a narrow terminal these come first."""
    return next((bar for bar in (12, 6) if bar + 2 <= left), 6 if width >= 100 else 0)


def _over_time(table: ScoreTable, scores: Spread, look: Look) -> None:
    end = len(words.clock(0.0))
    room = look.width - 6 - end
    found = timeline(table, bins=min(60, room * 2 // 3))
    if found is None:
        return
    look.title("Over time", "the highest score of each moment, worst first")
    shown = found.strips[:_STRIPS]
    names = [look.middle(words.group_name(s.group), room - max(len(s.scores) for s in shown)) for s in shown]
    label, width = max(map(cell_len, names)), max(len(s.scores) for s in shown)
    for name, strip in zip(names, shown, strict=True):
        parts = [(f"{name}{' ' * (label - cell_len(name))}  ", "")]
        for hue, cells in groupby(_cells(table, scores, strip, look), key=lambda cell: cell[1]):
            parts.append(("".join(cell for cell, _ in cells), hue))
        gap = " " * (width - len(strip.scores))
        look.line(*parts, (f"{gap}  {words.clock(strip.end)}", "dim"))
    _more(len(found.strips) - len(shown), "more", look)
    look.title("Worst intervals", words.interval_heading(found, table.summary.flagged))
    score = words.numbers(i.peak_score for i in found.intervals)
    columns = [
        Column("", [f"{words.clock(i.start)} {look.dash} {words.clock(i.end)}" for i in found.intervals]),
        Column("", [f"peak {score(i.peak_score)} at {words.clock(i.peak_time)}" for i in found.intervals], right=True),
        Column("", [words.plural(i.frames, "frame") for i in found.intervals], right=True),
    ]
    if len(found.strips) > 1:
        left = look.width - 2 - sum(look.needs(column) + 2 for column in columns)
        columns.append(Column("", [look.middle(words.group_name(i.group), max(8, left)) for i in found.intervals]))
    look.columns(columns)


def _cells(table: ScoreTable, scores: Spread, strip: Strip, look: Look) -> list[tuple[str, str]]:
    """A cell for each part of a strip and its colour; blank where there is no frame."""
    bar = table.summary.threshold
    found = []
    for value in strip.scores:
        if value is None:
            found.append((" ", ""))
        else:
            marked = table.summary.flagged and bar is not None and value >= bar
            found.append((look.height(scores.above_median(value)), _FLAGGED if marked else _OTHER))
    return found


def _known(table: ScoreTable, look: Look) -> None:
    found = known_anomalies(table)
    if found is None:
        return
    look.title("Known anomalies", words.known_heading(found, table.summary.flagged))
    rows = found.rows.to_dicts()
    if not rows:
        return
    score = words.numbers(row["score"] for row in rows)
    columns = [
        Column("rank", [f"{row['rank']:,}" if row["rank"] else words.MISSING for row in rows], right=True),
        Column("score", [score(row["score"]) for row in rows], right=True),
    ]
    ids, whys = [row["id"] for row in rows], [row["why"] or "" for row in rows]
    room = look.width - 2 - sum(look.needs(column) + 2 for column in columns) - 2
    for_id, for_why = share_out(room, [look.needs(Column("id", ids)), look.needs(Column("why", whys))])
    columns.append(Column("id", [look.middle(item, for_id) for item in ids]))
    columns.append(Column("why", [look.entries(why, for_why) for why in whys], ["dim"] * len(rows)))
    look.columns(columns)
    _more(found.below - len(rows), "more", look)


def _groups(table: ScoreTable, figures: dict[str, Any] | None, look: Look) -> None:
    found = groups(table)
    if len(found) < 2:
        return
    look.title("Groups", words.groups_heading(len(found), table.summary.flagged))
    shown = found[:_GROUPS]
    median = words.numbers(g.median for g in shown)
    columns = [
        Column("items", [f"{g.items:,}" for g in shown], right=True),
        Column("flagged", [f"{g.flagged:,}" for g in shown], right=True),
        Column("share", [words.share(g.flagged, g.readable) for g in shown], right=True),
        Column("median score", [median(g.median) for g in shown], right=True),
    ]
    aurocs = {part["group"]: part["auroc"] for part in figures["groups"]} if figures else {}
    if any(value is not None for value in aurocs.values()):
        columns.append(Column("AUROC", [words.metric(aurocs.get(g.group)) for g in shown], right=True))
    room = look.width - 2 - sum(look.needs(column) + 2 for column in columns)
    names = [look.middle(words.group_name(g.group), max(8, room)) for g in shown]
    look.columns([Column("group", names), *columns])
    _more(len(found) - len(shown), "more", look)


def _unreadable(table: ScoreTable, look: Look) -> None:
    rows = unreadable(table, _UNREADABLE)
    if not rows:
        return
    look.title("Unreadable", words.plural(table.summary.unreadable, "item"))
    needs = [max(cell_len(look.safe(row[side])) for row in rows) for side in (0, 1)]
    for_id, for_reason = share_out(look.width - 4, needs)
    reasons = Column("", [look.end(reason, for_reason) for _, reason in rows], ["dim"] * len(rows))
    look.columns([Column("", [look.middle(item, for_id) for item, _ in rows]), reasons])
    _more(table.summary.unreadable - len(rows), "more", look)


def _metrics(figures: dict[str, Any], look: Look) -> None:
    look.title("Against the truth", words.metric_heading(figures))
    lines = words.metric_lines(figures)
    half = (len(lines) + 1) // 2
    columns = []
    for part in (lines[:half], [*lines[half:], ("", "")][:half]):
        columns.append(Column("", [name for name, _ in part], ["dim"] * half))
        columns.append(Column("", [value for _, value in part], right=True))
    look.columns(columns)
    for remark in words.metric_remarks(figures):
        look.wrapped(remark, "yellow")


def _more(n: int, what: str, look: Look) -> None:
    if n > 0:
        look.line((f"{look.ellipsis} and {n:,} {what}", "dim"))
