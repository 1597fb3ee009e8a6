"""What stands out in an item: for rows the columns that deviate most or are reconstructed worst, for maps the peak's place."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import polars as pl

from anoaudit.data.items import ColumnRule, TableSpec

COLUMNS_SHOWN = 3
LARGEST_Z = 999.0


def explain_rows(
    values: npt.NDArray[np.float64], spec: TableSpec, errors: npt.NDArray[np.float32] | None = None
) -> list[str]:
    """`name +z` for the columns of largest |robust z| of each row: (x − median)/(1.4826·MAD) of the training rows.

    `values` is float64[B, D]. A category counts as (1 − f)/√(f(1 − f)) for its share f in training: rarer is larger.
    Where the model gives the columns' errors (float32[B, D]) those of largest error are named, `name +z (error e)`.
    """
    if len(values) == 0:
        return []
    z = np.stack([_deviation(values[:, j], rule) for j, rule in enumerate(spec.columns)], axis=1)
    shown = min(COLUMNS_SHOWN, z.shape[1])
    order = np.argsort(-np.abs(z if errors is None else errors), axis=1, kind="stable")[:, :shown]
    names = np.array([rule.name for rule in spec.columns], dtype=object)
    parts = []
    for k in range(shown):
        column = order[:, k]
        rows = np.arange(len(values))
        text = [_format(float(d)) for d in z[rows, column]]
        raw = values[rows, column]
        for i in np.flatnonzero(~np.isfinite(raw) | _is_category(spec)[column]):
            text[i] = _special(float(raw[i]), spec.columns[column[i]])
        if errors is not None:
            text = [f"{t} (error {e:.2g})" for t, e in zip(text, errors[rows, column], strict=True)]
        parts.append(pl.Series(f"p{k}", names[column].tolist()) + " " + pl.Series(text))
    return pl.DataFrame(parts).select(pl.concat_str(pl.all(), separator=", ")).to_series().to_list()


def _is_category(spec: TableSpec) -> npt.NDArray[np.bool_]:
    return np.array([rule.kind == "categorical" for rule in spec.columns])


def _deviation(values: npt.NDArray[np.float64], rule: ColumnRule) -> npt.NDArray[np.float64]:
    if rule.kind == "categorical":
        shares = np.array([*rule.frequencies[: len(rule.categories)], 0.0, rule.frequencies[-1]])
        codes = np.where(np.isnan(values), len(rule.categories) + 1, values).astype(int)
        share = np.clip(shares[np.clip(codes, 0, len(shares) - 1)], 1e-6, 1.0)
        return np.asarray(np.sqrt((1.0 - share) / share), dtype=np.float64)
    missing_share = min(max(rule.frequencies[-1] if rule.frequencies else 0.0, 1e-6), 1.0)
    scale = rule.mad if rule.mad > 0 else 1.0
    finite = np.isfinite(values)
    with np.errstate(over="ignore"):  # beyond doubles it is clipped like anything large
        z = (np.where(finite, values, rule.median) - rule.median) / scale
    missing = float(np.sqrt((1.0 - missing_share) / missing_share))
    return np.clip(np.where(finite, z, missing), -LARGEST_Z, LARGEST_Z)


def _format(z: float) -> str:
    sign = "+" if z >= 0 else "−"
    size = abs(z)
    return f">{sign}{LARGEST_Z:.0f}" if size >= LARGEST_Z else f"{sign}{size:.1f}"


def _special(value: float, rule: ColumnRule) -> str:
    """Values that have no z: missing, infinite, categories."""
    if np.isnan(value):
        return "missing"
    if np.isinf(value):
        return "infinite"
    code = int(value)
    return f"= {rule.categories[code]!r}" if code < len(rule.categories) else "unseen value"


def explain_maps(maps: Iterable[npt.NDArray[np.float32]]) -> list[str]:
    """`peak x 31%, y 55%` from the left upper corner; each map is float32[h, w]."""
    return [_peak(values) for values in maps]


def _peak(values: npt.NDArray[np.float32]) -> str:
    height, width = values.shape
    y, x = divmod(int(values.argmax()), width)
    return f"peak x {100 * (x + 0.5) / width:.0f}%, y {100 * (y + 0.5) / height:.0f}%"
