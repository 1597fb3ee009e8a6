from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anoaudit import options
from anoaudit.errors import UsageError, among
from anoaudit.methods.registry import METHODS


def ranged(default: Any, low: Any = None, high: Any = None, text: str = "") -> Any:
    return field(default=default, metadata={"range": (low, high), "help": text})


@dataclass(frozen=True)
class Some:
    mode: Literal["soft", "all-of_it"] = field(default="soft", metadata={"help": "how"})
    scaling: Literal["standard", "none"] | None = None
    steps: int = ranged(3, 1, 10)
    width: int | None = ranged(None, 2, None)
    rate: float = ranged(0.1, None, 1.0)
    free: float = 0.0
    on: bool = False
    sizes: tuple[int, ...] = ranged((8, 16), 1, 64)
    name: str = "x"


def build(**pairs: str) -> Some:
    return options.build(Some, {key.replace("__", "-"): value for key, value in pairs.items()}, "some")


def test_share_of_a_number_or_per_cent() -> None:
    assert options.parse_share("0.05") == options.parse_share(" 5 % ") == options.parse_share("5%") == 0.05
    for text in ("five", "%", "5%%", ""):
        with pytest.raises(ValueError, match="float"):
            options.parse_share(text)


def test_hints_name_what_there_is() -> None:
    names = [f"column_{i}" for i in range(20)]
    assert among(names[:3]) == "column_0, column_1, column_2"
    assert among(names).endswith("column_11 and 8 more")
    assert among(names, "colum_17").endswith("8 more; did you mean column_17?")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3), ("-2.5", -2.5), ("1e3", 1000.0), ("true", True), ("True", True), ("FALSE", False), ("null", None),
        ("abc", "abc"),
        ('"3"', "3"), ("[1, 2]", [1, 2]), ('{"a": 1}', {"a": 1}), ("0.5,0.5,0.25", [0.5, 0.5, 0.25]), ("a, b", ["a",
        "b"]), ("", ""),
        ("1,,2", [1, "", 2]), ("NaN", "NaN"), ("-Infinity", "-Infinity"), ("1e999", "1e999"), ("[" * 100_000,
        "[" * 100_000),
        ("9" * 5000, "9" * 5000),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_values(text: str, value: Any) -> None:
    found = options.parse_value(text)
    assert found == value
    assert type(found) is type(value)


@settings(max_examples=200, deadline=None, database=None)
@given(st.text(max_size=20))
def test_any_text_is_a_finite_value(text: str) -> None:
    found = options.parse_value(text)
    for value in found if isinstance(found, list) else [found]:
        assert not isinstance(value, float) or math.isfinite(value)


def test_pairs() -> None:
    assert options.parse_pairs("--set", ["a=1", " b = x=y ", "c="]) == {"a": "1", "b": "x=y", "c": ""}
    assert options.parse_pairs("--set", []) == {}


@pytest.mark.parametrize("texts", [["a"], ["=1"], [" =1"], [""], ["a=1", "a=2"], ["a=1", " a =1"]])
def test_pairs_that_are_none(texts: list[str]) -> None:
    with pytest.raises(UsageError, match="--backbone-arg") as caught:
        options.parse_pairs("--backbone-arg", texts)
    assert caught.value.exit_code == 2
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("mode", "SOFT", "soft"), ("mode", "all-of-it", "all-of_it"), ("mode", "all_of_it", "all-of_it"),
        ("scaling", "none", "none"),
        ("scaling", "None", "none"), ("scaling", "auto", None), ("scaling", "default", None), ("scaling",
        "standard", "standard"),
        ("steps", "1", 1), ("steps", "10", 10), ("width", "auto", None), ("width", "NONE", None), ("width", "2", 2),
        ("rate", "1", 1.0),
        ("rate", "-5e3", -5000.0), ("on", "yes", True), ("on", "0", False), ("on", "True", True), ("sizes", "8", (8,)),
        ("sizes", "4, 8,", (4, 8)), ("name", "auto", "auto"), ("name", "", ""),
    ],
)  # fmt: skip
def test_build(name: str, text: str, value: Any) -> None:
    found = getattr(build(**{name: text}), name)
    assert found == value
    assert type(found) is type(value)


def test_defaults_and_dashes() -> None:
    assert build() == Some()

    @dataclass
    class Dashed:
        batch_size: int = 1

    assert options.build(Dashed, {"batch-size": "3"}, "x").batch_size == 3
    with pytest.raises(UsageError, match="given twice"):
        options.build(Dashed, {"batch-size": "3", "batch_size": "4"}, "x")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mode", "hard"), ("mode", ""), ("scaling", "minmax"), ("steps", "0"), ("steps", "11"), ("steps", "2.0"),
        ("steps", "x"), ("steps", ""),
        ("steps", "auto"), ("steps", "9" * 5000), ("width", "1"), ("width", "-3"), ("width", "nan"), ("rate",
        "1.01"), ("rate", "nan"),
        ("rate", "-inf"), ("free", "nan"), ("free", "inf"), ("free", "1e999"), ("free", "1,5"), ("on", "2"), ("on",
        ""), ("on", "auto"),
        ("sizes", "8,x"), ("sizes", ""), ("sizes", ","), ("sizes", "0,8"), ("sizes", "8,65"), ("sizes", "-8"),
        ("sizes", "8.5"),
    ],
)  # fmt: skip
def test_values_that_do_not_fit(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"--set {name}=") as caught:
        build(**{name: text})
    assert "expected" in caught.value.message
    assert "anoaudit methods some" in caught.value.hint


@pytest.mark.parametrize(("name", "near"), [("step", "steps"), ("moed", "mode"), ("scalng", "scaling")])
def test_a_misspelt_name_is_guessed(name: str, near: str) -> None:
    with pytest.raises(UsageError, match="has no option") as caught:
        build(**{name: "1"})
    assert f"did you mean {near}?" in caught.value.hint


def test_an_unknown_name() -> None:
    with pytest.raises(UsageError, match="has no option 'zzzz'") as caught:
        build(zzzz="1")
    assert "did you mean" not in caught.value.hint


def test_describe() -> None:
    rows = {name: rest for name, *rest in options.describe(Some)}
    assert rows == {
        "mode": ["one of soft, all-of_it", "soft", "how"],
        "scaling": ["one of standard, none", "auto", ""],
        "steps": ["a whole number from 1 to 10", "3", ""],
        "width": ["a whole number from 2", "auto", ""],
        "rate": ["a number to 1.0", "0.1", ""],
        "free": ["a number", "0.0", ""],
        "on": ["true or false", "false", ""],
        "sizes": ["whole numbers with commas from 1 to 64", "8,16", ""],
        "name": ["text", "x", ""],
    }


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_every_default_of_every_method_can_be_given(method: Any) -> None:
    defaults = method.options()
    for name, kind, default, text in options.describe(method.options):
        assert text, f"{name} has no help"
        assert kind != "a value", name
        built = options.build(method.options, {name: default}, method.name)
        assert built == dataclasses.replace(defaults), name
