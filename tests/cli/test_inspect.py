"""`inspect`, `methods` and `doctor`: lines that fit a terminal, and nothing that does not concern the model at hand."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from anoaudit import doctor
from anoaudit.methods.registry import METHODS
from anoaudit.model.card import card_facts, render_card

from .conftest import Run

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))
from tiny_models import IMAGES, TABLE, facts, write_tiny

LOE = {
    "recipe": "default", "assignment": "refine", "detector": "ensemble", "strides": [8, 16], "locations": 128, "channels": 64,
    "whole": True, "top": 0.01, "rounds": 3, "warmup": 2, "epochs": None,
}  # fmt: skip
COFT = {"negatives": "none", "epochs": 0, "lr": 1e-4, "push_form": "softplus", "crop": 0.35, "copies": 50}


def test_a_model_in_plain_lines_that_fit(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    model = write_tiny(tmp_path / "pumps.anoaudit", TABLE, options=LOE)
    done = run("inspect", model.path)
    assert done.code == 0, done.err
    lines = done.out.split("\n")
    assert max(map(len, lines)) <= 80
    assert all(line == line.rstrip() for line in lines)
    assert not re.search(r"[`#*]", done.out), "Markdown is for the model's README"
    assert f"SHA-256    {model.hash}\n" in done.out
    assert "options    recipe=default, assignment=refine, detector=ensemble, rounds=3\n" in done.out
    assert "backbone" not in done.out


@pytest.mark.parametrize(
    ("method", "spec", "options", "shown"),
    [
        ("loe", TABLE, LOE, {"recipe", "assignment", "detector", "rounds"}),
        ("loe", IMAGES, LOE | {"detector": "gaussian"}, set(LOE) - {"locations", "warmup", "epochs"}),
        ("loe", IMAGES, LOE | {"detector": "deep-svdd"}, set(LOE) - {"channels", "whole", "rounds", "epochs"}),
        ("coft", IMAGES, COFT, {"negatives", "epochs", "crop", "copies"}),
        ("coft", IMAGES, COFT | {"epochs": 20}, set(COFT)),
        ("anoonly", TABLE, {"base": "deepsad", "fine_tune": False}, {"base"}),
        ("anoonly", IMAGES, {"base": "deepsad", "fine_tune": False}, {"base", "fine_tune"}),
        ("lamp", TABLE, {"hidden": 64, "size": None}, {"hidden"}),
        ("loe", TABLE, {"of_another_version": 1, "rounds": 3}, {"of_another_version", "rounds"}),
        ("of-another-version", TABLE, {"x": 1}, {"x"}),
    ],
)
def test_only_the_options_that_do_something_are_named(
    method: str, spec: Any, options: dict[str, Any], shown: set[str]
) -> None:
    manifest = facts(spec, method=method, options=options)
    told = dict(card_facts(manifest))["options"]
    assert {part.strip("`").partition("=")[0] for part in told.split(", ")} == shown
    assert f"* **Options** {told}\n" in render_card(manifest, "m")


def test_labels_are_told_where_there_were_any() -> None:
    training = facts().training
    told = dict(card_facts(facts(training=training | {"labelled": {"anomaly": 12, "normal": 3}})))
    assert told["labels"] == "12 known anomalies, 3 known normals"
    assert "labels" not in dict(card_facts(facts()))


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("name", ["", *METHODS])
def test_methods_fit_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch, width: int, name: str) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = run("methods", *([name] if name else [])).out.split("\n")
    assert max(map(len, lines)) <= width
    assert all(line == line.rstrip() for line in lines)


def test_doctor_wraps_between_words_and_counts_what_is_wrong(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    state = "no hub and nothing cached: images use the fixed filter bank, or --weights FILE"
    found = [("weights", state, ""), ("onnx", "missing", "pip install anoaudit")]
    monkeypatch.setattr(doctor, "examine", lambda: iter(found))
    monkeypatch.setenv("COLUMNS", "80")
    done = run("doctor")
    assert done.code == 3
    assert done.out.split("\n")[:-1] == [
        "ok  weights           no hub and nothing cached: images use the fixed filter",
        "                      bank, or --weights FILE",
        "!!  onnx              missing",
        "                      pip install anoaudit",
    ]
