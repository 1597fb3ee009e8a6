"""Other estimators of the share of anomalies among scores, to be compared with the program's (alpha.py).

Each takes positive scores float64[N] and gives a share, or NaN where it gives none. Those that need a known null get the
program's fitted one, as its own estimator does.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from anoaudit.model.alpha import BULK, bounding, excess
from anoaudit.model.calibration import Calibration, fit_null

Array = npt.NDArray[np.float64]
Estimator = Callable[[Array], float]
_erf = np.frompyfunc(math.erf, 1, 1)


def _phi(z: float) -> float:
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _cdf(z: float) -> float:
    return (1 + math.erf(z / math.sqrt(2))) / 2


def _log(scores: Array) -> Array:
    return np.log(np.maximum(scores, 1e-12))


def _null(scores: Array, bulk: float = BULK) -> Calibration | None:
    fitted = fit_null(scores, bulk, 20)
    return None if fitted.kind != "fitted-null" else Calibration("fitted-null", fits=fitted.fits[:1])


def _p(scores: Array, bulk: float = BULK) -> Array | None:
    null = _null(scores, bulk)
    return None if null is None else null.p_values(scores)


def efron_mle(scores: Array) -> float:
    """Efron 2007: a normal fitted by maximum likelihood to the log scores of a central interval, and its share.

    The interval is the median ± b times the normal-consistent quartile distance, b = 4.3·n^(−0.26/ln 10), as locfdr documents.
    """
    t = _log(scores)
    reach = 4.3 * math.exp(-0.26 * math.log10(len(t))) * float(np.subtract(*np.quantile(t, [0.75, 0.25]))) / 1.349
    low, high = float(np.median(t)) - reach, float(np.median(t)) + reach
    inside = t[(t >= low) & (t <= high)]
    if len(inside) < 20 or not np.ptp(inside) > 0:
        return math.nan
    mean, variance = float(inside.mean()), float(inside.var())
    mu, sd = mean, 1.2 * math.sqrt(variance)
    for _ in range(200):  # moments of the truncated normal meet those observed
        a, b = (low - mu) / sd, (high - mu) / sd
        mass = max(_cdf(b) - _cdf(a), 1e-9)
        ratio = (_phi(a) - _phi(b)) / mass
        expected = sd * sd * (1 + (a * _phi(a) - b * _phi(b)) / mass - ratio**2)
        mu += mean - (mu + sd * ratio)
        sd = min(sd * math.sqrt(max(variance / max(expected, 1e-12), 1e-3)), 50 * math.sqrt(variance))
    return 1 - len(inside) / len(t) / (_cdf((high - mu) / sd) - _cdf((low - mu) / sd))


def central_matching(scores: Array) -> float:
    """Efron 2004: a parabola through the log density of the log scores between two quantiles, and the normal's share."""
    t = _log(scores)
    low, high = np.quantile(t, [0.1, 0.7])
    counts, edges = np.histogram(t, bins=np.linspace(low, high, 13))
    x = (edges[1:] + edges[:-1]) / 2
    c2, c1, c0 = np.polyfit(x - x.mean(), np.log(np.maximum(counts, 0.5) / (len(t) * (edges[1] - edges[0]))), 2)
    if c2 >= 0:
        return math.nan
    variance = -1 / (2 * c2)
    return float(1 - math.exp(c0 + c1**2 * variance / 2) * math.sqrt(2 * math.pi * variance))


def storey(scores: Array) -> float:
    """Storey 2002 with λ = 0.5."""
    p = _p(scores)
    return math.nan if p is None else 1 - float((p > 0.5).mean()) / 0.5


def patra_sen(scores: Array, bound: bool = False) -> float:
    """Patra and Sen 2016: the smallest share γ at which γ times the distance of the naive anomalies' distribution from its
    isotonic version is c_n/√n; c_n = 0.1·ln ln n, or for the 95 % lower `bound` the quantile 0.6792.
    """
    p = _p(scores)
    if p is None:
        return math.nan
    n = len(p)
    null = np.sort(p)
    mixed = np.arange(1, n + 1) / n
    if n > 800:
        some = np.linspace(0, n - 1, 800).astype(int)
        null, mixed = null[some], mixed[some]
    enough = (0.6792 if bound else 0.1 * math.log(math.log(n))) / math.sqrt(n)
    low, high = 1e-3, 1.0
    for _ in range(12):
        share = (low + high) / 2
        naive = (mixed - (1 - share) * null) / share
        distance = share * math.sqrt(float(np.mean((naive - np.clip(_isotonic(naive), 0, 1)) ** 2)))
        low, high = (share, high) if distance > enough else (low, share)
    return high


