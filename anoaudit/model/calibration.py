"""From scores to p-values: the tail probability under a *normal reference*, and an honest name for what it is.

`conformal-clean`: split-conformal on known normals kept out of training; exact for new normal data (Vovk et al.).
`fitted-null`: a shifted log-normal fitted to the bulk of the scores, and to its Bayesian bootstraps (Rubin 1981); p is the mean
over the fits, so a null that rests on few scores reaches further. The upper tail is where the anomalies sit, so it is not used;
the fit is extrapolated there. An estimate, never a guarantee (our choice; compare empirical nulls, Efron 2004).
`none`: too few rows, or no spread; p-values are null.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
CalibrationKind = Literal["conformal-clean", "fitted-null", "none"]

MIN_ROWS = 50  # under it a null is a guess
LOWEST, FEWEST, MOST = 0.05, 0.5, 0.9  # the bulk's quantiles: from 5 % to 1 − 2α, which stays between 50 and 90 %
POINTS = 29
SKEWS = np.linspace(0.0, 2.0, 81)
BOOTSTRAPS = 25
MAX_FITS, MAX_SKEW = 1000, 5.0  # of a manifest that may be accepted
FAR = 0.001  # the p-value at which nulls are compared: where decisions are made
GRID = np.linspace(
    -9.0, 38.0, 4701
)  # normal deviations; p is tabulated on it (relative error 1e-5), and constant beyond
CHUNK = 100_000
SMALLEST_P = 1e-300  # beyond it doubles are zero, and no score is impossible


@dataclass(frozen=True)
class ShiftedLognormal:
    """s(z) = location + scale·(exp(skew·z) − 1)/skew for a standard normal z; skew 0 is a normal."""

    location: float
    scale: float
    skew: float

    def z(self, scores: Array) -> Array:
        """Normal deviations, −inf below the distribution's support."""
        with np.errstate(over="ignore"):  # a scale next to zero: infinitely many deviations out, like anything far
            standard = (scores - self.location) / self.scale
            if self.skew == 0.0:
                return np.asarray(standard, dtype=np.float64)
            inside = self.skew * standard
        z = np.where(inside <= -1.0, -np.inf, np.log1p(np.maximum(inside, -1.0 + 1e-12)) / self.skew)
        return np.asarray(z, dtype=np.float64)

    def score(self, z: Array) -> Array:
        """The inverse of `z`."""
        return np.asarray(self.location + self.scale * _shape(self.skew, z), dtype=np.float64)


def _shape(skew: float, z: Array) -> Array:
    return np.asarray(np.expm1(skew * z) / skew if skew else z, dtype=np.float64)


@dataclass(frozen=True)
class Calibration:
    """A normal reference. `reference` holds the sorted scores it rests on (of rows kept out of training)."""

    kind: CalibrationKind
    reference: Array = field(default_factory=lambda: np.empty(0))
    fits: tuple[ShiftedLognormal, ...] = ()  # fitted-null: of the scores, then of their bootstraps
    bulk: float = 0.0  # fitted-null: up to which quantile of the scores it was fitted
    note: str = ""
    exact: bool = False  # conformal-clean, for items that training did not see

    def p_values(self, scores: Array) -> Array | None:
        """Tail probabilities, float64[N] in (0, 1], or None where there is no reference."""
        if self.kind == "none":
            return None
        if self.kind == "conformal-clean":
            at_least = len(self.reference) - np.searchsorted(self.reference, scores, side="left")
            return np.asarray((1.0 + at_least) / (len(self.reference) + 1.0), dtype=np.float64)
        p = np.empty(len(scores))
        for start in range(0, len(scores), CHUNK):  # so that millions of rows need no temporary arrays of their size
            part = slice(start, start + CHUNK)
            p[part] = np.exp(np.interp(self.fits[0].z(scores[part]), GRID, self._log_tail))
        return p

    @cached_property
    def _log_tail(self) -> Array:
        """ln p at the scores that lie GRID deviations out under the first fit: the mean over all fits."""
        scores = self.fits[0].score(GRID)
        # np.frompyfunc over math.erfc: scipy is no dependency.
        erfc = np.frompyfunc(math.erfc, 1, 1)
        tails = [np.asarray(erfc(fit.z(scores) / math.sqrt(2.0)), dtype=np.float64) / 2.0 for fit in self.fits]
        return np.asarray(np.log(np.clip(np.mean(tails, axis=0), SMALLEST_P, 1.0)), dtype=np.float64)

    def score_at(self, p: float) -> float:
        """The score whose p-value is p under the fitted null."""
        z = np.interp(-math.log(p), -self._log_tail, GRID)
        return float(self.fits[0].score(np.asarray(z)))

    def to_json(self) -> dict[str, Any]:
        """The manifest's `calibration`, without the reference scores (they are in calibration.parquet)."""
        values: dict[str, Any] = {"kind": self.kind, "n": len(self.reference)}
        if self.kind == "fitted-null":
            fits = [[fit.location, fit.scale, fit.skew] for fit in self.fits]
            values |= {"null": "shifted-lognormal", "bulk": self.bulk, "fits": fits}
        if self.kind == "conformal-clean":
            values |= {"smallest_p": 1.0 / (len(self.reference) + 1), "exact": self.exact}
        if self.note:
            values["note"] = self.note
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any], reference: Array) -> Calibration:
        """The inverse of `to_json`. Raises ValueError, TypeError or KeyError when malformed."""
        kind = values["kind"]
        if kind not in ("conformal-clean", "fitted-null", "none"):
            raise ValueError(f"calibration kind {kind!r}")
        fits: tuple[ShiftedLognormal, ...] = ()
        if kind == "fitted-null":
            if not 1 <= len(values["fits"]) <= MAX_FITS:
                raise ValueError("the fitted null has no parameters, or too many")
            fits = tuple(ShiftedLognormal(*(float(v) for v in fit)) for fit in values["fits"])
            if not all(_sound(fit) for fit in fits):
                raise ValueError("the fitted null's parameters are not finite or out of range")
        if kind == "conformal-clean" and len(reference) == 0:
            raise ValueError("conformal calibration without reference scores")
        return cls(
            kind=kind, reference=np.sort(reference), fits=fits, bulk=float(values.get("bulk", 0.0)),
            note=str(values.get("note", "")), exact=kind == "conformal-clean" and values.get("exact") is True,
        )  # fmt: skip


