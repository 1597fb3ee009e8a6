from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from report_rows import Maker, row, rows_of

from anoaudit.errors import AuditError, UsageError
from anoaudit.reports.document import document
from anoaudit.reports.metrics import metrics
from anoaudit.reports.reader import read
from anoaudit.reports.truth import with_truth
from anoaudit.reports.writers import format_for, write
from anoaudit.scoring.table import ScoreTable

READABLE = ["a.parquet", "a.csv", "a.json", "a.ndjson", "a.jsonl"]


@pytest.mark.parametrize("name", READABLE)
def test_every_readable_format_gives_the_same_rows(name: str, nasty: ScoreTable, tmp_path: Path) -> None:
    write(nasty, format_for(name) or "", tmp_path / name)
    again = read(tmp_path / name)
    assert again.lazy().collect().equals(nasty.lazy().collect())
    assert again.has_truth
    assert metrics(again) == metrics(nasty)
    if name in ("a.parquet", "a.json"):
        assert again.summary == nasty.summary
    else:
        assert (again.summary.rows, again.summary.readable, again.summary.unreadable) == (14, 13, 1)
        assert (again.summary.flagged, again.summary.threshold) == (nasty.summary.flagged, nasty.summary.threshold)
        assert again.summary.rule.startswith("not told by the file")


@pytest.mark.parametrize("name", READABLE)
def test_tables_without_truth_or_rows(name: str, make: Maker, tmp_path: Path) -> None:
    for rows in (rows_of([1.0, None, 3.5], flag_from=3), []):
        table = make(rows)
        write(table, format_for(name) or "", tmp_path / name)
        again = read(tmp_path / name)
        assert not again.has_truth
        assert again.lazy().collect().equals(table.lazy().collect())


