"""Tables: the same columns and types out, the truth beside them and nowhere else."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anoaudit.contamination import place, tables
from anoaudit.contamination.mix import contaminate
from anoaudit.contamination.result import Mixture
from anoaudit.data.items import TableSpec
from anoaudit.data.rows import columns_of, read_rows
from anoaudit.data.source import open_dataset
from anoaudit.data.tables import TableFiles
from anoaudit.errors import AuditError, UsageError

Tree = Callable[[Path], dict[str, str]]
Make = Callable[[int, float], pl.DataFrame]


def truth_of(made: Mixture) -> list[int]:
    dataset = open_dataset(str(made.path), truth=str(made.labels))
    return [int(t) for chunk in dataset.chunks(TableSpec(columns=()), 7) for t in chunk.truth]


def write(folder: Path, good: pl.DataFrame, bad: pl.DataFrame, suffix: str) -> tuple[str, str]:
    folder.mkdir(exist_ok=True)
    for name, frame in (("good", good), ("bad", bad)):
        path = folder / f"{name}{suffix}"
        frame.write_parquet(path) if suffix == ".parquet" else frame.write_csv(path)
    return str(folder / f"good{suffix}"), str(folder / f"bad{suffix}")


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_two_tables_become_one_that_reads_back_with_its_truth(
    table: Make, tmp_path: Path, suffix: str, tree: Tree
) -> None:
    good, bad = write(tmp_path / "in", table(90, 0.0), table(30, 1000.0).select("c", "b", "a"), suffix)
    before = tree(tmp_path / "in")
    made = contaminate(good, tmp_path / f"mix{suffix}", ratio=0.1, anomalies=bad, seed=5)
    assert (made.kind, made.normals, made.anomalies, made.ratio) == ("table", 90, 10, 0.1)
    assert (made.labels.name, made.manifest.name) == ("mix.labels.csv", "mix.contaminate.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["in", f"mix{suffix}", "mix.labels.csv", "mix.contaminate.json"]
    )
    assert tree(tmp_path / "in") == before

    frame = pl.read_parquet(made.path) if suffix == ".parquet" else pl.read_csv(made.path)
    assert frame.schema == table(1, 0.0).schema
    labels = pl.read_csv(made.labels)
    assert labels.columns == ["id", "anomaly"]
    assert labels["id"].to_list() == list(range(100))
    assert labels["anomaly"].to_list() == truth_of(made) == (frame["b"] >= 1000).cast(int).to_list()
    assert frame.filter(frame["b"] < 1000).sort("a").equals(table(90, 0.0))
    for entry in json.loads(made.manifest.read_text())["anomalies"]:
        assert frame.row(int(entry["id"])) == table(30, 1000.0).row(int(entry["source"]))
    places = np.flatnonzero(frame["b"] >= 1000)
    assert places.min() < 40
    assert places.max() > 60


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_truth_column_is_taken_out_of_the_data(table: Make, tmp_path: Path, suffix: str) -> None:
    marks = ([0] * 9 + [1] + [None]) * 4
    frame = table(44, 0.0).with_columns(is_bad=pl.Series(marks, dtype=pl.Int64)).select("a", "is_bad", "b", "c")
    source, _ = write(tmp_path, frame, frame, suffix)
    made = contaminate(source, tmp_path / f"mix{suffix}", ratio=0.1, truth="is_bad")
    assert (made.normals, made.anomalies, made.unlabelled, made.ratio) == (36, 4, 4, 0.1)
    result = pl.read_parquet(made.path) if suffix == ".parquet" else pl.read_csv(made.path)
    assert result.columns == ["a", "b", "c"]
    assert truth_of(made) == [marks[a] for a in result["a"]]
    assert json.loads(made.manifest.read_text())["inputs"]["truth"] == {"column": "is_bad"}


def test_a_truth_file_joins_on_row_numbers_over_several_files(table: Make, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    table(5, 0.0).write_parquet(tmp_path / "in" / "one.parquet")
    table(5, 100.0).select("b", "a", "c").write_parquet(tmp_path / "in" / "two.parquet")
    ids = [f"{name}.parquet#{i}" for name in ("one", "two") for i in range(5)]
    pl.DataFrame({"id": ids, "label": [0] * 8 + [1] * 2}).write_csv(tmp_path / "truth.csv")
    made = contaminate(str(tmp_path / "in"), tmp_path / "mix.parquet", ratio=0.2, truth=str(tmp_path / "truth.csv"))
    frame = pl.read_parquet(made.path)
    assert (made.normals, made.anomalies) == (8, 2)
    assert truth_of(made) == (frame["b"] > 100.3).cast(int).to_list()
    assert {e["source"] for e in json.loads(made.manifest.read_text())["anomalies"]} == set(ids[8:])


def test_parquet_types_are_kept_and_widened_where_they_differ(tmp_path: Path) -> None:
    rich = pl.DataFrame(
        {
            "small": pl.Series([1, 2, None] * 6, dtype=pl.Int16),
            "when": [dt.datetime(2024, 1, 1, 0, 0, 0, 5)] * 18,
            "kind": pl.Series(["x", "y", None] * 6, dtype=pl.Categorical),
            "list": [[1, 2]] * 18,
            "raw": [b"\x00\xff"] * 18,
            "empty": pl.Series([None] * 18, dtype=pl.Null),
        }
    )
    odd = rich.head(2).with_columns(
        small=pl.Series([1.5, 2.5]), kind=pl.Series(["z", "x"], dtype=pl.Categorical), empty=pl.Series(["a", "b"])
    )
    good, bad = write(tmp_path, rich, odd, ".parquet")
    made = contaminate(good, tmp_path / "mix.parquet", ratio=0.1, anomalies=bad)
    frame = pl.read_parquet(made.path)
    assert dict(frame.schema) == {**rich.schema, "small": pl.Float64, "empty": pl.String}
    mine = frame.filter(pl.Series(truth_of(made)) == 1).sort("small")
    assert mine["kind"].cast(pl.String).to_list() == ["z", "x"]
    assert mine["small"].to_list() == [1.5, 2.5]
    alone = contaminate(good, tmp_path / "clean.parquet", ratio=0, anomalies=good.replace("good", "bad"))
    assert alone.anomalies == 0


def test_dictionaries_and_pandas_notes_of_arrow_files(tmp_path: Path) -> None:
    for name, words in (("good", ["x", "y"] * 9), ("bad", ["z", "x"])):
        column = pa.array(words).dictionary_encode()
        whole = pa.table({"w": column}).replace_schema_metadata({"pandas": '{"index_columns": [{"stop": 18}]}'})
        pq.write_table(whole, tmp_path / f"{name}.parquet", row_group_size=1)
    made = contaminate(
        str(tmp_path / "good.parquet"), tmp_path / "mix.parquet", ratio=0.1, anomalies=str(tmp_path / "bad.parquet")
    )
    result = pq.read_table(made.path)
    assert sorted(result["w"].to_pylist()) == ["x"] * 10 + ["y"] * 9 + ["z"]
    assert pa.types.is_dictionary(result.schema.field("w").type)
    assert not result.schema.metadata


def test_csv_text_and_line_ends_are_not_reformatted(tmp_path: Path) -> None:
    rows = ["1.50;NA; x ", '0x1F;"a;b";"say ""hi"""', '1e5;"two\nlines";"cr\rhere"', "007;;\udcff", "only;two"]
    body = "\ufeffa;b;c\r\n" + "\r\n".join([*rows, ""] * 4)
    (tmp_path / "good.csv").write_bytes(body.encode("utf-8", "surrogateescape"))
    (tmp_path / "bad.csv").write_text('c,b,a\nC,"B;",A\n')
    made = contaminate(
        str(tmp_path / "good.csv"), tmp_path / "mix.csv", ratio=0.05, anomalies=str(tmp_path / "bad.csv")
    )
    lines = made.path.read_bytes().decode("utf-8", "surrogateescape")
    assert lines.startswith("a;b;c\r\n")
    for text in [*rows[:2], '1e5;"two\nlines";"cr\rhere"', "007;;\udcff", "only;two"]:
        assert lines.count(text + "\r\n") == 4
    assert 'A;"B;";C\r\n' in lines
    dataset = open_dataset(str(made.path), truth=str(made.labels))
    chunk = next(dataset.chunks(TableSpec(columns=()), 100))
    assert len(chunk) == 21
    assert [reason for reason in chunk.reasons if reason] == ["2 fields where the header has 3"] * 4
    assert chunk.truth.sum() == 1