def _sound(fit: ShiftedLognormal) -> bool:
    """Whether its scores are finite all over the grid."""
    with np.errstate(over="ignore", invalid="ignore"):
        ends = fit.score(GRID[[0, -1]])
    return bool(fit.scale > 0 and 0 <= fit.skew <= MAX_SKEW and np.isfinite(ends).all())


def conformal(scores_of_normals: Array) -> Calibration:
    """Exact p-values from scores of known normals that training never saw."""
    return Calibration(kind="conformal-clean", reference=np.sort(scores_of_normals), exact=True)


def fit_null(scores: Array, contamination: float = 0.1, least: int = MIN_ROWS) -> Calibration:
    """A shifted log-normal by least squares between the quantiles of the scores' bulk and its own.

    The bulk ends at 1 − 2α, α the assumed contamination: were there twice as many anomalies, they would not move the fit. No
    correction for their share is made, which errs towards fewer flags. Under `least` scores there is no null; between that and
    MIN_ROWS it says how rough it is. The same scores give the same null.
    """
    n = len(scores)
    ordered = np.sort(scores)
    if n < least:
        return Calibration(
            kind="none", reference=ordered, note=f"a null fitted to {n} items gives no p-values; {least} are needed"
        )
    note = f"p-values are rough: their null rests on {n} items only" if n < MIN_ROWS else ""
    bulk = min(max(1.0 - 2.0 * contamination, FEWEST), MOST)
    levels = np.linspace(LOWEST, bulk, POINTS)
    quantiles = np.quantile(ordered, levels)
    if not np.ptp(quantiles) > 1e-12 * max(abs(float(quantiles[-1])), 1e-300):
        return Calibration(
            kind="none", reference=ordered, note="the bulk of the scores is one value; there is no null to fit"
        )
    # A Bayesian bootstrap to first order (our choice): Dirichlet spacings move the levels at which the ordered scores are read.
    spacings = n * np.diff(np.concatenate([[0.0], levels, [1.0]]))
    moved = np.random.default_rng(0).dirichlet(spacings, size=BOOTSTRAPS).cumsum(axis=1)[:, :-1]
    fits = _fits(np.concatenate([quantiles[None], np.quantile(ordered, np.clip(moved, 0.0, 1.0))]), levels)
    if fits[0] is None:
        return Calibration(kind="none", reference=ordered, note="no null fits the bulk of the scores")
    good = tuple(fit for fit in fits if fit is not None)
    return Calibration("fitted-null", reference=ordered, fits=good, bulk=bulk, note=note)


def _fits(quantiles_BQ: Array, levels: Array) -> Sequence[ShiftedLognormal | None]:
    """The best shifted log-normal of each row of quantiles, None where none rises."""
    z = np.array([NormalDist().inv_cdf(u) for u in levels])
    best: list[tuple[float, ShiftedLognormal] | None] = [None] * len(quantiles_BQ)
    for skew in SKEWS:
        design = np.stack([np.ones_like(z), _shape(float(skew), z)], axis=1)
        parameters = quantiles_BQ @ np.linalg.pinv(design).T
        residuals = np.sum((parameters @ design.T - quantiles_BQ) ** 2, axis=1)
        for i, ((location, scale), residual) in enumerate(zip(parameters, residuals, strict=True)):
            known = best[i]
            if scale > 0 and (known is None or residual < known[0]):
                best[i] = (float(residual), ShiftedLognormal(float(location), float(scale), float(skew)))
    return [found[1] if found is not None else None for found in best]


def wider(audit: Calibration, out_of_sample: Calibration) -> Calibration:
    """The null of an audit: fitted to its own scores, unless the out-of-sample null reaches further at p = FAR.

    Items that were left out of the fit as suspects score as if unseen, the others as seen. On data of few rows a column a null
    fitted to the seen ones calls every suspect an anomaly, clean or not (our choice, measured on clean Gaussian tables).
    """
    if audit.kind != "fitted-null" or out_of_sample.kind != "fitted-null":
        return audit
    return audit if audit.score_at(FAR) >= out_of_sample.score_at(FAR) else out_of_sample
