from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from anoaudit.data.items import ColumnRule, TableSpec
from anoaudit.scoring.why import explain_maps, explain_rows


def spec(*rules: ColumnRule) -> TableSpec:
    return TableSpec(columns=rules)


def number(name: str, median: float = 0.0, mad: float = 1.0, missing: tuple[float, ...] = ()) -> ColumnRule:
    return ColumnRule(name=name, kind="numeric", median=median, mad=mad, frequencies=missing)


def one(rules: Any, *row: float) -> str | None:
    (text,) = explain_rows(np.array([row]), spec(*rules))
    return text


CITY = ColumnRule(name="city", kind="categorical", categories=("Ulm", "Ålesund"), frequencies=(0.95, 0.04, 0.01))


def test_a_column_without_a_name() -> None:
    assert one([number("")], 4.0) == "(no name) +4.0"


def test_the_three_columns_that_deviate_most() -> None:
    rules = [number("a"), number("b", median=10.0, mad=2.0), number("c"), number("d"), number("e")]
    assert one(rules, 1.0, 0.0, -7.0, 0.5, 2.0) == "c −7.0, b −5.0, e +2.0"


def test_ties_keep_the_order_of_the_columns() -> None:
    assert one([number("a"), number("b"), number("c"), number("d")], 0.0, 1.0, -1.0, 1.0) == "b +1.0, c −1.0, d +1.0"


@pytest.mark.parametrize("width", [1, 2])
def test_fewer_than_three_columns(width: int) -> None:
    rules = [number("a"), number("b")][:width]
    assert one(rules, *[2.0, 3.0][:width]) == ["a +2.0", "b +3.0, a +2.0"][width - 1]


def test_missing_and_infinite_values() -> None:
    rules = [number("a"), number("b"), number("c"), number("d")]
    assert one(rules, np.nan, 5.0, np.inf, -np.inf) == "a missing, c infinite, d infinite"


def test_a_column_that_is_often_missing_is_no_news() -> None:
    assert one([number("a", missing=(0.5,)), number("b")], np.nan, 3.0) == "b +3.0"
    assert one([number("a", missing=(0.01,)), number("b")], np.nan, 3.0) == "a missing, b +3.0"
    assert one([number("a", missing=(0.5,))], np.inf) is None


def test_a_column_that_is_rarely_filled_says_so() -> None:
    rules = [number("a", missing=(0.99,)), number("b")]
    assert one(rules, 1.0, 3.0) == "a rarely filled, b +3.0"
    assert one([number("a", missing=(0.95,)), number("b")], 1.0, 3.0) == "a rarely filled, b +3.0"  # just so
    assert one(rules, -50.0, 3.0) == "a −50.0, b +3.0"
    assert one(rules, np.nan, 3.0) == "b +3.0"
    assert one([number("a", missing=(0.9,)), number("b")], 1.0, 3.0) == "b +3.0, a +1.0"
    due = ColumnRule(name="due", kind="datetime", median=1.7e9, mad=86400.0, frequencies=(0.98,))
    assert one([due, number("b")], 1.7e9, 3.0) == "due rarely filled, b +3.0"


def test_categories_where_they_are_rare() -> None:
    assert one([CITY, number("a")], 0.0, 2.0) == "a +2.0"
    assert one([CITY, number("a")], 1.0, 2.0) == "city = 'Ålesund', a +2.0"
    assert one([CITY, number("a")], 2.0, 2.0) == "city unseen value, a +2.0"
    assert one([CITY, number("a")], np.nan, 2.0) == "city missing, a +2.0"
    assert one([CITY, number("a")], 1.0, 9.0) == "a +9.0, city = 'Ålesund'"
    assert one([CITY], 0.0) is None


def test_where_every_category_is_rare_none_is() -> None:
    names = tuple(f"s{i}" for i in range(40))
    site = ColumnRule(name="site", kind="categorical", categories=names, frequencies=(*[1 / 40] * 40, 0.0))
    assert {one([site], float(code)) for code in range(40)} == {None}
    assert one([site], 40.0) == "site unseen value"
    assert one([site], np.nan) == "site missing"
    many = ColumnRule(name="site", kind="categorical", categories=names, frequencies=(0.7, *[0.3 / 39] * 39, 0.0))
    few = ColumnRule(name="site", kind="categorical", categories=names, frequencies=(0.961, *[0.001] * 39, 0.0))
    assert (one([many], 1.0), one([few], 1.0)) == (None, "site = 's1'")


def test_rarer_is_larger() -> None:
    other = ColumnRule(name="x", kind="categorical", categories=("p", "q"), frequencies=(0.97, 0.03, 0.0))
    assert one([CITY, other], 1.0, 1.0) == "x = 'q', city = 'Ålesund'"
    assert one([other, CITY], 1.0, np.nan) == "city missing, x = 'q'"


def test_true_and_false_count_as_categories_do() -> None:
    door, fan = (
        ColumnRule(name=name, kind="boolean", mad=0.01, frequencies=(1 - share, share, 0.0))
        for name, share in (("door", 0.01), ("fan", 0.4))
    )
    assert one([door, fan, number("a")], 1.0, 1.0, 3.0) == "door = true, a +3.0"
    assert one([door, fan, number("a")], 1.0, 1.0, -20.0) == "a −20.0, door = true"
    assert one([door, fan, number("a")], 0.0, np.nan, 0.5) == "fan missing, a +0.5"
    assert one([door], 7.0) == "door unseen value"


def test_no_spread_and_no_overflow() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert one([number("a", mad=0.0), number("b")], 4.0, 3.0) == "a +4.0, b +3.0"
        assert one([number("a", median=-1e308, mad=1e-300), number("b")], 1e308, 3.0) == "a >+999, b +3.0"
        assert one([number("a")], -1e308) == "a >−999"
        assert one([number("a", median=5.0)], 5.0) == "a +0.0"


def test_many_rows_at_once_are_the_rows_one_by_one() -> None:
    rng = np.random.default_rng(0)
    rules = [number("a"), CITY, number("b", 1.0, 3.0), number("c"), CITY]
    values = rng.normal(0.0, 5.0, (200, 5))
    values[:, [1, 4]] = rng.integers(0, 3, (200, 2))
    values[rng.random(values.shape) < 0.1] = np.nan
    assert explain_rows(values, spec(*rules)) == [one(rules, *row) for row in values]


def test_no_rows() -> None:
    assert explain_rows(np.empty((0, 2)), spec(number("a"), number("b"))) == []


def test_maps() -> None:
    maps = np.zeros((3, 4, 10), dtype=np.float32)
    maps[0, 0, 0] = maps[1, 3, 9] = maps[2, 2, 5] = 1.0
    assert explain_maps(maps) == ["peak x 5%, y 12%", "peak x 95%, y 88%", "peak x 55%, y 62%"]
    assert explain_maps(np.zeros((1, 1, 1), dtype=np.float32)) == ["peak x 50%, y 50%"]


def test_where_the_model_gives_errors_they_decide_which_columns_are_named() -> None:
    rules = [number("a"), number("b"), number("c"), CITY]
    errors = np.array([[0.1, 0.02, 0.3, 0.25]], dtype=np.float32)
    (text,) = explain_rows(np.array([[9.0, 0.0, -1.0, 0.0]]), spec(*rules), errors)
    assert text == "c −1.0 (error 0.3), city = 'Ulm' (error 0.25), a +9.0 (error 0.1)"