ODD_CSV: dict[str, tuple[str, bytes]] = {
    "blank lines before the header": ("in.csv", b"\n\ne,x\n" + b"".join(b"%d.5,%d\n" % (i, i) for i in range(60))),
    "UTF-16": ("in.csv", ("\ufeffe,x\r\n" + "".join(f"{i}.5,{i}\r\n" for i in range(60))).encode("utf-16-le")),
    "more commas than tabs": ("in.tsv", b"a,b\te\tc,d,f,g\tx\n" + b"".join(b"1\t%d.5\t2\t%d\n" % (i, i) for i in range(60))),
    "delimiters in a quoted name": ("in.csv", b'"a;b;c;d",e,x\n' + b"".join(b"1,%d.5,%d\n" % (i, i) for i in range(60))),
    "names that are not UTF-8": ("in.csv", b"gr\xf6\xdfe,e,x\n" + b"".join(b"1,%d.5,%d\n" % (i, i) for i in range(60))),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD_CSV)
@pytest.mark.parametrize("how", ["mix", "corrupt"])
def test_odd_csv_files_come_out_as_they_were_read(case: str, how: str, tmp_path: Path) -> None:
    name, content = ODD_CSV[case]
    (tmp_path / name).write_bytes(content)
    (tmp_path / "truth.csv").write_text("id,anomaly\n" + "".join(f"{i},{int(i % 5 == 0)}\n" for i in range(60)))
    source = str(tmp_path / name)
    if how == "mix":
        made = contaminate(source, tmp_path / "out.csv", ratio=0.2, truth=str(tmp_path / "truth.csv"))
    else:
        made = contaminate(source, tmp_path / "out.csv", ratio=0.2, corrupt=["scale"], columns=["e"])
    assert columns_of(made.path) == columns_of(tmp_path / name)
    rows = next(read_rows(made.path, 100))
    assert rows.reasons == [None] * 60
    e, x = (rows.frame[column].cast(pl.Float64).to_numpy() for column in ("e", "x"))
    labels = pl.read_csv(made.labels)["anomaly"].to_numpy()
    assert sorted(x) == list(range(60))
    assert labels.tolist() == ((x % 5 == 0) if how == "mix" else (e != x + 0.5)).astype(int).tolist()
    assert labels.sum() == 12


