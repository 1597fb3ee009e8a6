"""What to tell of a table's columns before a fit: names and values that may not be what they seem."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import polars as pl

from anoaudit.data.items import ColumnRule
from anoaudit.data.number_text import PARSED_SHARE
from anoaudit.errors import among

LABEL_NAME = re.compile(r"^(is_?)?(anomal(y|ous)|outlier|label|target|truth|ground_?truth|y)$", re.IGNORECASE)


def column_notes(
    names: Sequence[str], rules: Sequence[ColumnRule], columns: Mapping[str, pl.Series]
) -> tuple[str, ...]:
    """All of these notes; `names` are those of all columns, `columns` the values of those that may be features."""
    numeric = {rule.name: columns[rule.name] for rule in rules if rule.kind == "numeric"}
    return _truth_notes(rules, columns) + _bytes_notes(names) + _header_notes(names) + _precision_notes(numeric)


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
        exact = whole_numbers(values.drop_nulls())
        if exact is None or max(abs(int(exact.max())), abs(int(exact.min()))) <= 2**53:  # type: ignore[arg-type]
            continue
        before, after = exact.n_unique(), exact.cast(pl.Float64).n_unique()
        if after < PARSED_SHARE * before:
            odd.append(f"{name} ({before:,} values become {after:,})")
    if not odd:
        return ()
    return (f"too large to be told apart in double precision: {among(odd)}; subtract a constant from these",)


def whole_numbers(present: pl.Series) -> pl.Series | None:
    """Whole numbers exactly, which doubles are not beyond 2**53; None where some are none."""
    if present.dtype.is_integer():
        return present
    exact = present.cast(pl.Int128, strict=False) if present.dtype == pl.String else present
    return exact if exact.dtype == pl.Int128 and exact.null_count() == 0 else None
