"""Folders of images: copied byte for byte, never overwritten, never half-written."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from anoaudit.cli import main
from anoaudit.contamination import images, place
from anoaudit.contamination.images import free_names
from anoaudit.contamination.mix import contaminate
from anoaudit.data.items import ImageSpec
from anoaudit.data.source import open_dataset
from anoaudit.errors import AuditError, UsageError

Tree = Callable[[Path], dict[str, str]]
Picture = Callable[[Path, int], None]


def truth_of(out: Path, labels: Path) -> dict[str, int]:
    dataset = open_dataset(str(out), truth=str(labels))
    chunks = list(dataset.chunks(ImageSpec(8, 8), 7))
    return {i: int(t) for chunk in chunks for i, t in zip(chunk.ids, chunk.truth, strict=True)}


def test_two_folders_become_one_that_reads_back_with_its_truth(
    pictures: tuple[Path, Path], tmp_path: Path, tree: Tree
) -> None:
    good, bad = pictures
    before = tree(tmp_path / "in")
    made = contaminate(str(good), tmp_path / "mix", ratio=0.1, anomalies=str(bad))
    assert (made.normals, made.anomalies, made.ratio, made.pool, len(made)) == (18, 2, 0.1, 4, 20)
    assert (made.path, made.labels) == (tmp_path / "mix", tmp_path / "mix" / "labels.csv")
    assert tree(tmp_path / "in") == before

    truth = truth_of(made.path, made.labels)
    assert len(truth) == 20
    manifest = json.loads(made.manifest.read_text())
    chosen = {entry["id"]: entry["source"] for entry in manifest["anomalies"]}
    assert {item for item, value in truth.items() if value == 1} == set(chosen)
    assert {item for item, value in truth.items() if value == 0} == {
        p.relative_to(good).as_posix() for p in good.rglob("*.png")
    }
    for item, source in chosen.items():
        assert (made.path / item).read_bytes() == (bad / source).read_bytes()
    for path in good.rglob("*.png"):
        assert (made.path / path.relative_to(good)).read_bytes() == path.read_bytes()
    assert manifest["ratio"] == {"asked": 0.1, "reached": 0.1}
    assert manifest["counts"] == {"items": 20, "normals": 18, "anomalies": 2, "pool": 4, "unlabelled": 0}
    assert manifest["inputs"]["data"]["fingerprint"] == open_dataset(str(good)).fingerprint()
    assert str(tmp_path) not in made.manifest.read_text()


def test_equal_names_and_repeats_get_a_number(pictures: tuple[Path, Path], tmp_path: Path) -> None:
    good, bad = pictures
    made = contaminate(str(good), tmp_path / "mix", ratio=0.5, anomalies=str(bad), with_replacement=True)
    assert made.anomalies == 18
    assert made.replacement
    entries = json.loads(made.manifest.read_text())["anomalies"]
    assert len({entry["id"] for entry in entries}) == 18
    assert any(entry["source"] == "line1/01.png" and entry["id"] == "line1/01-2.png" for entry in entries)
    assert any(entry["source"] == "scratch.png" and entry["id"] == "scratch.png" for entry in entries)
    assert any(entry["source"] == "scratch.png" and entry["id"] == "scratch-3.png" for entry in entries)
    assert sum(truth_of(made.path, made.labels).values()) == 18
    assert (made.path / "line1/01.png").read_bytes() == (good / "line1/01.png").read_bytes()


def test_free_names_on_any_file_system() -> None:
    wanted = ["a.png", "A.png", "a-2.png", "a.png", "b/a.png", "é.png", "e\u0301.png"]
    names = [path.as_posix() for path in free_names(map(Path, wanted))]
    assert names == ["a.png", "A-2.png", "a-2-2.png", "a-3.png", "b/a.png", "é.png", "e\u0301-2.png"]


def test_the_same_seed_gives_the_same_bytes_anywhere(pictures: tuple[Path, Path], tmp_path: Path, tree: Tree) -> None:
    good, bad = pictures
    first = contaminate(str(good), tmp_path / "one", ratio=0.1, anomalies=str(bad), seed=3)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "in").rename(tmp_path / "elsewhere" / "in")
    moved = [str(tmp_path / "elsewhere" / "in" / name) for name in ("good", "bad")]
    second = contaminate(moved[0], tmp_path / "two", ratio=0.1, anomalies=moved[1], seed=3)
    other = contaminate(moved[0], tmp_path / "three", ratio=0.1, anomalies=moved[1], seed=4)
    assert tree(first.path) == tree(second.path) != tree(other.path)


def test_truth_file_takes_one_folder_apart(pictures: tuple[Path, Path], tmp_path: Path) -> None:
    good, _ = pictures
    names = sorted(p.relative_to(good).as_posix() for p in good.rglob("*.png"))
    labels = tmp_path / "labels.csv"
    marks = [1] * 3 + [0] * 12 + [None] * 3
    pl.DataFrame({"path": names, "state": marks}).write_csv(labels)
    made = contaminate(str(good), tmp_path / "mix", ratio=0.2, truth=f"{labels}:state")
    assert (made.normals, made.anomalies, made.unlabelled, made.ratio) == (12, 3, 3, 0.2)
    assert truth_of(made.path, made.labels) == dict(zip(names[:15], marks[:15], strict=True))
    manifest = json.loads(made.manifest.read_text())
    assert (manifest["inputs"]["truth"]["file"], manifest["inputs"]["truth"]["column"]) == ("labels.csv", "state")
    clean = contaminate(str(good), tmp_path / "clean", ratio=0, truth=f"{labels}:state")
    assert (clean.normals, clean.anomalies, clean.ratio) == (12, 0, 0.0)


def test_labels_are_in_no_telling_order(pictures: tuple[Path, Path], tmp_path: Path) -> None:
    good, bad = pictures
    made = contaminate(str(good), tmp_path / "mix", ratio=0.18, anomalies=str(bad))
    marks = pl.read_csv(made.labels)["anomaly"].to_list()
    assert marks not in (sorted(marks), sorted(marks, reverse=True))


def test_unreadable_images_are_copied_as_they_are(pictures: tuple[Path, Path], tmp_path: Path) -> None:
    good, bad = pictures
    (good / "broken.jpg").write_bytes(b"not an image")
    made = contaminate(str(good), tmp_path / "mix", ratio=0.1, anomalies=str(bad))
    assert (made.path / "broken.jpg").read_bytes() == b"not an image"


def test_files_that_cannot_be_read_are_unreadable_items_there_too(
    pictures: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `fit` takes them: a broken link stops nothing, whether items are mixed or damaged."""
    good, bad = pictures
    (good / "line1" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(good / "pipe.png")
    for out, how in (("mix", ["--with", str(bad)]), ("damaged", ["--corrupt", "noise"])):
        with pytest.raises(SystemExit) as stop:
            main(["contaminate", str(good), *how, "--ratio", "0.1", "-o", str(tmp_path / out)])
        said = capsys.readouterr().err
        assert (stop.value.code, "note: 2 files are unreadable, and empty in the result" in said) == (0, True), said
        assert "line1/gone.png: file is gone, or a broken link" in said or "pipe.png: not a regular file" in said
        for name in ("line1/gone.png", "pipe.png"):
            assert (tmp_path / out / name).read_bytes() == b""
            assert not (tmp_path / out / name).is_symlink()
        labels = pl.read_csv(tmp_path / out / "labels.csv", infer_schema=False)
        assert {"line1/gone.png", "pipe.png"} <= set(labels["path"])


def test_odd_file_names_keep_their_labels(tmp_path: Path, picture: Picture) -> None:
    for i in range(4):
        picture(tmp_path / "good" / f'a, {i}\n"q".png', i)
    picture(tmp_path / "bad" / "ü;.png", 9)
    made = contaminate(str(tmp_path / "good"), tmp_path / "mix", ratio=0.2, anomalies=str(tmp_path / "bad"))
    assert sorted(truth_of(made.path, made.labels).values()) == [0, 0, 0, 0, 1]


def test_an_existing_place_needs_force_and_must_be_ours(
    pictures: tuple[Path, Path], tmp_path: Path, tree: Tree
) -> None:
    good, bad = map(str, pictures)
    out = tmp_path / "mix"
    made = contaminate(good, out, ratio=0.1, anomalies=bad)
    with pytest.raises(UsageError, match="exists"):
        contaminate(good, out, ratio=0.1, anomalies=bad)
    contaminate(good, out, ratio=0.0, anomalies=bad, force=True)
    assert len(truth_of(out, made.labels)) == 18
    contaminate(good, out, ratio=0.1, anomalies=bad, force=True)
    fresh = contaminate(good, tmp_path / "fresh", ratio=0.1, anomalies=bad)
    assert tree(out) == tree(fresh.path)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    with pytest.raises(UsageError, match="exists"):
        contaminate(good, foreign, ratio=0.1, anomalies=bad)
    (foreign / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="not made by contaminate"):
        contaminate(good, foreign, ratio=0.1, anomalies=bad, force=True)
    (foreign / "thesis.txt").unlink()
    contaminate(good, foreign, ratio=0.1, anomalies=bad, force=True)
    assert tree(foreign) == tree(out)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="not made by contaminate"):
        contaminate(good, tmp_path / "file", ratio=0.1, anomalies=bad, force=True)


