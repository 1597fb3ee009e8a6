"""COFT-AD through the command line: one image, a few, many; a part of a bigger set; no weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from .conftest import Outcome, Run, make_images

NAME = "test_resnet"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random, that is enough for stripes; the file says what it is of."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(
        timm.create_model(NAME, num_classes=0).state_dict(),
        path,
        {"arch": NAME, "mean": "0.5", "std": "0.5", "size": "48"},
    )
    return path


def fitted(run: Run, data: Path, weights: Path, *more: object) -> tuple[Outcome, dict[str, Any]]:
    model = data.with_suffix(".anoaudit")
    quick = ("--set", "epochs=2", "--set", "copies=6", "--format", "json")
    done = run("fit", data, "--method", "coft", "--weights", weights, "-o", model, *quick, *more)
    assert done.code == 0, done.err
    return done, json.loads((model / "manifest.json").read_text())


@pytest.mark.parametrize("count", [1, 4, 60])
def test_few_normals_give_scores_and_ranks_but_no_p_values(run: Run, tmp_path: Path, weights: Path, count: int) -> None:
    make_images(tmp_path / "normals", count, 0)
    done, manifest = fitted(run, tmp_path / "normals", weights, "--set", "negatives=cutpaste")
    document = json.loads(done.out)
    assert sorted(row["rank"] for row in document["rows"]) == list(range(1, count + 1))
    assert all(row["p_value"] is None and not row["flagged"] for row in document["rows"])
    assert document["summary"]["rule"] == "none: no p-values, so nothing is flagged"
    caveat = f"fitted on {count} image" + ("s" if count > 1 else "") + ", of which none can be kept out for p-values"
    assert sum(caveat in note for note in document["summary"]["notes"]) == 1
    assert (manifest["training"]["items"], manifest["training"]["held_out"]) == (count, 0)
    assert manifest["calibration"]["kind"] == "none"
    assert caveat in (tmp_path / "normals.anoaudit" / "README.md").read_text()
    normals = manifest["training"]["normals"]
    assert set(normals) <= {row["id"] for row in document["rows"]}
    assert len(normals) == min(count, 50)
    assert ("another method makes more" in done.err) == (count > 50)
    if count == 1:
        assert "is not to be known from it" in done.out
    else:
        assert f"the farthest is {max(normals, key=normals.get)}" in done.err
    assert len(manifest["training"]["effective_rank"]) == 2
    assert set(manifest["training"]["separation"]) == {"untuned", "tuned"}
    # New images: a blot is farther out than any stripes; the model needs no torch, and says why there are no p-values.
    labels = make_images(tmp_path / "new", 12, 3, seed=5)
    scored = run(
        "score", tmp_path / "new", "--model", tmp_path / "normals.anoaudit", "--truth", labels, "--format", "json"
    )
    assert scored.code == 0, scored.err
    found = json.loads(scored.out)
    assert any(caveat in note for note in found["summary"]["notes"])
    assert all(row["p_value"] is None and not row["flagged"] for row in found["rows"])
    if count > 1:
        assert found["metrics"]["auroc"] > 0.9


def test_normals_of_a_bigger_set(run: Run, tmp_path: Path, weights: Path) -> None:
    """Labelled 0 and --train-on normal: trained on those alone, their ids on record; p-values of the set from its own bulk."""
    make_images(tmp_path / "set", 70, 4)
    known = ["left/tile_001.png", "right/tile_002.png", "left/tile_003.png"]
    lines = [f"{name},0\n" for name in known] + ["left/tile_069.png,1\n"]
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(lines))
    done, manifest = fitted(run, tmp_path / "set", weights, "--labels", tmp_path / "labels.csv", "--train-on", "normal")
    assert set(manifest["training"]["normals"]) == set(known)
    assert manifest["training"]["items"] == 3
    rows = json.loads(done.out)["rows"]
    assert len(rows) == 70
    assert all(row["p_value"] is not None for row in rows)
    assert "estimated FDR" in json.loads(done.out)["summary"]["rule"]
    # Without --train-on normal all but the known anomaly are taken as normal.
    more, manifest = fitted(run, tmp_path / "set", weights, "--labels", tmp_path / "labels.csv", "--force")
    assert manifest["training"]["items"] == 69
    assert "--train-on normal" not in done.err
    assert "all 69 are taken as normal; --train-on normal learns from the 3 labelled 0 alone" in more.err
    assert "left/tile_069.png" not in manifest["training"]["normals"]


def test_an_odd_one_among_the_normals_is_named(run: Run, tmp_path: Path, weights: Path) -> None:
    make_images(tmp_path / "normals", 6, 0)
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "normals" / "other.png")
    done, manifest = fitted(run, tmp_path / "normals", weights)
    said = [note for note in json.loads(done.out)["summary"]["notes"] if "is unlike the other normals" in note]
    assert len(said) == 1
    assert said[0].startswith("other.png, trained on, is unlike ")
    assert said[0] in manifest["warnings"]
    assert said[0] in (tmp_path / "normals.anoaudit" / "README.md").read_text()


@pytest.mark.parametrize(("negatives", "trained"), [("none", False), ("rotate", True)])
def test_one_image_has_a_loss_only_with_negatives(
    run: Run, tmp_path: Path, weights: Path, negatives: str, trained: bool
) -> None:
    make_images(tmp_path / "one", 1, 0)
    done, manifest = fitted(run, tmp_path / "one", weights, "--set", f"negatives={negatives}")
    assert ("effective_rank" in manifest["training"]) == trained
    assert ("the network stays as it is" in done.err) == (not trained)


def test_without_weights_there_are_three_ways_out(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_images(tmp_path / "normals", 3, 0)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("anoaudit.nets.backbones.is_cached", lambda name: False)
    monkeypatch.setattr("anoaudit.nets.weights.is_cached", lambda name: False)
    for more in ([], ["--backbone", "resnet18"]):
        done = run("fit", tmp_path / "normals", "--method", "coft", "-o", tmp_path / "m.anoaudit", *more)
        assert done.code == 3
        for way in ("--weights FILE", "fill the hub cache", "--method loe"):
            assert way in done.err
    done = run("fit", tmp_path / "normals", "--method", "coft", "--backbone", "none", "-o", tmp_path / "m.anoaudit")
    assert (done.code, "needs a pretrained network" in done.err) == (2, True)


def test_untold_what_anomalies_look_like_the_network_stays_as_it_is(run: Run, tmp_path: Path, weights: Path) -> None:
    make_images(tmp_path / "normals", 3, 0)
    model = tmp_path / "m.anoaudit"
    done = run("fit", tmp_path / "normals", "--method", "coft", "--weights", weights, "-o", model, "--set", "copies=6")
    assert done.code == 0, done.err
    assert "the network stays as it is" in done.err
    manifest = json.loads((model / "manifest.json").read_text())
    assert manifest["options"]["epochs"] == 0
    assert manifest["training"]["separation"]["untuned"] == manifest["training"]["separation"]["tuned"]


def test_what_it_does_not_take(run: Run, tmp_path: Path, weights: Path) -> None:
    pl.DataFrame({"a": [1.0, 2.0], "b": [3.0, 1.0]}).write_parquet(tmp_path / "t.parquet")
    done = run("fit", tmp_path / "t.parquet", "--method", "coft", "-o", tmp_path / "m.anoaudit")
    assert (done.code, "this is a table" in done.err) == (2, True)
    make_images(tmp_path / "set", 4, 0)
    (tmp_path / "labels.csv").write_text("path,label\nleft/tile_001.png,1\n")
    more = ("--labels", tmp_path / "labels.csv", "--train-on", "normal")
    done = run("fit", tmp_path / "set", "--method", "coft", "--weights", weights, "-o", tmp_path / "m.anoaudit", *more)
    assert (done.code, "0 items are labelled 0" in done.err) == (2, True)


def test_a_resumed_fit_ends_like_an_unbroken_one(
    run: Run, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_images(tmp_path / "normals", 4, 0)
    monkeypatch.setattr("anoaudit.training.checkpoint.SECONDS_BETWEEN", 0.0)
    _, whole = fitted(run, tmp_path / "normals", weights, "--set", "steps=1")
    from anoaudit.methods.coft.collapse import Watch

    accept = Watch.accept

    def broken(self: Watch, epoch: int) -> bool:
        if epoch == 1:
            raise KeyboardInterrupt
        return accept(self, epoch)

    arguments = ("--weights", weights, "--set", "epochs=2", "--set", "copies=6", "--set", "steps=1")
    model = tmp_path / "again.anoaudit"
    with monkeypatch.context() as patched:
        patched.setattr(Watch, "accept", broken)
        assert run("fit", tmp_path / "normals", "--method", "coft", "-o", model, *arguments).code == 130
    done = run("fit", tmp_path / "normals", "--method", "coft", "-o", model, *arguments, "--resume")
    assert done.code == 0, done.err
    assert "resuming after epoch 1" in done.err
    again = json.loads((model / "manifest.json").read_text())
    assert again["training"]["effective_rank"] == whole["training"]["effective_rank"]
    assert again["files"]["model.onnx"] == whole["files"]["model.onnx"]