@pytest.mark.parametrize("kind", ["scale", "gaussian"])
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_damaged_numbers_keep_their_exponent_and_the_size_of_the_damage(
    kind: str, severity: int, tmp_path: Path
) -> None:
    cells = [f"{1 + i / 100:.2f}e-09,{1 + i / 100:.3f}E+300,{1 + i % 9}e5" for i in range(60)]
    (tmp_path / "in.csv").write_text("e,x,y\n" + "\n".join(cells) + "\n")
    out = tmp_path / "out.csv"
    made = contaminate(str(tmp_path / "in.csv"), out, ratio=0.2, corrupt=[kind], severity=severity)
    exact = contaminate(
        str(_parquet_of(tmp_path / "in.csv")), tmp_path / "exact.parquet", ratio=0.2, corrupt=[kind], severity=severity
    )
    values = pl.read_parquet(exact.path).to_numpy()
    lines = [line.split(",") for line in made.path.read_text().splitlines()[1:]]
    changed = [(i, j) for i, old in enumerate(cells) for j, cell in enumerate(old.split(",")) if lines[i][j] != cell]
    assert len(changed) >= 12
    for i, j in changed:
        assert re.fullmatch((r"-?\d\.\d+e[+-]\d\d", r"-?\d\.\d+E\+\d+", r"-?\d(\.\d+)?e\d+")[j], lines[i][j])
        assert float(lines[i][j]) == pytest.approx(values[i, j], rel=0.0051)