@pytest.mark.parametrize("where", ["in/good", "in/good/sub", "in/bad/mix", "in", ".", "in/good/../bad"])
def test_inputs_and_output_are_kept_apart(pictures: tuple[Path, Path], tmp_path: Path, where: str, tree: Tree) -> None:
    good, bad = map(str, pictures)
    before = tree(tmp_path)
    with pytest.raises(UsageError):
        contaminate(good, tmp_path / where, ratio=0.1, anomalies=bad, force=True)
    assert tree(tmp_path) == before


def test_a_former_mixture_that_is_linked_into_the_data_is_not_replaced(
    pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    good, bad = pictures
    made = contaminate(str(good), tmp_path / "mix", ratio=0.1, anomalies=str(bad))
    (good / "again").symlink_to(made.path)
    with pytest.raises(UsageError, match="read as DATA"):
        contaminate(str(good), made.path, ratio=0.1, anomalies=str(bad), force=True)


def test_overlapping_sources_are_refused(pictures: tuple[Path, Path], tmp_path: Path) -> None:
    good, _ = pictures
    with pytest.raises(UsageError, match="in DATA and in ANOMALIES"):
        contaminate(str(good), tmp_path / "mix", ratio=0.1, anomalies=str(good / "line1"))


def test_a_failure_leaves_nothing_behind(
    pictures: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: Tree
) -> None:
    good, bad = map(str, pictures)
    made = contaminate(good, tmp_path / "mix", ratio=0.1, anomalies=bad)
    before = tree(tmp_path)
    copies = []

    def full(source: Path, target: Path) -> None:
        copies.append(target)
        if len(copies) % 4 == 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(source), None, str(target))
        copied(source, target)

    copied = images.shutil.copyfile
    monkeypatch.setattr(images.shutil, "copyfile", full)
    for out in (made.path, tmp_path / "new" / "folders" / "mix"):
        with pytest.raises(AuditError, match="mix cannot be written: No space left on device") as caught:
            contaminate(good, out, ratio=0.1, anomalies=bad, force=True)
        assert caught.value.exit_code == 3
        assert tree(tmp_path) == before


