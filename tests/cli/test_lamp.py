"""LAMP through the command line: rows with their columns' errors, images with maps, padding, tiles, a timm encoder."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from .conftest import Run, make_table


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    make_table(400, 12).write_parquet(tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


def strips(folder: Path, count: int = 30, odd: int = 4, width: int = 96, height: int = 40) -> Path:
    """Wide striped pictures; the last ones have a blot at 3/4 of the width and half of the height."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    lines = ["path,label"]
    for i in range(count):
        y, x = np.mgrid[0:height, 0:width]
        pixels = 120 + 40 * np.sin(x / 3) + rng.normal(0, 4, (height, width))
        if i >= count - odd:
            pixels[(y - height // 2) ** 2 + (x - 3 * width // 4) ** 2 < 30] = 255
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{i:02d}.png")
        lines.append(f"{i:02d}.png,{int(i >= count - odd)}")
    labels = folder.with_suffix(".csv")
    labels.write_text("\n".join(lines) + "\n")
    return labels


def test_rows_are_told_by_their_worst_columns(run: Run, rows: Path, tmp_path: Path) -> None:
    arguments = ("--labels", "anomaly", "--truth", "anomaly", "--id-column", "key", "--format", "json")
    model = tmp_path / "m"
    done = run("fit", rows, "--method", "lamp", "--train-on", "normal", "-o", model, *arguments, "--set", "epochs=60")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["metrics"]["auroc"] > 0.95
    worst = [row["why"] for row in sorted(found["rows"], key=lambda row: row["rank"])[:10]]
    assert all("(error " in why for why in worst)
    named = [" ".join(why.split(", ")[:2]) for why in worst]
    assert sum("flow" in two or "load" in two for two in named) >= 8, named  # the correlation that was broken
    manifest = json.loads((model / "manifest.json").read_text())
    assert manifest["outputs"] == ["score", "errors"]
    assert manifest["parity"]["decisions_changed"] == 0
    again = run("score", rows, "-m", model, "--id-column", "key", "--format", "json")
    assert [row["why"] for row in json.loads(again.out)["rows"]] == [row["why"] for row in found["rows"]]


def test_without_labels_it_says_what_it_is_made_for(run: Run, rows: Path, tmp_path: Path) -> None:
    arguments = ("--exclude", "anomaly", "--id-column", "key", "--set", "epochs=3")
    done = run("fit", rows, "--method", "lamp", "-o", tmp_path / "m", *arguments)
    assert done.code == 0, done.err
    assert "lamp is made for normal training data" in done.err


@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_the_peak_lies_on_the_picture(run: Run, tmp_path: Path, fit: str) -> None:
    labels = strips(tmp_path / "p")
    arguments = (
        "--labels",
        labels,
        "--format",
        "json",
        "--set",
        "size=48",
        "--set",
        "epochs=60",
        "--set",
        f"fit={fit}",
    )
    model = tmp_path / "m"
    done = run("fit", tmp_path / "p", "--method", "lamp", "--train-on", "normal", "-o", model, *arguments)
    assert done.code == 0, done.err
    odd = sorted(json.loads(done.out)["rows"], key=lambda row: row["rank"])[:4]
    assert {row["id"] for row in odd} == {f"{i}.png" for i in range(26, 30)}
    for row in odd:
        x, y = (int(word) for word in row["why"].replace("%", "").replace(",", "").split() if word.isdigit())
        assert (x, y) == (pytest.approx(75, abs=5), pytest.approx(50, abs=10)), row["why"]
    assert run("report", model, "--maps", tmp_path / "maps", "--html", tmp_path / "r.html", "--top", 4).code == 0
    with (tmp_path / "maps" / "index.csv").open() as file:
        for entry in csv.DictReader(file):
            assert int(entry["peak_x"]) == pytest.approx(72, abs=5)
            assert int(entry["peak_y"]) == pytest.approx(20, abs=5)
            shape = np.load(tmp_path / "maps" / entry["map"]).shape
            assert shape == ((20, 48) if fit == "pad" else (48, 48))
    assert "data:image/jpeg" in (tmp_path / "r.html").read_text()


def test_tiles_and_combined_errors(run: Run, tmp_path: Path) -> None:
    labels = strips(tmp_path / "p", width=64, height=64)
    options = [
        word for pair in ("size=64", "tile=32", "depth=3", "metric=l1+dssim", "epochs=40") for word in ("--set", pair)
    ]
    arguments = ("--labels", labels, "--format", "json", *options)
    done = run("fit", tmp_path / "p", "--method", "lamp", "--train-on", "normal", "-o", tmp_path / "m", *arguments)
    assert done.code == 0, done.err
    odd = sorted(json.loads(done.out)["rows"], key=lambda row: row["rank"])[:4]
    assert {row["id"] for row in odd} == {f"{i}.png" for i in range(26, 30)}


def test_a_timm_encoder_with_weights_of_ones_own(run: Run, tmp_path: Path) -> None:
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    net = timm.create_model("mobilenetv2_035", num_classes=0)
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    labels = strips(tmp_path / "p", width=64, height=64)
    arguments = (
        "--backbone",
        "mobilenetv2_035",
        "--weights",
        tmp_path / "w.safetensors",
        "--set",
        "size=64",
        "--set",
        "epochs=3",
    )
    done = run("fit", tmp_path / "p", "--method", "lamp", "-o", tmp_path / "m", "--labels", labels, *arguments)
    assert done.code == 0, done.err
    backbone = json.loads((tmp_path / "m" / "manifest.json").read_text())["backbone"]
    assert backbone["name"] == "mobilenetv2_035"
    assert backbone["size"] == [64, 64]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["metric=dssim"], "no error of rows"), (["metric=l1+l1"], "twice"), (["tile=32"], "does not heed"),
        (["hidden=1"], ""), (["amplifier=exp"], "log, odds, none"),
    ],
)  # fmt: skip
def test_what_does_not_fit_rows_is_refused(run: Run, rows: Path, tmp_path: Path, options: list[str], said: str) -> None:
    arguments = [word for pair in (*options, "epochs=1") for word in ("--set", pair)]
    done = run("fit", rows, "--method", "lamp", "--id-column", "key", "-o", tmp_path / "m", *arguments)
    assert done.code == (2 if said else 0), done.err
    assert said in done.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["size=48", "tile=32"], "multiple"), (["smooth=4"], "middle"), (["hidden=4"], "does not heed"),
        (["size=16", "depth=5"], "depth"),
    ],
)  # fmt: skip
def test_what_does_not_fit_images_is_refused(run: Run, tmp_path: Path, options: list[str], said: str) -> None:
    strips(tmp_path / "p")
    arguments = [word for pair in options for word in ("--set", pair)]
    done = run("fit", tmp_path / "p", "--method", "lamp", "-o", tmp_path / "m", *arguments)
    assert done.code == 2
    assert said in done.err


