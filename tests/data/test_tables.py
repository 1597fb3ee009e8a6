"""Tables as users have them: every row keeps its place, whatever is wrong with it or with the file."""

from __future__ import annotations

import datetime as dt
import decimal
import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anoaudit.data import tables
from anoaudit.data.items import Chunk, TableSpec
from anoaudit.data.source import open_dataset
from anoaudit.data.tables import ColumnOptions, TableFiles
from anoaudit.errors import AuditError, UsageError

N = 40


def table(n: int = N, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {"x": rng.normal(size=n), "y": rng.normal(size=n) * 100, "kind": rng.choice(["a", "b", "c"], n)}
    )


def opened(path: object, **options: Any) -> TableFiles:
    columns = ColumnOptions(**{key: options.pop(key) for key in ("columns", "exclude", "id_column") if key in options})
    data = open_dataset(str(path), columns, **options)
    assert isinstance(data, TableFiles)
    return data


def written(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def whole(data: TableFiles, spec: TableSpec | None = None, size: int = 7) -> Chunk:
    """All chunks as one, with what must always hold checked."""
    chunks = list(data.chunks(spec or data.infer(0), size))
    assert [chunk.start for chunk in chunks] == np.cumsum([0, *map(len, chunks)])[:-1].tolist()
    assert all(0 < len(chunk) <= size for chunk in chunks)
    assert sum(map(len, chunks)) == len(data)
    for chunk in chunks:
        assert chunk.values.dtype == np.float64
        assert len(chunk.values) == chunk.readable.sum()
        assert len(chunk.ids) == len(chunk.groups) == len(chunk.reasons) == len(chunk.truth) == len(chunk.labels)
    return Chunk(
        0,
        [item for chunk in chunks for item in chunk.ids],
        [item for chunk in chunks for item in chunk.groups],
        [item for chunk in chunks for item in chunk.reasons],
        np.concatenate([chunk.values for chunk in chunks]),
        np.concatenate([chunk.truth for chunk in chunks]),
        np.concatenate([chunk.labels for chunk in chunks]),
    )


def test_parquet_and_every_kind_of_csv_give_the_same(tmp_path: Path) -> None:
    frame = table()
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_csv(tmp_path / "t.csv")
    frame.write_csv(tmp_path / "t.tsv", separator="\t")
    frame.write_csv(tmp_path / "semicolon.CSV", separator=";")
    frame.write_csv(tmp_path / "bar.csv", separator="|")
    frame.write_csv(tmp_path / "bom.csv", include_bom=True)
    written(tmp_path / "crlf.csv", frame.write_csv(line_terminator="\r\n"))
    written(tmp_path / "utf16.csv", frame.write_csv().encode("utf-16"))
    written(tmp_path / "nofinalnewline.csv", frame.write_csv().rstrip("\n"))
    written(tmp_path / "quoted.csv", frame.write_csv(quote_style="always"))
    written(tmp_path / "blanks.csv", "\n" + frame.write_csv().replace("\n", "\n\n") + "\n\n")
    spec = opened(tmp_path / "t.parquet").infer(0)
    assert [rule.kind for rule in spec.columns] == ["numeric", "numeric", "categorical"]
    expected = whole(opened(tmp_path / "t.parquet"), spec)
    assert expected.ids == [str(i) for i in range(N)]
    for path in sorted(tmp_path.iterdir()):
        found = whole(opened(path), spec)
        assert found.ids == expected.ids, path
        assert found.reasons == [None] * N, path
        np.testing.assert_array_equal(found.values, expected.values)
        assert opened(path).infer(0) == spec, path
        assert opened(path).name == path.stem


def test_broken_rows_keep_their_place(tmp_path: Path) -> None:
    lines = [f"{i},{i * i % 17},name{i % 3}" for i in range(100)]
    lines[3], lines[5], lines[7], lines[9] = "3", "5,1,a,extra", '7,2,"a\nb"', "   "
    lines[11] = "11,NULL,"
    lines[13] = "13,what,name1"
    lines[15] = "15,\0 2,name1"
    path = written(tmp_path / "t.csv", "i,x,y\n" + "\n".join(lines) + "\n")
    found = whole(opened(path, exclude=("i",), id_column="i"))
    assert len(found) == 100
    broken = {i: reason for i, reason in enumerate(found.reasons) if reason}
    assert sorted(broken) == [3, 5, 9, 13, 15]
    assert broken[3] == "1 fields where the header has 3"
    assert broken[5] == "4 fields where the header has 3"
    assert broken[13] == "column 'x': 'what' is not a number"
    assert found.ids[3] == "#3"
    assert found.ids[7] == "7"
    assert found.ids[99] == "99"
    assert np.isnan(found.values[list(found.readable.nonzero()[0]).index(11)]).any()


def test_bytes_that_are_not_utf_8_stay_apart(tmp_path: Path) -> None:
    rows = b"".join(b"%d.5,%s\n" % (i * i, [b"caf\xe9", b"caf\xe8", b"tea"][i % 3]) for i in range(N))
    [_, rule] = opened(written(tmp_path / "latin.csv", b"x,drink\n" + rows)).infer(0).columns
    assert len(rule.categories) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"PK\x03\x04\0\0\0\0\0\x8c", "not a text file"),
        (b"a,b,a\n1,2,3\n", "two columns named 'a'"),
        (b'"', "no readable header|nothing|empty|no rows"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, text: bytes, words: str) -> None:
    with pytest.raises(AuditError, match=words) as caught:
        opened(written(tmp_path / "t.csv", text)).infer(0)
    assert caught.value.exit_code == 3
    assert caught.value.hint


