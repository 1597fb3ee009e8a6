"""How many anomalies make a ratio, which ones, and in which order: pure numbers, no files."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_DOWN, Context, Decimal
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from anoaudit.errors import UsageError

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Draw:
    """`anomalies` are positions in the pool, ascending (with repeats under replacement).

    Item i of the mixture is entry `order[i]` of the normals followed by the drawn anomalies.
    """

    anomalies: Positions
    order: Positions


def anomalies_needed(normals: int, ratio: float) -> int:
    """The k that brings k / (normals + k) nearest to `ratio`, the smaller one of two equally near; `normals` ≥ 1."""
    share = Fraction(
        repr(float(ratio))
    )  # the decimal that was written: 0.1 is a tenth, not its nearest binary fraction
    low = int(share * normals / (1 - share))
    # Plain rounding is not enough: k / (n + k) is curved, so the nearer integer is not always the nearer ratio.
    return min((low, low + 1), key=lambda k: abs(Fraction(k, normals + k) - share))


def draw(normals: int, pool: int, ratio: float, seed: int, with_replacement: bool) -> Draw:
    """Choose anomalies from a pool of `pool` and shuffle them among `normals` normal items.

    Raises UsageError when the ratio cannot be reached or would need less than one anomaly.
    """
    k = anomalies_needed(normals, ratio)
    if ratio > 0 and k == 0:
        raise UsageError(
            f"a ratio of {ratio:g} of {normals} normal items rounds to no anomaly at all",
            f"one anomaly is a ratio of {1 / (normals + 1):.6g}; --ratio 0 gives clean data",
        )
    if k and not pool:
        raise UsageError(
            "there is no anomaly to draw from", "give a source that has anomalies, or --ratio 0 for clean data"
        )
    if k > pool and not with_replacement:
        raise UsageError(
            f"a ratio of {ratio:g} needs {k} anomalies for {normals} normal items; there are {pool}",
            f"the highest ratio they reach is {highest_ratio(normals, pool)}; --with-replacement draws them repeatedly",
        )
    rng = np.random.default_rng(seed)
    chosen = rng.choice(pool, size=k, replace=with_replacement) if k else np.empty(0)
    return Draw(anomalies=np.sort(chosen).astype(np.int64), order=rng.permutation(normals + k).astype(np.int64))


def highest_ratio(normals: int, pool: int) -> str:
    """pool / (normals + pool) to six digits, rounded down so that asking for it succeeds."""
    exact = Context(prec=6, rounding=ROUND_DOWN).divide(Decimal(pool), Decimal(normals + pool))
    return f"{exact.normalize():f}"
