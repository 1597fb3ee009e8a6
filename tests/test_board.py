"""The audit board: its statistics, and that the README says what the benchmarks have measured."""

from __future__ import annotations

import importlib.util
import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import stats

ROOT = Path(__file__).parents[1]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def statistics() -> ModuleType:
    return load("critical_difference")


def test_the_readmes_accuracy_tables_are_the_measured_ones() -> None:
    for path, tables in load("board_table").tables().items():
        for table in tables:
            assert table in path.read_text(), "run: python tests/benchmarks/board_table.py --write"


def test_wilcoxon_is_exact(statistics: ModuleType) -> None:
    for n in (6, 13, 22):
        differences = np.random.default_rng(n).normal(0.4, 1, n)
        assert statistics.wilcoxon(differences) == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)
    assert statistics.wilcoxon(np.zeros(5)) == 1.0
    # two ties of one sign: of the four equally likely signs two are as extreme
    assert statistics.wilcoxon(np.array([1.0, 1.0])) == 0.5


def test_ranks_ties_and_corrections(statistics: ModuleType) -> None:
    found = statistics.ranks({"a": np.array([3.0, 1.0]), "b": np.array([2.0, 1.0]), "c": np.array([1.0, 5.0])})
    assert {name: list(rank) for name, rank in found.items()} == {"a": [1, 2.5], "b": [2, 2.5], "c": [3, 1]}
    assert statistics.holm({"a": 0.04, "b": 0.01, "c": 0.03}) == {"b": 0.03, "c": 0.06, "a": 0.06}
    # Demšar (2006), table 5: q = 3.164 for ten columns
    assert statistics.critical_difference(10, 14) == pytest.approx(3.164 * np.sqrt(10 * 11 / (6 * 14)), rel=1e-3)
    rank = statistics.ranks(dict(zip("abcd", np.random.default_rng(0).normal(size=(4, 12)), strict=True)))
    square = stats.friedmanchisquare(*rank.values()).statistic
    expected = stats.f.sf(11 * square / (12 * 3 - square), 3, 33)
    assert statistics.friedman(rank) == pytest.approx(expected)


def test_the_figure_shows_every_column(statistics: ModuleType) -> None:
    values = np.random.default_rng(0).normal(size=(5, 20))
    values[0] += 10
    found = statistics.compare(dict(zip(("mine", "a", "b", "<c>", "d"), values, strict=True)))
    root = ElementTree.fromstring(statistics.chart("Title", [("20 tables", found)], "mine"))
    texts = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"mine", "a", "b", "<c>", "d", "1.0"} <= set(texts)
    dots = [element.get("class") for element in root.iter("{http://www.w3.org/2000/svg}circle")]
    assert dots == ["d"] * 5  # all differ from the best, none is hollow


def test_results_are_complete_when_every_cell_asked_for_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = load("harness")
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")

    def document(asked: list[str], wanted: list[str]) -> dict[str, Any]:
        given = harness.Settings((), 1, "quick", False, 1.0)
        harness.Results("it", given).run(wanted, lambda name: {"name": name}, asked)
        found: dict[str, Any] = json.loads((tmp_path / "results" / "it.json").read_text())
        return found

    assert document(["a", "b"], ["a", "x"])["complete"] is False  # as many cells, but others
    assert document(["a", "b"], ["b"])["complete"] is True
    assert document(["a", "b"], ["a"])["cells"].keys() == {"a", "b", "x"}