def _parquet_of(path: Path) -> Path:
    pl.read_csv(path, schema_overrides=[pl.Float64] * 3).write_parquet(path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_line_ends_stay_and_names_may_hold_other_ones(encoding: str, tmp_path: Path) -> None:
    text = '"a\nb";x;y\r\n' + "".join(f"{i};{i},5;2\r\n" for i in range(40))
    (tmp_path / "in.csv").write_bytes(text.encode(encoding))
    made = contaminate(str(tmp_path / "in.csv"), tmp_path / "out.csv", ratio=0.2, corrupt=["scale"], columns=["x"])
    assert columns_of(made.path) == ["a\nb", "x", "y"]
    assert made.path.read_bytes().count(b"\r\n") == 41
    assert made.path.read_bytes().count(b"\n") == 42
    (tmp_path / "inch.csv").write_text('5" pipe;x\n' + "1,5;2,5\n" * 4)  # a quote that opens nothing
    assert columns_of(tmp_path / "inch.csv") == ['5" pipe', "x"]


@settings(deadline=None)
@given(
    rows=st.lists(st.lists(st.text("a ,;\t|\"\r\n'", max_size=5), min_size=1, max_size=3)),
    delimiter=st.sampled_from(",;\t|"),
)
def test_any_cells_read_back_as_they_were(rows: list[list[str]], delimiter: str) -> None:
    text = "".join(tables.csv_line(row, delimiter) for row in rows)
    assert list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)) == rows


def test_one_csv_column_left_is_still_read_as_one(tmp_path: Path) -> None:
    rows = [f'"{i}, {i}";{int(i > 8)}' for i in range(10)] + [";0", "x,y;"]
    (tmp_path / "in.csv").write_text("v;t\n" + "\n".join(rows) + "\n")
    made = contaminate(str(tmp_path / "in.csv"), tmp_path / "mix.csv", ratio=0.1, truth="t")
    assert (made.normals, made.anomalies, made.unlabelled) == (10, 1, 1)
    dataset = open_dataset(str(made.path))
    chunk = next(dataset.chunks(TableSpec(columns=()), 100))
    assert len(chunk) == 11
    assert not any(chunk.reasons)
    assert '"9, 9"\n' in made.path.read_text()
    (tmp_path / "only.csv").write_text("t\n0\n1\n")
    with pytest.raises(UsageError, match="no column but the truth"):
        contaminate(str(tmp_path / "only.csv"), tmp_path / "x.csv", ratio=0.1, truth="t")


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_the_same_seed_gives_the_same_bytes(table: Make, tmp_path: Path, suffix: str, tree: Tree) -> None:
    good, bad = write(tmp_path / "in", table(50, 0.0), table(9, 50.0), suffix)
    trees = []
    for folder, seed in (("one", 1), ("two", 1), ("three", 2)):
        contaminate(good, tmp_path / folder / f"mix{suffix}", ratio=0.1, anomalies=bad, seed=seed)
        trees.append(tree(tmp_path / folder))
    assert len(trees[0]) == 3
    assert trees[0] == trees[1]
    assert all(trees[0][name] != trees[2][name] for name in trees[0])


def test_replacement_repeats_rows(table: Make, tmp_path: Path) -> None:
    good, bad = write(tmp_path, table(20, 0.0), table(2, 500.0), ".parquet")
    with pytest.raises(UsageError) as caught:
        contaminate(good, tmp_path / "mix.parquet", ratio=0.5, anomalies=bad)
    assert "0.090909;" in caught.value.hint
    made = contaminate(good, tmp_path / "mix.parquet", ratio=0.5, anomalies=bad, with_replacement=True)
    frame = pl.read_parquet(made.path)
    assert (made.anomalies, made.ratio) == (20, 0.5)
    assert truth_of(made) == (frame["b"] >= 500).cast(int).to_list()
    assert json.loads(made.manifest.read_text())["replacement"] is True


def test_large_tables_span_groups_and_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROW_GROUP", 1000)
    values = pl.DataFrame({"v": range(5000)}).with_columns(t=(pl.col("v") % 10 == 0).cast(pl.Int8))
    values.write_parquet(tmp_path / "in.parquet", row_group_size=700)
    made = contaminate(str(tmp_path / "in.parquet"), tmp_path / "mix.parquet", ratio=0.05, truth="t")
    frame = pl.read_parquet(made.path)
    assert (made.normals, made.anomalies) == (4500, 237)
    assert truth_of(made) == (frame["v"] % 10 == 0).cast(int).to_list()
    assert frame["v"].n_unique() == 4737