def test_known_anomalies_are_not_trained_on(run: Run, tmp_path: Path) -> None:
    """Half of the rows are of another kind: reconstructed as well as the rest, unless they are known for what they are."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, 300)
    odd = np.arange(300) % 3 == 0
    frame = pl.DataFrame({"a": x, "b": np.where(odd, 1 - x, x), "label": odd.astype(int)})
    frame.write_parquet(tmp_path / "t.parquet")
    found = {}
    for name, more in (("known", ["--labels", "label"]), ("unknown", ["--exclude", "label"])):
        truth = frame.with_row_index("id").select(pl.col("id"), "label")
        truth.write_csv(tmp_path / "truth.csv")
        done = run("fit", tmp_path / "t.parquet", "--method", "lamp", "-o", tmp_path / name, "--truth", tmp_path / "truth.csv",
                   "--format", "json", "--set", "epochs=80", "--set", "batch_size=32", *more)  # fmt: skip
        assert done.code == 0, done.err
        found[name] = json.loads(done.out)["metrics"]["auroc"]
    assert found["known"] > found["unknown"] + 0.1


def test_a_known_anomaly_does_not_set_the_scale_of_its_column(run: Run, tmp_path: Path) -> None:
    """Hidden anomalies of a column are found however far out the one known anomaly lies."""
    frame = make_table(300, 12)
    flow = frame["flow"].to_numpy().copy()
    first = int(np.flatnonzero(frame["anomaly"].to_numpy())[0])
    flow[first] = 1e6
    known = pl.when(pl.int_range(pl.len()) == first).then(1)
    frame.with_columns(flow=pl.Series(flow), known=known).write_parquet(tmp_path / "t.parquet")
    done = run(
        "fit", tmp_path / "t.parquet", "--method", "lamp", "--labels", "known", "--truth", "anomaly", "--id-column", "key",
        "-o", tmp_path / "m", "--format", "json", "--set", "epochs=60",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert json.loads(done.out)["metrics"]["auroc"] > 0.8


def test_too_few_items_to_learn_from_is_one_line(run: Run, tmp_path: Path) -> None:
    frame = make_table(60, 3).with_columns(known=pl.when(pl.int_range(pl.len()) < 55).then(1))
    frame.write_parquet(tmp_path / "t.parquet")
    done = run("fit", tmp_path / "t.parquet", "--method", "lamp", "--labels", "known", "-o", tmp_path / "m")
    assert (done.code, "5 of 60 items are too few" in done.err) == (2, True)


def test_options_that_nothing_would_heed(run: Run, tmp_path: Path) -> None:
    strips(tmp_path / "img", 24, 2)
    none = run("fit", tmp_path / "img", "--method", "lamp", "--set", "encoder=trained", "-o", tmp_path / "m")
    assert (none.code, "there is no backbone to train" in none.err) == (2, True)
    size = ["--backbone", "test_resnet", "--backbone-arg", "size=64"]
    twice = run("fit", tmp_path / "img", "--method", "lamp", *size, "-o", tmp_path / "m")
    assert (twice.code, "--set size" in twice.err) == (2, True)


def test_a_transformer_of_fixed_size_sees_tiles(run: Run, tmp_path: Path) -> None:
    """The hint names a tile and a size that it takes, and with them it is fitted and scores."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    net = timm.create_model("test_vit", num_classes=0, img_size=32, dynamic_img_size=False)
    facts = {"arch": "test_vit", "kwargs": "img_size=32,dynamic_img_size=false"}
    save_file(net.state_dict(), tmp_path / "w.safetensors", facts)
    labels = strips(tmp_path / "p", count=24)
    known = ("--labels", labels, "--set", "epochs=2", "--weights", tmp_path / "w.safetensors", "-o", tmp_path / "m")
    refused = run("fit", tmp_path / "p", "--method", "lamp", *known, "--set", "size=96", "--set", "tile=48")
    assert (refused.code, "--set tile=32 --set size=96" in refused.err) == (2, True), refused.err
    done = run("fit", tmp_path / "p", "--method", "lamp", *known, "--set", "size=96", "--set", "tile=32")
    assert done.code == 0, done.err
    manifest = json.loads((tmp_path / "m" / "manifest.json").read_text())
    assert (manifest["backbone"]["size"], manifest["parity"]["decisions_changed"]) == ([32, 32], 0)
    assert run("score", tmp_path / "p", "-m", tmp_path / "m").code == 0
