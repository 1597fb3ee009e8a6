"""Columns to numbers by rules: decided once on the training data, kept in the manifest, applied unchanged at score.

numeric → float64 · boolean → 0/1 · date-times → seconds · text of few values → a code, with one code of its own for
values never seen. Missing and infinite values stay as they are here: the model's graph imputes them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl

from anoaudit.data.column_notes import column_notes, whole_numbers
from anoaudit.data.dates import dates, form_of, read_dates, seconds, year_notes
from anoaudit.data.items import ColumnRule, TableSpec
from anoaudit.data.number_text import (
    Decimal,
    decimals_of,
    figures_of,
    mark_notes,
    parse_numbers,
    point_notes,
    text_notes,
    without_placeholders,
)
from anoaudit.errors import AuditError, UsageError, among

MAX_CATEGORIES = 64
LARGEST = float(np.finfo(np.float64).max)
IDENTIFIER_NAME = re.compile(r"(^|[_\W])(id|uuid|guid|key|index|rowid|row_id|idx)$", re.IGNORECASE)
TRUE, FALSE = ("true", "t", "yes", "y"), ("false", "f", "no", "n")


def infer_spec(
    sample: pl.DataFrame, columns: Sequence[str] | None, exclude: Sequence[str], total: int | None = None
) -> TableSpec:
    """Rules for the feature columns of `sample` (raw rows), and why the others are dropped.

    `columns` names the features explicitly (then identifiers among them are kept); `exclude` names others.
    `total` is the number of rows that `sample` is drawn from: a row counter has gaps in a sample.
    Raises UsageError for unknown names and AuditError when no usable column is left.
    """
    for name in [*(columns or ()), *exclude]:
        if name not in sample.columns:
            raise UsageError(f"there is no column {name!r}", f"the data's columns are {among(sample.columns, name)}")
    features = [name for name in sample.columns if name not in exclude and (columns is None or name in columns)]
    # Without their names, as polars takes some names (like "^a$" or "count") for more than a name.
    given = {name: sample[name].alias("") for name in features}
    texts = {
        name: figures_of(values.cast(pl.String).drop_nulls())
        for name, values in given.items()
        if _is_text(values.dtype)
    }
    decimals = decimals_of(texts)
    rules, dropped = [], {}
    for name in sample.columns:
        if name not in given:
            dropped[name] = "excluded"
            continue
        found = _rule(given[name], name, columns is not None, max(total or 0, sample.height), decimals.get(name))
        if isinstance(found, str):
            dropped[name] = found
        else:
            rules.append(replace(found, name=name))
    read = {rule.name for rule in rules if rule.kind != "categorical"}
    words = {
        name: text
        for name, text in texts.items()
        if name not in read and name not in decimals and not dropped.get(name, "").startswith("constant")
    }
    notes = text_notes(words) + point_notes({name: text for name, text in texts.items() if name in read}, decimals)
    notes += mark_notes({name: given[name].cast(pl.String).drop_nulls() for name in texts if name in read})
    notes += year_notes(
        {rule.name: (texts[rule.name], rule.format) for rule in rules if rule.name in texts and rule.kind == "datetime"}
    )
    notes += column_notes(sample.columns, rules, given | texts)
    if not rules:
        told = {name: why for name, why in dropped.items() if why != "excluded"} or dropped
        reasons = "; ".join(f"{name}: {why}" for name, why in list(told.items())[:4])
        raise AuditError(
            f"no usable column: {reasons or 'the table has none'}",
            next(
                iter(notes),
                "name features with --columns, or add some; for a column of image paths there is --image-column",
            ),
        )
    return TableSpec(columns=tuple(rules), dropped=dropped, notes=notes)


def _rule(values: pl.Series, name: str, asked: bool, total: int, decimal: Decimal | None) -> ColumnRule | str:
    """The rule of one column, or why it is dropped."""
    present = values.fill_nan(None).drop_nulls() if values.dtype.is_float() else values.drop_nulls()
    if present.len() == 0:
        return "all values missing"
    if not _is_plain(values.dtype):
        return f"nested or binary ({values.dtype})"
    distinct = present.n_unique()
    if distinct == 1 and (present.len() == values.len() or not _is_text(values.dtype)):
        return _constant(values, present)
    if values.dtype.is_numeric():
        if values.dtype.is_integer() and not asked and _identifies(name, present, values.len(), total):
            return "identifier (every value once)"
        return _indistinct(present.cast(pl.Float64), distinct) or _numeric(values, "numeric", "")
    if values.dtype == pl.Boolean:
        return _numeric(values, "boolean", "")
    if values.dtype.is_temporal():
        return _numeric(values, "datetime", "")
    return _text_rule(values.cast(pl.String), name, distinct, asked, total, decimal)


def _constant(values: pl.Series, present: pl.Series) -> str:
    """Why a column of one value is dropped: what is missing is a feature of words only, of others it is imputed."""
    return "constant" if present.len() == values.len() else "constant where it is not missing"


def _indistinct(numbers: pl.Series, distinct: int) -> str:
    """Why numbers of so many different values are dropped all the same; empty where they are not."""
    finite = numbers.filter(numbers.is_finite())
    if finite.n_unique() > 1:
        return ""
    if finite.len() < numbers.len():
        return "constant where it is finite"
    return "constant in double precision" if distinct > 1 else "constant"


def _is_text(dtype: pl.DataType) -> bool:
    return dtype == pl.String or dtype in (pl.Categorical, pl.Enum)


def _is_plain(dtype: pl.DataType) -> bool:
    """Whether one value of the type can be one number or one word."""
    known = (
        dtype.is_numeric() or dtype.is_temporal() or dtype in (pl.Boolean, pl.String, pl.Categorical, pl.Enum, pl.Null)
    )
    return known and not dtype.is_nested()


def _identifies(name: str, present: pl.Series, rows: int, total: int) -> bool:
    """Whether whole numbers number the rows: none comes twice, and they are dense (a counter) or the name says so."""
    if present.len() < 20 or present.n_unique() < present.len():
        return False
    span = int(present.max()) - int(present.min()) + 1  # type: ignore[arg-type]
    return span <= total * present.len() / rows or IDENTIFIER_NAME.search(name) is not None


def _text_rule(
    values: pl.Series, name: str, distinct: int, asked: bool, total: int, decimal: Decimal | None
) -> ColumnRule | str:
    present = values.drop_nulls()
    found = _of_figures(values, figures_of(present), name, asked, total, decimal)
    if found is not None:
        return found
    if distinct == present.len() and distinct >= 20 and not asked:
        return "identifier (every value once)"
    if distinct > MAX_CATEGORIES:
        return f"text of more than {MAX_CATEGORIES} different values"
    counts = present.value_counts().sort("")
    n = values.len()
    frequencies = [count / n for count in counts["count"].to_list()] + [values.null_count() / n]
    return ColumnRule(
        name=values.name, kind="categorical", categories=tuple(counts[""].to_list()), frequencies=tuple(frequencies)
    )


def _of_figures(
    values: pl.Series, bare: pl.Series, name: str, asked: bool, total: int, decimal: Decimal | None
) -> ColumnRule | str | None:
    """The rule of a text column whose texts are truth values, numbers or dates but for placeholders; None where they are none."""
    if bare.str.to_lowercase().is_in([*TRUE, *FALSE]).all():
        return _constant(values, bare) if bare.n_unique() == 1 else _numeric(values, "boolean", "")
    if decimal is not None:
        numbers = parse_numbers(bare, decimal)
        exact = whole_numbers(bare)
        known = numbers.drop_nulls() if exact is None else exact
        if known.n_unique() < 2:
            return _constant(values, bare)
        integers = known.len() == numbers.len() and bool((numbers.is_finite() & (numbers == numbers.floor())).all())
        if integers and not asked and _identifies(name, known, values.len(), total):
            return "identifier (every value once)"
        return _indistinct(numbers.drop_nulls(), known.n_unique()) or _numeric(values, "numeric", decimal)
    form = form_of(bare)
    if form is None:
        return None
    return _constant(values, bare) if bare.n_unique() == 1 else _numeric(values, "datetime", form)


def _numeric(values: pl.Series, kind: str, form: str) -> ColumnRule:
    rule = ColumnRule(name=values.name, kind=kind, format=form)  # type: ignore[arg-type]
    numbers, _ = _encode(values, rule)
    finite = numbers[np.isfinite(numbers)]
    top = max(float(np.max(np.abs(finite))), 1.0)  # divided out, so that values near the largest double don't overflow
    middle = float(np.median(finite / top)) * top
    away = np.abs(finite / top - middle / top)
    mad = float(np.median(away)) * 1.4826
    if mad == 0.0 and away.any():  # more than half the values are equal: the standard deviation still is a scale
        furthest = float(away.max())  # divided out, too: the squares of small numbers are 0
        mad = furthest * float(np.sqrt(np.mean((away / furthest) ** 2)))
    missing = 1.0 - len(finite) / max(len(numbers), 1)
    shares = [float(np.mean(numbers == value)) for value in (0.0, 1.0)] if kind == "boolean" else []
    return ColumnRule(values.name, rule.kind, (), form, middle, min(mad * top, LARGEST), (*shares, missing))


def encode(
    frame: pl.DataFrame, spec: TableSpec, refuse: bool = True
) -> tuple[npt.NDArray[np.float64], list[str | None]]:
    """float64[B, D] and, per row, why it could not be read (else None). NaN is missing; a category is its code.

    Raises AuditError when a column is missing or is of another type than at fit; text of which not one value parses is
    of another type too, unless `refuse` is off (it is for parts of a table: a run of bad rows is no wrong column).
    """
    reasons: list[str | None] = [None] * frame.height
    out = np.empty((frame.height, len(spec.columns)), dtype=np.float64)
    for j, rule in enumerate(spec.columns):
        if rule.name not in frame.columns:
            raise AuditError(
                f"column {rule.name!r} is missing; the model needs it",
                f"the data's columns are {among(frame.columns, rule.name)}",
            )
        out[:, j], bad = _encode(frame[rule.name].alias(""), rule, refuse)
        for i in bad:
            if reasons[i] is None:
                shown = str(frame[rule.name][i])[:40]
                reasons[i] = f"column {rule.name!r}: {shown!r} is not {_noun(rule)}"
    return out, reasons


_NOUNS = {"numeric": "a number", "boolean": "true or false", "datetime": "a date", "categorical": "text"}


def _noun(rule: ColumnRule) -> str:
    return "a number with a decimal comma" if rule.format == "," else _NOUNS[rule.kind]


def _encode(values: pl.Series, rule: ColumnRule, refuse: bool = True) -> tuple[npt.NDArray[np.float64], list[int]]:
    """One column to float64[B], and the rows whose value does not parse."""
    if rule.kind == "categorical":
        if not _is_plain(values.dtype):
            raise _wrong_type(values, rule)
        codes = {name: float(code) for code, name in enumerate(rule.categories)}
        known = values.cast(pl.String).replace_strict(codes, default=float(len(codes)), return_dtype=pl.Float64)
        return known.set(values.is_null(), None).to_numpy().astype(np.float64), []
    if values.dtype == pl.Null:
        return np.full(values.len(), np.nan), []
    if _is_text(values.dtype):
        words = without_placeholders(values.cast(pl.String))
        numbers = _parse_text(words, rule)
        bad = (numbers.is_null() & words.is_not_null()).arg_true().to_list()
        if refuse and bad and len(bad) == words.len() - words.null_count() and len(bad) >= 10:
            raise _wrong_type(words, rule)
        return numbers.to_numpy().astype(np.float64), bad
    if rule.kind == "datetime" and values.dtype.is_temporal():
        return seconds(values), []
    if rule.kind in ("numeric", "boolean") and (values.dtype.is_numeric() or values.dtype == pl.Boolean):
        return values.cast(pl.Float64).to_numpy().astype(np.float64), []
    raise _wrong_type(values, rule)


def _parse_text(values: pl.Series, rule: ColumnRule) -> pl.Series:
    if rule.kind == "numeric":
        return parse_numbers(values.str.strip_chars(), "," if rule.format == "," else "")
    if rule.kind == "boolean":
        table = {**dict.fromkeys(TRUE, 1.0), **dict.fromkeys(FALSE, 0.0), "1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0}
        return values.str.to_lowercase().replace_strict(table, default=None, return_dtype=pl.Float64)
    if rule.format:
        return pl.Series(seconds(dates(values, rule.format))).fill_nan(None)
    return pl.Series(read_dates(values, rule.median)).fill_nan(None)  # fitted on real dates, text here


def _wrong_type(values: pl.Series, rule: ColumnRule) -> AuditError:
    shown = f" ({str(values.drop_nulls()[0])[:40]!r})" if _is_text(values.dtype) else ""
    return AuditError(
        f"column {rule.name!r} is {values.dtype}{shown} here, but {rule.kind} in the model",
        f"convert the column to what can be read as {_noun(rule)}, or fit a new model",
    )
