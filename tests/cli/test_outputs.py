"""No output of any command replaces what the command reads, or the data that scores and models were made of."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from .conftest import Run
from .test_report_html import tiles

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))
from tiny_models import IMAGES, TABLE, write_tiny


def everything(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def place(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rows and their truth, a model that holds their audit, their scores in two formats, another table, a photograph."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = pl.DataFrame({f"c{i}": rng.normal(size=80) for i in range(3)})
    rows.write_parquet("rows.parquet")
    rows.write_csv("other.csv")
    pl.DataFrame({"id": range(80), "label": [0] * 79 + [1]}).write_csv("truth.csv")
    write_tiny(Path("first.anoaudit"), TABLE)
    assert run("score", "rows.parquet", "-m", "first.anoaudit", "-o", "s.parquet").code == 0
    write_tiny(Path("m.anoaudit"), TABLE, scores=Path("s.parquet"))
    assert run("report", "s.parquet", "-o", "s.json").code == 0
    tiles(tmp_path / "tiles", 1)
    Path("weights.safetensors").write_bytes(b"weights")
    return tmp_path


REPORT, SCORE = ["report"], ["score", "rows.parquet", "-m", "m.anoaudit"]


@pytest.mark.parametrize(
    "arguments",
    [
        *([*REPORT, scores, *out] for scores in ("m.anoaudit", "s.parquet", "s.json") for out in (
            ["-o", "rows.parquet"], ["-f", "json", "-o", "rows.parquet"], ["--html", "rows.parquet"], ["-o", "other.csv"],
            ["-f", "csv", "-o", "tiles/right/tile_00.png"], ["--html", "tiles/right/tile_00.png"], ["--html", "other.csv"],
            ["--truth", "truth.csv", "-o", "truth.csv"], ["--truth", "truth.csv:label", "--html", "truth.csv"],
        )),
        *([*SCORE, *out] for out in (
            ["-o", "rows.parquet"], ["--html", "rows.parquet"], ["--truth", "truth.csv", "-o", "truth.csv"],
            ["--truth", "truth.csv:label", "--html", "truth.csv"], ["--html", "m.anoaudit/model.onnx"],
        )),
        ["report", "s.parquet", "-f", "csv", "-o", "s.parquet"],
        ["report", "s.json", "--html", "s.json"],
        ["report", "s.parquet", "--html", "r.html", "-f", "json", "-o", "r.html"],
        ["score", "other.csv", "-m", "m.anoaudit", "-o", "rows.parquet"],  # what the model was fitted on
        ["score", "other.csv", "-m", "m.anoaudit", "-f", "parquet", "-o", "link"],
        ["score", "*.parquet", "-m", "m.anoaudit", "-o", "s.parquet"],
        ["fit", "rows.parquet", "--html", "rows.parquet"],
        ["fit", "rows.parquet", "--truth", "truth.csv", "--html", "truth.csv"],
        ["fit", "rows.parquet", "--labels", "truth.csv:label", "--html", "truth.csv"],
        ["fit", "tiles", "--weights", "weights.safetensors", "--html", "weights.safetensors"],
        ["fit", "m.anoaudit/scores.parquet", "-o", "m.anoaudit", "--force"],
        ["fit", "rows.parquet", "-o", "tiles", "--force"],
        ["fit", "rows.parquet", "-o", "m.anoaudit", "--force", "--html", "m.anoaudit"],
    ],
)  # fmt: skip
def test_what_is_read_stays(place: Path, run: Run, arguments: list[str]) -> None:
    (place / "link").symlink_to("rows.parquet")
    before = everything(place)
    done = run(*arguments)
    assert (done.code, done.out) == (2, ""), done.err
    assert len(done.err.splitlines()) == 2
    assert everything(place) == before


def test_a_score_table_may_be_written_again(place: Path, run: Run) -> None:
    (place / "new.csv").touch()  # as mktemp leaves it
    for out in ("new.csv", "new.csv", "s.json"):
        assert run("score", "other.csv", "-m", "m.anoaudit", "-o", out).code == 0
    assert pl.read_csv(place / "new.csv").height == 80


def test_recorded_data_stays_when_asked_from_elsewhere(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model says `rows.parquet`, which means nothing here."""
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    before = everything(place)
    assert run("report", "../m.anoaudit", "-o", "../rows.parquet").code == 2
    assert everything(place) == before


def test_a_model_with_somebodys_file_in_it_is_not_replaced(place: Path, run: Run) -> None:
    (place / "m.anoaudit" / "notes.txt").write_text("keep me")
    done = run("fit", "rows.parquet", "-o", "m.anoaudit", "--force")
    assert (done.code, "'notes.txt'" in done.err) == (2, True)
    (place / "app").mkdir()
    (place / "app" / "manifest.json").write_text("{}")  # of something else
    assert run("fit", "rows.parquet", "-o", "app", "--force").code == 2
    (place / "x.anoaudit.part").mkdir()
    (place / "x.anoaudit.part" / "notes.txt").write_text("keep me")
    for more in ([], ["--resume"]):
        assert run("fit", "rows.parquet", "-o", "x.anoaudit", *more).code == 2
    assert (place / "x.anoaudit.part" / "notes.txt").read_text() == "keep me"
    (place / "y.anoaudit.part").mkdir()
    for name in (
        ".tmpJrD0FH",
        ".anoaudit-6468f37eb32f.tmp",
    ):  # a fit was killed while safetensors, or the scores, were written
        (place / "y.anoaudit.part" / name).write_bytes(b"half")
    assert run("fit", "rows.parquet", "-o", "y.anoaudit").code == 0
    assert not (place / "y.anoaudit.part").exists()


def test_maps_do_not_replace_the_scores_they_are_made_of(place: Path, run: Run) -> None:
    data = tiles(place / "photos", 3)
    write_tiny(place / "images.anoaudit", IMAGES)
    assert run("score", data, "-m", "images.anoaudit", "-o", "i.parquet").code == 0
    base = ["report", "--model", "images.anoaudit", "--maps", "maps"]
    assert run(*base, "i.parquet").code == 0
    shutil.move("i.parquet", "maps/i.parquet")
    done = run(*base, "maps/i.parquet", "--force")
    assert (done.code, "lies in maps" in done.err) == (2, True)
    assert (place / "maps" / "i.parquet").exists()
