"""AnoOnly through the command line: tables, images through features and end to end, labels, resume."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from anoaudit.methods.anoonly import method
from anoaudit.methods.anoonly.options import AnoOnlyOptions
from anoaudit.training.features import LocationScaler, RowBatches

from .conftest import Run, make_images, make_table

BASES = ("devnet", "prenet", "deepsad", "feawad")


def labelled_table(path: Path, known: int, rows: int = 160, anomalies: int = 12) -> Path:
    """`known` of the planted anomalies are marked 1, the other items 0 or nothing in turn."""
    frame = make_table(rows, anomalies)
    marked = set(np.flatnonzero(frame["anomaly"].to_numpy())[:known].tolist())
    label = [1 if i in marked else (0 if i % 2 else None) for i in range(rows)]
    frame.with_columns(known=pl.Series(label, dtype=pl.Int8)).drop("anomaly").write_parquet(path)
    return path


def sets(*pairs: str) -> list[str]:
    return [word for pair in pairs for word in ("--set", pair)]


FIT = ("--method", "anoonly", "--labels", "known", "--id-column", "key", "--format", "json")


@pytest.mark.parametrize(("base", "supervision"), list(itertools.product(BASES, ("anomaly-only", "full"))))
def test_every_base_on_a_table(run: Run, tmp_path: Path, base: str, supervision: str) -> None:
    """Fit exports and compares the graph with torch itself; score gives what fit gave."""
    data, model = labelled_table(tmp_path / "t.parquet", 6), tmp_path / "t.anoaudit"
    short = ["epochs=3", *(["steps=4"] if base != "deepsad" else []), *(["pretrain=2"] if base == "feawad" else [])]
    done = run("fit", data, "-o", model, *FIT, *sets(f"base={base}", f"supervision={supervision}", *short))
    assert done.code == 0, done.err
    assert "6 known anomalies" in done.err
    assert "154 items taken as unlabelled" in done.err
    manifest = json.loads((model / "manifest.json").read_text())
    assert manifest["training"]["known_anomalies"] == 6
    assert manifest["training"]["labelled"] == {"anomaly": 6, "normal": 0}
    assert manifest["parity"]["decisions_changed"] == 0
    assert manifest["calibration"]["kind"] == "fitted-null"
    document = json.loads(done.out)
    assert document["known_anomalies"]["labelled"] == 6
    fitted = {row["id"]: row["score"] for row in document["rows"]}
    again = {
        row["id"]: row["score"] for row in json.loads(run("score", data, "-m", model, "--format", "json").out)["rows"]
    }
    assert again == pytest.approx(fitted, rel=1e-4, abs=1e-5)


def test_hidden_anomalies_are_found_by_the_known_ones(run: Run, tmp_path: Path) -> None:
    """Half of the planted anomalies are marked; the others, hidden among the unlabelled, rank first."""
    data = labelled_table(tmp_path / "t.parquet", 10, 400, 20)
    truth = make_table(400, 20)
    hidden = set(truth.filter(pl.col("anomaly") == 1)["key"].to_list()[10:])
    options = sets("base=devnet", "scaling=standard", "epochs=20", "lr=1e-2")
    done = run("fit", data, "-o", tmp_path / "t.anoaudit", *FIT, *options)
    assert done.code == 0, done.err
    rows = sorted(json.loads(done.out)["rows"], key=lambda row: -row["score"])
    assert len(hidden & {row["id"] for row in rows[:24]}) >= 8


def test_known_anomalies_that_training_did_not_lift_are_a_warning(run: Run, tmp_path: Path) -> None:
    """Rows like all others are marked, and the step is too small to learn them."""
    frame = make_table(160, 0)
    label = pl.Series([1 if i % 20 == 3 else None for i in range(160)], dtype=pl.Int8)
    frame.with_columns(known=label).drop("anomaly").write_parquet(tmp_path / "t.parquet")
    options = [*FIT, *sets("epochs=1", "lr=1e-8")]
    done = run("fit", tmp_path / "t.parquet", "-o", tmp_path / "t.anoaudit", *options)
    assert done.code == 0, done.err
    facts = json.loads((tmp_path / "t.anoaudit" / "manifest.json").read_text())
    assert facts["training"]["known_above_unlabelled"] < 0.8
    assert sum("do not trust this ranking" in warning for warning in facts["warnings"]) == 1
    learned = labelled_table(tmp_path / "l.parquet", 6)
    done = run("fit", learned, "-o", tmp_path / "l.anoaudit", *FIT, *sets("epochs=20", "lr=1e-2"))
    assert "do not trust" not in done.err


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network with batch normalisation, as a file."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    net = timm.create_model("test_resnet", num_classes=0)
    save_file(net.state_dict(), path, {"arch": "test_resnet", "mean": "0.5", "std": "0.25", "size": "48"})
    return path


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """40 images, 5 with a blot, 3 of them marked."""
    folder = tmp_path_factory.mktemp("images")
    labels = make_images(folder / "tiles", 40, 5)
    frame = pl.read_csv(labels)
    marked = pl.int_range(pl.len()) >= 37
    frame.with_columns(anomaly=pl.when(marked).then(1)).write_csv(labels)
    return folder / "tiles", labels


@pytest.mark.parametrize(
    ("base", "supervision", "fine_tune"),
    [("prenet", "anomaly-only", False), ("feawad", "anomaly-only", True), ("deepsad", "anomaly-only", True),
     ("devnet", "full", True)],
)  # fmt: skip
def test_images(
    run: Run, tmp_path: Path, tiles: tuple[Path, Path], weights: Path, base: str, supervision: str, fine_tune: bool
) -> None:
    data, labels = tiles
    model = tmp_path / "m.anoaudit"
    options = [f"base={base}", f"supervision={supervision}", "epochs=2", "batch_size=8", f"fine_tune={fine_tune}"]
    options += ["steps=3"] if fine_tune or base != "deepsad" else []
    options += ["pretrain=1"] if base == "feawad" else []
    arguments = ["--method", "anoonly", "--labels", labels, "--weights", weights, "--format", "json"]
    done = run("fit", data, "-o", model, *arguments, *sets(*options))
    assert done.code == 0, done.err
    assert "3 known anomalies (2 in left, 1 in right)" in done.err
    manifest = json.loads((model / "manifest.json").read_text())
    assert manifest["training"]["known_by_group"] == {"left": 2, "right": 1}
    fitted = {row["id"]: row["score"] for row in json.loads(done.out)["rows"]}
    again = {
        row["id"]: row["score"] for row in json.loads(run("score", data, "-m", model, "--format", "json").out)["rows"]
    }
    assert again == pytest.approx(fitted, rel=1e-3, abs=1e-3)


def test_fine_tuning_needs_a_backbone_with_batch_normalisation(
    run: Run, tmp_path: Path, tiles: tuple[Path, Path]
) -> None:
    data, labels = tiles
    path = tmp_path / "vit.safetensors"
    save_file(timm.create_model("test_vit", num_classes=0).state_dict(), path, {"arch": "test_vit"})
    common = ["fit", data, "-o", tmp_path / "m.anoaudit", "--method", "anoonly", "--labels", labels]
    common += sets("fine_tune=true", "epochs=1", "steps=1")
    vit = run(*common, "--weights", path)
    assert (vit.code, "no batch normalisation" in vit.err, "resnet18" in vit.err) == (2, True, True)
    none = run(*common, "--backbone", "none")
    assert (none.code, "needs a backbone that can be trained" in none.err) == (2, True)


@pytest.mark.parametrize(("more", "follows"), [([], False), (["statistics=batch"], True)])
def test_a_fine_tuned_backbone_keeps_its_statistics_unless_asked(
    run: Run, tmp_path: Path, tiles: tuple[Path, Path], weights: Path, monkeypatch: pytest.MonkeyPatch,
    more: list[str], follows: bool,
) -> None:  # fmt: skip
    """Seen where training is over: the backbone's running statistics against those of the file."""
    trained: list[torch.nn.Module] = []
    look_back = method._look_back
    monkeypatch.setattr(method, "_look_back", lambda module, *rest: (trained.append(module), look_back(module, *rest)))
    data, labels = tiles
    options = sets("fine_tune=true", "epochs=1", "steps=2", "batch_size=8", *more)
    done = run(
        "fit",
        data,
        "-o",
        tmp_path / "m.anoaudit",
        "--method",
        "anoonly",
        "--labels",
        labels,
        "--weights",
        weights,
        *options,
    )
    assert done.code == 0, done.err
    given = load_file(weights)
    state = trained[-1].state_dict()
    moved = [not torch.equal(state[f"backbone.net.{name}"], given[name]) for name in given if "running_mean" in name]
    learned = [not torch.equal(state[f"backbone.net.{name}"], given[name]) for name in given if "conv" in name]
    assert moved
    assert all(moved) if follows else not any(moved)
    assert any(learned)


