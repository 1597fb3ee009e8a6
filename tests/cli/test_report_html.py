"""`report --html` and `report --maps` from the command line, with a model of a few nodes: nothing here trains or needs torch."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from .conftest import Run
from .test_score import BLOCKED

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))
from tiny_models import IMAGES, TABLE, write_tiny

EVIL = "<img src=x onerror=alert(1)>.png"


@dataclass(frozen=True)
class Case:
    data: Path
    model: Path
    scores: Path


def tiles(folder: Path, count: int = 25) -> Path:
    """Dull tiles of 80×60; number i has a spot of brightness 100 + 4i, its middle at (15 + 10·(i mod 6), 25)."""
    for i in range(count):
        pixels = np.full((60, 80, 3), 40, dtype=np.uint8)
        x = 10 + 10 * (i % 6)
        pixels[20:30, x : x + 10] = 100 + 4 * i
        path = folder / ("left" if i % 2 else "right") / f"tile_{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture
def case(run: Run, tmp_path: Path) -> Case:
    data = tiles(tmp_path / "tiles")
    (data / EVIL).write_bytes(b"no image")
    write_tiny(tmp_path / "m.anoaudit", IMAGES)
    done = run("score", data, "-m", tmp_path / "m.anoaudit", "--top-k", "3", "-o", tmp_path / "s.parquet")
    assert done.code == 0, done.err
    return Case(data, tmp_path / "m.anoaudit", tmp_path / "s.parquet")


@pytest.fixture
def audit(case: Case, tmp_path: Path) -> Path:
    """A model that holds the audit of the tiles, as `fit` leaves it."""
    write_tiny(tmp_path / "audit.anoaudit", IMAGES, scores=case.scores)
    return tmp_path / "audit.anoaudit"


def index(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "index.csv").open(encoding="utf-8")))


def test_maps_have_their_peak_where_the_defect_is(case: Case, run: Run, tmp_path: Path) -> None:
    done = run("report", case.scores, "--model", case.model, "--maps", tmp_path / "maps")
    assert (done.code, done.out) == (0, "")
    assert "20 heat maps written" in done.err
    rows = index(tmp_path / "maps")
    assert len(rows) == 20
    assert rows[0]["id"] == "right/tile_24.png"
    for row in rows:
        i = int(row["id"][-6:-4])
        assert (int(row["peak_x"]), int(row["peak_y"])) == (15 + 10 * (i % 6), 25)
        assert np.load(tmp_path / "maps" / row["map"]).shape == (6, 8)
    with Image.open(tmp_path / "maps" / rows[0]["file"]) as drawn:
        pixels = np.asarray(drawn).astype(int)
    assert pixels.shape == (240, 320, 3)  # enlarged, to be seen
    y, x = np.unravel_index((pixels.max(axis=2) - pixels.min(axis=2)).argmax(), pixels.shape[:2])
    assert (y // 40, x // 40) == (2, 1)  # the only colour is at the spot


def test_a_model_is_its_own_audit(audit: Path, run: Run, tmp_path: Path) -> None:
    done = run("report", audit, "--maps", tmp_path / "maps", "--top", "2", "--html", tmp_path / "r.html")
    assert (done.code, done.out) == (0, ""), done.err
    assert [row["rank"] for row in index(tmp_path / "maps")] == ["1", "2"]
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert text.count("data:image/jpeg") == 4
    assert "anoaudit fit" in text


def test_the_page_of_a_score_table(case: Case, run: Run, tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    done = run("report", case.scores, "--model", case.model, "--html", page)
    assert (done.code, done.out) == (0, "")
    assert "report written to" in done.err
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/jpeg") == 2 * 24
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;.png" in text
    assert not re.search(r"https?://", text)
    assert "not an image, or a format that is not supported" in text
    assert f"anoaudit score {case.data} --model {case.model} --top-k 3 -o s.parquet" in text
    assert len(text) < 1_000_000
    run("report", case.scores, "--html", page)  # without a model, and over the old one
    assert page.read_text(encoding="utf-8").count("data:image/jpeg") == 24


def test_fit_and_score_write_the_page_as_well(case: Case, run: Run, tmp_path: Path) -> None:
    done = run("score", case.data, "-m", case.model, "--html", tmp_path / "r.html", "-f", "csv", "--fail-on", "score>0")
    assert done.code == 1  # the clause, not the page
    assert done.out.startswith("id,status")
    assert (tmp_path / "r.html").read_text(encoding="utf-8").count("data:image/jpeg") >= 24
    for command in (["fit", case.data], ["score", case.data, "-m", case.model]):
        done = run(*command, "--html", tmp_path / "none" / "r.html")
        assert (done.code, "does not exist" in done.err, done.out) == (3, True, "")  # said before the work
    assert run("score", case.data, "-m", case.model, "--html", case.model / "r.html").code == 2
    assert run("score", case.data, "-m", case.model, "--html", case.data).code == 2


def test_tables_have_a_page_without_pictures(run: Run, tmp_path: Path) -> None:
    frame = pl.DataFrame({f"c{i}": np.random.default_rng(i).normal(size=80) for i in range(3)})
    frame.write_csv(tmp_path / "rows.csv")
    model = write_tiny(tmp_path / "rows.anoaudit", TABLE).path
    done = run("score", tmp_path / "rows.csv", "-m", model, "-o", tmp_path / "s.json", "--html", tmp_path / "r.html")
    assert done.code == 0, done.err
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "data:image" not in text
    assert '<td class="why">c' in text
    done = run("report", tmp_path / "s.json", "-m", model, "--maps", tmp_path / "maps")
    assert done.code == 2
    assert "gives scores only, no maps" in done.err


def test_a_source_that_is_gone(case: Case, run: Run, tmp_path: Path) -> None:
    moved = case.data.rename(tmp_path / "moved")
    base = ["report", case.scores, "-m", case.model]
    done = run(*base, "--maps", tmp_path / "maps")
    assert done.code == 3
    assert "--data" in done.err
    assert len(done.err.splitlines()) == 2
    assert not (tmp_path / "maps").exists()
    done = run(*base, "--html", tmp_path / "r.html")
    assert done.code == 0
    assert "no pictures" in done.err
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "the source is gone" in text
    assert "data:image" not in text
    done = run(*base, "--data", moved, "--maps", tmp_path / "maps", "--html", tmp_path / "r.html")
    assert done.code == 0, done.err
    assert len(index(tmp_path / "maps")) == 20
    assert "data:image" in (tmp_path / "r.html").read_text(encoding="utf-8")
    done = run(*base, "--data", tmp_path / "nowhere", "--html", tmp_path / "r.html")
    assert done.code == 3
    tiles(tmp_path / "others", 1)
    (tmp_path / "others" / "right" / "tile_00.png").rename(tmp_path / "others" / "else.png")
    done = run(*base, "--data", tmp_path / "others", "--maps", tmp_path / "no")
    assert done.code == 3
    assert "none of the 20 worst images" in done.err
    assert not (tmp_path / "no").exists()


def test_images_that_changed_or_went_since(case: Case, run: Run, tmp_path: Path) -> None:
    (case.data / "right" / "tile_24.png").unlink()
    shutil.copy(case.data / "left" / "tile_01.png", case.data / "left" / "tile_23.png")
    (case.data / "right" / "tile_22.png").write_bytes(b"")
    done = run("report", case.scores, "-m", case.model, "--maps", tmp_path / "maps")
    assert done.code == 0
    assert "1 image scores otherwise" in done.err
    assert "2 images could not be read; index.csv says why" in done.err
    assert [row["reason"] for row in index(tmp_path / "maps")][:3] == [
        "not in the data any more",
        "",
        "empty file (0 bytes)",
    ]


def test_another_model_is_refused(case: Case, run: Run, tmp_path: Path) -> None:
    other = write_tiny(tmp_path / "other.anoaudit", TABLE).path
    for option in ("--maps", "--html"):
        done = run("report", case.scores, "-m", other, option, tmp_path / "out")
        assert done.code == 2
        assert "was not scored by" in done.err
        assert len(done.err.splitlines()) == 2


def test_what_maps_need_is_said(case: Case, run: Run, tmp_path: Path) -> None:
    done = run("report", case.scores, "--maps", tmp_path / "maps")
    assert (done.code, "--model" in done.err) == (2, True)
    assert run("report", case.scores, "-m", case.model, "--maps", tmp_path / "maps", "--top", "0").code == 3
    assert run("report", case.scores, "--data", case.data).code == 2
    assert run("report", case.scores, case.scores, "--html", tmp_path / "r.html").code == 2
    done = run("report", case.scores, "-o", tmp_path / "r.html")
    assert (done.code, "--html" in done.err) == (2, True)


def test_nobodys_folder_is_replaced(case: Case, run: Run, tmp_path: Path) -> None:
    base = ["report", case.scores, "-m", case.model, "--top", "2", "--maps"]
    mine = tmp_path / "mine"
    mine.mkdir()
    assert run(*base, mine).code == 0  # an empty folder will do
    assert run(*base, mine).code == 2
    (mine / "old.png").write_bytes(b"old")
    assert run(*base, mine, "--force").code == 0
    assert not (mine / "old.png").exists()
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "index.csv").write_text("a,b\n")
    for place in (
        precious,
        case.data,
        case.data / "maps",
        case.data.parent,
        case.model,
        case.model / "maps",
        case.scores,
    ):
        done = run(*base, place, "--force")
        assert done.code == 2, place
    assert (precious / "index.csv").exists()
    assert not (case.data / "maps").exists()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_a_table_without_a_summary_needs_the_data(case: Case, run: Run, tmp_path: Path) -> None:
    run("report", case.scores, "-o", tmp_path / "s.csv")
    base = ["report", tmp_path / "s.csv", "-m", case.model, "--maps", tmp_path / "maps"]
    done = run(*base)
    assert (done.code, "--data" in done.err) == (3, True)
    assert run(*base, "--data", case.data).code == 0


def test_neither_needs_torch(audit: Path, tmp_path: Path) -> None:
    arguments = ["report", audit, "--html", tmp_path / "r.html", "--maps", tmp_path / "maps", "--top", "1"]
    done = subprocess.run([sys.executable, "-c", BLOCKED, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
def test_a_full_disk_is_one_line(case: Case, run: Run) -> None:
    done = run("report", case.scores, "--html", "/dev/full")
    assert done.code == 3
    assert "no space is left" in done.err
    assert "Traceback" not in done.err


def test_the_command_that_makes_it_again_is_the_one_that_made_it(case: Case, run: Run, tmp_path: Path) -> None:
    truth = tmp_path / "truth.csv"
    truth.write_text("path,anomaly\nright/tile_24.png,1\nleft/tile_01.png,0\n")
    page = tmp_path / "r.html"
    done = run("report", case.scores, "--model", case.model, "--truth", truth, "--top", 3, "--html", page)
    assert done.code == 0, done.err
    assert f"--truth {truth} --top 3 --html r.html" in page.read_text()
