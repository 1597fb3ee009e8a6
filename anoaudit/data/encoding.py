"""Columns to numbers by rules: decided once on the training data, kept in the manifest, applied unchanged at score.

numeric → float64 · boolean → 0/1 · date-times → seconds · text of few values → a code, with one code of its own for
values never seen. Missing and infinite values stay as they are here: the model's graph imputes them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl

from anoaudit.data.items import ColumnRule, TableSpec
from anoaudit.data.number_text import PARSED_SHARE, Decimal, decimals_of, parse_numbers, point_notes, text_notes
from anoaudit.errors import AuditError, UsageError, among

MAX_CATEGORIES = 64
LARGEST = float(np.finfo(np.float64).max)
IDENTIFIER_NAME = re.compile(r"(^|[_\W])(id|uuid|guid|key|index|rowid|row_id|idx)$", re.IGNORECASE)
LABEL_NAME = re.compile(r"^(is_?)?(anomal(y|ous)|outlier|label|target|truth|ground_?truth|y)$", re.IGNORECASE)
DATE_FORMATS = (
    "%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%dT%H:%M:%S%.fZ", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M",
    "%Y/%m/%d %H:%M:%S", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y", "%d/%m/%Y %H:%M:%S", "%Y-%m-%d", "%Y/%m/%d", "%d/%m/%Y",
    "%Y-%m-%d %H:%M:%S%.f%z", "%Y-%m-%dT%H:%M", "%m/%d/%Y", "%m/%d/%Y %H:%M:%S", "%H:%M:%S%.f", "%H:%M",
)  # fmt: skip
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
    texts = {name: values.cast(pl.String).drop_nulls() for name, values in given.items() if _is_text(values.dtype)}
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
    notes += _truth_notes(rules, given) + _bytes_notes(sample.columns) + _header_notes(sample.columns)
    notes += _precision_notes({rule.name: given[rule.name] for rule in rules if rule.kind == "numeric"})
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


def _whole(present: pl.Series) -> pl.Series | None:
    """Whole numbers exactly, which doubles are not beyond 2**53; None where some are none."""
    if present.dtype.is_integer():
        return present
    exact = present.cast(pl.Int128, strict=False) if present.dtype == pl.String else present
    return exact if exact.dtype == pl.Int128 and exact.null_count() == 0 else None


def _bytes_notes(names: Sequence[str]) -> tuple[str, ...]:
    """What to tell of names with bytes that are not UTF-8, which a CSV reader gives as escapes."""
    odd = [name for name in names if re.search(r"\\x[89a-f][0-9a-f]", name)]
    if not odd:
        return ()
    return (
        f"not UTF-8: {among(odd)}; to have such text as it was meant, convert the file, with iconv -f latin1 -t utf-8 say",
    )


def _header_notes(names: Sequence[str]) -> tuple[str, ...]:
    """What to tell of names that are all numbers and no counter, as pandas' are: a row, where a file has no header."""
    try:
        figures = [float(name) for name in names]
    except ValueError:
        return ()
    if not figures or sorted(figures) == [min(figures) + k for k in range(len(figures))]:
        return ()
    return (
        f"the columns' names are numbers: {among(names)}; if that line is a row of data, put a header line before it",
    )


def _truth_notes(rules: Sequence[ColumnRule], columns: Mapping[str, pl.Series]) -> tuple[str, ...]:
    """What to tell of features that look like the answer: a name for labels, and two values."""
    odd = [
        rule.name for rule in rules if LABEL_NAME.search(rule.name) and columns[rule.name].drop_nulls().n_unique() == 2
    ]
    if not odd:
        return ()
    return (
        f"used as a feature, though it looks like labels: {among(odd)}; if it is the truth, say --truth {odd[0]}, or leave it "
        f"out with --exclude {odd[0]}",
    )


