"""Dates and times that are written as text: which form a column has, and what its texts mean."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np
import numpy.typing as npt
import polars as pl

from anoaudit.data.number_text import PARSED_SHARE
from anoaudit.errors import among

CLOCKS = ("", " %H:%M", " %H:%M:%S")
#: The first that fits is a column's; of those whose year has two figures see `form_of`.
FORMS = (
    "%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%dT%H:%M:%S%.fZ", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M",
    "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d.%m.%Y", "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M", "%Y-%m-%d", "%Y/%m/%d", "%d/%m/%Y", "%Y-%m-%d %H:%M:%S%.f%z", "%Y-%m-%dT%H:%M", "%m/%d/%Y",
    "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%H:%M:%S%.f", "%H:%M", *map("".join, product(("%d-%m-%Y", "%m-%d-%Y"), CLOCKS)),
)  # fmt: skip
SHORT_FORMS = tuple(
    f"{date}{clock}"
    for mark in "./-"
    for clock in CLOCKS
    for date in (f"%d{mark}%m{mark}%y", f"%m{mark}%d{mark}%y", f"%y{mark}%m{mark}%d")
)
WORDS = {"%d": "day", "%m": "month", "%y": "year"}


def form_of(present: pl.Series) -> str | None:
    """The form that nearly all texts of a column have (nulls left out), None where they are no dates.

    Where years have two figures, several may fit: then the one that reads most texts, of equals the first. The year stands in
    front only where dates lie closer together so, and what would be the days then spreads over half a month and more (our choice).
    """
    if (present.str.contains(r"^\+?\d{1,6}\D").mean() or 0.0) < PARSED_SHARE:  # type: ignore[operator]
        return None  # most texts: there is no need to try all forms on them
    enough = PARSED_SHARE * present.len()
    for form in FORMS:
        if dates(present, form).count() >= enough:
            return form
    read = {form: dates(present, form).drop_nulls() for form in SHORT_FORMS}
    most = max(found.len() for found in read.values())
    if most < max(enough, 1):
        return None
    best = [form for form, found in read.items() if found.len() == most]
    front = next((form for form in best if form.startswith("%y")), None)
    back = next((form for form in best if not form.startswith("%y")), None)
    if front is None or back is None:
        return front or back
    days = float(np.ptp(np.quantile(read[front].dt.day().to_numpy(), [0.05, 0.95])))
    return front if days >= 15 and _spread(read[front]) < _spread(read[back]) else back


def _spread(found: pl.Series) -> float:
    return float(np.ptp(np.quantile(seconds(found), [0.05, 0.95])))


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


def read_dates(text: pl.Series, near: float) -> npt.NDArray[np.float64]:
    """Seconds of texts whose form nobody knows, NaN where they are none: of the forms that read most the one whose median is
    nearest to `near`, in seconds.
    """

    def merit(read: npt.NDArray[np.float64]) -> tuple[int, float]:
        known = read[~np.isnan(read)]
        return len(known), -abs(float(np.median(known)) - near) if len(known) else 0.0

    return max((seconds(dates(text, form)) for form in (*FORMS, *SHORT_FORMS)), key=merit)


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
    if form.startswith("%Y"):
        pattern = r"^(\d{4}|\+\d+)\D"
    elif form.startswith("%y"):
        pattern = r"^\d{2}\D"
    else:
        figures = r"\d{4}" if "%Y" in form else r"\d{2}"
        # Blanks before month and year are read, too: `5. 1. 2023`.
        pattern = rf"^\d{{1,2}}\D+\d{{1,2}}\D+{figures}(\D|$)"
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
