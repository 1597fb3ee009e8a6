"""How figures are worded, the same in the terminal and in Markdown: counts, shares, scores, rules and calibrations."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from anoaudit.model.alpha import estimate_line, sensitivity_line
from anoaudit.scoring.table import Summary
from anoaudit.scoring.why import RARE

if TYPE_CHECKING:
    from anoaudit.reports.aggregates import Bin, Spread
    from anoaudit.reports.known import KnownAnomalies
    from anoaudit.reports.timeline import Timeline

MISSING = "-"
_MORE_DECIMALS = 5
_DIGITS = 9  # of the largest in all: scores are single precision, which has no more


def plural(n: int, one: str, many: str = "") -> str:
    """`1 item`, `2,000 items`."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def share(part: int, whole: int) -> str:
    """A percentage that never rounds something to nothing, or most to all."""
    if not whole:
        return MISSING
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "<0.1%"
    if 99.9 < percent < 100:
        return ">99.9%"
    return f"{percent:.1f}%"


def number(value: float | None) -> str:
    """One figure on its own, four significant digits, or whole where that is more."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.4g}"


def numbers(values: Iterable[float | None]) -> Callable[[float | None], str]:
    """A formatter that gives every figure of one column the same decimals, so that they can be compared by eye.

    Where different ones would read the same there are more decimals, as many as tell them apart, at most five more.
    """
    known = {v for v in values if v is not None and math.isfinite(v)}
    largest = max((abs(v) for v in known if v), default=1.0)
    decimals, kind = max(0, 3 - max(0, math.floor(math.log10(largest)))), "f"
    if largest >= 1e7 or largest < 1e-3:
        decimals, kind = 3, "e"
    elif largest < 0.1:
        decimals = 5
    whole = 1 + math.floor(math.log10(largest)) if kind == "f" and largest >= 1 else 1
    most = min(_MORE_DECIMALS, _DIGITS - whole - decimals)
    told = [len({f"{v:.{decimals + more}{kind}}" for v in known}) for more in range(most + 1)]
    decimals += told.index(told[-1])
    return lambda value: MISSING if value is None or not math.isfinite(value) else f"{value:.{decimals}{kind}}"


def p_value(value: float | None) -> str:
    """A tail probability in at most seven characters."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value < 1e-99:
        return "<1e-99"
    return f"{value:.1e}" if value < 0.001 else f"{value:.3f}"


def metric(value: float | None) -> str:
    """A figure between 0 and 1; only a perfect one reads 1.000."""
    if value is None:
        return MISSING
    return ">0.999" if 0.9995 <= value < 1 else f"{value:.3f}"


def printable(text: str) -> str:
    """The text in one line, control, direction and other invisible characters spelt out: file names are anyone's."""
    if text.isprintable():
        return text
    # A zero-width joiner holds an emoji together and does no harm.
    return "".join(c if c.isprintable() or c == "\u200d" else c.encode("unicode_escape").decode() for c in text)


def clock(seconds: float) -> str:
    """A time as players show it, to a tenth of a second: `00:01:12.4`."""
    tenths = round(seconds * 10)
    return f"{tenths // 36_000:02d}:{tenths // 600 % 60:02d}:{tenths // 10 % 60:02d}.{tenths % 10}"


def group_name(group: str | None) -> str:
    """A group as the reader knows it."""
    return "(top level)" if group is None else printable(group)


def calibration(values: dict[str, Any]) -> str:
    """What the p-values are, in words that claim no more than is true; empty when nothing is known.

    No word of a false discovery rate: whether they decide at all is what the line on the rule says.
    """
    kind = str(values.get("kind") or "")
    note = f"; {printable(str(values['note']))}" if values.get("note") else ""
    if kind == "fitted-null":
        return f"estimated p-values (from a null fitted to the bulk){note}"
    if kind == "conformal-clean":
        known = plural(values["n"], "known normal") if isinstance(values.get("n"), int) else "known normals"
        floor = values.get("smallest_p")  # under it no p-value can fall, which bounds what can be found
        resolved = f", smallest p {number(floor)}" if isinstance(floor, float) else ""
        word = "estimated" if values.get("exact") is False else "exact"
        return f"{word} p-values (split-conformal on {known}{resolved}){note}"
    if kind == "none":
        return f"none (no p-values){note}"
    return printable(kind)


def contamination(values: dict[str, Any]) -> list[tuple[str, str]]:
    """The head's lines on the assumed share of anomalies, where it was estimated or its effect measured."""
    found = []
    estimate = values.get("estimate")
    if isinstance(estimate, dict):
        found.append(("assumed α", estimate_line(values.get("assumed"), estimate)))
    if isinstance(values.get("sensitivity"), dict):
        found.append(("at other α", sensitivity_line(values["sensitivity"])))
    return [(name, printable(text)) for name, text in found]


