"""α, the assumed share of anomalous items: estimated from scores, and how much a ranking depends on it.

The estimator is Meinshausen and Rice's (Ann. Statist. 34, 2006): of p-values under a null, the share that exceeds what the null
explains, max over t of (F_n(t) − t − β·√(t(1 − t)))/(1 − t). With β from the law of the normalised empirical process it is a 95 %
lower confidence bound, with β = 0 the estimate. The null is the calibration's, fitted to the scores' bulk and to its bootstraps;
over these the estimate's median is taken and the bound's lower end (our choice: the paper's null is known).

No estimator sees anomalies that score like the bulk. The interval's upper end therefore adds an allowance, measured on the
development tables (our choice): so much was missed in nine of ten cases.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from anoaudit.errors import UsageError
from anoaudit.model.calibration import MIN_ROWS, Calibration, fit_null
from anoaudit.options import parse_share

Array = npt.NDArray[np.float64]

DEFAULT = 0.1
AUTO = "auto"
ESTIMATOR = "Meinshausen-Rice"
BULK = 0.1  # the null is fitted to the scores up to the quantile 1 − 2·BULK
LEVEL = 0.95  # of the lower bound
UNSEEN = 0.125  # of the items, anomalies that score like the bulk; tests/benchmarks/alpha.py
MOST = 0.49  # α stays under a half
LARGEST_T = 0.5  # the null's upper half: lower down there is nothing to find


@dataclass(frozen=True)
class AlphaEstimate:
    """What is assumed and why. `low` and `high` are null where nothing was estimated, `note` then says why."""

    share: float
    low: float | None
    high: float | None
    estimator: str
    items: int
    note: str = ""

    @property
    def usable(self) -> bool:
        """Whether `share` comes from the data."""
        return self.low is not None

    def to_json(self) -> dict[str, Any]:
        """The manifest's `contamination_estimate`."""
        return asdict(self)


def estimate_alpha(labels: npt.NDArray[np.int8], scores: Callable[[], Array], otherwise: float) -> AlphaEstimate:
    """α of items with these labels (1, 0, −1 unknown; int8[N]) and scores (called when needed; float64[n] of some of them).

    Where every item is labelled the anomalies are counted. Where nothing can be estimated `otherwise` is assumed. Known labels
    bound the estimate.
    """
    n = len(labels)
    fewest, most = float((labels == 1).mean()), 1.0 - float((labels == 0).mean())
    if n and (labels >= 0).all():
        share = min(fewest, MOST)
        return AlphaEstimate(share, share, share, "counted from the labels", n)
    if n < MIN_ROWS:
        return _nothing(otherwise, n, f"only {n} items; {MIN_ROWS} are needed")
    found = scores()
    estimate = from_scores(found)
    if estimate is None:
        return _nothing(otherwise, len(found), "the scores' bulk is one value, there is no null to compare with")
    share, low, high = (float(np.clip(value, min(fewest, MOST), min(most, MOST))) for value in estimate)
    if high - low >= MOST - 1e-9:
        return _nothing(otherwise, len(found), "the interval leaves everything open")
    return AlphaEstimate(share, low, high, ESTIMATOR, len(found))


def _nothing(otherwise: float, items: int, why: str) -> AlphaEstimate:
    return AlphaEstimate(otherwise, None, None, ESTIMATOR, items, why)


def from_scores(scores: Array) -> tuple[float, float, float] | None:
    """(estimate, lower end, upper end) of the share of anomalies among float64[n ≥ 50]; None where no null fits."""
    null = fit_null(scores, BULK)
    if null.kind != "fitted-null":
        return None
    each = [Calibration("fitted-null", fits=(fit,)).p_values(scores) for fit in null.fits]
    ordered = [np.sort(p) for p in each if p is not None]
    estimates = [excess(p, 0.0) for p in ordered]
    bounds = [excess(p, bounding(len(scores))) for p in ordered]
    return (
        float(np.median(estimates)), float(np.quantile(bounds, 1 - LEVEL)),
        float(np.quantile(estimates, LEVEL)) + UNSEEN,
    )  # fmt: skip


