"""From scores to p-values: the tail probability under a *normal reference*, and an honest name for what it is.

`conformal-clean`: split-conformal on known normals kept out of training; exact for new normal data (Vovk et al.).
`fitted-null`: a shifted log-normal fitted to the bulk of the scores. The upper tail is where the anomalies sit, so it is not
used; the fit is extrapolated there. An estimate, never a guarantee (our choice; compare empirical nulls, Efron 2004).
`none`: too few rows, or no spread; p-values are null.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
CalibrationKind = Literal["conformal-clean", "fitted-null", "none"]

MIN_ROWS = 50  # under it a null is a guess
#: The part of the scores that the null is fitted to: a quarter of the rows may be anomalous without touching it.
BULK = np.linspace(0.05, 0.75, 29)
SKEWS = np.linspace(0.0, 2.0, 81)
FAR = 3.09  # normal deviations: a p-value of 0.001, where decisions are made
CHUNK = 100_000  # scores at a time: erfc goes through Python objects
SMALLEST_P = 1e-300  # beyond it doubles are zero, and no score is impossible


@dataclass(frozen=True)
class Calibration:
    """A normal reference. `reference` holds the sorted scores it rests on (of rows kept out of training)."""

    kind: CalibrationKind
    reference: Array = field(default_factory=lambda: np.empty(0))
    location: float = 0.0  # fitted-null: the bulk's median
    scale: float = 0.0
    skew: float = 0.0  # 0 is a normal null
    note: str = ""
    exact: bool = False  # conformal-clean, for items that training did not see

    def p_values(self, scores: Array) -> Array | None:
        """Tail probabilities, float64[N] in (0, 1], or None where there is no reference."""
        if self.kind == "none":
            return None
        if self.kind == "conformal-clean":
            at_least = len(self.reference) - np.searchsorted(self.reference, scores, side="left")
            return np.asarray((1.0 + at_least) / (len(self.reference) + 1.0), dtype=np.float64)
        return np.concatenate([self._tail(part) for part in np.array_split(scores, len(scores) // CHUNK + 1)])

    def _tail(self, scores: Array) -> Array:
        z = self._z(scores)
        # np.frompyfunc over math.erfc: scipy is no dependency, and two million calls take half a second.
        tail = np.asarray(np.frompyfunc(math.erfc, 1, 1)(z / math.sqrt(2.0)), dtype=np.float64) / 2.0
        return np.clip(tail, SMALLEST_P, 1.0)

    def _z(self, scores: Array) -> Array:
        standard = (scores - self.location) / self.scale
        if self.skew == 0.0:
            return np.asarray(standard, dtype=np.float64)
        inside = self.skew * standard
        z = np.where(inside <= -1.0, -np.inf, np.log1p(np.maximum(inside, -1.0 + 1e-12)) / self.skew)
        return np.asarray(z, dtype=np.float64)

    def score_at(self, z: float) -> float:
        """The score that lies z normal deviations out under the fitted null."""
        return self.location + self.scale * (math.expm1(self.skew * z) / self.skew if self.skew else z)

    def to_json(self) -> dict[str, Any]:
        """The manifest's `calibration`, without the reference scores (they are in calibration.parquet)."""
        values: dict[str, Any] = {"kind": self.kind, "n": len(self.reference)}
        if self.kind == "fitted-null":
            values |= {"null": "shifted-lognormal", "location": self.location, "scale": self.scale, "skew": self.skew}
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
        numbers = {k: float(values.get(k, 0.0)) for k in ("location", "scale", "skew")}
        if kind == "fitted-null" and not (numbers["scale"] > 0 and all(map(math.isfinite, numbers.values()))):
            raise ValueError("the fitted null's parameters are not finite")
        if kind == "conformal-clean" and len(reference) == 0:
            raise ValueError("conformal calibration without reference scores")
        return cls(
            kind=kind, reference=np.sort(reference), note=str(values.get("note", "")),
            exact=kind == "conformal-clean" and values.get("exact") is True, **numbers,
        )  # fmt: skip


def conformal(scores_of_normals: Array) -> Calibration:
    """Exact p-values from scores of known normals that training never saw."""
    return Calibration(kind="conformal-clean", reference=np.sort(scores_of_normals), exact=True)


def fit_null(scores: Array, least: int = MIN_ROWS) -> Calibration:
    """A shifted log-normal by least squares between the bulk's quantiles and the null's.

    s(u) = location + scale · (exp(skew · z(u)) − 1)/skew with z = Φ⁻¹(u). Quantiles up to 0.75 only: anomalies above them do
    not move the fit. No correction for their share is made, which errs towards fewer flags. Under `least` scores there is no
    null; between that and MIN_ROWS it says how rough it is.
    """
    n = len(scores)
    ordered = np.sort(scores)
    if n < least:
        return Calibration(kind="none", reference=ordered, note=f"only {n} items; {least} are needed for p-values")
    note = f"p-values are rough: their null rests on {n} items only" if n < MIN_ROWS else ""
    quantiles = np.quantile(ordered, BULK)
    spread = quantiles[-1] - quantiles[0]
    if not spread > 1e-12 * max(abs(float(quantiles[-1])), 1e-300):
        return Calibration(
            kind="none", reference=ordered, note="the bulk of the scores is one value; there is no null to fit"
        )
    z = np.array([NormalDist().inv_cdf(u) for u in BULK])
    best: tuple[float, float, float, float] | None = None
    for skew in SKEWS:
        shape = np.expm1(skew * z) / skew if skew > 0 else z
        design = np.stack([np.ones_like(shape), shape], axis=1)
        (location, scale), *_ = np.linalg.lstsq(design, quantiles, rcond=None)
        residual = float(np.sum((design @ np.array([location, scale]) - quantiles) ** 2))
        if scale > 0 and (best is None or residual < best[0]):
            best = (residual, float(location), float(scale), float(skew))
    if best is None:
        return Calibration(kind="none", reference=ordered, note="no null fits the bulk of the scores")
    return Calibration("fitted-null", reference=ordered, location=best[1], scale=best[2], skew=best[3], note=note)


def wider(audit: Calibration, out_of_sample: Calibration) -> Calibration:
    """The null of an audit: fitted to its own scores, unless the out-of-sample null reaches further.

    Items that were left out of the fit as suspects score as if unseen, the others as seen. On data of few rows a column a null
    fitted to the seen ones calls every suspect an anomaly, clean or not (our choice, measured on clean Gaussian tables).
    """
    if audit.kind != "fitted-null" or out_of_sample.kind != "fitted-null":
        return audit
    return audit if audit.score_at(FAR) >= out_of_sample.score_at(FAR) else out_of_sample
