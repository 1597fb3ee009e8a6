"""Estimators of the share of anomalies, compared by contamination_auto.py: CHOSEN is the program's.

Each takes the scores of the first pass (float64[4, N]: Gaussian out of sample, nearest neighbours, LOF, ECOD) and gives
(share, low, high) of a 90 % interval. All but γGMM see the Gaussian's scores alone. Those for p-values take them from the
program's null, fitted to the bulk up to the 70 % quantile; those for z-values from cube roots, which make a chi-square normal
(Wilson & Hilferty 1931). Their intervals are percentile bootstraps of the scores, if the paper has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from sklearn.isotonic import isotonic_regression

from anoaudit.model.calibration import fit_null
from anoaudit.training.contamination import Estimate, estimate

Array = npt.NDArray[np.float64]
Share = tuple[float, float, float]

BOOTSTRAPS = 19
BULK = 0.15  # fit_null fits up to 1 − 2·0.15


def p_values(scores: Array) -> Array:
    found = fit_null(scores, BULK).p_values(scores)
    return np.full(len(scores), 0.5) if found is None else found


def z_values(scores: Array) -> Array:
    root = np.cbrt(np.maximum(scores, 0.0))
    spread = float(np.subtract(*np.quantile(root, [0.75, 0.25]))) / 1.349
    return np.asarray((root - np.median(root)) / max(spread, 1e-12), dtype=np.float64)


def storey(p: Array) -> float:
    """Storey 2002: π0 = #{p > λ}/((1 − λ)n), λ = ½."""
    return 1.0 - float((p > 0.5).mean()) / 0.5


def storey_bootstrap(p: Array) -> float:
    """Storey, Taylor & Siegmund 2004: λ by the least mean squared error."""
    lambdas = np.arange(0.05, 0.96, 0.05)
    above = np.array([float((p >= value).mean()) for value in lambdas])
    null = above / (1 - lambdas)
    error = above * (1 - above) / (len(p) * (1 - lambdas) ** 2) + (null - np.quantile(null, 0.1)) ** 2
    return 1.0 - float(null[np.argmin(error)])


def langaas(p: Array) -> float:
    """Langaas, Lindqvist & Ferkingstad 2005: π0 is the Grenander estimate of a decreasing density at p = 1."""
    ordered = np.sort(p[p < 1 - 1e-9])
    slopes = (1 - np.arange(len(ordered)) / len(p)) / (1 - ordered)
    return 1.0 - float(slopes.min(initial=1.0))


def patra_sen(p: Array) -> float:
    """Patra & Sen 2016: the least share at which (F − (1 − share)F0)/share is as good as a distribution, cₙ = 0.1·ln ln n."""
    n = len(p)
    u = np.sort(1.0 - p)
    empirical = np.arange(1, n + 1) / n
    bar = 0.1 * math.log(math.log(n)) / math.sqrt(n)
    low, high = 0.0, 1.0
    for _ in range(12):  # the distance falls as the share grows
        share = (low + high) / 2
        naive = (empirical - (1 - share) * u) / share
        monotone = np.clip(isotonic_regression(naive), 0.0, 1.0)
        if share * math.sqrt(float(((naive - monotone) ** 2).mean())) <= bar:
            high = share
        else:
            low = share
    return high


def efron(z: Array) -> float:
    """Efron 2004, central matching: a normal through the logarithm of the density in the middle; the rest is anomalous."""
    edges = np.linspace(-1.2, 1.2, 25)
    counts = np.histogram(z, edges)[0]
    some = counts > 0
    middle, width = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    logs = np.log(counts[some] / (len(z) * width))
    a, b, c = np.polyfit(middle[some], logs, 2, w=np.sqrt(counts[some]))
    if a >= 0:
        return 0.0
    variance = -0.5 / a
    return 1.0 - math.exp(c + b * b * variance / 2) * math.sqrt(2 * math.pi * variance)