def _precision_notes(columns: Mapping[str, pl.Series]) -> tuple[str, ...]:
    """What to tell of whole numbers so large that a model, which sees doubles, takes different ones for equal."""
    odd = []
    for name, values in columns.items():
        exact = _whole(values.drop_nulls())
        if exact is None or max(abs(int(exact.max())), abs(int(exact.min()))) <= 2**53:  # type: ignore[arg-type]
            continue
        before, after = exact.n_unique(), exact.cast(pl.Float64).n_unique()
        if after < PARSED_SHARE * before:
            odd.append(f"{name} ({before:,} values become {after:,})")
    if not odd:
        return ()
    return (f"too large to be told apart in double precision: {among(odd)}; subtract a constant from these",)


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
    if present.str.to_lowercase().is_in([*TRUE, *FALSE]).all():
        return _constant(values, present) if distinct == 1 else _numeric(values, "boolean", "")
    if decimal is not None:
        numbers = parse_numbers(present, decimal)
        exact = _whole(present)
        known = numbers.drop_nulls() if exact is None else exact
        if known.n_unique() < 2:
            return _constant(values, present)
        integers = known.len() == numbers.len() and bool((numbers.is_finite() & (numbers == numbers.floor())).all())
        if integers and not asked and _identifies(name, known, values.len(), total):
            return "identifier (every value once)"
        return _indistinct(numbers.drop_nulls(), known.n_unique()) or _numeric(values, "numeric", decimal)
    for form in DATE_FORMATS:
        if _dates(present, form).is_not_null().mean() >= PARSED_SHARE:  # type: ignore[operator]
            return _constant(values, present) if distinct == 1 else _numeric(values, "datetime", form)
    if distinct == present.len() and distinct >= 20 and not asked:
        return "identifier (every value once)"
    if distinct > MAX_CATEGORIES:
        return f"text with {distinct} different values (at most {MAX_CATEGORIES} make a category)"
    counts = present.value_counts().sort("")
    n = values.len()
    frequencies = [count / n for count in counts["count"].to_list()] + [values.null_count() / n]
    return ColumnRule(
        name=values.name, kind="categorical", categories=tuple(counts[""].to_list()), frequencies=tuple(frequencies)
    )


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
        numbers = _parse_text(values.cast(pl.String), rule)
        bad = (numbers.is_null() & values.is_not_null()).arg_true().to_list()
        if refuse and bad and len(bad) == values.len() - values.null_count() and len(bad) >= 10:
            raise _wrong_type(values, rule)
        return numbers.to_numpy().astype(np.float64), bad
    if rule.kind == "datetime" and values.dtype.is_temporal():
        return _seconds(values), []
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
        return pl.Series(_seconds(_dates(values, rule.format))).fill_nan(None)
    # Fitted on real dates, text here: the form that reads most.
    return max((pl.Series(_seconds(_dates(values, form))).fill_nan(None) for form in DATE_FORMATS), key=pl.Series.count)


def _dates(values: pl.Series, form: str) -> pl.Series:
    try:
        if form.startswith("%H"):
            return values.str.to_time(form, strict=False)
        if any(part in form for part in ("%H", "%S")):
            dates = values.str.to_datetime(form, strict=False, time_unit="us")
            return dates.dt.replace_time_zone(None) if "%z" in form else dates
        return values.str.to_date(form, strict=False).cast(pl.Datetime("us"))
    except pl.exceptions.PolarsError:
        return pl.Series(values.name, [None] * values.len(), dtype=pl.Datetime("us"))


def _seconds(values: pl.Series) -> npt.NDArray[np.float64]:
    """Date-times as seconds since 1970 (UTC), times and durations as seconds; null is NaN."""
    if values.dtype == pl.Time:
        ticks, scale = values.to_physical().cast(pl.Float64), 1e9
    elif values.dtype == pl.Date:
        ticks, scale = values.to_physical().cast(pl.Float64), 1 / 86400
    else:
        unit = getattr(values.dtype, "time_unit", "us")
        ticks, scale = values.to_physical().cast(pl.Float64), {"ns": 1e9, "us": 1e6, "ms": 1e3}[unit]
    return ticks.to_numpy().astype(np.float64) / scale


def _wrong_type(values: pl.Series, rule: ColumnRule) -> AuditError:
    shown = f" ({str(values.drop_nulls()[0])[:40]!r})" if _is_text(values.dtype) else ""
    return AuditError(
        f"column {rule.name!r} is {values.dtype}{shown} here, but {rule.kind} in the model",
        f"convert the column to what can be read as {_noun(rule)}, or fit a new model",
    )