def test_columns_and_types_must_agree(table: Make, tmp_path: Path) -> None:
    good, bad = write(tmp_path, table(20, 0.0), table(5, 9.0).rename({"b": "beta"}), ".parquet")
    with pytest.raises(UsageError, match="column 'b'"):
        contaminate(good, tmp_path / "mix.parquet", ratio=0.1, anomalies=bad)
    table(5, 9.0).with_columns(extra=1).write_parquet(bad)
    with pytest.raises(UsageError, match="column 'extra'"):
        contaminate(good, tmp_path / "mix.parquet", ratio=0.1, anomalies=bad)
    table(5, 9.0).cast({"b": pl.String}).write_parquet(bad)
    with pytest.raises(UsageError, match=r"column 'b' is double in .* and .*string in"):
        contaminate(good, tmp_path / "mix.parquet", ratio=0.1, anomalies=bad)
    other = write(tmp_path, table(20, 0.0), table(5, 9.0), ".csv")[1]
    with pytest.raises(UsageError, match="not both Parquet or both CSV"):
        contaminate(good, tmp_path / "mix.parquet", ratio=0.1, anomalies=other)
    assert not list(tmp_path.glob("mix*"))


@pytest.mark.parametrize("name", ["mix", "mix.tsv", "mix.txt", ".parquet"])
def test_the_name_has_to_fit_the_form(table: Make, tmp_path: Path, name: str) -> None:
    good, bad = write(tmp_path, table(20, 0.0), table(5, 9.0), ".parquet")
    with pytest.raises(UsageError, match=r"has to end in \.parquet or \.csv"):
        contaminate(good, tmp_path / name, ratio=0.1, anomalies=bad)


@pytest.mark.parametrize("corrupt", [False, True])
@pytest.mark.parametrize(("form", "other"), [(".parquet", ".csv"), (".csv", ".parquet")])
def test_either_form_becomes_the_other(table: Make, tmp_path: Path, form: str, other: str, corrupt: bool) -> None:
    """The mixture in the data's own form and in the other hold the same values, and are audited as the same columns."""
    words = ["a,b", "", None, "n/a", 'q"uote', "line\nbreak", "0123", "ü"]
    good = table(96, 0.0).with_columns(w=pl.Series(words * 12), code=pl.Series([f"{i:05}" for i in range(96)]))
    good = good.with_columns(whole=pl.Series([7, None] * 48), part=pl.Series([0.1, 1e-7, None, 12345.0] * 24))
    sources = write(tmp_path / "in", good, good.head(10).with_columns(b=pl.col("b") + 1000), form)
    how = {"corrupt": ["scale", "missing"]} if corrupt else {"anomalies": sources[1]}
    same, made = (
        contaminate(sources[0], tmp_path / f"{name}{suffix}", ratio=0.08, seed=2, **how)
        for name, suffix in (("same", form), ("other", other))
    )
    assert made.labels.read_text() == same.labels.read_text()
    assert sorted(path.name for path in tmp_path.glob("other*")) == sorted(
        [f"other{other}", "other.labels.csv", "other.contaminate.json"]
    )
    frames = []
    for path in (same.path, made.path):
        opened = open_dataset(str(path))
        assert isinstance(opened, TableFiles)
        frames.append(opened)
    first, second = (pl.concat(rows.frame for _, rows in opened.raw(50)) for opened in frames)
    assert first.height == second.height
    for name in first.columns:
        text = name in ("c", "w", "code")
        kind = pl.String if text else pl.Float64
        assert first[name].cast(kind).equals(second[name].cast(kind)), name
    if other == ".parquet":
        assert pl.read_parquet(made.path).schema == pl.Schema(
            {
                "a": pl.Int64,
                "b": pl.Float64,
                "c": pl.String,
                "w": pl.String,
                "code": pl.String,
                "whole": pl.Int64,
                "part": pl.Float64,
            }
        )