def test_a_header_without_rows(tmp_path: Path) -> None:
    data = opened(written(tmp_path / "t.csv", "a,b\n"))
    assert len(data) == 0
    with pytest.raises(AuditError, match="has no rows"):
        data.infer(0)
    table().clear().write_parquet(tmp_path / "t.parquet")
    with pytest.raises(AuditError, match="has no rows"):
        opened(tmp_path / "t.parquet").infer(0)


def test_headers_with_quotes_delimiters_and_newlines(tmp_path: Path) -> None:
    rows = "".join(f"{i * 7 % 11};{i * i};{i % 4}\n" for i in range(N))
    data = opened(written(tmp_path / "t.csv", '"price, USD, net";"a\nb";count\n' + rows))
    assert data.columns == ["price, USD, net", "a\nb", "count"]
    assert whole(data).reasons == [None] * N
    tabs = opened(written(tmp_path / "t.tsv", "a,b,c\td,e\n" + "1.5\t2\n2.5\t3\n" * 10))
    assert tabs.columns == ["a,b,c", "d,e"]


def test_an_index_column_without_a_name(tmp_path: Path) -> None:
    text = ",x\n" + "".join(f"{i},{i * i % 13}\n" for i in range(N))
    spec = opened(written(tmp_path / "pandas.csv", text)).infer(0)
    assert [rule.name for rule in spec.columns] == ["x"]
    assert "identifier" in spec.dropped[""]


def test_a_parquet_column_without_a_name(tmp_path: Path) -> None:
    pq.write_table(pa.table([[1.0, 2.5, 7.0] * 10, [1.5, 2.0] * 15], names=["column_1", ""]), tmp_path / "t.parquet")
    data = opened(tmp_path / "t.parquet")
    spec = data.infer(0)
    assert [rule.name for rule in spec.columns] == ["column_1", ""]
    assert whole(data, spec).values[1].tolist() == [2.5, 2.0]


def test_names_that_polars_takes_for_patterns(tmp_path: Path) -> None:
    names = ["^a$", "*", "count", "literal", "a.b", "len", "^b.*$"]
    frame = table().select(*(pl.col(("x", "y", "kind")[i % 3]).alias(name) for i, name in enumerate(names)))
    frame.write_csv(tmp_path / "t.csv")
    frame.write_parquet(tmp_path / "t.parquet")
    a, b = opened(tmp_path / "t.csv", exclude=("len",)), opened(tmp_path / "t.parquet", exclude=("len",))
    assert a.infer(0) == b.infer(0)
    assert [rule.name for rule in a.infer(0).columns] == [name for name in names if name != "len"]
    np.testing.assert_array_equal(whole(a).values, whole(b).values)


def test_one_column(tmp_path: Path) -> None:
    data = opened(written(tmp_path / "t.csv", "x\n1.5\n\n2.5\n" + "3.5\n" * 20))
    found = whole(data)
    assert len(found) == 23
    assert np.isnan(found.values[1, 0])