def jin_cai(z: Array) -> float:
    """Jin & Cai 2007: null and share from the empirical characteristic function, γ = 0.1 and ½."""
    n = len(z)
    times = np.linspace(0.01, 3.0, 300)
    values = np.array([np.exp(1j * t * z).mean() for t in times])
    at = int(np.argmax(np.abs(values) <= n**-0.1)) or len(times) - 1
    t, value, slope = times[at], values[at], (1j * z * np.exp(1j * times[at] * z)).mean()
    size = abs(value) ** 2
    variance = max(-(value.real * slope.real + value.imag * slope.imag) / (t * size), 1e-6)
    mean = (value.real * slope.imag - value.imag * slope.real) / size
    x = (z - mean) / math.sqrt(variance)
    s = np.linspace(0.0, 1.0, 41)
    triangle = (1 - s) / (1 - s).sum()
    null = 1.0
    for t in np.linspace(0.0, math.sqrt(math.log(n)), 30)[1:]:
        null = min(null, float((triangle * np.exp((t * s) ** 2 / 2) * np.cos(t * x[:, None] * s).mean(0)).sum()))
    return 1.0 - null


def gao_tan(scores: Array) -> float:
    """Gao & Tan 2006: exponential normals and Gaussian anomalies, by expectation maximisation."""
    s = (scores - scores.min()) / max(float(np.median(scores) - scores.min()), 1e-12)
    share_N = np.where(s > np.quantile(s, 0.9), 0.99, 0.01)
    for _ in range(100):
        share, rate = share_N.mean(), (1 - share_N).sum() / ((1 - share_N) * s).sum()
        mean = (share_N * s).sum() / share_N.sum()
        sd = math.sqrt(max((share_N * (s - mean) ** 2).sum() / share_N.sum(), 1e-6))
        odds = np.log((1 - share) * rate / share * sd * math.sqrt(2 * math.pi)) - rate * s + 0.5 * ((s - mean) / sd) ** 2
        share_N = np.clip(1 / (1 + np.exp(np.clip(odds, -50, 50))), 1e-9, 1 - 1e-9)
    return float(share_N.mean())


def meinshausen_rice(scores_MN: Array) -> Share:
    """Meinshausen & Rice 2006: a lower bound at 95 %, here the estimate too; nothing bounds it from above."""
    p = np.sort(p_values(scores_MN[0]))
    n = len(p)
    loglog = math.log(math.log(n))
    level = -math.log(-math.log(0.95)) + 2 * loglog + 0.5 * math.log(loglog) - 0.5 * math.log(4 * math.pi)
    bound = level / math.sqrt(2 * n * loglog)
    t = p[1:-1]
    low = float(np.max((np.arange(2, n) / n - t - bound * np.sqrt(t * (1 - t))) / np.maximum(1 - t, 1e-9)))
    return clipped(low), clipped(low), 0.5


def bootstrapped(transform: Callable[[Array], Array], point: Callable[[Array], float]) -> Callable[[Array], Share]:
    """The null is fitted anew to each bootstrap: its error is most of the error."""

    def measured(scores_MN: Array) -> Share:
        scores, rng = scores_MN[0], np.random.default_rng(0)
        again = [
            clipped(point(transform(scores[rng.integers(0, len(scores), len(scores))]))) for _ in range(BOOTSTRAPS)
        ]
        low, high = np.quantile(again, [0.05, 0.95])
        return clipped(point(transform(scores))), float(low), float(high)

    return measured


def clipped(share: float) -> float:
    return min(max(share, 0.0), 0.5)


def gamma_gmm(**prior: float) -> Callable[[Array], Share]:
    def measured(scores_MN: Array) -> Share:
        found: Estimate = estimate(scores_MN, **prior)  # type: ignore[arg-type]
        return found.share, found.low, found.high

    return measured


CANDIDATES: dict[str, Callable[[Array], Share]] = {
    "Storey 2002": bootstrapped(p_values, storey),
    "Storey, Taylor & Siegmund 2004": bootstrapped(p_values, storey_bootstrap),
    "Langaas et al. 2005": bootstrapped(p_values, langaas),
    "Patra & Sen 2016": bootstrapped(p_values, patra_sen),
    "Meinshausen & Rice 2006 (lower bound)": meinshausen_rice,
    "Efron 2004": bootstrapped(z_values, efron),
    "Jin & Cai 2007": bootstrapped(z_values, jin_cai),
    "Gao & Tan 2006": bootstrapped(lambda scores: scores, gao_tan),
    "γGMM, Perini et al. 2023, the paper's prior": gamma_gmm(none=0.01, many=0.15, more=0.01),
    "γGMM, the program's prior": gamma_gmm(),
    "a constant 10 %": lambda _: (0.1, 0.1, 0.1),  # it has no interval
}
CHOSEN, CONSTANT = "γGMM, the program's prior", "a constant 10 %"
