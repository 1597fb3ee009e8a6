"""Truth and labels: joined as the user meant, or refused; never guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from anoaudit.data.items import ImageSpec
from anoaudit.data.labels import open_labels, parse
from anoaudit.data.source import open_dataset
from anoaudit.data.tables import ColumnOptions, TableFiles
from anoaudit.errors import UsageError

N = 30
WANTED = [1, 0, -1] * 10


@pytest.mark.parametrize(
    "values",
    [
        [1, 0, None],
        [1.0, 0.0, None],
        [1.0, 0.0, float("nan")],
        [True, False, None],
        ["1", "0", ""],
        ["1.0", " 0.0 ", None],
        ["true", "FALSE", "  "],
        ["True", "False", "NA"],
    ],
)
def test_forms(values: list[object]) -> None:
    found = parse(pl.Series(values), "here")
    assert found.dtype == np.int8
    assert found.tolist() == [1, 0, -1]


@pytest.mark.parametrize("bad", [[2], [-1], [0.5], ["anomaly"], ["yes"], ["0,1"], [float("inf")], [[1]], [b"\xff"]])
def test_malformed(bad: list[object]) -> None:
    with pytest.raises(UsageError, match="here") as caught:
        parse(pl.Series([*bad, *bad]), "here")
    assert caught.value.exit_code == 2
    assert caught.value.hint


@pytest.fixture
def frame(tmp_path: Path) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "x": rng.normal(size=N),
            "part": [f"p{i}" for i in range(N)],
            "bad": pl.Series([1, 0, None] * 10, dtype=pl.Int8),
        }
    )
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_csv(tmp_path / "t.csv")
    return frame


def labelled(path: Path, options: ColumnOptions | None = None, **given: str) -> tuple[list[int], list[int], list[str]]:
    data = open_dataset(str(path), options, **given)
    assert isinstance(data, TableFiles)
    spec = data.infer(0)
    chunks = list(data.chunks(spec, 7))
    truth, labels = ([int(v) for c in chunks for v in getattr(c, name)] for name in ("truth", "labels"))
    return truth, labels, [rule.name for rule in spec.columns]


@pytest.mark.parametrize("name", ["t.parquet", "t.csv"])
def test_a_column_is_never_a_feature(tmp_path: Path, frame: pl.DataFrame, name: str) -> None:
    assert labelled(tmp_path / name, truth="bad") == (WANTED, [-1] * N, ["x"])
    assert labelled(tmp_path / name, labels="bad") == ([-1] * N, WANTED, ["x"])
    assert labelled(tmp_path / name, truth="bad", labels="bad") == (WANTED, WANTED, ["x"])
    with pytest.raises(UsageError, match="'bad'"):
        labelled(tmp_path / name, ColumnOptions(columns=("x", "bad")), truth="bad")
    with pytest.raises(UsageError, match="'x' holds"):
        labelled(tmp_path / name, truth="x")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(("key", "column"), [("id", "label"), ("path", "anomaly"), ("id", "other"), ("part", "label")])
def test_a_file(tmp_path: Path, frame: pl.DataFrame, separator: str, key: str, column: str) -> None:
    rows = pl.DataFrame({key: frame["part"], column: frame["bad"]}).reverse()
    rows.write_csv(tmp_path / "truth.csv", separator=separator, include_bom=separator == ";")
    spec = f"{tmp_path / 'truth.csv'}" + (":other" if column == "other" else "")
    options = ColumnOptions(id_column="part")
    assert labelled(tmp_path / "t.parquet", options, truth=spec)[0] == WANTED
    assert labelled(tmp_path / "t.csv", options, labels=spec)[1] == WANTED
    rows.write_parquet(tmp_path / "truth.parquet")
    spec = spec.replace("truth.csv", "truth.parquet")
    assert labelled(tmp_path / "t.csv", options, truth=spec)[0] == WANTED


def test_row_numbers_are_ids(tmp_path: Path, frame: pl.DataFrame) -> None:
    (tmp_path / "l.csv").write_text("id,label\n3,1\n29,0\n")
    expected = [1 if i == 3 else 0 if i == 29 else -1 for i in range(N)]
    assert labelled(tmp_path / "t.csv", labels=str(tmp_path / "l.csv"))[1] == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,label\np1,maybe\n", "'maybe'"),
        ("id,label\np1,2\n", "'2'"),
        ("id,label\np1,1\np1,0\n", "twice"),
        ("id,label\n,1\n", "without 'id'"),
        ("name,label\np1,1\n", "no column 'part' or 'id' or 'path'"),
        ("id,score\np1,1\n", "no column 'label'"),
        ("id,label\np1,1\np2\n", "row 1"),
        ("id,label\nnowhere,1\n", "none of the 1 ids"),
        ("id,label\n", "none of the 0 ids"),
        ("", "is empty"),
        ("id,label,label\np1,1,0\n", "two columns"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, frame: pl.DataFrame, text: str, words: str) -> None:
    (tmp_path / "l.csv").write_text(text)
    for role in ("truth", "labels"):
        with pytest.raises(UsageError, match=words) as caught:
            labelled(tmp_path / "t.csv", ColumnOptions(id_column="part"), **{role: str(tmp_path / "l.csv")})
        assert caught.value.exit_code == 2


def test_labels_that_match_nothing_at_score(tmp_path: Path, frame: pl.DataFrame) -> None:
    """`score` does not infer; it has to notice all the same."""
    data = open_dataset(str(tmp_path / "t.csv"))
    assert isinstance(data, TableFiles)
    spec = data.infer(0)
    (tmp_path / "l.csv").write_text("id,label\nnowhere,1\n")
    with pytest.raises(UsageError, match="none of the 1 ids"):
        list(open_dataset(str(tmp_path / "t.csv"), truth=str(tmp_path / "l.csv")).chunks(spec, 7))


def test_repeats_that_agree_are_fine(tmp_path: Path, frame: pl.DataFrame) -> None:
    (tmp_path / "l.csv").write_text("id,label\n1,1\n1,1\n")
    assert sum(v == 1 for v in labelled(tmp_path / "t.csv", truth=str(tmp_path / "l.csv"))[0]) == 1


def test_no_such_column_or_file(tmp_path: Path, frame: pl.DataFrame) -> None:
    for spec in ("nope", "nope.csv", "nope.csv:label", str(tmp_path), ":", ""):
        if spec:
            with pytest.raises(UsageError):
                labelled(tmp_path / "t.csv", truth=spec)
    (tmp_path / "l.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UsageError, match="cannot read labels"):
        labelled(tmp_path / "t.csv", truth=str(tmp_path / "l.parquet"))


def test_a_labels_file_beside_the_data_is_no_data(tmp_path: Path) -> None:
    for name in ("a", "b"):
        pl.DataFrame({"x": np.random.default_rng(0).normal(size=N)}).write_csv(tmp_path / f"{name}.csv")
    (tmp_path / "labels.csv").write_text("id,label\na.csv#3,1\nb.csv#0,0\n")
    truth = labelled(tmp_path, truth=str(tmp_path / "labels.csv"))[0]
    assert (truth[3], truth[N], len(truth)) == (1, 0, 2 * N)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name in ("good/1.png", "good/2.png", "bad/1.png"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / "set" / name)
    return tmp_path / "set"


@pytest.mark.parametrize(
    ("place", "prefix"),
    [
        ("labels.csv", ""),
        ("labels.csv", "set/"),
        ("set/labels.csv", ""),
        ("lists/labels.csv", "../set/"),
        ("l.csv", "./set/"),
    ],
)
def test_paths_of_pictures(tmp_path: Path, pictures: Path, place: str, prefix: str) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text(f"path,label\n{prefix}bad/1.png,1\n{prefix}good/2.png,0\n")
    [chunk] = open_dataset(str(pictures), truth=str(tmp_path / place)).chunks(ImageSpec(4, 4), 10)
    assert chunk.ids == ["bad/1.png", "good/1.png", "good/2.png"]
    assert chunk.truth.tolist() == [1, -1, 0]
    assert chunk.labels.tolist() == [-1, -1, -1]


def test_absolute_paths_of_pictures(tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "l.csv").write_text(f"path,label\n{pictures}/bad/1.png,1\n")
    [chunk] = open_dataset(str(pictures), labels=str(tmp_path / "l.csv")).chunks(ImageSpec(4, 4), 10)
    assert chunk.labels.tolist() == [1, -1, -1]


def test_pictures_and_labels_that_do_not_meet(tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "l.csv").write_text("path,label\nother/1.png,1\n")
    with pytest.raises(UsageError, match="none of the 1 ids"):
        open_dataset(str(pictures), truth=str(tmp_path / "l.csv"))
    with pytest.raises(UsageError, match="neither"):
        open_dataset(str(pictures), truth="label")


def test_a_column_wins_over_a_file_of_its_name(
    tmp_path: Path, frame: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad").write_text("id,label\n1,1\n")
    assert open_labels("bad", ["x", "bad"]).column == "bad"
    assert labelled(tmp_path / "t.csv", truth="bad")[0] == WANTED
    (tmp_path / "with:colon.csv").write_text("id,label\n1,1\n")
    assert open_labels("with:colon.csv").by_id == {"1": 1}
    assert open_labels("with:colon.csv:label").by_id == {"1": 1}
