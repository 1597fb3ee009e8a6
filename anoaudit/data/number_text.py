"""Numbers that are written as text: with a decimal point or a decimal comma, and those that only a reader takes for numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import polars as pl

from anoaudit.errors import among

PARSED_SHARE = (
    0.95  # a text column is numeric (or dates) when this share of its values parses; the rest are unreadable rows
)
MANY = 20  # different texts beside a mark are no words among marks
SIGN = r"[+<>=±≤≥]"  # says something wherever it stands
Decimal = Literal["", ","]  # the decimal sign: "" is the point, and what a column rule's `format` holds

# `20,8`, `1.234,5`: points group thousands only where a comma follows, as `1.234` alone may be either.
COMMA = r"^[+-]?(\d*|\d{1,3}(\.\d{3})+),\d+([eE][+-]?\d+)?$"
THOUSANDS = r"^[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d+)?$"  # `1,544`, which is a number with a decimal comma, too
GROUPED = r"^[+-]?[1-9]\d{0,2}(\.\d{3})+$"  # the same with points
# `17%`, `$1,544.00`, `(1 544)`, `12,5 °C`: one number, signs around it or thousands marked. 2212 is the minus sign, 2019 an
# apostrophe.
MARKED = (
    r"^\(?[+\-\u{2212}]?\s?\p{Sc}?\s?[+\-\u{2212}]?(\d+([.,]\d+)?|\d{1,3}([.,'\u{2019}\s]\d{3})+([.,]\d+)?)"
    r"\s?(%|‰|°[CF]?|\p{Sc})?\)?$"
)


def without_placeholders(text: pl.Series) -> pl.Series:
    """Null where there is no letter, figure or SIGN: among numbers or dates `-`, `?` or `.` says that there is none."""
    word = pl.col("")  # no name of a column, see `infer_spec`
    said = pl.when(word.str.contains(r"[\p{L}\p{N}]") | word.str.contains(SIGN)).then(word)
    return text.alias("").to_frame().select(said).to_series()


def figures_of(present: pl.Series) -> pl.Series:
    """The texts of a column but for its marks, where these can only say that there is nothing; else all of them.

    Marks are words of their own where there is little else; as long as texts are few, also where a sign stands alone beside
    them (`+` and `-`, `<` and `>`).
    """
    bare = without_placeholders(present).drop_nulls()
    distinct = bare.n_unique()
    if distinct >= MANY:
        return bare
    signs = not bare.str.contains(r"[\p{L}\p{N}]").all()
    return bare if distinct > 1 and 2 * bare.len() >= present.len() and not signs else present


def mark_notes(texts: Mapping[str, pl.Series]) -> tuple[str, ...]:
    """What to tell of the marks in columns (nulls left out) that are read as numbers, dates or true and false."""
    marks = {name: present.filter(without_placeholders(present).is_null()) for name, present in texts.items()}
    odd = [f"{name} ({_named(found.unique().sort())})" for name, found in marks.items() if found.len()]
    return (f"taken as missing: {among(odd)}",) if odd else ()


def _named(marks: pl.Series) -> str:
    """A few of them, each cut to a dozen characters."""
    shown = ", ".join(repr(mark if len(mark) <= 12 else f"{mark[:11]}…") for mark in marks[:3])
    return shown + (f" and {marks.len() - 3} more" if marks.len() > 3 else "")


def parse_numbers(text: pl.Series, decimal: Decimal) -> pl.Series:
    """Float64 of text without outer blanks; null where it is no number of that decimal sign."""
    if not decimal:
        return text.cast(pl.Float64, strict=False)
    word = pl.col("")  # no name of a column, see `infer_spec`
    pointed = word.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
    chosen = pl.when(word.str.contains(COMMA)).then(pointed).when(~word.str.contains(r"[.,]")).then(word)
    return text.alias("").to_frame().select(chosen.cast(pl.Float64, strict=False)).to_series()


def decimals_of(texts: Mapping[str, pl.Series]) -> dict[str, Decimal]:
    """The decimal sign of each column of texts (nulls left out) that holds numbers.

    Where the commas of one column may as well group thousands, the table's other columns decide: a table has one sign.
    """
    found = {name: _decimal_of(present) for name, present in texts.items() if present.len()}
    open_ones: Decimal | None = "," if "," in found.values() else None
    settled = ((name, open_ones if sign == "?" else sign) for name, sign in found.items())
    return {name: sign for name, sign in settled if sign is not None}


def _decimal_of(present: pl.Series) -> Literal["", ",", "?"] | None:
    """The sign with which nearly all texts are numbers, None where they are none.

    "?" where the commas may as well group thousands: hardly one of them is without three digits behind it.
    """
    with_point = _share(parse_numbers(present, "").is_not_null())
    by_point: Literal[""] | None = "" if with_point >= PARSED_SHARE else None
    if with_point == 1.0:
        return by_point
    with_comma = _share(parse_numbers(present, ",").is_not_null())
    if with_comma < PARSED_SHARE or with_comma <= with_point:
        return by_point
    if _share(_with(present, ",").str.contains(THOUSANDS)) < PARSED_SHARE:
        return ","
    return "?" if by_point is None else by_point


def text_notes(texts: Mapping[str, pl.Series]) -> tuple[str, ...]:
    """What to tell of columns that are taken as text although a reader takes nearly all of their texts for numbers."""
    odd = {name: present for name, present in texts.items() if _share(present.str.contains(MARKED)) >= PARSED_SHARE}
    if not odd:
        return ()
    shown = [f"{name} ({_example(present)})" for name, present in odd.items()]
    return (
        f"taken as text, not as numbers: {among(shown)}; to have them used as numbers, write these bare, such as 1544.5",
    )


def _example(present: pl.Series) -> str:
    commas = present.filter(present.str.contains(THOUSANDS))
    if commas.len() and _decimal_of(present) == "?":
        return f"{commas[0]!r}: a decimal comma, or thousands?"
    marked = present.filter(present.str.contains(MARKED))
    bare = parse_numbers(marked, "").is_not_null()
    return repr((marked if bare.all() else marked.filter(~bare))[0])


def point_notes(texts: Mapping[str, pl.Series], decimals: Mapping[str, Decimal]) -> tuple[str, ...]:
    """What to tell of columns read with a decimal point, where others have a comma and these may mean thousands by it."""
    pointed = {name: _with(texts[name], ".") for name in texts if decimals.get(name) == ""}
    odd = [
        f"{name} ({present[0]!r})"
        for name, present in pointed.items()
        if present.len() and present.str.contains(GROUPED).all()
    ]
    if not odd or "," not in decimals.values():
        return ()
    return (
        f"read with a decimal point, though other columns have a decimal comma: {among(odd)}; "
        "if the point groups thousands, write these without it",
    )


def _with(present: pl.Series, sign: str) -> pl.Series:
    return present.filter(present.str.contains(sign, literal=True))


def _share(found: pl.Series) -> float:
    return float(found.mean() or 0.0)  # type: ignore[arg-type]