def test_several_files_are_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "logs.d"
    frame = table()
    for name, part in (("b.parquet", frame[:10]), ("a/a.parquet", frame[10:30]), ("c.parquet", frame[30:])):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        part.write_parquet(folder / name)
    written(folder / "_SUCCESS", "")
    written(folder / "notes.csv", "q\n1\n")
    data = opened(folder)
    assert (data.name, data.ignored, len(data)) == ("logs.d", 2, N)
    found = whole(data)
    assert found.ids[:2] == ["a/a.parquet#0", "a/a.parquet#1"]
    assert found.ids[-1] == "c.parquet#9"
    assert found.groups == ["a/a.parquet"] * 20 + ["b.parquet"] * 10 + ["c.parquet"] * 10
    assert len(set(found.ids)) == N
    assert opened(folder / "*.parquet").ignored == 0
    assert whole(opened(folder / "*.parquet")).ids[0] == "b.parquet#0"
    assert len(opened(f"{folder}/**/*.parquet")) == N
    monkeypatch.chdir(folder / "a")
    assert opened(".").name == "a"
    assert opened("*.parquet").name == "a"


def test_columns_in_another_order(tmp_path: Path) -> None:
    frame = table()
    frame[:20].write_parquet(tmp_path / "a.parquet")
    frame[20:].select("kind", "y", "x").write_parquet(tmp_path / "b.parquet")
    values = whole(opened(tmp_path)).values
    np.testing.assert_array_equal(values[:, :2], frame.select("x", "y").to_numpy())


def test_files_that_do_not_fit_together(tmp_path: Path) -> None:
    table().write_csv(tmp_path / "a.csv")
    table().drop("y").write_csv(tmp_path / "b.csv")
    with pytest.raises(AuditError, match="'y'"):
        opened(tmp_path)
    (tmp_path / "b.csv").unlink()
    for name, values in (("a.parquet", [1.0, 2.0] * 20), ("b.parquet", [[1]] * 40)):
        pl.DataFrame({"x": values}).write_parquet(tmp_path / name)
    with pytest.raises(AuditError, match="differ in type"):
        opened(tmp_path).infer(0)


def test_names_of_files_that_are_not_utf_8(tmp_path: Path) -> None:
    for i, name in enumerate((b"a\xff.csv", b"b.csv")):
        try:
            written(Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)), table(seed=i).write_csv())
        except OSError:
            pytest.skip("the file system refuses such names")
    data = opened(tmp_path)
    assert whole(data).ids[0] == "a\\xff.csv#0"
    assert data.outline()
    assert data.fingerprint()


