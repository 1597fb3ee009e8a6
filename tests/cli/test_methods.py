"""`anoaudit methods`: every method says what it takes, what it has to be told, and when to take it."""

from __future__ import annotations

import pytest

from anoaudit.methods.registry import METHODS

from .command_reference import README
from .conftest import Run


def test_all_are_listed_with_guidance(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    shown = run("methods").out
    readme = README.read_text(encoding="utf-8")
    for method in METHODS.values():
        assert method.when
        for text in (method.title, method.summary, method.data, method.labels, method.when):
            assert text in shown
        assert f"| `{method.name}`" in readme


@pytest.mark.parametrize("name", list(METHODS))
def test_one_lists_its_options(run: Run, name: str) -> None:
    done = run("methods", name)
    assert done.code == 0
    assert METHODS[name].paper.split(",")[0] in done.out
    assert done.out.count("\n") > 10


def test_an_unknown_name_gets_a_suggestion(run: Run) -> None:
    done = run("methods", "anonly")
    assert (done.code, "did you mean anoonly?" in done.err) == (2, True)
