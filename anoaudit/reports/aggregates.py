"""What a report shows beside the single items: the spread of the scores, their histogram, groups and unreadable items.

At two million rows only the score column is held in memory; everything else is aggregated lazily.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import numpy as np
import numpy.typing as npt
import polars as pl

from anoaudit.scoring.table import READABLE, UNREADABLE, ScoreTable


@dataclass(frozen=True)
class Bin:
    """One bar: readable items with a score from `low` to under `high` (the last: to `high`), and how many are flagged."""

    low: float
    high: float
    items: int
    flagged: int


@dataclass(frozen=True)
class Spread:
    """The scores as a whole. `cut` is the first bin at or above the threshold, None without a threshold."""

    low: float
    median: float
    high: float
    bins: list[Bin]
    cut: int | None

    @property
    def log_scale(self) -> bool:
        """Whether bars need a logarithmic scale for the small bins to be seen at all."""
        counts = [b.items for b in self.bins if b.items]
        return bool(counts) and max(counts) > 50 * min(counts)

    @property
    def wider(self) -> list[Bin]:
        """The outer bins that gather what lies far off: more than twice as wide as most."""
        usual = median(b.high - b.low for b in self.bins)
        return [b for b in self.bins if b.high - b.low > 2 * usual]

    def above_median(self, score: float) -> float:
        """Where a score lies between the median (0 and below) and the highest score (1)."""
        whole = self.high - self.median
        return (score - self.median) / whole if whole > 0 else 0.0

    def length(self, items: int) -> float:
        """A bin's bar between 0 and 1."""
        largest = max((b.items for b in self.bins), default=0)
        if not items or not largest:
            return 0.0
        return math.log1p(items) / math.log1p(largest) if self.log_scale else items / largest


@dataclass(frozen=True)
class Group:
    """One group's totals; `group` is None for the top level, `median` None when nothing in it is readable."""

    group: str | None
    items: int
    readable: int
    flagged: int
    median: float | None


def spread(table: ScoreTable, bins: int = 14) -> Spread | None:
    """The readable items' scores in about `bins` bins, one starting at the threshold; None when none is readable."""
    frame = (
        table.lazy()
        .filter((pl.col("status") == READABLE) & pl.col("score").is_finite())
        .select("score", pl.col("flagged").fill_null(False))
        .collect()
    )
    if not frame.height:
        return None
    score, flagged = frame["score"].to_numpy(), frame["flagged"].to_numpy().astype(bool)
    threshold = table.summary.threshold
    if threshold is not None and not math.isfinite(threshold):
        threshold = None
    edges = _edges(score, threshold, bins)
    place = np.clip(np.searchsorted(edges, score, side="right") - 1, 0, len(edges) - 2)
    items = np.bincount(place, minlength=len(edges) - 1)
    marked = np.bincount(place[flagged], minlength=len(edges) - 1)
    cut = None
    if threshold is not None:
        cut = len(items) if threshold > edges[-1] else int(np.searchsorted(edges[:-1], threshold, side="left"))
    return Spread(
        low=float(score.min()),
        median=float(np.median(score)),
        high=float(score.max()),
        bins=[
            Bin(float(a), float(b), int(n), int(f)) for (a, b), n, f in zip(pairwise(edges), items, marked, strict=True)
        ],
        cut=cut,
    )


def groups(table: ScoreTable) -> list[Group]:
    """Every group, the largest share of flagged items first, then the highest median score."""
    readable = pl.col("status") == READABLE
    frame = (
        table.lazy()
        .group_by("group")
        .agg(
            pl.len().alias("items"),
            readable.sum().alias("readable"),
            pl.col("flagged").sum().alias("flagged"),
            pl.col("score").filter(readable & pl.col("score").is_finite()).median().alias("median"),
        )
        .collect()
    )
    found = [Group(**row) for row in frame.iter_rows(named=True)]

    def order(g: Group) -> tuple[float, float, bool, str]:
        return (
            -g.flagged / max(1, g.readable),
            math.inf if g.median is None else -g.median,
            g.group is not None,
            g.group or "",
        )

    return sorted(found, key=order)


def unreadable(table: ScoreTable, n: int = 10) -> list[tuple[str, str]]:
    """Id and reason of the first n items that could not be read."""
    rows = table.lazy().filter(pl.col("status") == UNREADABLE).select("id", "reason").head(n).collect()
    return [(item, reason or "no reason given") for item, reason in rows.iter_rows()]


def _edges(score: npt.NDArray[np.float64], threshold: float | None, bins: int) -> npt.NDArray[np.float64]:
    """Bin edges: even over the bulk, with one more bin at either end for what lies far off: it must hide nothing."""
    low, high = float(score.min()), float(np.nextafter(score.max(), np.inf))  # so that the highest score is in a bin
    if threshold is not None and not low < threshold < high:
        threshold = None
    q1, q3 = (float(q) for q in np.quantile(score, (0.25, 0.75)))
    reach = 3 * (q3 - q1) or np.inf
    fence = q3 + reach
    if threshold is not None and threshold <= fence + reach:
        fence = max(fence, threshold + (threshold - q1) / 2)  # the flagged tail is what the reader came for
    bulk = score[(score >= q1 - reach) & (score <= fence)]
    start, end = float(bulk.min()), float(np.nextafter(bulk.max(), np.inf))
    if threshold is not None and start < threshold < end:
        below = min(max(1, round(bins * (threshold - start) / (end - start))), bins - 1)
        inner = [np.linspace(start, threshold, below + 1)[:-1], np.linspace(threshold, end, bins - below + 1)]
    else:
        inner = [np.linspace(start, end, bins + 1), np.array([] if threshold is None else [threshold])]
    return np.unique(np.concatenate([[low], *inner, [high]]))  # of equal scores, or nearly so, many edges coincide
