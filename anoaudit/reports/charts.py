"""Charts as plain geometry for an SVG without a viewBox: x in percent of the width, y in pixels, so that text keeps its size.

Everything here is numbers and texts; the template draws, and escapes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from anoaudit.reports import words
from anoaudit.reports.aggregates import Spread
from anoaudit.reports.timeline import Strip, Timeline

PLOT = 170  # pixels, height of the histogram's plot
STRIP = 44  # pixels, height of one strip


@dataclass(frozen=True)
class Bar:
    """A bar, from its left upper corner; `text` says what it stands for."""

    x: float
    width: float
    y: float
    height: float
    text: str = ""
    flagged: bool = False


@dataclass(frozen=True)
class Label:
    """A text or a line at a place along one axis; `anchor` is SVG's."""

    at: float
    text: str
    anchor: str = "middle"


@dataclass(frozen=True)
class Histogram:
    """The scores' histogram: bars, labels of the x axis, counts on the y axis, the threshold, and the bins as a table."""

    bars: list[Bar]
    x: list[Label]
    y: list[Label]
    cut: Label | None
    table: list[tuple[str, str, int, int]]
    plot: int = PLOT

    @property
    def flagged(self) -> bool:
        """Whether any bar is."""
        return any(bar.flagged for bar in self.bars)


def histogram(scores: Spread, threshold: float | None) -> Histogram:
    """Bars of equal width, one for each bin: the outer bins hold what lies far off, however far."""
    count = len(scores.bins)
    label = words.numbers(b.low for b in scores.bins)
    ends = [label(b.low) for b in scores.bins[1:]] + [words.number(scores.high)]
    wide = 100.0 / count
    bars, table = [], []
    for i, (part, end) in enumerate(zip(scores.bins, ends, strict=True)):
        table.append((label(part.low), end, part.items, part.flagged))
        if not part.items:
            continue
        whole = max(2.0, PLOT * scores.length(part.items))
        marked = whole * part.flagged / part.items
        text = f"{label(part.low)} to {end}: {words.plural(part.items, 'item')}, {part.flagged:,} flagged"
        left, width = i * wide + 0.08 * wide, 0.84 * wide
        if part.items > part.flagged:
            bars.append(Bar(left, width, PLOT - whole, whole - marked, text))
        if part.flagged:
            bars.append(Bar(left, width, PLOT - marked, marked, text, flagged=True))
    every = max(1, math.ceil(count / 5))  # so many labels still fit on a phone
    shown = [i for i in range(0, count, every) if i == 0 or count - i >= every]
    x = [Label(i * wide, label(scores.bins[i].low), "start" if i == 0 else "middle") for i in shown]
    x.append(Label(100.0, ends[-1], "end"))
    y = [Label(PLOT * (1 - scores.length(n)), f"{n:,}") for n in _ticks(scores)]
    return Histogram(bars, x, y, _cut(scores, threshold, wide), table)


def _cut(scores: Spread, threshold: float | None, wide: float) -> Label | None:
    if scores.cut is None or threshold is None:
        return None
    at = min(100.0, scores.cut * wide)
    return Label(at, f"threshold {words.number(threshold)}", "end" if at > 60 else "start")


def _ticks(scores: Spread) -> list[int]:
    """Counts for the y axis: 1, 10, 100 … on a log scale, else a few round ones."""
    largest = max(b.items for b in scores.bins)
    if scores.log_scale:
        powers = [10**k for k in range(12) if 10**k <= largest]
        return [0, *powers[:: max(1, math.ceil(len(powers) / 4))]]
    step = 10 ** math.floor(math.log10(max(1, largest)))
    step = next((s for s in (step // 2, step, 2 * step, 5 * step) if s and largest // s <= 4), 5 * step)
    return list(range(0, largest + 1, step))


@dataclass(frozen=True)
class StripChart:
    """One group's scores along the time."""

    name: str
    bars: list[Bar]
    labels: list[Label]
    peak: str
    plot: int = STRIP


@dataclass(frozen=True)
class TimeChart:
    """Strips on one scale, from `low` to `high`, with the threshold's height if it lies between them."""

    strips: list[StripChart]
    low: str
    high: str
    cut: float | None


def time_chart(strips: list[Strip], threshold: float | None) -> TimeChart:
    """The strips as the template draws them."""
    values = [s for strip in strips for s in strip.scores if s is not None]
    low, high = min(values, default=0.0), max(values, default=0.0)
    within = threshold is not None and low < threshold < high
    cut = STRIP * (1 - _height(threshold, low, high)) if within and threshold is not None else None
    drawn = [_strip(strip, low, high, threshold) for strip in strips]
    return TimeChart(drawn, words.number(low), words.number(high), cut)


def _height(score: float, low: float, high: float) -> float:
    """Between 0 and 1, in square roots: one high peak must not flatten all others."""
    return math.sqrt((score - low) / (high - low)) if high > low else 0.5


def _strip(strip: Strip, low: float, high: float, threshold: float | None) -> StripChart:
    wide = 100.0 / max(1, len(strip.scores))
    span = strip.end - strip.start
    bars = []
    for i, score in enumerate(strip.scores):
        if score is None:
            continue
        tall = max(1.0, STRIP * _height(score, low, high))
        text = f"{words.clock(strip.start + span * (i + 0.5) / len(strip.scores))}: {words.number(score)}"
        bars.append(Bar(i * wide, wide, STRIP - tall, tall, text, threshold is not None and score >= threshold))
    labels = [Label(0.0, words.clock(strip.start), "start"), Label(100.0, words.clock(strip.end), "end")]
    if len(strip.scores) > 1:
        labels.insert(1, Label(50.0, words.clock(strip.start + span / 2)))
    peak = max((s for s in strip.scores if s is not None), default=None)
    return StripChart(words.group_name(strip.group), bars, labels, words.number(peak))


def intervals(found: Timeline) -> list[tuple[str, str, str, str, str, str]]:
    """The worst intervals in words: group, from, to, peak at, peak score, items."""
    score = words.numbers(i.peak_score for i in found.intervals)
    return [
        (
            words.group_name(i.group),
            words.clock(i.start),
            words.clock(i.end),
            words.clock(i.peak_time),
            score(i.peak_score),
            f"{i.frames:,}",
        )
        for i in found.intervals
    ]
