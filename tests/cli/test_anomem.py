"""AnoMem through the command line: labels, contamination, the model card, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from .conftest import Run, make_images

SMALL = [
    word
    for pair in ("encoder=tiny", "size=16", "epochs=1", "distance-epochs=1", "slots=8", "projection=8", "batch-size=8")
    for word in ("--set", pair)
]


def test_fit_score_and_card(run: Run, tmp_path: Path) -> None:
    labels = make_images(tmp_path / "tiles", 24, 3)
    model = tmp_path / "m.anoaudit"
    more = ["--labels", labels, "--contamination", "0.1", "--set", "assignment=soft", "--format", "json"]
    done = run("fit", tmp_path / "tiles", "--method", "anomem", "-o", model, *SMALL, *more)
    assert done.code == 0, done.err
    assert "training will take about" in done.err
    assert json.loads(done.out)["known_anomalies"]["labelled"] == 3
    manifest = json.loads((model / "manifest.json").read_text())
    assert manifest["outputs"] == ["score", "map"]
    assert manifest["training"]["stage2"]["assignment"] == "soft"
    assert len(manifest["training"]["memories"]) == 3
    card = (model / "README.md").read_text()
    assert "**Memories** 8×8: " in card
    assert "slots a query" in card
    scored = run("score", tmp_path / "tiles", "-m", model, "--format", "json")
    assert all(np.isfinite(row["score"]) for row in json.loads(scored.out)["rows"])
    drawn = run("report", model, "--maps", tmp_path / "maps", "--data", tmp_path / "tiles")
    assert drawn.code == 0, drawn.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--set", "encoder=no_such_net"], "timm has no model"), (["--set", "scales=16,8"], "the finest first"),
     (["--set", "weights=1,2"], "one for each"), (["--set", "slot=4"], "did you mean slots"),
     (["--weights", "w.safetensors", "--backbone", "none"], "leave them out")],
)  # fmt: skip
def test_wrong_choices_are_one_line(run: Run, tmp_path: Path, arguments: list[str], said: str) -> None:
    make_images(tmp_path / "tiles", 24, 3)
    done = run("fit", tmp_path / "tiles", "--method", "anomem", "-o", tmp_path / "m.anoaudit", *arguments)
    assert (done.code, said in done.err, "Traceback" in done.err) == (2, True, False), done.err