def test_a_damaged_parquet_file(tmp_path: Path) -> None:
    table(5_000).write_parquet(tmp_path / "good.parquet", compression="zstd")
    good = (tmp_path / "good.parquet").read_bytes()
    spec = opened(tmp_path / "good.parquet").infer(0)
    for data in (b"", b"PAR1", b"text", good[: len(good) // 2], good[4:], good[:400] + b"\0" * 30_000 + good[30_400:]):
        path = written(tmp_path / "bad.parquet", data)
        with pytest.raises(AuditError, match=r"bad\.parquet") as caught:
            list(opened(path).chunks(spec, 100))
        assert "\n" not in caught.value.message
    os.mkfifo(tmp_path / "pipe.parquet")
    with pytest.raises(AuditError, match="not a regular file"):
        opened(tmp_path / "pipe.parquet")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(AuditError, match="not a regular file"):
        opened(tmp_path / "pipe.csv")


def test_duplicate_names_in_parquet(tmp_path: Path) -> None:
    column = pa.array([1.0, 2.0] * 20)
    pq.write_table(pa.Table.from_arrays([column, column], names=["a", "a"]), tmp_path / "t.parquet")
    with pytest.raises(AuditError, match="two columns named 'a'"):
        opened(tmp_path / "t.parquet")


def test_column_types_of_parquet(tmp_path: Path) -> None:
    start = dt.datetime(2024, 2, 28, 23, tzinfo=dt.UTC)
    moments = [start + dt.timedelta(hours=7 * i) for i in range(N)]
    number = [i * 5 % 23 for i in range(N)]
    columns = {
        "int8": pa.array(number, pa.int8()),
        "uint64": pa.array([2**63 + 4096 * i for i in number], pa.uint64()),
        "half": pa.array(np.array(number, np.float16)),
        "decimal": pa.array([decimal.Decimal(i) / 8 for i in number], pa.decimal128(20, 5)),
        "decimal256": pa.array([decimal.Decimal(i) / 8 for i in number], pa.decimal256(60, 5)),
        "bool": pa.array([None, *(i > 9 for i in number[1:])]),
        "date": pa.array([moment.date() for moment in moments]),
        "date64": pa.array([moment.date() for moment in moments], pa.date64()),
        "naive": pa.array([moment.replace(tzinfo=None) for moment in moments], pa.timestamp("ms")),
        "berlin": pa.array(moments, pa.timestamp("us", "Europe/Berlin")),
        "offset": pa.array(moments, pa.timestamp("ns", "+02:00")),
        "seconds": pa.array([None, *moments[1:]], pa.timestamp("s", "UTC")),
        "time": pa.array([moment.time() for moment in moments], pa.time64("us")),
        "duration": pa.array([moment - start for moment in moments], pa.duration("ms")),
        "dictionary": pa.array(["a", "b", None, "c"] * 10).dictionary_encode(),
        "large": pa.array(["a", "b", None, "c"] * 10, pa.large_string()),
        "list": pa.array([[i] for i in number]),
        "struct": pa.array([{"a": i} for i in number]),
        "map": pa.array([[("a", i)] for i in number], pa.map_(pa.string(), pa.int64())),
        "binary": pa.array([b"\xff%d" % i for i in number]),
        "null": pa.nulls(N),
        "all_missing": pa.array([None] * N, pa.float64()),
        "all_nan": pa.array([float("nan")] * N),
        "constant": pa.array([3] * N),
        "a.b": pa.array([float(i) for i in number]),
        "a": pa.array([float(i) for i in number]),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    data = opened(tmp_path / "t.parquet")
    spec = data.infer(0)
    assert {name: reason.split()[0] for name, reason in spec.dropped.items()} == {
        "list": "nested", "struct": "nested", "map": "nested", "binary": "nested",
        "null": "all", "all_missing": "all", "all_nan": "all", "constant": "constant",
    }  # fmt: skip
    found = whole(data, spec)
    assert found.reasons == [None] * N
    by_name = {rule.name: found.values[:, j] for j, rule in enumerate(spec.columns)}
    kinds = {rule.name: rule.kind for rule in spec.columns}
    epoch = [moment.timestamp() for moment in moments]
    for name in ("int8", "half", "a", "a.b"):
        assert by_name[name].tolist() == number
    for name in ("decimal", "decimal256"):
        assert by_name[name].tolist() == [i / 8 for i in number]
    for name in ("naive", "berlin", "offset"):
        assert by_name[name].tolist() == epoch
        assert kinds[name] == "datetime"
    assert np.isnan(by_name["seconds"][0])
    assert by_name["seconds"][1:].tolist() == epoch[1:]
    assert by_name["date"].tolist() == by_name["date64"].tolist() == [t // 86400 * 86400 for t in epoch]
    assert by_name["time"].tolist() == [t % 86400 for t in epoch]
    assert by_name["duration"].tolist() == [7 * 3600.0 * i for i in range(N)]
    assert kinds["bool"] == "boolean"
    assert np.isnan(by_name["bool"][0])
    assert set(by_name["bool"][1:]) == {0.0, 1.0}
    for name in ("dictionary", "large"):
        np.testing.assert_array_equal(by_name[name][:4], [0, 1, np.nan, 2])


def test_ids_from_a_column(tmp_path: Path) -> None:
    frame = table().with_columns(part=pl.Series([f"p{i}" if i % 4 else None for i in range(N)]), n=pl.Series(range(N)))
    frame.write_parquet(tmp_path / "t.parquet")
    data = opened(tmp_path / "t.parquet", id_column="part")
    spec = data.infer(0)
    assert "part" in spec.dropped
    assert whole(data, spec).ids[:5] == ["#0", "p1", "p2", "p3", "#4"]
    assert whole(opened(tmp_path / "t.parquet", id_column="n")).ids == [str(i) for i in range(N)]
    with pytest.raises(UsageError, match="'nope'"):
        opened(tmp_path / "t.parquet", id_column="nope")
    with pytest.raises(UsageError, match="part"):
        opened(tmp_path / "t.parquet", id_column="part", columns=("x", "part")).infer(0)
    pl.DataFrame({"x": [1.0, 2.0] * 10, "id": [[1], [2]] * 10}).write_parquet(tmp_path / "list.parquet")
    with pytest.raises(UsageError, match="no ids"):
        opened(tmp_path / "list.parquet", id_column="id").infer(0)


def test_missing_and_extra_columns_at_score(tmp_path: Path) -> None:
    table().write_csv(tmp_path / "t.csv")
    spec = opened(tmp_path / "t.csv").infer(0)
    table().drop("y").write_csv(tmp_path / "less.csv")
    with pytest.raises(AuditError, match="'y' is missing"):
        list(opened(tmp_path / "less.csv").chunks(spec, 10))
    table().with_columns(extra=pl.lit("?")).select("extra", "kind", "y", "x").write_parquet(tmp_path / "more.parquet")
    np.testing.assert_array_equal(
        whole(opened(tmp_path / "more.parquet"), spec).values, whole(opened(tmp_path / "t.csv"), spec).values
    )


def test_a_column_of_another_type(tmp_path: Path) -> None:
    table().write_csv(tmp_path / "t.csv")
    spec = opened(tmp_path / "t.csv").infer(0)
    for name, values in (("text", ["oops"] * N), ("list", [[1.0]] * N), ("date", [dt.date(2024, 1, 1)] * N)):
        table().with_columns(x=pl.Series(values)).write_parquet(tmp_path / f"{name}.parquet")
        for size in (3, 16, 1000):
            with pytest.raises(AuditError, match="'x'"):
                list(opened(tmp_path / f"{name}.parquet").chunks(spec, size))
    table().with_columns(x=pl.Series(["oops"] * N)).write_csv(tmp_path / "text.csv")
    with pytest.raises(AuditError, match="'x'"):
        list(opened(tmp_path / "text.csv").chunks(spec, 3))


def test_a_run_of_bad_cells_is_no_wrong_column(tmp_path: Path) -> None:
    table(400).write_csv(tmp_path / "t.csv")
    spec = opened(tmp_path / "t.csv").infer(0)
    bad = table(400).with_columns(
        x=pl.when(pl.int_range(400).is_between(100, 119)).then(pl.lit("#REF!")).otherwise(pl.col("x").cast(pl.String))
    )
    bad.write_csv(tmp_path / "bad.csv")
    for size in (1, 10, 64, 1000):
        found = whole(opened(tmp_path / "bad.csv"), spec, size)
        assert [i for i, reason in enumerate(found.reasons) if reason] == list(range(100, 120))
        assert found.reasons[100] == "column 'x': '#REF!' is not a number"


def test_only_some_rows(tmp_path: Path) -> None:
    table().write_csv(tmp_path / "t.csv")
    data = opened(tmp_path / "t.csv")
    spec = data.infer(0)
    only = np.isin(np.arange(N), [2, 3, 19, 39])
    for size in (1, 7, 100):
        chunks = list(data.chunks(spec, size, only))
        assert [item for chunk in chunks for item in chunk.ids] == ["2", "3", "19", "39"]
        np.testing.assert_array_equal(np.concatenate([c.values for c in chunks]), whole(data, spec).values[only])
        assert all(chunk.start == int(chunk.ids[0]) for chunk in chunks)


def test_the_sample_is_uniform_in_row_order_and_seeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "SCAN_ROWS", 100)
    monkeypatch.setattr(tables, "SAMPLE_ROWS", 400)
    seen: list[pl.DataFrame] = []
    real = tables.infer_spec

    def spy(sample: pl.DataFrame, *rest: Any) -> TableSpec:
        seen.append(sample)
        return real(sample, *rest)

    monkeypatch.setattr(tables, "infer_spec", spy)
    n = 4_000
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"row": range(n), "x": rng.normal(size=n), "when": 1_700_000_000 + 3 * np.arange(n)})
    for name in ("t.csv", "t.parquet"):
        frame.write_csv(tmp_path / name) if name.endswith("csv") else frame.write_parquet(tmp_path / name)
        data = opened(tmp_path / name)
        seen.clear()
        specs = [data.infer(seed) for seed in (1, 1, 2)]
        assert len(data) == n
        first, again, other = (sample["row"].cast(pl.Int64).to_numpy() for sample in seen)
        assert (first == again).all()
        assert specs[0] == specs[1]
        assert not np.array_equal(first, other)
        assert len(first) == 400
        assert (np.diff(first) > 0).all()
        shares = np.histogram(np.concatenate([first, other]), bins=8, range=(0, n))[0] / 800
        assert (np.abs(shares - 1 / 8) < 0.05).all()
        assert "identifier" in specs[0].dropped["row"]  # a counter, though the sample shows it with gaps
        assert [rule.name for rule in specs[0].columns] == ["x", "when"]


def test_outline_and_fingerprint_notice_changes(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", table().write_csv())
    data = opened(path)
    before = data.outline(), data.fingerprint()
    written(path, table(seed=1).write_csv())
    assert opened(path).fingerprint() != before[1]
    written(path, table(N + 1).write_csv())
    assert opened(path).outline() != before[0]