def test_a_feature_that_hardly_moves_is_not_blown_up(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.tensor([[0.0, 1.0, 5.0], [10.0, 1.0 + 1e-6, 5.0], [4.0, 1.0, 5.0]])
    monkeypatch.setattr(method, "extract", lambda *_, **__: RowBatches(rows, np.zeros(3, dtype=np.int8)))
    scaler = LocationScaler(3, None, per_location=False, off=True)
    trainer: Any = SimpleNamespace(
        device=torch.device("cpu"), seed=0, reporter=None, checkpoints=SimpleNamespace(folder=Path())
    )
    items: Any = SimpleNamespace(labels=np.zeros(3, dtype=np.int8))
    options = AnoOnlyOptions().for_data("images")
    scaled = method._pooled(items, torch.nn.Identity(), scaler, options, trainer).rows
    assert scaled[:, 0].tolist() == pytest.approx([0.0, 1.0, 0.4])
    assert scaled[:, 1].abs().max() < 1e-3
    assert scaled[:, 2].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("labels", "said"),
    [([None] * 60, "found 0"), ([0] * 60, "found 0"), ([1] + [None] * 59, "found 1"), ([1] * 60, "60 of 60 items"),
     ([1] * 50 + [0] * 10, "10 unlabelled ones are too few"), (["yes"] * 3 + [None] * 57, "holds 'yes'"),
     ([2] * 3 + [None] * 57, "holds '2'")],
)  # fmt: skip
def test_labels_that_do_not_do_are_one_line(run: Run, tmp_path: Path, labels: list[object], said: str) -> None:
    make_table(60, 3).drop("anomaly").with_columns(known=pl.Series(labels)).write_parquet(tmp_path / "t.parquet")
    done = run("fit", tmp_path / "t.parquet", "-o", tmp_path / "m.anoaudit", *FIT)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "m.anoaudit").exists()