def facts(summary: Summary, timed: bool = False) -> list[tuple[str, str]]:
    """The report's head: what was scored, by what, and by which rule it was decided. Unknown ones are left out.

    `timed` says that images are frames.
    """
    kind = {"images": "frame" if timed else "image", "table": "row"}.get(summary.kind)
    items = [plural(summary.rows, kind) if kind else f"{summary.rows:,}"]
    if summary.unreadable:
        items.append(f"{summary.unreadable:,} unreadable")
    if summary.ignored:
        items.append(f"{plural(summary.ignored, 'other file')} ignored")
    flagged = f"{summary.flagged:,}"
    if summary.readable:
        flagged += f" of {summary.readable:,} readable ({share(summary.flagged, summary.readable)})"
    model = [printable(str(summary.model[key])) for key in ("name", "method") if summary.model.get(key)]
    if summary.provider:
        model.append(printable(summary.provider))
    found = [
        ("source", printable(summary.source)),
        ("items", ", ".join(items)),
        ("flagged", flagged),
        ("rule", printable(summary.rule)),
        ("threshold", number(summary.threshold)),
        ("calibration", calibration(summary.calibration)),
        ("model", ", ".join(model)),
        *contamination(summary.contamination),
    ]
    return [(name, text) for name, text in found if text and (name, text) != ("threshold", MISSING)]


def notes(summary: Summary) -> list[str]:
    """The notes that the head's line on the calibration does not hold already."""
    return [printable(note) for note in summary.notes if note != summary.calibration.get("note")]


def why_key(whys: Iterable[str | None]) -> str:
    """What the figures in these rows' `why` are; empty where they have none."""
    texts = [text for text in whys if text]
    if any(_PEAK.fullmatch(text) for text in texts):
        return "peak: where the heat map is highest, in shares of the width and height from the left upper corner"
    if not texts:
        return ""
    key = "why: distance from the training median in robust standard deviations (1.48 MAD; plain ones where that is 0)"
    if any(" (error " in text for text in texts):  # then the errors say which columns are named
        return f"{key}; error: what the model cannot rebuild"
    rare = any(_LEVEL.search(text) for text in texts)
    return key + (
        f"; a category or a gap where such are rare (at most {RARE:.0%} of the training rows)" if rare else ""
    )


def shorter_why(text: str) -> str:
    """A heat map's peak without the words that the key says."""
    found = _PEAK.fullmatch(text)
    return f"x {found[1]}%, y {found[2]}%" if found else text


_LEVEL = re.compile(r" = ('|\"|true|false)| (missing|infinite|unseen value)(, |$)")  # as `explain_rows` writes them
_PEAK = re.compile(r"peak x (\d+) ?%, y (\d+) ?%")  # with a space: as earlier versions wrote it


def bin_remark(part: Bin, scores: Spread) -> str:
    """Behind a bar's count: that its bin is wider than the others, and where it ends."""
    return f" in a wider bin, to {number(part.high)}" if part.items and part in scores.wider else ""


def wider_bins(scores: Spread) -> str:
    """Which bins of a drawn histogram are wider than the others; empty where none is."""
    return ", ".join(f"{number(part.low)} to {number(part.high)}" for part in scores.wider if part.items)


def groups_heading(count: int, flagged: int) -> str:
    """Above the groups: how many, and their order."""
    return f"{count:,}, the {'largest share of flagged items' if flagged else 'highest median score'} first"


def spread(low: float, median: float, high: float) -> str:
    """The scores' range in words."""
    return f"lowest {number(low)}, median {number(median)}, highest {number(high)}"


def interval_heading(found: Timeline, flagged: int) -> str:
    """What the intervals are made of, and how many are not shown."""
    made = "flagged frames" if flagged else "the worst 1 % of the frames, as nothing is flagged"
    whole = f" of {len(found.intervals) + found.more:,}" if found.more else ""
    return f"{len(found.intervals):,}{whole}, made of {made}"


def metric_heading(figures: dict[str, Any]) -> str:
    """What the figures are over."""
    return f"{plural(figures['n'], 'item')}, {plural(figures['anomalies'], 'anomaly', 'anomalies')}"


def known_heading(found: KnownAnomalies, flagged: int) -> str:
    """Above the known anomalies that are not flagged."""
    head = f"{found.labelled:,} labelled"
    lost = f", {found.unreadable:,} unreadable" if found.unreadable else ""
    if not found.below:
        return f"{head}{lost}, {'none below the decision' if lost else 'all flagged'}"
    missed = f"{found.below:,} below the decision" if flagged else "nothing is flagged"
    return f"{head}{lost}, {missed}, the lowest first"


def metric_lines(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """The figures against the truth as name and value, an undefined one as a dash."""
    lines = [
        ("AUROC", metric(figures["auroc"])),
        ("average precision", metric(figures["average_precision"])),
        ("precision", metric(figures["precision"])),
        ("recall", metric(figures["recall"])),
        ("F1", metric(figures["f1"])),
    ]
    if figures["k"]:
        lines.append((f"precision at {figures['k']:,}", metric(figures["precision_at_k"])))
    if figures["precision_at_10"] is not None and figures["k"] != 10:
        lines.append(("precision at 10", metric(figures["precision_at_10"])))
    return lines


def metric_remarks(figures: dict[str, Any]) -> list[str]:
    """What the figures cannot show, one line each."""
    remarks = []
    if figures["unreadable_anomalies"]:
        missed = plural(figures["unreadable_anomalies"], "anomaly", "anomalies")
        remarks.append(f"{missed} could not be read: misses that these figures leave out")
    if figures["unlabelled"]:
        remarks.append(f"{plural(figures['unlabelled'], 'readable item')} without a truth left out")
    return remarks
