"""What can be wrong with a row, made to measure: `--corrupt` for tables. Our choice of severities.

A fault says which cells change and into what, on the columns that `fit` would take as features; it knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Edit:
    """One cell: its new `value`, or the cell of the row `source` in the same column, or missing where both are None."""

    row: int
    column: int
    value: float | None = None
    source: int | None = None


class Columns:
    """The features as numbers, float64[N, D]: NaN is missing, categories are codes. `numeric` bool[D] are true numbers."""

    def __init__(self, values: Floats, numeric: npt.NDArray[np.bool_]) -> None:
        self.values, self.numeric = values, numeric
        known = np.isfinite(values)
        finite = np.where(known, values, 0.0)
        count = np.maximum(known.sum(axis=0), 1)
        middle = finite.sum(axis=0) / count
        with np.errstate(over="ignore"):  # of numbers near the end of what there is: see `changes`
            self.deviation: Floats = np.sqrt((np.where(known, values - middle, 0.0) ** 2).sum(axis=0) / count)
        self._decimals = [next((d for d in range(7) if _all_close(column, d)), None) for column in finite.T]

    def rounded(self, value: float, column: int) -> float:
        """With no more decimals than the column's own: the digits must not tell, and whole numbers stay whole."""
        decimals = self._decimals[column]
        return float(value) if decimals is None else float(np.round(value, decimals))

    def changes(self, edit: Edit) -> bool:
        """Whether the cell is another one afterwards, and a number still."""
        if edit.value is not None and not np.isfinite(edit.value):
            return False
        old = self.values[edit.row, edit.column]
        if edit.source is not None:
            new = self.values[edit.source, edit.column]
            return not (new == old or (np.isnan(new) and np.isnan(old)))
        return not np.isnan(old) if edit.value is None else edit.value != old


def _all_close(values: Floats, decimals: int) -> bool:
    return bool(np.allclose(values, np.round(values, decimals), rtol=1e-12, atol=0))


Fault = Callable[[int, Columns, int, np.random.Generator], list[Edit]]


def gaussian(row: int, columns: Columns, severity: int, rng: np.random.Generator) -> list[Edit]:
    """Noise on every number, of ½ to 5 of the column's standard deviations (LOE's protocol adds one to real anomalies)."""
    found = np.flatnonzero(columns.numeric & np.isfinite(columns.values[row]))
    step = (0.5, 1.0, 2.0, 3.0, 5.0)[severity - 1] * columns.deviation
    return [
        Edit(row, j, columns.rounded(columns.values[row, j] + step[j] * rng.standard_normal(), j))
        for j in found.tolist()
    ]


def shuffle(row: int, columns: Columns, severity: int, rng: np.random.Generator) -> list[Edit]:
    """A fifth of the columns up to all, each taken from some other row: every value is usual, together they are not."""
    return [
        Edit(row, j, source=int(rng.integers(len(columns.values))))
        for j in _some(columns, 0.2 * severity, rng, least=2)
    ]


def scale(row: int, columns: Columns, severity: int, rng: np.random.Generator) -> list[Edit]:
    """A third of the numbers times 1.5 to 100, or divided by it: a wrong unit."""
    factor = (1.5, 2.0, 5.0, 10.0, 100.0)[severity - 1]
    found = np.flatnonzero(columns.numeric & np.isfinite(columns.values[row]) & (columns.values[row] != 0))
    if not len(found):
        return []
    chosen = np.sort(rng.choice(found, max(1, round(len(found) / 3)), replace=False))
    up = rng.random() < 0.5
    return [
        Edit(row, j, columns.rounded(columns.values[row, j] * (factor if up else 1 / factor), j))
        for j in chosen.tolist()
    ]


def missing(row: int, columns: Columns, severity: int, rng: np.random.Generator) -> list[Edit]:
    """A block of neighbouring columns is empty, a tenth of them to 80 %."""
    width = columns.values.shape[1]
    size = max(1, round((0.1, 0.2, 0.4, 0.6, 0.8)[severity - 1] * width))
    start = int(rng.integers(0, width - size + 1))
    return [Edit(row, j) for j in range(start, start + size)]


FAULTS: dict[str, Fault] = {"gaussian": gaussian, "shuffle": shuffle, "scale": scale, "missing": missing}
DUPLICATE = "duplicate"  #: a copy of another row; needs to know the other copies, see `duplicate`
KINDS = (*FAULTS, DUPLICATE)


def copies(severity: int) -> int:
    """How many rows are copies of one and the same row."""
    return (1, 2, 4, 8, 16)[severity - 1]


def duplicate(row: int, source: int, columns: Columns) -> list[Edit]:
    """The row becomes the other one."""
    return [Edit(row, j, source=source) for j in range(columns.values.shape[1])]


def _some(columns: Columns, share: float, rng: np.random.Generator, least: int) -> list[int]:
    width = columns.values.shape[1]
    count = min(width, max(least, round(share * width)))
    return [int(j) for j in np.sort(rng.choice(width, count, replace=False))]
