"""Tables of images: bytes, Hugging Face's struct, paths; every row one item; and Arrow files, with rows or pictures in them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pytest
from PIL import Image

from anoaudit.data.image_table import ImageTable
from anoaudit.data.items import Chunk, Dataset, ImageSpec, TableSpec
from anoaudit.data.source import open_dataset
from anoaudit.data.tables import ColumnOptions, TableFiles
from anoaudit.errors import AuditError, UsageError

SPEC = ImageSpec(8, 8)


def png(grey: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((12, 16, 3), grey, np.uint8)).save(out, "PNG")
    return out.getvalue()


def frame_of(n: int = 10) -> pl.DataFrame:
    """Row 3 has no picture, row 5 a damaged one."""
    data: list[bytes | None] = [png(10 * i) for i in range(n)]
    data[3], data[5] = None, b"nothing"
    return pl.DataFrame(
        {"name": [f"n{i}" for i in range(n)], "picture": data, "bad": [int(i > 7) for i in range(n)], "other": range(n)}
    )


def whole(dataset: Dataset, size: int = 4, only: Any = None) -> list[Chunk]:
    return list(dataset.chunks(SPEC, size, only))


def check(dataset: Dataset, ids: list[str]) -> None:
    chunks = whole(dataset)
    assert [item for chunk in chunks for item in chunk.ids] == ids
    assert len(dataset) == 10
    reasons = [reason for chunk in chunks for reason in chunk.reasons]
    assert [i for i, reason in enumerate(reasons) if reason] == [3, 5]
    assert reasons[3] == "no image in this row"
    values = np.concatenate([chunk.values for chunk in chunks])
    assert values[:, 0, 0, 0].tolist() == [0, 10, 20, 40, 60, 70, 80, 90]
    only = np.arange(10) % 4 == 2
    some = whole(dataset, 3, only)
    assert [item for chunk in some for item in chunk.ids] == [ids[2], ids[6]]
    assert np.concatenate([chunk.values for chunk in some])[:, 0, 0, 0].tolist() == [20, 60]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".feather"])
@pytest.mark.parametrize("struct", [False, True])
def test_bytes_are_found_by_themselves(tmp_path: Path, suffix: str, struct: bool) -> None:
    frame = frame_of()
    if struct:
        cells = [{"bytes": data, "path": None} for data in frame["picture"]]
        kind = pl.Struct({"bytes": pl.Binary, "path": pl.String})
        frame = frame.with_columns(picture=pl.Series(cells, dtype=kind))
    path = tmp_path / f"t{suffix}"
    frame.write_parquet(path) if suffix == ".parquet" else frame.write_ipc(path)
    dataset = open_dataset(str(path))
    assert isinstance(dataset, ImageTable)
    assert (dataset.kind, dataset.named) == ("images", {"image": "picture"})
    check(dataset, [str(i) for i in range(10)])
    named = open_dataset(str(path), ColumnOptions(id_column="name"), truth="bad", labels="bad")
    check(named, [f"n{i}" for i in range(10)])
    assert np.concatenate([chunk.truth for chunk in whole(named)]).tolist() == frame["bad"].to_list()
    assert np.concatenate([chunk.labels for chunk in whole(named)]).tolist() == frame["bad"].to_list()
    pictures = dict(named.pictures(6, np.arange(10) > 4))  # type: ignore[attr-defined]
    assert pictures["n6"].pixels.shape == (4, 6, 3)
    assert isinstance(pictures["n5"], str)


def test_a_stream_as_hugging_face_keeps_it(tmp_path: Path) -> None:
    table = frame_of().to_arrow()
    with pa.OSFile(str(tmp_path / "t.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=3):
            writer.write_batch(batch)
    check(open_dataset(str(tmp_path / "t.arrow")), [str(i) for i in range(10)])


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_paths_have_to_be_named_and_are_relative_to_the_table(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "sub" / "pictures").mkdir(parents=True)
    names: list[str | None] = [f"pictures/{i}.png" for i in range(10)]
    for i, name in enumerate(names):
        (tmp_path / "sub" / str(name)).write_bytes(b"nothing" if i == 5 else png(10 * i))
    names[3] = None
    frame = frame_of().with_columns(picture=pl.Series(names))
    path = tmp_path / "sub" / f"t{suffix}"
    frame.write_parquet(path) if suffix == ".parquet" else frame.write_csv(path)
    assert isinstance(open_dataset(str(path)), TableFiles)
    check(open_dataset(str(path), ColumnOptions(image_column="picture")), [str(i) for i in range(10)])
    check(open_dataset(str(path), usual={"image": "picture", "id": "absent"}), [str(i) for i in range(10)])
    (tmp_path / "sub" / "pictures" / "2.png").unlink()
    found = whole(open_dataset(str(path), ColumnOptions(image_column="picture")))
    assert found[0].reasons[2] == "file is gone, or a broken link"


def test_several_files_are_groups(tmp_path: Path) -> None:
    for name in ("a", "b"):
        frame_of().write_parquet(tmp_path / f"{name}.parquet")
    dataset = open_dataset(str(tmp_path))
    chunks = whole(dataset, 6)
    assert len(dataset) == 20
    assert {group for chunk in chunks for group in chunk.groups} == {"a.parquet", "b.parquet"}
    assert chunks[2].ids[0] == "b.parquet#0"


def test_what_is_no_table_of_images_stays_a_table(tmp_path: Path) -> None:
    frame = frame_of()
    frame.with_columns(picture=pl.lit(b"some other bytes")).write_parquet(tmp_path / "bytes.parquet")
    assert isinstance(open_dataset(str(tmp_path / "bytes.parquet")), TableFiles)
    frame.write_parquet(tmp_path / "t.parquet")
    assert isinstance(open_dataset(str(tmp_path / "t.parquet"), ColumnOptions(columns=("other",))), TableFiles)
    frame.head(0).write_parquet(tmp_path / "empty.parquet")
    assert isinstance(open_dataset(str(tmp_path / "empty.parquet")), TableFiles)


def test_what_cannot_be_meant(tmp_path: Path) -> None:
    frame = frame_of()
    frame.with_columns(second=pl.col("picture")).write_parquet(tmp_path / "two.parquet")
    with pytest.raises(UsageError, match="several columns of images: picture, second"):
        open_dataset(str(tmp_path / "two.parquet"))
    assert isinstance(open_dataset(str(tmp_path / "two.parquet"), ColumnOptions(image_column="second")), ImageTable)
    for options, match in (
        (ColumnOptions(image_column="nothing"), "no column 'nothing'"),
        (ColumnOptions(image_column="other"), "holds Int64"),
        (ColumnOptions(image_column="picture", columns=("other",)), "leaves no use for"),
    ):
        with pytest.raises(UsageError, match=match):
            open_dataset(str(tmp_path / "two.parquet"), options)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(png(1))
    with pytest.raises(UsageError, match="are for tables"):
        open_dataset(str(tmp_path / "pictures"), ColumnOptions(image_column="x"))


@pytest.mark.parametrize("compression", ["uncompressed", "lz4"])
def test_arrow_files_are_tables_like_parquet(tmp_path: Path, compression: str) -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"a": rng.normal(size=300), "c": rng.choice(["x", "y"], 300), "when": pl.datetime_range(
        pl.datetime(2024, 1, 1), pl.datetime(2024, 1, 13, 11), "1h", eager=True)})  # fmt: skip
    frame.write_parquet(tmp_path / "t.parquet")
    pyarrow.feather.write_feather(frame.to_arrow(), str(tmp_path / "t.feather"), compression=compression)
    found = []
    for name in ("t.parquet", "t.feather"):
        dataset = open_dataset(str(tmp_path / name))
        assert isinstance(dataset, TableFiles)
        spec = dataset.infer(0)
        found.append((spec, np.concatenate([c.values for c in dataset.chunks(spec, 70)]), len(dataset)))
    assert found[0][0] == found[1][0]
    assert np.array_equal(found[0][1], found[1][1])
    assert found[1][2] == 300
    rows = list(open_dataset(str(tmp_path / "t.feather")).chunks(TableSpec(()), 70))
    assert [len(chunk) for chunk in rows][:2] == [70, 70]


def test_a_damaged_arrow_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "t.arrow").write_bytes(b"ARROW1 and then nothing")
    with pytest.raises(AuditError, match="not a readable Arrow file"):
        open_dataset(str(tmp_path / "t.arrow"))
    frame_of().write_ipc(tmp_path / "u.arrow")
    whole_file = (tmp_path / "u.arrow").read_bytes()
    (tmp_path / "u.arrow").write_bytes(whole_file[: len(whole_file) // 2])
    with pytest.raises(AuditError):
        whole(open_dataset(str(tmp_path / "u.arrow")))