def test_an_interrupt_and_a_failed_move_leave_the_former_mixture(
    pictures: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: Tree
) -> None:
    good, bad = map(str, pictures)
    made = contaminate(good, tmp_path / "mix", ratio=0.1, anomalies=bad)
    before = tree(tmp_path)
    rename = place.os.rename

    def fail(source: Path, target: Path) -> None:
        if source.parent.name == "new":
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(place.os, "rename", fail)
    with pytest.raises(KeyboardInterrupt):
        contaminate(good, made.path, ratio=0.0, anomalies=bad, force=True)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5, float("nan"), float("inf")])
def test_impossible_ratios(pictures: tuple[Path, Path], tmp_path: Path, ratio: float) -> None:
    with pytest.raises(UsageError, match="ratio"):
        contaminate(str(pictures[0]), tmp_path / "mix", ratio=ratio, anomalies=str(pictures[1]))


def test_options_that_cannot_be_meant(pictures: tuple[Path, Path], tmp_path: Path) -> None:
    good, bad = map(str, pictures)
    with pytest.raises(UsageError, match="one of --with, --truth and --corrupt"):
        contaminate(good, tmp_path / "mix", ratio=0.1)
    with pytest.raises(UsageError, match="one of --with, --truth and --corrupt"):
        contaminate(good, tmp_path / "mix", ratio=0.1, anomalies=bad, truth="labels.csv")
    with pytest.raises(UsageError, match="seed"):
        contaminate(good, tmp_path / "mix", ratio=0.1, anomalies=bad, seed=-1)
    with pytest.raises(UsageError, match="no anomaly at all"):
        contaminate(good, tmp_path / "mix", ratio=0.01, anomalies=bad)
    with pytest.raises(UsageError, match="needs 18 anomalies"):
        contaminate(good, tmp_path / "mix", ratio=0.5, anomalies=bad)
    with pytest.raises(AuditError, match="does not exist"):
        contaminate(good, tmp_path / "mix", ratio=0.1, anomalies=str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="neither a column"):
        contaminate(good, tmp_path / "mix", ratio=0.1, truth="nowhere.csv")
    pl.DataFrame({"path": ["line1/01.png"], "label": [1]}).write_csv(tmp_path / "t.csv")
    with pytest.raises(UsageError, match="marks no item"):
        contaminate(good, tmp_path / "mix", ratio=0.1, truth=str(tmp_path / "t.csv"))
    pl.DataFrame({"path": ["line1/01.png"], "label": [0]}).write_csv(tmp_path / "t.csv")
    with pytest.raises(UsageError, match="no anomaly to draw from"):
        contaminate(good, tmp_path / "mix", ratio=0.5, truth=str(tmp_path / "t.csv"), with_replacement=True)
    pl.DataFrame({"a": np.arange(3)}).write_csv(tmp_path / "table.csv")
    with pytest.raises(UsageError, match=r"holds images and .* a table"):
        contaminate(good, tmp_path / "mix", ratio=0.1, anomalies=str(tmp_path / "table.csv"))
    assert not (tmp_path / "mix").exists()