def excess(p: Array, beta: float) -> float:
    """The largest share in excess of the null's, of ascending p-values; `beta` as above."""
    n = len(p)
    t = np.minimum(p, LARGEST_T)
    found = (np.arange(1, n + 1) / n - t - beta * np.sqrt(t * (1 - t))) / (1 - t)
    return max(0.0, float(found[p <= LARGEST_T].max(initial=0.0)))


def bounding(n: int, level: float = LEVEL) -> float:
    """β for n p-values: Gumbel's law of the normalised empirical process (Jaeschke 1979), as Meinshausen and Rice use it."""
    twice = 2 * math.log(math.log(n))
    shift = twice + math.log(math.log(math.log(n))) / 2 - math.log(4 * math.pi) / 2
    return (-math.log(-math.log(level)) + shift) / math.sqrt(twice * n)


def spearman(one: Array, other: Array) -> float:
    """Rank correlation of float64[N] each, ties at their mean rank; 1 where a ranking has no order to compare."""
    a, b = _mean_ranks(one), _mean_ranks(other)
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else 1.0


def _mean_ranks(values: Array) -> Array:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[place], dtype=np.float64)


def top_overlap(one: Array, other: Array, k: int) -> float:
    """The share of the k worst of one ranking that are among the k worst of the other."""
    first, second = (set(np.argsort(-scores, kind="stable")[:k].tolist()) for scores in (one, other))
    return len(first & second) / k


def alpha_facts(training: dict[str, Any]) -> dict[str, Any]:
    """A score table's `contamination`, from a manifest's `training`."""
    found = {"assumed": training["contamination"]}
    for name in ("estimate", "sensitivity"):
        key = "contamination_estimate" if name == "estimate" else "alpha_sensitivity"
        if key in training:
            found[name] = training[key]
    return found


def estimate_line(share: Any, estimate: dict[str, Any]) -> str:
    """`0.062, interval 0.041 to 0.211 (Meinshausen-Rice, from 3,772 items)`; values may be anyone's."""
    low, high, note = (estimate.get(key) for key in ("low", "high", "note"))
    if low is None or high is None:
        return f"{_number(share)} assumed, not estimated: {note or 'no reason is given'}"
    return f"{_number(share)}, interval {_number(low)} to {_number(high)} ({estimate.get('estimator')}, {_items(estimate)})"


def sensitivity_line(values: dict[str, Any]) -> str:
    """`α = 0.05: rank correlation 0.98, 9 of the 10 worst; α = 0.2: …`; values may be anyone's."""
    runs = values.get("runs")
    k = values.get("k")
    parts = [
        f"α = {_number(run.get('alpha'))}: rank correlation {_number(run.get('spearman'))}, "
        f"{_share(run.get('top_overlap'))} of the {k} worst"
        for run in (runs if isinstance(runs, list) else []) if isinstance(run, dict)
    ]  # fmt: skip
    short = f"; short runs of {values['epochs']} epochs" if isinstance(values.get("epochs"), int) else ""
    return "; ".join(parts) + short


def _number(value: Any) -> str:
    return f"{value:.3g}" if _is_number(value) else str(value)[:20]


def _share(value: Any) -> str:
    return f"{100 * value:.0f} %" if _is_number(value) else str(value)[:20]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < 1e300  # a longer whole number does not fit a double


def _items(estimate: dict[str, Any]) -> str:
    n = estimate.get("items")
    return f"{n:,} items" if isinstance(n, int) else "items"


def parse_contamination(given: float | str | None, only_normal: bool) -> float | None:
    """`--contamination`: the assumed share of anomalies, None for "auto". Raises UsageError."""
    if given is None:
        return 0.0 if only_normal else DEFAULT
    if given == AUTO:
        if only_normal:
            raise UsageError("--contamination auto: with --train-on normal no anomaly is trained on", "leave it out")
        return None
    try:
        value = parse_share(given) if isinstance(given, str) else float(given)
    except ValueError:
        raise UsageError(
            f"--contamination {given!r} is neither a share nor auto",
            "for example 0.1 or 10%, or auto to have it estimated",
        ) from None
    if not 0 <= value < 0.5:
        raise UsageError(
            f"--contamination {value:g}: the assumed share of anomalies lies between 0 and 0.5", "for example 0.1"
        )
    return value
