"""What stands out in an item: for rows the columns that deviate most or are reconstructed worst, for maps the peak's place."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import polars as pl

from anoaudit.data.items import ColumnRule, TableSpec

COLUMNS_SHOWN = 3
LARGEST_Z = 999.0
RARE = 0.05  # a category is a reason where it and all as rare ones make up at most this share of the training rows
SMALLEST_SHARE = 1e-6  # of what training never saw


def explain_rows(
    values: npt.NDArray[np.float64], spec: TableSpec, errors: npt.NDArray[np.float32] | None = None
) -> list[str | None]:
    """`name +z` for the columns of largest |robust z| of each row: (x − median)/(1.4826·MAD) of the training rows.

    `values` is float64[B, D]. A category, a truth value or a missing number is named only where it is rare, and counts as
    √((1 − f)/f) for the share f of the training rows that it makes up with all as rare ones; so does any number in a column
    that is hardly ever filled. None where nothing is left.
    Where the model gives the columns' errors (float32[B, D]) those of largest error are named, `name +z (error e)`.
    """
    if len(values) == 0:
        return []
    z = np.stack([_deviation(values[:, j], rule) for j, rule in enumerate(spec.columns)], axis=1)
    size = np.abs(z) if errors is None else errors
    shown = min(COLUMNS_SHOWN, z.shape[1])
    order = np.argsort(-np.nan_to_num(size, nan=-1.0), axis=1, kind="stable")[:, :shown]
    names = np.array([rule.name or "(no name)" for rule in spec.columns], dtype=object)
    levels = np.array([_has_levels(rule) for rule in spec.columns])
    filled = np.array([_filled(rule) for rule in spec.columns])
    parts = []
    for k in range(shown):
        column = order[:, k]
        rows = np.arange(len(values))
        text: list[str | None] = [_format(float(d)) for d in z[rows, column]]
        raw = values[rows, column]
        rarely = z[rows, column] == filled[column]
        for i in np.flatnonzero(~np.isfinite(raw) | levels[column] | rarely):
            text[i] = _special(float(raw[i]), spec.columns[column[i]])
        if errors is not None:
            text = [f"{t} (error {e:.2g})" for t, e in zip(text, errors[rows, column], strict=True)]
        else:
            text = [None if common else t for t, common in zip(text, np.isnan(z[rows, column]), strict=True)]
        parts.append(pl.Series(f"p{k}", names[column].tolist()) + " " + pl.Series(text, dtype=pl.String))
    joined = pl.DataFrame(parts).select(pl.concat_str(pl.all(), separator=", ", ignore_nulls=True)).to_series()
    return joined.replace("", None).to_list()


def _has_levels(rule: ColumnRule) -> bool:
    """Whether the values are a few kinds, of known shares, and no amounts."""
    return rule.kind == "categorical" or (rule.kind == "boolean" and len(rule.frequencies) == 3)


def _deviation(values: npt.NDArray[np.float64], rule: ColumnRule) -> npt.NDArray[np.float64]:
    """Robust z of numbers, and its like of rare levels and gaps; NaN for those that are common."""
    if _has_levels(rule):
        known = len(rule.frequencies) - 1
        shares = np.array([*rule.frequencies[:known], 0.0, rule.frequencies[-1]])
        codes = np.where((values >= 0) & (values < known), values, known)
        rarity = np.array([_rarity(float(shares[shares <= share].sum())) for share in shares])
        return np.asarray(rarity[np.where(np.isnan(values), known + 1, codes).astype(int)], dtype=np.float64)
    missing = _rarity(rule.frequencies[-1] if rule.frequencies else 0.0)
    scale = rule.mad if rule.mad > 0 else 1.0
    finite = np.isfinite(values)
    with np.errstate(over="ignore"):  # beyond doubles it is clipped like anything large
        z = (np.where(finite, values, rule.median) - rule.median) / scale
    z = np.where(np.abs(z) < np.nan_to_num(_filled(rule)), _filled(rule), z)
    return np.clip(np.where(finite, z, missing), -LARGEST_Z, LARGEST_Z)


def _filled(rule: ColumnRule) -> float:
    """What it is worth that a number is there at all; NaN where that is no news, or where nothing is known of gaps."""
    return _rarity(1.0 - rule.frequencies[-1]) if rule.frequencies else float("nan")


def _rarity(share: float) -> float:
    """What a share of the training rows is worth beside robust z; NaN where it is no news."""
    f = max(share, SMALLEST_SHARE)
    return float(np.sqrt((1.0 - f) / f)) if round(f, 9) <= RARE else float("nan")


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
    if not _has_levels(rule):
        return "rarely filled"
    kinds = [repr(name) for name in rule.categories] if rule.kind == "categorical" else ["false", "true"]
    return f"= {kinds[int(value)]}" if 0 <= value < len(kinds) else "unseen value"


def explain_maps(maps: Iterable[npt.NDArray[np.float32]]) -> list[str]:
    """`peak x 31%, y 55%` from the left upper corner; each map is float32[h, w]."""
    return [_peak(values) for values in maps]


def _peak(values: npt.NDArray[np.float32]) -> str:
    height, width = values.shape
    y, x = divmod(int(values.argmax()), width)
    return f"peak x {100 * (x + 0.5) / width:.0f}%, y {100 * (y + 0.5) / height:.0f}%"
