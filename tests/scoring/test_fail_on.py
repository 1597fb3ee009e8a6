from __future__ import annotations

from typing import Any

import pytest

from anoaudit.errors import UsageError
from anoaudit.scoring.fail_on import parse_clauses
from anoaudit.scoring.table import Summary


def summary(flagged: int = 3, readable: int = 300, unreadable: int = 6) -> Summary:
    return Summary(rows=readable + unreadable, readable=readable, unreadable=unreadable, flagged=flagged)


def fires(text: str, found: Summary | None = None, highest: float | None = 3.5) -> bool:
    (clause,) = parse_clauses([text])
    shown = clause.fires(found or summary(), highest)
    assert shown is None or (shown and "\n" not in shown)
    return shown is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("count>2", True), ("count>3", False), ("count>=3", True), ("count>=4", False), ("count > 2.5", True),
        ("rate>1%", False), ("rate>=1%", True), ("rate>0.999%", True), ("rate > 0 %", True), ("rate>=1.01%", False),
        ("score>3.5", False), ("score>=3.5", True), ("score>3.49", True), ("score>-1e3", True), ("score>=35e-1", True),
        ("unreadable>5", True), ("unreadable>6", False), ("unreadable>=6", True), ("unreadable>1.96%", True),
        ("unreadable>1.97%", False), ("  unreadable  >=  6  ", True), ("count>=+3", True),
    ],
)  # fmt: skip
def test_clauses(text: str, expected: bool) -> None:
    assert fires(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "count", "count>", ">3", "count=3", "count==3", "count<3", "count<=3", "rate>1", "count>3%", "score>3%", "Rate>1%",
     "rows>1", "count>1e", "count>.", "count>--1", "count>1.2.3", "count>nan", "count>inf", "score>1e999", "rate>101%", "rate>-1%",
     "unreadable>200%", "count>1 or rate>1%", "count>1,rate>2%", "count>1\nx", "count>>1", "count>٣"],
)  # fmt: skip
def test_bad_clauses(text: str) -> None:
    with pytest.raises(UsageError, match="--fail-on") as caught:
        parse_clauses(["count>0", text])
    assert caught.value.exit_code == 2
    assert "count>N" in caught.value.hint


@pytest.mark.parametrize(("flagged", "readable"), [(1, 1000), (3, 3000), (7, 7000), (11, 11_000)])
def test_a_rate_that_is_exactly_its_limit(flagged: int, readable: int) -> None:
    assert not fires("rate>0.1%", summary(flagged, readable, 0))
    assert fires("rate>=0.1%", summary(flagged, readable, 0))
    assert fires("rate>0.1%", summary(flagged + 1, readable, 0))


def test_nothing_readable() -> None:
    nothing = summary(0, 0, 4)
    for text, expected in (("rate>0%", False), ("count>0", False), ("score>-1e30", False), ("unreadable>=100%", True)):
        assert fires(text, nothing, None) == expected
    assert not fires("unreadable>0%", Summary())


def test_what_was_found_is_said() -> None:
    clauses = parse_clauses(["count>2", "rate>=1%", "score>3", "unreadable>1", "unreadable>1%"])
    found = [clause.fires(summary(), 3.5) for clause in clauses]
    assert found == [
        "3 flagged",
        "1 % flagged (3 of 300)",
        "the highest score is 3.5",
        "6 unreadable",
        "1.961 % unreadable",
    ]


def test_no_clauses() -> None:
    none: list[Any] = []
    assert parse_clauses([]) == none
