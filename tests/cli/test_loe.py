"""LOE through the command line: its detectors and recipes, what labels do, a loss pair of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from .conftest import Run, make_images, make_table


@pytest.mark.parametrize(
    "arguments",
    [
        ["detector=icl", "epochs=3"],
        ["recipe=paper", "epochs=4"],
        ["detector=torch_pair:Distance", "epochs=2"],
        ["detector=autoencoder", "metric=l1", "epochs=2"],
    ],
)
def test_detectors_on_a_table(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    (tmp_path / "torch_pair.py").write_text(
        "import torch\nclass Distance(torch.nn.Module):\n"
        "    def __init__(self, features):\n        super().__init__()\n        self.c=torch.nn.Parameter(torch.zeros(features))\n"
        "    def start(self, x):\n        pass\n"
        "    def score(self, x):\n        return (x - self.c).square().mean(1)\n"
        "    def losses(self, x):\n        d = self.score(x)\n        return d, 1 / (d + 0.1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    data, model = tmp_path / "t.parquet", tmp_path / "t.anoaudit"
    make_table(120, 5).write_parquet(data)
    options = [word for pair in arguments for word in ("--set", pair)]
    done = run("fit", data, "--truth", "anomaly", "--id-column", "key", "-o", model, *options)
    assert done.code == 0, done.err
    manifest = json.loads((model / "manifest.json").read_text())
    for pair in arguments:  # what was asked for is on record
        name, value = pair.split("=")
        assert str(manifest["options"][name]) == value
    scored = run("score", data, "-m", model, "--format", "json")
    assert all(np.isfinite(row["score"]) for row in json.loads(scored.out)["rows"])


def test_gt_learns_from_the_labels(run: Run, tmp_path: Path) -> None:
    """The planted anomalies rank higher when they are labelled than when as many normal rows are labelled in their place."""
    frame = make_table(400, 12)
    other = np.zeros(400, dtype=int)
    normal = np.flatnonzero(frame["anomaly"].to_numpy() == 0)
    other[np.random.default_rng(0).choice(normal, 12, replace=False)] = 1
    frame.with_columns(wrong=pl.Series(other)).write_parquet(tmp_path / "t.parquet")
    ranks = {}
    for column, unused in (("anomaly", "wrong"), ("wrong", "anomaly")):
        arguments = [
            "--labels",
            column,
            "--exclude",
            unused,
            "--id-column",
            "key",
            "--set",
            "assignment=gt",
            "--format",
            "json",
        ]
        done = run("fit", tmp_path / "t.parquet", "-o", tmp_path / f"{column}.anoaudit", *arguments)
        assert done.code == 0, done.err
        planted = set(frame.filter(pl.col("anomaly") == 1)["key"])
        rows = json.loads(done.out)["rows"]
        ranks[column] = np.median([row["score"] for row in rows if row["id"] in planted])
    assert ranks["anomaly"] > 1.2 * ranks["wrong"]


def test_embeddings_are_told_and_a_shift_of_all_columns_is_seen(run: Run, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(20, 1, (150, 130))
    rows[:6] += 5  # the same direction
    pl.DataFrame(rows, schema=[f"c{j}" for j in range(130)]).write_parquet(tmp_path / "e.parquet")
    done = run("fit", tmp_path / "e.parquet", "-o", tmp_path / "e.anoaudit", "--format", "json")
    assert "look like an embedding" in done.err
    assert {int(row["id"]) for row in sorted(json.loads(done.out)["rows"], key=lambda r: -r["score"])[:6]} == set(
        range(6)
    )
    chosen = ["--set", "members=forest,nearest", "--set", "scaling=robust"]
    done = run("fit", tmp_path / "e.parquet", "-o", tmp_path / "f.anoaudit", *chosen)
    assert done.code == 0, done.err
    manifest = json.loads((tmp_path / "f.anoaudit" / "manifest.json").read_text())
    assert manifest["training"]["members"] == ["forest", "nearest"]


def test_mhrot_learns_from_pixels_and_says_how_long(run: Run, tmp_path: Path) -> None:
    make_images(tmp_path / "tiles", 24, 2)
    options = ["--set", "detector=mhrot", "--set", "size=16", "--set", "epochs=1", "--backbone", "test_resnet"]
    done = run("fit", tmp_path / "tiles", "-o", tmp_path / "m.anoaudit", *options)
    assert done.code == 0, done.err
    assert "36 views an image" in done.err
    manifest = json.loads((tmp_path / "m.anoaudit" / "manifest.json").read_text())
    assert (manifest["backbone"]["recipe"], manifest["outputs"]) == ("from scratch", ["score"])
    refused = run(
        "fit", tmp_path / "tiles", "-o", tmp_path / "n.anoaudit", *options, "--weights", tmp_path / "w.safetensors"
    )
    assert (refused.code, "takes no --weights" in refused.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["detector=forest"], "there is no such loss pair"), (["detector=mhrot"], "this is a table"),
     (["detector=no_such_module:Pair"], "No module named"), (["recipe=paper", "detector=gaussian"], "no configuration"),
     (["members=forest,tree"], "gaussian, forest, nearest"), (["members=forest,forest"], "gaussian, forest, nearest")],
)  # fmt: skip
def test_wrong_choices_are_one_line(run: Run, tmp_path: Path, arguments: list[str], said: str) -> None:
    make_table(60, 3).write_parquet(tmp_path / "t.parquet")
    options = [word for pair in arguments for word in ("--set", pair)]
    done = run("fit", tmp_path / "t.parquet", "-o", tmp_path / "m.anoaudit", *options)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "m.anoaudit").exists()


def test_gt_of_hardly_any_normals_gives_no_p_values(run: Run, tmp_path: Path) -> None:
    labels = np.ones(60, dtype=int)
    labels[:2] = 0  # known anomalies have no place in a null, and two items make none
    rows = pl.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), schema=["a", "b", "c"])
    rows.with_columns(known=pl.Series(labels)).write_parquet(tmp_path / "t.parquet")
    done = run(
        "fit", tmp_path / "t.parquet", "-o", tmp_path / "m.anoaudit", "--labels", "known", "--set", "assignment=gt"
    )
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "m.anoaudit" / "manifest.json").read_text())["training"]["held_out"] == 0


def test_labels_stand_beside_the_scores(run: Run, tmp_path: Path) -> None:
    """What training was told is in the audit's table, and the report names known anomalies that are not flagged."""
    data, model = tmp_path / "t.parquet", tmp_path / "t.anoaudit"
    frame = make_table(300, 6)
    known = pl.when(pl.int_range(pl.len()) < 5).then(1)  # ordinary rows, most of them, called anomalies
    frame.with_columns(known=known).write_parquet(data)
    done = run("fit", data, "--labels", "known", "--exclude", "anomaly", "-o", model, "--format", "json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert [row["label"] for row in document["rows"]] == [1] * 5 + [None] * 295
    low = [row for row in document["rows"] if row["label"] == 1 and not row["flagged"]]
    assert document["known_anomalies"] == {"labelled": 5, "unreadable": 0, "below_decision": len(low)}
    assert f"5 labelled, {len(low)} below the decision" in run("report", model).out


def test_an_autoencoder_on_contaminated_images_has_maps(run: Run, tmp_path: Path) -> None:
    labels = make_images(tmp_path / "tiles", 30, 3)
    options = ["--set", "detector=autoencoder", "--set", "size=32", "--set", "epochs=30", "--format", "json"]
    done = run("fit", tmp_path / "tiles", "--truth", labels, "-o", tmp_path / "m", *options)
    assert done.code == 0, done.err
    assert json.loads(done.out)["metrics"]["auroc"] > 0.9
    manifest = json.loads((tmp_path / "m" / "manifest.json").read_text())
    assert manifest["outputs"] == ["score", "map"]
    assert manifest["training"]["assignment"] == "soft"
    for option in ("strides=8", "scaling=none", "features=pooled"):
        assert run("fit", tmp_path / "tiles", "-o", tmp_path / "n", *options, "--set", option).code == 2
