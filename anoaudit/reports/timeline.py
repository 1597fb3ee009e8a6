"""Scores over time: for every video (or folder of frames) a strip of its highest scores, and the worst intervals of all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from anoaudit.scoring.table import READABLE, ScoreTable

TOGETHER = 1.0  # seconds: marked frames this near to each other belong to one interval
WORST_SHARE = 0.01  # of the frames stand in for flagged ones where nothing is flagged


@dataclass(frozen=True)
class Strip:
    """The highest score in each of equal parts of [start, end] seconds, None where a part has no readable frame."""

    group: str | None
    start: float
    end: float  # when the last frame ends
    scores: list[float | None]


@dataclass(frozen=True)
class Interval:
    """Marked frames that lie together. Seconds; `end` is when the last of them ends, `frames` how many they are."""

    group: str | None
    start: float
    end: float
    peak_time: float
    peak_score: float
    frames: int


@dataclass(frozen=True)
class Timeline:
    """Strips and intervals, those with the highest score first; `more` is how many further intervals there are."""

    strips: list[Strip]
    intervals: list[Interval]
    more: int = 0


def timeline(table: ScoreTable, worst: int = 5, bins: int = 60) -> Timeline | None:
    """A strip of at most `bins` parts for every group, and the `worst` intervals; None when no readable item has a time.

    An interval is made of flagged frames, or of the worst 1 % where nothing is flagged, that are closer together than a
    second or two frames, whichever is longer.
    """
    if not table.has_time:
        return None
    frame = (
        table.lazy()
        .filter((pl.col("status") == READABLE) & pl.col("score").is_finite() & pl.col("time").is_finite())
        .select("group", "time", "score", pl.col("flagged").fill_null(False))
        .sort("group", "time", maintain_order=True)
        .collect()
    )
    if not frame.height:
        return None
    if not frame["flagged"].any():
        order = np.argsort(-frame["score"].to_numpy(), kind="stable")
        marked = np.zeros(frame.height, dtype=bool)
        marked[order[: max(1, round(WORST_SHARE * frame.height))]] = True
        frame = frame.with_columns(flagged=pl.Series(marked))
    strips, intervals = [], []
    for part in frame.partition_by("group", maintain_order=True):
        group: str | None = part["group"][0]
        time, score = part["time"].to_numpy(), part["score"].to_numpy()
        distance = float(np.median(np.diff(time))) if len(time) > 1 else 0.0
        strips.append(_strip(group, time, score, distance, bins))
        intervals += _intervals(group, time, score, part["flagged"].to_numpy(), distance)
    strips.sort(key=lambda strip: -max(value for value in strip.scores if value is not None))
    intervals.sort(key=lambda interval: -interval.peak_score)
    shown = intervals[: max(0, worst)]
    return Timeline(strips, shown, len(intervals) - len(shown))


def _strip(
    group: str | None, time: npt.NDArray[np.float64], score: npt.NDArray[np.float64], distance: float, bins: int
) -> Strip:
    start, end = float(time[0]), float(time[-1]) + distance
    parts = max(1, min(bins, len(time)))
    # The small addition: i/n·n may fall short of i, and would leave its part empty.
    place = np.floor((time - start) / ((end - start) or 1.0) * parts + 1e-6).astype(int).clip(0, parts - 1)
    highest = np.full(parts, -np.inf)
    np.maximum.at(highest, place, score)
    return Strip(group, start, end, [float(value) if np.isfinite(value) else None for value in highest])


def _intervals(
    group: str | None,
    time: npt.NDArray[np.float64],
    score: npt.NDArray[np.float64],
    marked: npt.NDArray[np.bool_],
    distance: float,
) -> list[Interval]:
    time, score = time[marked], score[marked]
    if not len(time):
        return []
    gaps = np.flatnonzero(np.diff(time) > max(TOGETHER, 2 * distance) + 1e-6) + 1
    found = []
    for when, how in zip(np.split(time, gaps), np.split(score, gaps), strict=True):
        peak = int(np.argmax(how))
        end = float(when[-1]) + distance
        found.append(Interval(group, float(when[0]), end, float(when[peak]), float(how[peak]), len(when)))
    return found