def test_many_rows_keep_their_order(make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anoaudit.reports.reader._BATCH", 7)
    table = make(rows_of([float(i % 13) for i in range(100)], flag_from=12))
    for name in ("json", "ndjson", "csv"):
        write(table, name, tmp_path / f"a.{name}")
        again = read(tmp_path / f"a.{name}")
        assert again.lazy().collect().equals(table.lazy().collect())
        assert again.summary.flagged == table.summary.flagged


def test_json_that_was_formatted_again_is_read(nasty: ScoreTable, tmp_path: Path) -> None:
    write(nasty, "json", tmp_path / "a.json")
    whole = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    for indent in (None, 2):
        (tmp_path / "b.json").write_text(json.dumps(whole, indent=indent), encoding="utf-8")
        assert read(tmp_path / "b.json").lazy().collect().equals(nasty.lazy().collect())


def test_a_part_of_the_rows_says_so(nasty: ScoreTable, tmp_path: Path) -> None:
    (tmp_path / "top.json").write_text(json.dumps(document(nasty, 3)), encoding="utf-8")
    summary = read(tmp_path / "top.json").summary
    assert (summary.rows, summary.flagged, summary.unreadable) == (3, 3, 0)
    assert summary.source == nasty.summary.source
    assert summary.notes[-1] == "this file holds 3 of the 14 items that were scored"


def test_a_model_is_its_scores(make: Maker, tmp_path: Path) -> None:
    model = tmp_path / "m.anoaudit"
    model.mkdir()
    with pytest.raises(AuditError, match="not a model"):
        read(model)
    (model / "manifest.json").write_text("{}")
    with pytest.raises(AuditError, match="the model holds no scores") as caught:
        read(model)
    assert "anoaudit score" in caught.value.hint
    write(make(rows_of([1.0, 2.0])), "parquet", model / "scores.parquet")
    assert read(model).summary.rows == 2


def test_a_path_is_never_a_pattern(make: Maker, tmp_path: Path) -> None:
    for fmt in ("parquet", "csv"):
        write(make(rows_of([1.0, 2.0])), fmt, tmp_path / f"run[1]*.{fmt}")
        assert read(tmp_path / f"run[1]*.{fmt}").lazy().collect().height == 2


def test_parquet_that_pandas_wrote_again_is_read(make: Maker, tmp_path: Path) -> None:
    table = make(rows_of([1.0, None, 3.0], flag_from=3, group="g"))
    loose = table.lazy().with_columns(pl.col("rank").cast(pl.Float64), pl.col("group").cast(pl.Categorical)).collect()
    loose.write_parquet(tmp_path / "loose.parquet")
    again = read(tmp_path / "loose.parquet")
    assert again.lazy().collect().equals(table.lazy().collect())
    assert (again.summary.rows, again.summary.flagged, again.summary.threshold) == (3, 1, 3.0)


GOOD = "id,status,reason,score,p_value,flagged,rank,group,why\n"
BAD: dict[str, tuple[bytes, str]] = {
    "empty.csv": (b"", "cannot be read as a score table"),
    "other.csv": (b"a,b\n1,2\n", "no column 'id'"),
    "text.csv": ((GOOD + "a,ok,,high,,true,1,,\n").encode(), "invalid value 'high'"),
    "ragged.csv": ((GOOD + "a,ok,,1.0\n").encode(), "Expected 9 columns, got 4"),
    "nan.csv": ((GOOD + "a,ok,,nan,,true,1,,\n").encode(), "score is not a number"),
    "status.csv": ((GOOD + "a,fine,,1.0,,true,1,,\n").encode(), "a status is neither"),
    "scored.csv": ((GOOD + "a,unreadable,,1.0,,false,,,\n").encode(), "an unreadable item has a score"),
    "undecided.csv": ((GOOD + "a,ok,,1.0,,,1,,\n").encode(), "neither flagged nor not"),
    "truth.csv": ((GOOD[:-1] + ",truth\na,ok,,1.0,,true,1,,,7\n").encode(), "a truth is neither"),
    "half-truth.csv": ((GOOD[:-1] + ",truth\na,ok,,1.0,,true,1,,,0.5\n").encode(), "a truth is neither"),
    "latin.csv": ((GOOD + "ü,ok,,1.0,,true,1,,\n").encode("latin-1"), "UTF8"),
    "broken.json": (b"{", "cannot be read as a score table"),
    "list.json": (b"[1, 2]", "it has no rows"),
    "norows.json": (b'{"summary": {}}', "it has no rows"),
    "badsummary.json": (b'{"summary": {"notes": 3}, "rows": []}', "summary is damaged"),
    "rows.json": (b'{"rows": [1]}', "a row is not an object"),
    "half.json": (b'{\n"schema_version": 1,\n"summary": {},\n"metrics": null,\n"rows": [\n', "cannot be read"),
    "binary.ndjson": (bytes(range(256)), "cannot be read"),
    "line.ndjson": (b'{"id": "a"}\n', "a row has no 'status'"),
    "cut.ndjson": (b'{"id": "a", "sta', "line 1 is not one JSON object"),
    "nul.parquet": (b"PAR1", "not a readable Parquet file"),
    "noise": (b"what is this", "in no format that can be read back"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_one_clear_line(name: str, tmp_path: Path) -> None:
    content, words = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AuditError) as caught:
        read(tmp_path / name)
    assert name in caught.value.message
    assert words in caught.value.message
    assert "\n" not in caught.value.message + caught.value.hint
    assert caught.value.hint


def test_a_document_cut_off_within_its_rows_is_refused(nasty: ScoreTable, tmp_path: Path) -> None:
    write(nasty, "json", tmp_path / "a.json")
    whole = (tmp_path / "a.json").read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in (b"".join(lines[:-3]), b"".join(lines[:-4]) + lines[-4][:20]):
        (tmp_path / "a.json").write_bytes(cut)
        with pytest.raises(AuditError, match=r"a\.json"):
            read(tmp_path / "a.json")


def test_a_missing_file_and_a_missing_table(tmp_path: Path, make: Maker) -> None:
    with pytest.raises(AuditError, match="does not exist"):
        read(tmp_path / "no.csv")
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(AuditError, match="no column 'id'"):
        read(tmp_path / "a.parquet")


def test_truth_joins_by_id(make: Maker, tmp_path: Path) -> None:
    table = make(rows_of([1.0, 2.0, None]))
    joined = with_truth(table, {"item-0": 0, "item-1": 1, "elsewhere": 1}, tmp_path / "t.parquet")
    again = read(tmp_path / "t.parquet")
    assert joined.has_truth
    assert again.has_truth
    assert again.lazy().collect()["truth"].to_list() == [0, 1, None]
    assert again.summary == table.summary
    found: dict[str, Any] = metrics(again) or {}
    assert found["auroc"] == 1.0
    replaced = with_truth(joined, {"item-0": 1}, joined.path)
    assert replaced.lazy().collect()["truth"].to_list() == [1, None, None]


def test_truth_that_cannot_be_meant_is_refused_and_leaves_nothing(make: Maker, tmp_path: Path) -> None:
    table = make([row("a", 1.0)])
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(UsageError, match="share no id"):
        with_truth(table, {"b": 1}, tmp_path / "t.parquet")
    with pytest.raises(UsageError, match="holds 2"):
        with_truth(table, {"a": 2}, tmp_path / "t.parquet")
    with pytest.raises(AuditError, match="does not exist"):
        with_truth(table, {"a": 1}, tmp_path / "no" / "t.parquet")
    assert sorted(p.name for p in tmp_path.iterdir()) == before