def _isotonic(values: Array) -> Array:
    """Pool adjacent violators."""
    means: list[float] = []
    sizes: list[int] = []
    for value in values.tolist():
        means.append(value)
        sizes.append(1)
        while len(means) > 1 and means[-2] > means[-1]:
            size = sizes[-2] + sizes[-1]
            means[-2] = (means[-2] * sizes[-2] + means[-1] * sizes[-1]) / size
            sizes[-2] = size
            means.pop()
            sizes.pop()
    return np.repeat(np.array(means), sizes)


def jin_cai(scores: Array) -> float:
    """Jin and Cai 2007, by the characteristic function of the null's normal deviations; triangle density, γ = 0.1."""
    null = _null(scores)
    if null is None:
        return math.nan
    z = np.clip(null.fits[0].z(scores), -8.0, 8.0)
    xi = np.linspace(-1, 1, 41)
    weight = (1 - np.abs(xi)) / (1 - np.abs(xi)).sum()
    found = 0.0
    for t in np.linspace(0.1, math.sqrt(2 * 0.1 * math.log(len(z))), 10):
        psi = float((weight * np.exp((t * xi) ** 2 / 2) * np.cos(t * np.outer(xi, z)).mean(1)).sum())
        found = max(found, 1 - psi)
    return found


def two_normals(scores: Array) -> float:
    """A mixture of two normals on the log scores (EM, two starts); the upper one's share where BIC prefers two."""
    t = np.sort(_log(scores))
    n, best = len(t), (-math.inf, 0.0)
    for start in (0.8, 0.95):
        cut = round(start * n)
        mean = np.array([t[:cut].mean(), t[cut:].mean()])
        variance = np.array([t[:cut].var(), t[cut:].var()]) + 1e-4 * t.var() + 1e-12
        weight, likelihood = np.array([start, 1 - start]), -math.inf
        for _ in range(60):
            density = weight * np.exp(-((t[:, None] - mean) ** 2) / 2 / variance) / np.sqrt(2 * math.pi * variance)
            total = density.sum(1) + 1e-300
            likelihood = float(np.log(total).sum())
            share_N2 = density / total[:, None]
            mass = share_N2.sum(0) + 1e-9
            weight, mean = mass / n, (share_N2 * t[:, None]).sum(0) / mass
            variance = (share_N2 * (t[:, None] - mean) ** 2).sum(0) / mass + 1e-4 * t.var() + 1e-12
        best = max(best, (likelihood, float(weight[int(np.argmax(mean))])))
    one = -n / 2 * (math.log(2 * math.pi * float(t.var()) + 1e-300) + 1)
    return best[1] if best[0] - one > 1.5 * math.log(n) else 0.0


def mad_rule(scores: Array) -> float:
    """Cube roots (Wilson and Hilferty 1931) more than 3 robust deviations above their median."""
    t = np.cbrt(scores)
    deviation = 1.4826 * float(np.median(np.abs(t - np.median(t))))
    return float((t > np.median(t) + 3 * deviation).mean())


def tukey(scores: Array) -> float:
    """Cube roots above Tukey's upper fence."""
    low, high = np.quantile(np.cbrt(scores), [0.25, 0.75])
    return float((np.cbrt(scores) > high + 1.5 * (high - low)).mean())


def lower_bound(scores: Array) -> float:
    """Meinshausen and Rice's 95 % bound itself, under one fitted null."""
    p = _p(scores)
    return math.nan if p is None else excess(np.sort(p), bounding(len(p)))


def wider_excess(scores: Array) -> float:
    """The program's estimate with a null fitted to less of the scores, up to their quantile 0.6."""
    p = _p(scores, 0.2)
    return math.nan if p is None else excess(np.sort(p), 0.0)


OTHERS: dict[str, Estimator] = {
    "0.1": lambda _: 0.1, "0.05": lambda _: 0.05, "Efron MLE": efron_mle, "central matching": central_matching, "Storey": storey,
    "Patra-Sen": patra_sen, "Patra-Sen bound": lambda scores: patra_sen(scores, bound=True), "Jin-Cai": jin_cai,
    "two normals": two_normals, "MAD rule": mad_rule, "Tukey": tukey, "Meinshausen-Rice bound": lower_bound,
    "Meinshausen-Rice, null to 0.6": wider_excess,
}  # fmt: skip
