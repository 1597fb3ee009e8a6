"""Dates and times that are written as text: which form a column has, and what its texts mean."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np
import numpy.typing as npt
import polars as pl

from anoaudit.data.number_text import PARSED_SHARE
from anoaudit.errors import among

#: The first that fits is a column's; of those whose year has two figures see `form_of`.
FORMS = (
    "%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%dT%H:%M:%S%.fZ", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M",
    "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d.%m.%Y", "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M", "%Y-%m-%d", "%Y/%m/%d", "%d/%m/%Y", "%Y-%m-%d %H:%M:%S%.f%z", "%Y-%m-%dT%H:%M", "%m/%d/%Y",
    "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%H:%M:%S%.f", "%H:%M",
    *map("".join, product(("%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%y/%m/%d", "%y-%m-%d"), ("", " %H:%M", " %H:%M:%S"))),
)  # fmt: skip
WORDS = {"%d": "day", "%m": "month", "%y": "year"}


def form_of(present: pl.Series) -> str | None:
    """The form that nearly all texts of a column have (nulls left out), None where they are no dates.

    Where years have two figures, days or months may be taken for them: then that reading counts whose dates lie closest
    together, by far, as those of a table mostly do; else the one that stands first.
    """
    if (present.str.contains(r"^\d{1,4}\D").mean() or 0.0) < PARSED_SHARE:  # type: ignore[operator]
        return None  # most texts: there is no need to try all forms on them
    chosen, least = None, np.inf
    for form in FORMS:
        found = dates(present, form).drop_nulls()
        if found.len() < PARSED_SHARE * present.len() or found.len() == 0:
            continue
        if "%y" not in form:
            return form
        low, high = np.quantile(seconds(found), [0.05, 0.95])
        if high - low < least / 2:
            chosen, least = form, high - low
    return chosen


def year_notes(columns: Mapping[str, tuple[pl.Series, str]]) -> tuple[str, ...]:
    """What to tell of columns (texts and form) whose years have two figures: as what these are read."""
    odd = []
    for name, (present, form) in columns.items():
        if "%y" in form:
            read = dates(present, form)
            order = "/".join(WORDS[part] for part in form.replace(".", "/").replace("-", "/").split(" ")[0].split("/"))
            at = int(read.is_not_null().arg_max() or 0)
            years = " to ".join(str(year) for year in (read.dt.year().min(), read.dt.year().max()))
            odd.append(f"{name} (as {order}: {present[at]!r} is {read.dt.to_string('%Y-%m-%d')[at]}; {years})")
    if not odd:
        return ()
    return (f"years of two figures: {among(odd)}; if that is not meant, write them with four",)


def dates(text: pl.Series, form: str) -> pl.Series:
    """Datetime or Time of the texts in this form, null where they have another."""
    try:
        if form.startswith("%H"):
            return text.str.to_time(form, strict=False)
        text = _with_whole_years(text, form)
        if "%H" in form:
            found = text.str.to_datetime(form, strict=False, time_unit="us")
            return found.dt.replace_time_zone(None) if "%z" in form else found
        return text.str.to_date(form, strict=False).cast(pl.Datetime("us"))
    except pl.exceptions.PolarsError:
        return pl.Series(text.name, [None] * text.len(), dtype=pl.Datetime("us"))


def _with_whole_years(text: pl.Series, form: str) -> pl.Series:
    """Null where the year has not as many figures as the form says: polars reads `23/02/24` as of the year 23, too."""
    figures = r"\d{4}" if "%Y" in form else r"\d{2}"
    first = form[1] in "Yy"
    pattern = rf"^{figures}\D" if first else rf"^\d{{1,2}}\D\d{{1,2}}\D{figures}(\D|$)"
    word = pl.col("")  # no name of a column, see `infer_spec`
    return text.alias("").to_frame().select(pl.when(word.str.contains(pattern)).then(word)).to_series()


def seconds(values: pl.Series) -> npt.NDArray[np.float64]:
    """Date-times as seconds since 1970 (UTC), times and durations as seconds; null is NaN."""
    if values.dtype == pl.Time:
        ticks, scale = values.to_physical().cast(pl.Float64), 1e9
    elif values.dtype == pl.Date:
        ticks, scale = values.to_physical().cast(pl.Float64), 1 / 86400
    else:
        unit = getattr(values.dtype, "time_unit", "us")
        ticks, scale = values.to_physical().cast(pl.Float64), {"ns": 1e9, "us": 1e6, "ms": 1e3}[unit]
    return ticks.to_numpy().astype(np.float64) / scale