def test_dates_survive_as_text_and_what_csv_cannot_hold_is_named(tmp_path: Path) -> None:
    when = [dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC) + dt.timedelta(hours=i) for i in range(20)]
    frame = pl.DataFrame(
        {"when": when, "day": [w.date() for w in when], "at": [w.time() for w in when], "x": range(20)}
    )
    sources = write(tmp_path, frame, frame.head(4), ".parquet")
    made = contaminate(sources[0], tmp_path / "mix.csv", ratio=0.1, anomalies=sources[1])
    opened = open_dataset(str(made.path))
    assert isinstance(opened, TableFiles)
    spec = opened.infer(0)
    assert {rule.name: rule.kind for rule in spec.columns} == {
        "when": "datetime", "day": "datetime", "at": "datetime", "x": "numeric",
    }  # fmt: skip
    sources = write(
        tmp_path,
        frame.with_columns(v=pl.Series([[1, 2]] * 20)),
        frame.with_columns(v=pl.Series([[1]] * 20)),
        ".parquet",
    )
    with pytest.raises(UsageError, match=r"column 'v' holds List\(Int64\), which CSV cannot"):
        contaminate(sources[0], tmp_path / "lists.csv", ratio=0.1, anomalies=sources[1])
    (tmp_path / "torn.csv").write_text("a,b\n1,2\n1\n" + "".join(f"{i},{i * i}\n" for i in range(20)))
    with pytest.raises(UsageError, match="cannot be a row of Parquet: 1 fields where the header has 2"):
        contaminate(str(tmp_path / "torn.csv"), tmp_path / "torn.parquet", ratio=0.1, corrupt=["missing"])
    assert not list(tmp_path.glob("lists*")) + list(tmp_path.glob("torn.[plc]*arquet"))


def test_neither_inputs_nor_strangers_are_replaced(table: Make, tmp_path: Path, tree: Tree) -> None:
    good, bad = write(tmp_path, table(20, 0.0), table(5, 9.0), ".csv")
    pl.DataFrame({"id": range(20), "anomaly": [0] * 15 + [1] * 5}).write_csv(tmp_path / "mix.labels.csv")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "part.csv").write_text("a,truth\n1,0\n2,1\n")
    before = tree(tmp_path)
    for out in (good, bad, tmp_path / "mix.csv"):
        for force in (False, True):
            with pytest.raises(UsageError):
                contaminate(good, Path(out), ratio=0.1, anomalies=bad, force=force)
    # Even a former mixture's labels stay when they are what is read as truth.
    (tmp_path / "mix.contaminate.json").write_text("{}")
    with pytest.raises(UsageError, match="read as --truth"):
        contaminate(good, tmp_path / "mix.csv", ratio=0.1, truth=str(tmp_path / "mix.labels.csv"), force=True)
    with pytest.raises(UsageError, match="inside DATA"):
        contaminate(str(tmp_path / "in"), tmp_path / "in" / "sub" / "mix.csv", ratio=0.1, truth="truth")
    (tmp_path / "mix.contaminate.json").unlink()
    assert tree(tmp_path) == before


def test_force_replaces_all_three_files_or_none(
    table: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: Tree
) -> None:
    good, bad = write(tmp_path / "in", table(20, 0.0), table(5, 9.0), ".csv")
    out = tmp_path / "mix.csv"
    contaminate(good, out, ratio=0.1, anomalies=bad)
    with pytest.raises(UsageError, match="exists"):
        contaminate(good, out, ratio=0.1, anomalies=bad)
    former = tree(tmp_path)
    rename = place.os.rename

    def fail(source: Path, target: Path) -> None:
        if source.parent.name == "new" and source.name.endswith(".json"):
            raise PermissionError(13, "Permission denied")
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(place.os, "rename", fail)
        with pytest.raises(AuditError, match=r"mix\.csv cannot be written: Permission denied"):
            contaminate(good, out, ratio=0.2, anomalies=bad, force=True)
    assert tree(tmp_path) == former
    made = contaminate(good, out, ratio=0.2, anomalies=bad, force=True)
    assert len(truth_of(made)) == 25
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "in",
        "mix.contaminate.json",
        "mix.csv",
        "mix.labels.csv",
    ]


def test_empty_and_damaged_tables(table: Make, tmp_path: Path) -> None:
    good, bad = write(tmp_path, table(0, 0.0), table(5, 9.0), ".parquet")
    with pytest.raises(AuditError, match="has no rows"):
        contaminate(good, tmp_path / "mix.parquet", ratio=0.1, anomalies=bad)
    table(20, 0.0).write_parquet(good)
    table(0, 0.0).write_parquet(bad)
    assert contaminate(good, tmp_path / "mix.parquet", ratio=0, anomalies=bad).normals == 20
    with pytest.raises(UsageError, match="no anomaly to draw from"):
        contaminate(good, tmp_path / "mix2.parquet", ratio=0.1, anomalies=bad)
    Path(bad).write_bytes(b"PAR1 not really")
    with pytest.raises(AuditError, match="not a readable Parquet"):
        contaminate(good, tmp_path / "mix2.parquet", ratio=0.1, anomalies=bad)
