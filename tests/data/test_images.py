"""A folder of pictures as a data set: which files count, what they are called, and that none is lost."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anoaudit.data import images
from anoaudit.data.images import ImageFolder
from anoaudit.data.items import ImageSpec
from anoaudit.data.source import open_dataset
from anoaudit.data.tables import ColumnOptions
from anoaudit.errors import AuditError, UsageError

SPEC = ImageSpec(8, 8)


def picture(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), value).save(path, "PNG")
    return path


def ids_of(data: object, **options: object) -> list[str]:
    return open_dataset(str(data), **options).ids  # type: ignore[attr-defined, arg-type]


def test_recursion_ids_groups_and_ignored_files(tmp_path: Path) -> None:
    for name in (
        "b.png",
        "a/x.JPG",
        "a/deep/y.TiFF",
        "a-b.png",
        "a.png",
        ".hidden.png",
        ".cache/z.png",
        "a/.thumbs/t.png",
    ):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "a" / "table.csv").write_text("a,b\n1,2\n")
    (tmp_path / "a" / "noending").write_text("x")
    (tmp_path / "folder.jpg").mkdir()
    picture(tmp_path / "folder.jpg" / "in.png")
    data = open_dataset(str(tmp_path))
    assert data.kind == "images"
    assert data.name == tmp_path.name
    assert data.ignored == 3
    expected = ["a-b.png", "a.png", "a/deep/y.TiFF", "a/x.JPG", "b.png", "folder.jpg/in.png"]
    [chunk] = data.chunks(SPEC, 100)
    assert chunk.ids == expected == sorted(expected)
    assert chunk.groups == [None, None, "a/deep", "a", None, "folder.jpg"]
    assert len(data) == 6
    assert (chunk.truth == -1).all()
    assert (chunk.labels == -1).all()


def test_a_single_file_and_a_pattern(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "one.png")
    picture(tmp_path / "b" / "two.png")
    (tmp_path / "b" / "two.txt").touch()
    assert ids_of(tmp_path / "a" / "one.png") == ["one.png"]
    assert ids_of(tmp_path / "*" / "*") == ["a/one.png", "b/two.png"]
    assert open_dataset(str(tmp_path / "*" / "*")).ignored == 1


def test_data_may_be_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "set" / "one.png")
    monkeypatch.chdir(tmp_path / "set")
    assert open_dataset(".").name == "set"
    assert ids_of(".") == ids_of("*.png") == ["one.png"]


def test_a_link_loop_terminates_and_links_count_as_items(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "one.png")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "two.png").symlink_to(tmp_path / "a" / "one.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    data = open_dataset(str(tmp_path))
    [chunk] = data.chunks(SPEC, 10)
    assert chunk.ids == ["a/one.png", "gone.png", "two.png"]
    assert chunk.reasons == [None, "file is gone, or a broken link", None]
    assert len(data.fingerprint()) == len(data.outline()) == 64


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    try:
        picture(Path(os.fsdecode(os.fsencode(tmp_path) + b"/gr\xfcn/\xff.png")))
    except OSError:
        pytest.skip("the file system refuses such names")
    picture(tmp_path / "grün ☃\n.png")
    data = open_dataset(str(tmp_path))
    [chunk] = data.chunks(SPEC, 10)
    assert chunk.ids == ["gr\\xfcn/\\xff.png", "grün ☃\n.png"]
    assert chunk.groups == ["gr\\xfcn", None]
    assert chunk.reasons == [None, None]
    for item in chunk.ids:
        item.encode()
    assert data.fingerprint()
    assert data.outline()


def test_every_input_gives_exactly_one_item(tmp_path: Path) -> None:
    for i in range(20):
        picture(tmp_path / f"{i:02}.png", i)
        if i % 3 == 0:
            (tmp_path / f"{i:02}.png").write_bytes(b"broken")
    (tmp_path / "99.png").touch()
    os.mkfifo(tmp_path / "pipe.png")
    data = open_dataset(str(tmp_path))
    for size in (1, 4, 7, 100):
        chunks = list(data.chunks(SPEC, size))
        assert all(len(chunk) <= size for chunk in chunks)
        assert [item for chunk in chunks for item in chunk.ids] == sorted(os.listdir(tmp_path))
        assert [chunk.start for chunk in chunks] == list(range(0, 22, size))
        for chunk in chunks:
            assert chunk.values.shape == (int(chunk.readable.sum()), 8, 8, 3)
            assert chunk.values.dtype == np.uint8
        shown = np.concatenate([chunk.values for chunk in chunks])[:, 0, 0, 0]
        assert shown.tolist() == [i for i in range(20) if i % 3]
    assert data.fingerprint() == open_dataset(str(tmp_path)).fingerprint()


def test_order_does_not_depend_on_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(40):
        picture(tmp_path / f"{i}.png", i)
    real = images.read_image

    def slow(path: Path, spec: ImageSpec) -> object:
        time.sleep(random.random() / 100)
        return real(path, spec)

    monkeypatch.setattr(images, "read_image", slow)
    data = open_dataset(str(tmp_path))
    expected = sorted(f"{i}.png" for i in range(40))
    for chunk in data.chunks(SPEC, 9):
        assert chunk.ids == expected[chunk.start : chunk.start + 9]
        assert [f"{value}.png" for value in chunk.values[:, 0, 0, 0]] == chunk.ids


def test_only_some_items(tmp_path: Path) -> None:
    for i in range(10):
        picture(tmp_path / f"{i}.png", i)
    data = open_dataset(str(tmp_path))
    only = np.isin(np.arange(10), [1, 2, 8])
    chunks = list(data.chunks(SPEC, 2, only))
    assert [chunk.ids for chunk in chunks] == [["1.png", "2.png"], ["8.png"]]
    assert np.concatenate([chunk.values for chunk in chunks])[:, 0, 0, 0].tolist() == [1, 2, 8]
    assert list(data.chunks(SPEC, 2, np.zeros(10, dtype=bool))) == []


def test_abandoning_the_chunks_early_does_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(300):
        picture(tmp_path / f"{i}.png", 3)
    decoded = []
    real = images.read_image

    def counted(path: Path, spec: ImageSpec) -> object:
        decoded.append(path)
        time.sleep(0.001)
        return real(path, spec)

    monkeypatch.setattr(images, "read_image", counted)
    for _ in range(3):
        chunks = open_dataset(str(tmp_path)).chunks(SPEC, 10)
        next(chunks)
        chunks.close()  # type: ignore[attr-defined]
    for chunk in open_dataset(str(tmp_path)).chunks(SPEC, 10):
        assert len(chunk) == 10
        break
    del chunk
    assert len(decoded) <= 4 * 50  # a few chunks ahead, not the folder
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_a_file_that_vanishes_is_an_unreadable_item(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    gone = picture(tmp_path / "b.png")
    data = open_dataset(str(tmp_path))
    gone.unlink()
    [chunk] = data.chunks(SPEC, 10)
    assert chunk.readable.tolist() == [True, False]
    assert data.outline()
    assert data.fingerprint()


def test_outline_and_fingerprint_notice_changes(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    data = open_dataset(str(tmp_path))
    before = data.outline(), data.fingerprint()
    picture(tmp_path / "a.png", 200)
    assert data.fingerprint() != before[1]
    (tmp_path / "a.png").rename(tmp_path / "b.png")
    assert open_dataset(str(tmp_path)).outline() != before[0]


def test_nothing_to_audit(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    for data, words in (
        (tmp_path, r"nothing to audit \(1 other"),
        (tmp_path / "nowhere", "does not exist"),
        (tmp_path / "a.txt", "neither image, video nor table"),
        (tmp_path / "*.jpg", "does not exist"),
        ("", "does not exist|nothing to audit|neither"),
    ):
        with pytest.raises(AuditError, match=words) as caught:
            open_dataset(str(data) if data else str(tmp_path / "x" / ""))
        assert caught.value.hint


def test_a_folder_that_cannot_be_listed_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "locked" / "b.png")
    real = os.scandir

    def scandir(path: str) -> object:
        if os.fspath(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(AuditError, match="Permission denied"):
        open_dataset(str(tmp_path))


def test_table_options_do_not_fit_images(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(UsageError):
        open_dataset(str(tmp_path), ColumnOptions(columns=("a",)))


def test_the_same_items_twice(tmp_path: Path) -> None:
    for i in range(5):
        picture(tmp_path / f"{i}.png", i)
    data = open_dataset(str(tmp_path))
    assert isinstance(data, ImageFolder)
    first, second = ([chunk.values for chunk in data.chunks(SPEC, 2)] for _ in range(2))
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
