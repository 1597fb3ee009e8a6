"""The worst items once more: found by id, run through the model, read from the source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from tiny_models import IMAGES, TABLE, image_model, row_model

from anoaudit.data.images import ImageFolder
from anoaudit.data.items import Chunk, Picture
from anoaudit.data.source import open_dataset
from anoaudit.errors import AuditError
from anoaudit.model.session import Session
from anoaudit.scoring.maps import changed, marked, pictures, run_maps, worst
from anoaudit.scoring.table import ScoreTable, ScoreTableWriter, Summary, schema


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five grey pictures of 80×60, each with a bright spot of its own, and a damaged one."""
    data = tmp_path / "data"
    (data / "sub").mkdir(parents=True)
    for i in range(5):
        pixels = np.full((60, 80, 3), 100, dtype=np.uint8)
        pixels[10 * i : 10 * i + 10, 10 * i : 10 * i + 10] = 200 + i
        Image.fromarray(pixels).save(data / "sub" / f"{i}.png")
    (data / "bad.png").write_bytes(b"no image")
    return data


def table_of(path: Path, ids: list[str], flagged: int = 0, **summary: object) -> ScoreTable:
    n = len(ids)
    frame = pl.DataFrame(
        {
            **{name: [None] * n for name in schema()},
            "id": ids,
            "status": ["ok"] * n,
            "score": [float(n - i) for i in range(n)],
            "flagged": [i < flagged for i in range(n)],
        },
        schema=schema(),
    )
    writer = ScoreTableWriter(path)
    writer.write(frame)
    return writer.close(Summary(rows=n, readable=n, flagged=flagged, **summary))  # type: ignore[arg-type]


def images(folder: Path) -> ImageFolder:
    found = open_dataset(str(folder))
    assert isinstance(found, ImageFolder)
    return found


def test_the_worst_are_all_flagged_and_at_least_20(tmp_path: Path) -> None:
    ids = [f"{i}" for i in range(50)]
    assert worst(table_of(tmp_path / "a", ids, flagged=30), None)["id"].to_list() == ids[:30]
    few = table_of(tmp_path / "b", ids, flagged=3)
    assert [worst(few, n).height for n in (None, 0, 7, 1000)] == [20, 0, 7, 50]


def test_maps_of_the_marked_items_only(folder: Path, tmp_path: Path) -> None:
    dataset = images(folder)
    wanted = ["sub/3.png", "bad.png", "sub/1.png", "elsewhere.png"]
    only = marked(dataset, table_of(tmp_path / "t", wanted), wanted)
    assert only.tolist() == [item in wanted for item in dataset.ids]
    found = list(run_maps(dataset, Session(image_model().SerializeToString(), "cpu"), IMAGES, only))
    assert [item.id for item in found] == ["bad.png", "sub/1.png", "sub/3.png"]
    assert (found[0].map, found[0].reason) == (None, "not an image, or a format that is not supported")
    for item, i in ((found[1], 1), (found[2], 3)):
        assert item.map is not None
        assert item.map.shape == (6, 8)
        assert np.unravel_index(item.map.argmax(), item.map.shape) == (i, i)
        assert item.score == item.map.max()


def test_pictures_in_their_own_proportions(folder: Path, tmp_path: Path) -> None:
    dataset = images(folder)
    found = dict(pictures(dataset, np.ones(len(dataset), dtype=bool), 40))
    assert found["bad.png"] == "not an image, or a format that is not supported"
    one = found["sub/1.png"]
    assert isinstance(one, Picture)
    assert (one.pixels.shape, one.width, one.height) == ((30, 40, 3), 80, 60)


class Frames:
    """A source that neither lists its ids nor shows pictures."""

    kind, source, name, ignored, timed = "images", "film", "film", 0, True

    def __len__(self) -> int:
        return 4

    def chunks(self, spec: object, size: int, only: np.ndarray | None = None) -> Iterator[Chunk]:
        for i in np.flatnonzero(np.ones(4, dtype=bool) if only is None else only):
            label = np.full(1, -1, dtype=np.int8)
            bad = "lost" if i == 2 else None
            values = np.full((0 if bad else 1, 6, 8, 3), i, dtype=np.uint8)
            yield Chunk(int(i), [f"film#{i}"], [None], [bad], values, label, label)


def test_a_source_without_ids_is_in_the_order_of_the_table(tmp_path: Path) -> None:
    table = table_of(tmp_path / "t", [f"film#{i}" for i in range(4)])
    only = marked(Frames(), table, ["film#2", "film#3"])  # type: ignore[arg-type]
    assert only.tolist() == [False, False, True, True]
    found = dict(pictures(Frames(), only, 100, IMAGES))  # type: ignore[arg-type]
    assert found["film#2"] == "lost"
    assert isinstance(found["film#3"], Picture)
    assert (found["film#3"].pixels == 3).all()
    with pytest.raises(AuditError, match="has 4 items, but 3 were scored"):
        marked(Frames(), table_of(tmp_path / "u", ["a", "b", "c"]), ["a"])  # type: ignore[arg-type]


def test_a_model_without_maps_gives_none(tmp_path: Path) -> None:
    pl.DataFrame({f"c{i}": [1.0, 2.0] for i in range(3)}).write_parquet(tmp_path / "t.parquet")
    dataset = open_dataset(str(tmp_path / "t.parquet"))
    session = Session(row_model().SerializeToString(), "cpu")
    found = list(run_maps(dataset, session, TABLE, np.ones(2, dtype=bool)))  # type: ignore[arg-type]
    assert [item.reason for item in found] == ["the model gives no finite map"] * 2


def test_a_source_that_breaks_off_is_one_line() -> None:
    class Broken(Frames):
        def chunks(self, *_: object) -> Iterator[Chunk]:
            raise OSError(5, "Input/output error")

    with pytest.raises(AuditError, match="film cannot be read: Input/output error"):
        list(pictures(Broken(), np.ones(4, dtype=bool), 10))  # type: ignore[arg-type]


def test_changed_scores_are_counted() -> None:
    rows = pl.DataFrame({"id": ["a", "b", "c"], "score": [100.0, 1e-9, 5.0]})
    assert changed({"a": 100.5, "b": 0.0, "c": 6.0, "unknown": 1.0}, rows) == 1
