"""Candidate nulls for `fitted-null`: each turns the scores that it rests on and the scores in question into p-values.

The program's own is `anoaudit.model.calibration.fit_null`; the others are here to be compared with it (p_values.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from anoaudit.model.calibration import Calibration, fit_null

Array = npt.NDArray[np.float64]
Null = Callable[[Array, Array], Array]
_erfc = np.frompyfunc(math.erfc, 1, 1)


def normal_tail(z: Array) -> Array:
    return np.clip(np.asarray(_erfc(z / math.sqrt(2.0)), dtype=np.float64) / 2.0, 1e-300, 1.0)


def _p(null: Calibration, scores: Array) -> Array:
    p = null.p_values(scores)
    return np.ones(len(scores)) if p is None else p


def lognormal(contamination: float) -> Null:
    """The program's, for an assumed contamination."""
    return lambda reference, scores: _p(fit_null(reference, contamination, 20), scores)


def lognormal_alone(contamination: float) -> Null:
    """The same without bootstraps."""

    def null(reference: Array, scores: Array) -> Array:
        fitted = fit_null(reference, contamination, 20)
        return _p(Calibration(fitted.kind, fits=fitted.fits[:1]), scores)

    return null


def power(reference: Array, scores: Array) -> Array:
    """A normal after a power (Box-Cox) transform of the scores above the least, by the quantiles 0.05 to 0.75."""
    low = min(0.0, float(reference.min()))
    levels = np.linspace(0.05, 0.75, 29)
    quantiles = np.quantile(reference - low, levels)
    z = np.array([NormalDist().inv_cdf(u) for u in levels])
    design = np.stack([np.ones_like(z), z], axis=1)
    best: tuple[float, float, float, float] | None = None
    for exponent in np.linspace(0.0, 1.0, 41):
        (a, b), *_ = np.linalg.lstsq(design, _raise(quantiles, exponent), rcond=None)
        fitted = design @ np.array([a, b])
        back = np.exp(fitted) if exponent == 0 else np.maximum(fitted, 0.0) ** (1 / exponent)
        residual = float(((back - quantiles) ** 2).sum())
        if b > 0 and (best is None or residual < best[0]):
            best = (residual, float(a), float(b), float(exponent))
    assert best is not None
    return normal_tail((_raise(np.maximum(scores - low, 0.0), best[3]) - best[1]) / best[2])


def _raise(values: Array, exponent: float) -> Array:
    return np.asarray(np.log(np.maximum(values, 1e-300)) if exponent == 0 else values**exponent)


def pareto(reference: Array, scores: Array) -> Array:
    """A generalised Pareto tail above the median, by the quantiles 0.5 to 0.9 (peaks over threshold)."""
    levels = np.linspace(0.5, 0.9, 25)
    quantiles = np.quantile(reference, levels)
    excess, depth = quantiles[1:] - quantiles[0], -np.log((1 - levels[1:]) / 0.5)
    best: tuple[float, float, float] | None = None
    for shape in np.linspace(0.0, 1.5, 61):
        growth = np.expm1(shape * depth) / shape if shape else depth
        scale = float(growth @ excess / (growth @ growth))
        residual = float(((scale * growth - excess) ** 2).sum())
        if best is None or residual < best[0]:
            best = (residual, scale, float(shape))
    assert best is not None
    x = np.maximum(scores - quantiles[0], 0.0) / best[1]
    tail = 0.5 * (np.exp(-x) if best[2] == 0 else (1 + best[2] * x) ** (-1 / best[2]))
    return np.where(scores > quantiles[0], np.clip(tail, 1e-300, 1.0), 1.0)


def robust_z(reference: Array, scores: Array) -> Array:
    """A normal by median and MAD: what most tools do."""
    median = float(np.median(reference))
    return normal_tail((scores - median) / (1.4826 * float(np.median(np.abs(reference - median)))))


def robust_z_of_logs(reference: Array, scores: Array) -> Array:
    """The same of the scores' logarithms."""
    return robust_z(np.log(np.maximum(reference, 1e-12)), np.log(np.maximum(scores, 1e-12)))


CANDIDATES: dict[str, Null] = {
    "log-normal, bulk to 0.8, bootstrapped (default)": lognormal(0.1),
    "log-normal, bulk to 0.9, bootstrapped (--contamination 0.05)": lognormal(0.05),
    "log-normal, bulk to 0.6, bootstrapped (--contamination 0.2)": lognormal(0.2),
    "log-normal, bulk to 0.8, alone": lognormal_alone(0.1),
    "normal after a power transform": power,
    "generalised Pareto tail": pareto,
    "normal of log scores by median and MAD": robust_z_of_logs,
    "normal by median and MAD": robust_z,
}
