"""`fit --contamination auto` and `--alpha-sensitivity` through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from .conftest import Run, make_images, make_table


def training(model: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((model / "manifest.json").read_text())["training"]
    return values


def test_a_table_says_what_was_estimated_and_how_alpha_matters(run: Run, tmp_path: Path) -> None:
    data, model = tmp_path / "t.parquet", tmp_path / "t.anoaudit"
    make_table(600, 40).write_parquet(data)
    options = ["--truth", "anomaly", "--id-column", "key", "--contamination", "auto", "--alpha-sensitivity"]
    done = run("fit", data, "-o", model, *options, "--format", "json")
    assert done.code == 0, done.err
    facts = training(model)
    found = facts["contamination_estimate"]
    assert found["estimator"] == "Meinshausen-Rice"
    assert found["low"] <= found["share"] <= found["high"]
    assert facts["contamination"] == found["share"] == pytest.approx(40 / 600, abs=0.05)
    assert "Meinshausen-Rice" in done.err
    runs = facts["alpha_sensitivity"]["runs"]
    assert [run["alpha"] for run in runs] == pytest.approx([found["share"] / 2, found["share"] * 2])
    assert all(-1 <= run["spearman"] <= 1 and 0 <= run["top_overlap"] <= 1 for run in runs)
    summary = json.loads(done.out)["summary"]
    assert summary["contamination"] == {
        "assumed": found["share"],
        "estimate": found,
        "sensitivity": facts["alpha_sensitivity"],
    }
    shown, inspected = run("report", model), run("inspect", model)
    for text in (shown.out, inspected.out):
        assert "Meinshausen-Rice" in " ".join(text.split())
        assert "rank correlation" in " ".join(text.split())
    assert run("report", model, "--html", tmp_path / "r.html").code == 0
    assert "--contamination auto" in (tmp_path / "r.html").read_text()


def test_image_folders(run: Run, tmp_path: Path) -> None:
    make_images(tmp_path / "tiles", 60, 4)
    model = tmp_path / "m.anoaudit"
    options = ["--backbone", "none", "--contamination", "auto", "--alpha-sensitivity"]
    done = run("fit", tmp_path / "tiles", "-o", model, *options)
    assert done.code == 0, done.err
    facts = training(model)
    assert facts["contamination_estimate"]["items"] == 60
    assert facts["contamination_estimate"]["low"] <= 4 / 60 <= facts["contamination_estimate"]["high"]
    assert facts["alpha_sensitivity"]["epochs"] is None  # a closed form is not cut short
    assert "rank correlation" in " ".join(done.out.split())


def test_a_trained_detector_compares_equally_short_runs(run: Run, tmp_path: Path) -> None:
    data, model = tmp_path / "t.parquet", tmp_path / "t.anoaudit"
    make_table(120, 6).write_parquet(data)
    options = ["--exclude", "anomaly", "--set", "detector=deep-svdd", "--set", "epochs=12", "--alpha-sensitivity"]
    assert run("fit", data, "-o", model, *options).code == 0
    facts = training(model)
    assert facts["alpha_sensitivity"]["epochs"] == 3
    assert facts["epochs"] == 12  # the model itself is trained in full
    assert "contamination_estimate" not in facts


def test_spatial_features_and_pixels(run: Run, tmp_path: Path) -> None:
    make_images(tmp_path / "tiles", 24, 2)
    for name, options in (
        ("svdd", ["--backbone", "none", "--set", "detector=deep-svdd", "--set", "epochs=3"]),
        ("mhrot", ["--backbone", "test_resnet", "--set", "detector=mhrot", "--set", "size=16", "--set", "epochs=1"]),
    ):
        model = tmp_path / f"{name}.anoaudit"
        done = run("fit", tmp_path / "tiles", "-o", model, *options, "--contamination", "auto", "--alpha-sensitivity")
        assert done.code == 0, done.err
        facts = training(model)
        assert facts["contamination"] == 0.1  # too few images for an estimate: said, and the default assumed
        assert "not estimated: only 24 items" in " ".join(done.out.split())
        assert len(facts["alpha_sensitivity"]["runs"]) == 2


def test_pixels_are_estimated_through_the_filter_bank(run: Run, tmp_path: Path) -> None:
    make_images(tmp_path / "tiles", 56, 4)
    options = ["--backbone", "test_resnet", "--set", "detector=mhrot", "--set", "size=16", "--set", "epochs=1"]
    done = run("fit", tmp_path / "tiles", "-o", tmp_path / "m.anoaudit", *options, "--contamination", "auto")
    assert done.code == 0, done.err
    assert training(tmp_path / "m.anoaudit")["contamination_estimate"]["items"] == 56


def test_known_labels_are_counted(run: Run, tmp_path: Path) -> None:
    data, model = tmp_path / "t.parquet", tmp_path / "t.anoaudit"
    make_table(120, 6).write_parquet(data)
    options = ["--labels", "anomaly", "--set", "assignment=gt", "--contamination", "auto"]
    done = run("fit", data, "-o", model, "--id-column", "key", *options)
    assert done.code == 0, done.err
    found = training(model)["contamination_estimate"]
    assert found["estimator"] == "counted from the labels"
    assert found["share"] == 6 / 120


def test_bad_texts_are_refused_in_one_line(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "t.parquet"
    make_table(60, 3).with_columns(known=pl.lit(0)).write_parquet(data)
    for options, said in (
        (["--contamination", "some"], "neither a share nor auto"),
        (["--contamination", "nan"], "between 0 and 0.5"),
        (["--contamination", "60%"], "0.6: the assumed share"),
        (["--id-column", "f"], "no column 'f'"),
        (["--contamination", "-0.1"], "between 0 and 0.5"),
        (["--contamination", "0", "--alpha-sensitivity"], "no half and no double"),
        (["--contamination", "auto", "--train-on", "normal", "--labels", "known"], "--train-on normal"),
        (["--alpha-sensitivity", "--set", "assignment=blind"], "does not heed α"),
    ):
        done = run("fit", data, "-o", tmp_path / "m.anoaudit", *options)
        assert done.code == 2, done.err
        assert said in done.err
        assert "Traceback" not in done.err


@pytest.mark.parametrize("method", ["anoonly", "anomem", "coft", "lamp"])
def test_sensitivity_of_what_does_not_heed_it_is_refused(run: Run, tmp_path: Path, method: str) -> None:
    make_table(60, 3).write_parquet(tmp_path / "t.parquet")
    done = run("fit", tmp_path / "t.parquet", "--method", method, "--alpha-sensitivity", "-o", tmp_path / "m")
    assert (done.code, f"{method} does not train with the contamination" in done.err) == (2, True)
