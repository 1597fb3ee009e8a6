"""Columns to numbers: what becomes a feature, what does not and why, and that Parquet and CSV agree to the last bit."""

from __future__ import annotations

import datetime as dt
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from anoaudit.data.encoding import encode, infer_spec
from anoaudit.data.items import ColumnRule, ImageSpec, TableSpec, spec_from_json
from anoaudit.data.rows import RawRows, read_rows
from anoaudit.errors import AuditError, UsageError

N = 60


def spec_of(total: int | None = None, columns: list[str] | None = None, **values: Any) -> TableSpec:
    return infer_spec(pl.DataFrame({"x": np.random.default_rng(0).normal(size=N), **values}), columns, [], total)


def rule_of(values: Any, name: str = "it") -> ColumnRule | str:
    spec = spec_of(**{name: values})
    return next((rule for rule in spec.columns if rule.name == name), None) or spec.dropped[name]


def column(values: Any, rule: ColumnRule) -> tuple[list[float], list[str | None]]:
    numbers, reasons = encode(pl.DataFrame({rule.name: values}), TableSpec((rule,)))
    return numbers[:, 0].tolist(), reasons


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (range(N), "identifier"),
        (range(1000, 1000 - N, -1), "identifier"),
        (np.random.default_rng(0).permutation(N), "identifier"),
        ([str(i) for i in range(N)], "identifier"),
        ([f"{i:032x}-{i}" for i in range(N)], "identifier"),
        ([7] * N, "constant"),
        ([7, None] * (N // 2), "constant where it is not missing"),
        ([True, None] * (N // 2), "constant where it is not missing"),
        (["true", None] * (N // 2), "constant where it is not missing"),
        (["2024-01-01", None] * (N // 2), "constant where it is not missing"),
        ([2**60 + i % 3 for i in range(N)], "constant in double precision"),
        ([str(2**60 + i % 3) for i in range(N)], "constant in double precision"),
        ([2**60 + i for i in range(N)], "identifier"),
        ([str(2**60 + i) for i in range(N)], "identifier"),
        (["1", "inf"] * (N // 2), "constant where it is finite"),
        (["a"] * N, "constant"),
        (["1.0"] * (N - 1) + ["1"], "constant"),
        ([1.0, math.inf] * (N // 2), "constant where it is finite"),
        ([None] * N, "all values missing"),
        ([math.nan] * N, "all values missing"),
        ([[1]] * N, "nested"),
        ([{"a": 1}] * N, "nested"),
        ([b"a", b"b"] * (N // 2), "nested or binary"),
    ],
)
def test_what_is_no_feature(values: Any, why: str) -> None:
    found = rule_of(list(values))
    assert isinstance(found, str)
    assert found.startswith(why)


@pytest.mark.parametrize("name", ["id", "user_id", "Order-ID", "uuid", "rowid", "idx", "index"])
def test_unique_numbers_that_are_called_identifiers(name: str) -> None:
    values = [i * 1_000_003 % 999_999_937 for i in range(N)]
    assert rule_of(values, name) == "identifier (every value once)"
    assert rule_of([str(v) for v in values], name) == "identifier (every value once)"
    assert isinstance(rule_of(values, "width"), ColumnRule)  # "id" has to be the whole word
    assert isinstance(rule_of([i % 9 for i in range(N)], name), ColumnRule)  # and every value has to come once


def test_a_counter_has_gaps_in_a_sample() -> None:
    every_third = list(range(5, 5 + 3 * N, 3))
    assert spec_of(total=3 * N, n=every_third).dropped == {"n": "identifier (every value once)"}
    assert spec_of(total=3 * N, n=[str(i) for i in every_third]).dropped == {"n": "identifier (every value once)"}
    assert spec_of(n=every_third).dropped == {}


def test_epoch_seconds_are_no_identifier() -> None:
    rng = np.random.default_rng(0)
    epoch = (1_700_000_000 + np.cumsum(rng.integers(1, 90, N))).tolist()
    for values in (epoch, [str(v) for v in epoch], [v * 1000 for v in epoch]):
        rule = rule_of(values, "timestamp")
        assert isinstance(rule, ColumnRule)
        assert rule.kind == "numeric"
        assert column(values, rule)[0] == [float(v) for v in values]


def test_columns_that_are_asked_for_are_kept() -> None:
    spec = spec_of(columns=["n", "word"], n=range(N), word=[f"w{i}" for i in range(N)])
    assert [rule.name for rule in spec.columns] == ["n", "word"]
    assert spec.dropped == {"x": "excluded"}


def test_too_many_words_and_just_enough() -> None:
    words = [f"word {i % 70}" for i in range(200)]
    assert (
        infer_spec(pl.DataFrame({"w": words, "x": [float(i * i) for i in range(200)]}), None, []).dropped["w"]
        == "text of more than 64 different values"
    )
    rule = rule_of([f"w{i % 50}" for i in range(N)])
    assert isinstance(rule, ColumnRule)
    assert len(rule.categories) == 50


def test_whole_numbers_that_doubles_hardly_tell_apart_are_named() -> None:
    """Doubles are 256 apart at 2**60."""
    values = [2**60 + 7 * i % 400 for i in range(N)]
    for ticks in (values, [str(v) for v in values]):
        (note,) = spec_of(ticks=ticks).notes
        assert "ticks (60 values become 3)" in note
        assert "subtract a constant" in note
    nanoseconds = [1_700_000_000 * 10**9 + 997 * i * i for i in range(N)]
    assert spec_of(when=nanoseconds, small=[i * i for i in range(N)]).notes == ()


def test_one_word_or_none_is_a_feature() -> None:
    found = rule_of(["a", None] * (N // 2))
    assert not isinstance(found, str)
    assert (found.kind, found.categories) == ("categorical", ("a",))


def test_categories_unseen_and_missing() -> None:
    rule = rule_of(["b", "a", None] * (N // 3))
    assert isinstance(rule, ColumnRule)
    assert (rule.kind, rule.categories) == ("categorical", ("a", "b"))
    assert rule.frequencies == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    numbers, reasons = column(["a", "new", None, "b", "A"], rule)
    np.testing.assert_array_equal(numbers, [0, 2, np.nan, 1, 2])
    assert reasons == [None] * 5
    for kind in (pl.Categorical, pl.Enum(["a", "b", "z"])):
        np.testing.assert_array_equal(column(pl.Series(["a", None, "z"], dtype=kind), rule)[0], [0, np.nan, 2])
    assert all(math.isnan(v) for v in column([None, None], rule)[0])
    assert column([1, 2], rule)[0] == [2.0, 2.0]


@pytest.mark.parametrize("name", ["count", "", "it", "literal", "index", "len", "*", "^x$", "a.b"])
def test_any_name_may_be_a_column(name: str) -> None:
    rule = rule_of(["b", "a", "a"] * (N // 3), name)
    assert isinstance(rule, ColumnRule)
    assert rule.frequencies == pytest.approx((2 / 3, 1 / 3, 0))
    assert column(["b"], rule)[0] == [1.0]


@pytest.mark.parametrize("forms", [("true", "false"), ("True", "False"), ("T", "F"), ("yes", "NO"), ("y", "n")])
def test_boolean_words(forms: tuple[str, str]) -> None:
    values = [forms[0], forms[1], None] * (N // 3)
    rule = rule_of(values)
    assert isinstance(rule, ColumnRule)
    assert rule.kind == "boolean"
    numbers, reasons = column([forms[0], forms[1], None, "1", "0", "perhaps"], rule)
    np.testing.assert_array_equal(numbers, [1, 0, np.nan, 1, 0, np.nan])
    assert reasons == [None] * 5 + ["column 'it': 'perhaps' is not true or false"]
    assert column([True, False], rule)[0] == [1.0, 0.0]


MOMENTS = [dt.datetime(2023, 12, 25, 13, 1, 7) + dt.timedelta(hours=31 * i) for i in range(N)]


@pytest.mark.parametrize(
    ("form", "exact"),
    [
        ("%Y-%m-%dT%H:%M:%S", 1), ("%Y-%m-%dT%H:%M:%SZ", 1), ("%Y-%m-%dT%H:%M:%S.%f", 1), ("%Y-%m-%d %H:%M:%S", 1),
        ("%Y-%m-%dT%H:%M:%S+0000", 1), ("%Y-%m-%dT%H:%M:%S+00:00", 1), ("%Y-%m-%d %H:%M:%S+00:00", 1),
        ("%Y-%m-%d %H:%M:%S.%f+00:00", 1), ("%Y-%m-%d %H:%M", 60), ("%Y-%m-%dT%H:%M", 60), ("%Y-%m-%d", 86400),
        ("%d.%m.%Y", 86400), ("%d.%m.%Y %H:%M:%S", 1), ("%d/%m/%Y", 86400), ("%m/%d/%Y", 86400), ("%Y/%m/%d", 86400),
        ("%d.%m.%Y %H:%M", 60), ("%d/%m/%Y %H:%M", 60), ("%m/%d/%Y %H:%M", 60), ("%Y/%m/%d %H:%M", 60),
        ("%d.%m.%y", 86400), ("%d.%m.%y %H:%M", 60), ("%d/%m/%y", 86400), ("%d/%m/%y %H:%M", 60), ("%m/%d/%y", 86400),
        ("%m/%d/%y %H:%M", 60), ("%y/%m/%d", 86400), ("%y-%m-%d", 86400), ("%d.%m.%y %H:%M:%S", 1), ("%y/%m/%d %H:%M:%S", 1),
        ("%d-%m-%Y", 86400), ("%m-%d-%Y", 86400), ("%d-%m-%y", 86400), ("%m-%d-%y", 86400), ("%y.%m.%d", 86400),
        ("%d. %m. %Y", 86400), ("%d. %m. %y", 86400), ("%d/ %m/%Y", 86400), ("+%Y-%m-%d", 86400),
    ],
)  # fmt: skip
def test_date_formats(form: str, exact: int) -> None:
    values = [moment.strftime(form) for moment in MOMENTS]
    rule = rule_of(values)
    assert isinstance(rule, ColumnRule)
    assert rule.kind == "datetime"
    expected = [moment.replace(tzinfo=dt.UTC).timestamp() // exact * exact for moment in MOMENTS]
    assert column(values, rule) == (expected, [None] * N)
    numbers, reasons = column([values[0], "soon", None], rule)
    assert math.isnan(numbers[1])
    assert reasons == [None, "column 'it': 'soon' is not a date", None]


def test_years_of_two_figures_are_told() -> None:
    for form, order in (("%d.%m.%y", "day/month/year"), ("%y/%m/%d", "year/month/day")):
        texts = [moment.strftime(form) for moment in MOMENTS]
        (note,) = infer_spec(pl.DataFrame({"when": texts}), None, []).notes
        assert note.startswith(f"years of two figures: when (as {order}: {texts[0]!r} is 2023-12-25; 2023 to ")
    assert infer_spec(pl.DataFrame({"when": [moment.strftime("%d.%m.%Y") for moment in MOMENTS]}), None, []).notes == ()


def test_which_field_of_a_short_date_is_the_year() -> None:
    def form(days: list[dt.date], written: str) -> str:
        rule = rule_of([day.strftime(written) for day in days])
        assert isinstance(rule, ColumnRule)
        return rule.format

    monthly = [dt.date(2019 + k // 12, k % 12 + 1, 1) for k in range(N)]
    quarterly = [dt.date(2023, 3 * (k % 4) + 1, 1) for k in range(N)]
    for days in (monthly, quarterly):  # the day is the same throughout, which makes it no year
        assert form(days, "%d/%m/%y") == "%d/%m/%y"
    late = [*[dt.date(2023, k % 12 + 1, 1) for k in range(N - 2)], dt.date(2023, 12, 31), dt.date(2023, 10, 31)]
    assert form(late, "%d/%m/%y") == "%d/%m/%y"  # what reads more texts is better
    assert form(late, "%m/%d/%y") == "%m/%d/%y"
    long = [dt.date(2001, 1, 1) + dt.timedelta(days=140 * k) for k in range(N)]
    for written in ("%y/%m/%d", "%d/%m/%y"):
        assert form(long, written) == written


def test_the_first_of_all_years_is_far_off_and_no_gap() -> None:
    texts = [moment.isoformat() for moment in MOMENTS]
    for every in (5, 50):  # .NET's smallest date stands for "none", often or rarely
        given = ["0001-01-01T00:00:00" if i % every == 0 else text for i, text in enumerate(texts)]
        rule = rule_of(given)
        assert isinstance(rule, ColumnRule)
        numbers, reasons = column(given, rule)
        assert reasons == [None] * N
        assert numbers == column([dt.datetime.fromisoformat(text) for text in given], rule)[0]
    versions = {
        "version": [f"{k % 9 + 1}.{k % 7}.{k % 8}" for k in range(200)] * 2,
        "x": [float(k * k) for k in range(400)],
    }
    assert infer_spec(pl.DataFrame(versions), None, []).dropped == {"version": "text of more than 64 different values"}


def test_a_stray_sign_does_not_make_words_of_numbers() -> None:
    rule = rule_of(["+" if k == 5 else "-" if k % 10 == 0 else f"{k / 7:.3f}" for k in range(N)])
    assert isinstance(rule, ColumnRule)
    assert rule.kind == "numeric"
    assert column(["+", "-", "1.5"], rule)[1] == ["column 'it': '+' is not a number", None, None]


def test_time_of_day_as_text() -> None:
    rule = rule_of([moment.strftime("%H:%M:%S") for moment in MOMENTS])
    assert isinstance(rule, ColumnRule)
    assert column(["01:00:01", "00:00:00"], rule)[0] == [3601.0, 0.0]


def test_fitted_on_dates_scored_on_text() -> None:
    """The model comes from Parquet, the data from a CSV export of it, whatever wrote that."""
    for values in (
        MOMENTS,
        [moment.replace(tzinfo=dt.UTC) for moment in MOMENTS],
        [moment.date() for moment in MOMENTS],
    ):
        rule = rule_of(values)
        assert isinstance(rule, ColumnRule)
        assert rule.format == ""
        numbers, _ = column(values, rule)
        by_polars = pl.DataFrame({"it": values}).write_csv().splitlines()[1:]
        for texts in (by_polars, [str(value) for value in values], [value.isoformat() for value in values]):
            assert column(texts, rule) == (numbers, [None] * N)
    for form in ("%d-%m-%y", "%y/%m/%d", "%m/%d/%y"):
        assert column([day.strftime(form) for day in values], rule) == (numbers, [None] * N)  # type: ignore[union-attr]


@pytest.mark.parametrize("mark", ["?", "-", ".", "--", "…"])
def test_marks_among_numbers_and_dates_say_that_there_is_none(mark: str) -> None:
    figures = [f"{k / 7:.3f}" for k in range(N)]
    for values in (
        figures,
        [f"{k / 7:.3f}".replace(".", ",") for k in range(N)],
        [str(m) for m in MOMENTS],
        ["yes", "no"] * (N // 2),
    ):
        gaps = [mark if k % 3 == 0 else value for k, value in enumerate(values)]
        rule = rule_of(gaps)
        assert isinstance(rule, ColumnRule)
        assert rule.kind != "categorical"
        numbers, reasons = column(gaps, rule)
        assert reasons == [None] * len(gaps)
        assert [math.isnan(x) for x in numbers] == [k % 3 == 0 for k in range(len(gaps))]
        assert column([mark] * 20, rule)[1] == [None] * 20  # a part of a table may have gaps alone
    assert column(["1.0", "1.2.3"], rule_of(figures))[1] == [None, "column 'it': '1.2.3' is not a number"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "words",
    [
        ("+", "-"),
        ("Y", "-", "-"),
        ("yes", "-", "-"),
        ("*", "**", "***", "1"),
        ("+", "-", "0"),
        ("<", ">", "=", "1"),
        ("-", "+", "1", "1", "2", "2", "3", "3"),
        ("<5", "<", ">", "1", "2", "3"),
    ],
)
def test_marks_that_may_be_words_are_categories(words: tuple[str, ...]) -> None:
    rule = rule_of((list(words) * N)[:N])
    assert isinstance(rule, ColumnRule)
    assert rule.categories == tuple(sorted(set(words)))


def test_marks_of_several_kinds_are_gaps_and_told() -> None:
    values = [["?", "-", "--"][k % 3] if k % 9 < 3 else f"{k / 7:.3f}" for k in range(N)]
    spec = spec_of(it=values, other=[f"{k / 3:.2f}" for k in range(N)])
    assert {rule.kind for rule in spec.columns} == {"numeric"}
    assert spec.notes == ("taken as missing: it ('-', '--', '?')",)
    long = ["-" * 1000, "--", "…", "?", "."]
    (note,) = infer_spec(pl.DataFrame({"it": [*long, *(str(k / 7) for k in range(N))]}), None, []).notes
    assert note == "taken as missing: it ('--', '-----------…', '.' and 2 more)"
    numbers, reasons = column([*values[:9], "+"], next(rule for rule in spec.columns if rule.name == "it"))
    assert [math.isnan(x) for x in numbers] == [True] * 3 + [False] * 6 + [True]
    assert reasons[-1] == "column 'it': '+' is not a number"  # a sign says something: it is not passed over


def test_marks_silence_no_note() -> None:
    spec = spec_of(
        rate=["-" if k % 3 == 0 else f"{k}%" for k in range(N)],
        label=["?" if k % 9 == 0 else str(k % 2) for k in range(N)],
    )
    said = " ".join(spec.notes)
    assert "taken as text, not as numbers: rate" in said
    assert "looks like labels: label" in said


def test_a_word_among_numbers() -> None:
    rule = rule_of([str(i * i) for i in range(N - 2)] + ["n.a.", None])
    assert isinstance(rule, ColumnRule)
    assert rule.kind == "numeric"
    numbers, reasons = column(["1", " 2 ", "1e3", "-.5", "inf", "12 kg", None, "1,5"], rule)
    np.testing.assert_array_equal(numbers, [1, 2, 1000, -0.5, np.inf, np.nan, np.nan, np.nan])
    assert reasons == [None] * 5 + ["column 'it': '12 kg' is not a number", None, "column 'it': '1,5' is not a number"]


def test_decimal_commas() -> None:
    numbers = [round(i * 37.35 - 200, 2) for i in range(N)]
    texts: list[str | None] = [str(v).replace(".", ",") for v in numbers]
    rule = rule_of([*texts[1:], None])
    assert isinstance(rule, ColumnRule)
    assert (rule.kind, rule.format) == ("numeric", ",")
    assert column(texts, rule) == (numbers, [None] * N)
    assert column(numbers, rule)[0] == numbers  # the model comes from CSV, the data from Parquet
    found, reasons = column(["1.234,5", "-,5", "1,5e3", "7", "inf", None, "1.234", "20.8", "1,2,3", "12 kg"], rule)
    np.testing.assert_array_equal(found, [1234.5, -0.5, 1500, 7, np.inf, np.nan, *[np.nan] * 4])
    assert reasons[:6] == [None] * 6
    assert reasons[6] == "column 'it': '1.234' is not a number with a decimal comma"
    assert all(reasons[6:])
    for other, wrong in ((rule, "20.8"), (rule_of(numbers), "20,8")):
        assert isinstance(other, ColumnRule)
        with pytest.raises(AuditError, match=f"'it' is String .'{wrong}'. here"):
            column([wrong] * N, other)


def test_commas_that_may_group_thousands() -> None:
    """Three digits behind each comma: alone nobody can tell, beside decimal commas they are decimals, beside `1.5` thousands."""
    either = [f"{1 + i % 9},{100 + i}" for i in range(N)]
    spec = spec_of(it=either)
    assert "it" in {*spec.dropped, *(rule.name for rule in spec.columns if rule.kind == "categorical")}
    assert "it ('1,100': a decimal comma, or thousands?)" in spec.notes[0]
    spec = spec_of(it=either, temp=[f"{i},5" for i in range(N)])
    assert {rule.name: rule.format for rule in spec.columns} == {"x": "", "it": ",", "temp": ","}
    assert spec.notes == ()
    leading_zero = [f"0,{100 + i}" for i in range(N)]
    assert spec_of(it=leading_zero).notes == ()
    # A few such values among whole numbers are unreadable rows, each with its reason: not guessed either.
    rule = rule_of([str(i * i) for i in range(N - 2)] + ["1,544", "2,001"])
    assert isinstance(rule, ColumnRule)
    assert rule.format == ""
    assert column(["1,544"], rule)[1] == ["column 'it': '1,544' is not a number"]
    # Whole numbers and a few with a comma that can only be a decimal one are numbers all.
    rule = rule_of([str(i * i) for i in range(N - 2)] + ["1,5", "2,25"])
    assert isinstance(rule, ColumnRule)
    assert column(["1,5", "7"], rule) == ([1.5, 7.0], [None, None])


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        ("{}%", "'1%'"), ("{},5 %", "'1,5 %'"), ("${},544.00", "'$1,544.00'"), ("{}.544,00 €", "'1.544,00 €'"),
        ("({}'000)", '"(1\'000)"'), ("{} 000,5", "'1 000,5'"), ("{}.5 °C", "'1.5 °C'"), ("\u2212{}%", "'\u22121%'"),
        ("{},000,000", "'1,000,000'"),
    ],
)  # fmt: skip
def test_what_only_looks_like_numbers_is_named(form: str, shown: str) -> None:
    few, many = [form.format(1 + i % 9) for i in range(N)], [form.format(1 + i) for i in range(N)]
    spec = spec_of(few=few, many=many)
    assert [rule.kind for rule in spec.columns] == ["numeric", "categorical"]
    assert "many" in spec.dropped
    (note,) = spec.notes
    assert note.startswith("taken as text, not as numbers: few (")
    assert shown in note
    assert "many (" in note
    assert "such as 1544.5" in note


@pytest.mark.parametrize(
    "values",
    [
        ["P-104", "P-105"], ["3A", "4B"], ["1.2.3", "1.10.0"], ["10.0.0.1", "192.168.0.1"], ["25.12.2023", "26.12.2023"],
        ["17:30", "18:00"], ["yes", "no"], ["<5", "5-10"], ["17%"] * 2,
    ],
)  # fmt: skip
def test_other_text_is_left_alone(values: list[str]) -> None:
    assert spec_of(it=values * (N // 2)).notes == ()


def test_points_beside_decimal_commas_are_named() -> None:
    commas, points = [f"{i},5" for i in range(N)], [f"{1 + i % 9}.{100 + i}" for i in range(N)]
    (note,) = spec_of(temp=commas, many=points).notes
    assert "many ('1.100')" in note
    assert spec_of(many=points).notes == ()
    assert spec_of(temp=commas, few=[f"{i}.5" for i in range(N)]).notes == ()


def test_when_nothing_else_is_there_the_note_is_the_hint() -> None:
    with pytest.raises(AuditError, match="no usable column") as caught:
        infer_spec(pl.DataFrame({"price": [f"${i},544.00" for i in range(1, 100)]}), None, [])
    assert "price ('$1,544.00')" in caught.value.hint


def test_wrong_types() -> None:
    numeric, date = rule_of([1.5, 2.5] * (N // 2)), rule_of(MOMENTS)
    assert isinstance(numeric, ColumnRule)
    assert isinstance(date, ColumnRule)
    category = rule_of(["a", "b"] * (N // 2))
    assert isinstance(category, ColumnRule)
    for values, rule in [
        (["word"] * N, numeric), ([[1.0]] * N, numeric), ([b"1"] * N, numeric), (MOMENTS, numeric),
        ([{"a": 1}] * N, numeric),
        ([1.0] * N, date), (["word"] * N, date), ([True] * N, date), ([["a"]] * N, category), ([b"a"] * N, category),
    ]:  # fmt: skip
        with pytest.raises(AuditError, match="'it'") as caught:
            column(values, rule)
        assert caught.value.hint
    assert column([True, False], numeric)[0] == [1.0, 0.0]
    assert all(math.isnan(v) for v in column([None] * N, date)[0])


def test_unknown_names_and_nothing_left() -> None:
    frame = pl.DataFrame({"a": [1.0, 2.0], "b": [1.0, 1.0]})
    for columns, exclude in ((["nope"], []), (None, ["nope"])):
        with pytest.raises(UsageError, match="'nope'"):
            infer_spec(frame, columns, exclude)
    with pytest.raises(AuditError, match=r"no usable column: .*b: constant"):
        infer_spec(frame, None, ["a"])
    with pytest.raises(AuditError, match="'b' is missing"):
        encode(frame.drop("b"), TableSpec((ColumnRule("b", "numeric"),)))


def test_no_rows_at_all() -> None:
    spec = spec_of(kind=["a", "b"] * (N // 2), when=MOMENTS, flag=["yes", "no"] * (N // 2))
    values, reasons = encode(
        pl.DataFrame(schema={"x": pl.Float64, "kind": pl.String, "when": pl.String, "flag": pl.String}), spec
    )
    assert (values.shape, reasons) == ((0, 4), [])


def test_median_and_scale() -> None:
    rule = rule_of([1.0, 2.0, 3.0, 4.0, 1000.0, math.inf, None, math.nan, 5.0, 3.0] * (N // 10))
    assert isinstance(rule, ColumnRule)
    assert (rule.median, rule.mad) == pytest.approx((3.0, 1.4826))
    mostly = rule_of([0.0] * (N - 6) + [10.0] * 6)
    assert isinstance(mostly, ColumnRule)
    assert mostly.mad == pytest.approx(np.sqrt(10))  # their standard deviation from the median
    tiny = rule_of([0.0] * (N - 6) + [1e-200] * 6)
    assert isinstance(tiny, ColumnRule)
    assert tiny.mad > 0
    flag = rule_of([True, False, None, False] * (N // 4))
    assert isinstance(flag, ColumnRule)
    assert flag.frequencies == (0.5, 0.25, 0.25)


wild = st.one_of(
    st.none(),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from(
        [1.7976931348623157e308, -1.7976931348623157e308, 5e-324, -0.0, 1e-300, 2.0**53 + 1, 0.1, 1e22, 1e23]
    ),
    st.integers(-(2**60), 2**60).map(float),
)
words = st.one_of(
    st.none(),
    st.sampled_from(["a", "b", " a", "NA", "none", "", 'q"q', "x,y", "l\nm", "ü", "1", "0x1", "true", "1e5", "-"]),
)
moments = st.one_of(
    st.none(), st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2200, 1, 1)).map(lambda moment: moment.replace(fold=0))
)
quick = settings(
    max_examples=150,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def rows_of(frame: pl.DataFrame, folder: Any, suffix: str) -> pl.DataFrame:
    path = folder / f"t.{suffix}"
    buffer = io.BytesIO()
    frame.write_csv(buffer) if suffix == "csv" else frame.write_parquet(buffer)
    path.write_bytes(buffer.getvalue())
    parts: list[RawRows] = list(read_rows(path, 5))
    assert all(reason is None for part in parts for reason in part.reasons)
    return pl.concat([part.frame for part in parts], how="vertical_relaxed")


@quick
@given(
    st.lists(
        st.tuples(wild, st.none() | st.integers(-(2**63), 2**63 - 1), words, moments, st.none() | st.booleans()),
        min_size=2,
        max_size=25,
    )
)
def test_parquet_and_csv_agree_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, ...]]
) -> None:
    types = {
        "f": pl.Float64,
        "i": pl.Int64,
        "w": pl.String,
        "d": pl.Datetime("us"),
        "b": pl.Boolean,
        "anchor": pl.Int64,
    }
    frame = pl.DataFrame([(*row, i % 7) for i, row in enumerate(rows)], schema=types, orient="row")
    folder = tmp_path_factory.getbasetemp()
    as_parquet, as_csv = (rows_of(frame, folder, suffix) for suffix in ("parquet", "csv"))
    spec = infer_spec(as_parquet, None, [])
    expected, reasons = encode(as_parquet, spec)
    found, csv_reasons = encode(as_csv, spec)
    np.testing.assert_array_equal(found, expected)
    assert reasons == csv_reasons
    for rule in spec.columns:
        assert math.isfinite(rule.median)
        assert math.isfinite(rule.mad)
        assert rule.mad >= 0
    assert spec_from_json(json.loads(json.dumps(spec.to_json(), allow_nan=False))) == spec
    # And the other way round: the model comes from the CSV file.
    spec = infer_spec(as_csv, None, [])
    expected, reasons = encode(as_csv, spec)
    found, parquet_reasons = encode(as_parquet, spec)
    np.testing.assert_array_equal(found, expected)
    assert reasons == parquet_reasons


@quick
@given(st.lists(st.text(max_size=12) | st.none(), min_size=2, max_size=30), st.text(max_size=5))
def test_any_text_column(values: list[str | None], name: str) -> None:
    frame = pl.DataFrame(
        [pl.Series(name, values, dtype=pl.String), pl.Series(name + "x", range(len(values)), dtype=pl.Float64)]
    )
    spec = infer_spec(frame, None, [])
    numbers, reasons = encode(frame, spec)
    assert numbers.shape == (len(values), len(spec.columns))
    for i, reason in enumerate(reasons):
        assert reason is None or np.isnan(numbers[i]).any()
    assert spec_from_json(json.loads(json.dumps(spec.to_json(), allow_nan=False))) == spec


def test_specs_survive_json() -> None:
    spec = spec_of(
        kind=["a", "b", None] * (N // 3),
        n=range(N),
        when=[str(m) for m in MOMENTS],
        flag=[True, False] * (N // 2),
        c=[1] * N,
    )
    assert len(spec.columns) == 4
    for each in (spec, ImageSpec(224, 160)):
        assert spec_from_json(each.to_json()) == each
        assert spec_from_json(json.loads(json.dumps(each.to_json()))) == each
    for broken in (
        {},
        {"kind": "table"},
        {"kind": "images", "height": "x", "width": 1},
        {"kind": "table", "columns": [{}]},
    ):
        with pytest.raises((KeyError, TypeError, ValueError)):
            spec_from_json(broken)


def test_what_is_said_of_text_is_so() -> None:
    """Identifiers in a CSV are numbers already; the example is a text that is none; labels among the features are told."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "user_id": [str(100_000 + 37 * k) for k in rng.permutation(200)],
            "price": ["430.29", *(f"{2000 + k:,}.50" for k in range(199))],
            "a": rng.normal(size=200),
            "anomaly": rng.integers(0, 2, 200),
        }
    )
    spec = infer_spec(frame, None, ())
    (text,) = [note for note in spec.notes if note.startswith("taken as text")]
    assert "user_id" not in text
    assert "price ('2,000.50')" in text
    (label,) = [note for note in spec.notes if "looks like labels" in note]
    assert "--truth anomaly" in label
    assert "--exclude anomaly" in label
    assert not any("labels" in note for note in infer_spec(frame, None, ("anomaly",)).notes)


def test_names_that_are_not_utf_8_are_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [f"{a:.3f},{b:.3f}\n" for a, b in rng.normal(size=(50, 2))]
    (tmp_path / "l.csv").write_bytes("größe,b\n".encode("latin-1") + "".join(lines).encode())
    (tmp_path / "u.csv").write_text("größe,b\n" + "".join(lines), encoding="utf-8")
    tables = (next(iter(read_rows(tmp_path / name, 100))).frame for name in ("l.csv", "u.csv"))
    notes = [infer_spec(table, None, ()).notes for table in tables]
    assert "iconv" in notes[0][0]
    assert r"gr\xf6\xdfe" in notes[0][0]
    assert notes[1] == ()


def test_a_file_without_a_header_is_told() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 2))
    for names, told in ((["10.691", "20.970"], True), (["0", "1"], False), (["2", "1"], False), (["a", "2.5"], False)):
        notes = infer_spec(pl.DataFrame(rows, schema=names), None, ()).notes
        assert any("header line" in note for note in notes) == told