def test_without_labels_it_says_how_to_give_them(run: Run, tmp_path: Path) -> None:
    make_table(60, 3).write_parquet(tmp_path / "t.parquet")
    done = run("fit", tmp_path / "t.parquet", "-o", tmp_path / "m.anoaudit", "--method", "anoonly")
    assert (done.code, "--labels" in done.err) == (2, True)
    given = run(
        "fit",
        tmp_path / "t.parquet",
        "-o",
        tmp_path / "m.anoaudit",
        *FIT[:2],
        "--labels",
        "anomaly",
        "--train-on",
        "normal",
    )
    assert (given.code, "anoonly" in given.err) == (2, True)


@pytest.mark.parametrize(
    ("options", "said"),
    [(["base=devnett"], "one of devnet"), (["fine_tune=true"], "on a table does not heed"),
     (["statistics=batch"], "does not heed"), (["loss=linear"], "does not heed"),
     (["base=devnet", "partners=3"], "does not heed"), (["pretrain=0"], "does not heed"), (["steps=3"], "does not heed")],
)  # fmt: skip
def test_wrong_options_are_one_line(run: Run, tmp_path: Path, options: list[str], said: str) -> None:
    done = run("fit", labelled_table(tmp_path / "t.parquet", 6), "-o", tmp_path / "m.anoaudit", *FIT, *sets(*options))
    assert (done.code, said in done.err) == (2, True), done.err


def test_norm_off_says_what_it_costs(run: Run, tmp_path: Path) -> None:
    options = sets("base=devnet", "norm=false", "epochs=2")
    data, model = labelled_table(tmp_path / "t.parquet", 6), tmp_path / "t.anoaudit"
    done = run("fit", data, "-o", model, *FIT, *options)
    assert done.code == 0, done.err
    assert "by chance" in done.err
    assert any("by chance" in line for line in json.loads((model / "manifest.json").read_text())["warnings"])
    other = run("fit", data, "-o", model, "--force", *FIT, *sets("base=prenet", "norm=false", "epochs=2"))
    assert (other.code, "by chance" in other.err) == (0, False)  # its pairs meet unlabelled items in a loss


def test_the_default_finds_hidden_anomalies(run: Run, tmp_path: Path) -> None:
    data = labelled_table(tmp_path / "t.parquet", 10, 400, 20)
    hidden = set(make_table(400, 20).filter(pl.col("anomaly") == 1)["key"].to_list()[10:])
    done = run("fit", data, "-o", tmp_path / "t.anoaudit", *FIT)
    assert done.code == 0, done.err
    rows = sorted(json.loads(done.out)["rows"], key=lambda row: -row["score"])
    found = [row["id"] in hidden for row in rows if row["label"] != 1]
    assert np.mean(np.flatnonzero(found)) < 60  # of 390; by chance 195


def test_a_loe_fit_with_known_anomalies_names_anoonly(run: Run, tmp_path: Path) -> None:
    data = labelled_table(tmp_path / "t.parquet", 3)
    done = run("fit", data, "-o", tmp_path / "m.anoaudit", "--labels", "known", "--id-column", "key")
    assert done.code == 0, done.err
    assert "--method anoonly" in done.err


@pytest.mark.parametrize("base", ["prenet", "feawad"])
def test_an_interrupted_fit_resumes_to_the_same_model(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str
) -> None:
    from anoaudit.training import loop

    data = labelled_table(tmp_path / "t.parquet", 5)
    arguments = [
        "fit",
        data,
        *FIT,
        *sets(f"base={base}", "epochs=4", "steps=3", *(["pretrain=4"] if base == "feawad" else [])),
    ]
    assert run(*arguments, "-o", tmp_path / "whole.anoaudit").code == 0
    monkeypatch.setattr("anoaudit.training.checkpoint.SECONDS_BETWEEN", 0.0)
    real, calls = loop._epoch, []

    def interrupted(*positional: object, **named: object) -> object:
        calls.append(1)
        if len(calls) == (15 if base == "feawad" else 7):  # in the final fit, after the one for calibration
            raise KeyboardInterrupt
        return real(*positional, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "_epoch", interrupted)
    assert run(*arguments, "-o", tmp_path / "part.anoaudit").code == 130
    monkeypatch.setattr(loop, "_epoch", real)
    resumed = run(*arguments, "-o", tmp_path / "part.anoaudit", "--resume")
    assert (resumed.code, "resuming" in resumed.err) == (0, True)
    first, second = ((tmp_path / f"{name}.anoaudit" / "model.onnx").read_bytes() for name in ("whole", "part"))
    assert first == second
