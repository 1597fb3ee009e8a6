from __future__ import annotations

import csv
import io
import json
import os
import stat
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from report_rows import row, rows_of

from anoaudit.errors import AuditError, UsageError
from anoaudit.reports.document import document
from anoaudit.reports.writers import FORMATS, format_for, write
from anoaudit.scoring.table import ScoreTable

ALL = [f for f in FORMATS if f != "table"]


def rows_in(table: ScoreTable) -> list[dict[str, Any]]:
    return table.lazy().collect().to_dicts()


def test_formats_follow_the_suffix() -> None:
    names = ["a.json", "a.ndjson", "a.jsonl", "a.CSV", "a.parquet", "a.md", "a.txt", "a", "a.gz"]
    expected = ["json", "ndjson", "ndjson", "csv", "parquet", "markdown", "table", None, None]
    assert [format_for(name) for name in names] == expected
    assert {format_for(n) for n in names} - {None} == set(FORMATS)


def test_json_is_the_document_with_its_rows_last(nasty: ScoreTable, tmp_path: Path) -> None:
    write(nasty, "json", tmp_path / "o.json")
    text = (tmp_path / "o.json").read_text(encoding="utf-8")
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert list(found) == ["schema_version", "summary", "metrics", "known_anomalies", "timeline", "rows"]
    assert found == document(nasty) == json.loads(json.dumps(document(nasty), allow_nan=False))
    assert found["rows"] == rows_in(nasty)


def test_json_of_no_rows_is_valid(make: Any, tmp_path: Path) -> None:
    table = make([])
    for fmt in FORMATS:
        write(table, fmt, tmp_path / fmt)
    assert json.loads((tmp_path / "json").read_text())["rows"] == []
    assert (tmp_path / "ndjson").read_bytes() == b""
    assert (tmp_path / "csv").read_text() == "id,status,reason,score,p_value,flagged,rank,group,why\n"


def test_the_worst_rows_alone_come_in_rank_order(nasty: ScoreTable) -> None:
    assert [r["rank"] for r in document(nasty, 3)["rows"]] == [1, 2, 3]
    assert document(nasty, 0)["rows"] == []


def test_numbers_json_has_no_word_for_become_null(make: Any, tmp_path: Path) -> None:
    table = make([row("a", float("inf")), row("b", float("nan"), truth=1)], threshold=float("inf"))
    for fmt in FORMATS:
        if fmt != "parquet":
            write(table, fmt, tmp_path / fmt)
            assert "nan" not in (tmp_path / fmt).read_text().lower()
    assert json.loads((tmp_path / "json").read_text())["summary"]["threshold"] is None


def test_ndjson_is_one_row_per_line_whatever_the_ids_hold(nasty: ScoreTable, tmp_path: Path) -> None:
    write(nasty, "ndjson", tmp_path / "o.ndjson")
    lines = (tmp_path / "o.ndjson").read_text(encoding="utf-8").splitlines()  # which breaks at U+2028 as well
    assert [json.loads(line) for line in lines] == rows_in(nasty)
    assert "日本語" in "".join(lines)


def test_csv_quotes_what_must_be_and_keeps_every_digit(nasty: ScoreTable, tmp_path: Path) -> None:
    write(nasty, "csv", tmp_path / "o.csv")
    found = list(csv.DictReader(io.StringIO((tmp_path / "o.csv").read_bytes().decode(), newline="")))
    rows = rows_in(nasty)
    assert [r["id"] for r in found] == [r["id"] for r in rows]
    assert [float(r["score"]) if r["score"] else None for r in found] == [r["score"] for r in rows]
    assert {r["flagged"] for r in found} == {"true", "false"}


def test_parquet_keeps_rows_and_summary(nasty: ScoreTable, tmp_path: Path) -> None:
    table = replace(nasty, summary=replace(nasty.summary, source="elsewhere"))  # newer than the file's own
    for number, given in enumerate((nasty, table)):
        write(given, "parquet", tmp_path / f"{number}.parquet")
        again = ScoreTable.open(tmp_path / f"{number}.parquet")
        assert again.summary == given.summary
        assert rows_in(again) == rows_in(nasty)


def test_every_batch_is_written_once(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = make(rows_of([float(i) for i in range(10)]))
    batches = ScoreTable.batches
    monkeypatch.setattr(ScoreTable, "batches", lambda self, size=3: batches(self, 3))
    for fmt in ("csv", "ndjson", "json"):
        write(table, fmt, tmp_path / fmt)
    assert pl.read_csv(tmp_path / "csv")["id"].to_list() == [f"item-{i}" for i in range(10)]
    assert len((tmp_path / "ndjson").read_text().splitlines()) == 10
    assert len(json.loads((tmp_path / "json").read_text())["rows"]) == 10


@pytest.mark.parametrize("fmt", ALL)
def test_stdout_gets_the_same_bytes(fmt: str, nasty: ScoreTable, tmp_path: Path, capfdbinary: Any) -> None:
    write(nasty, fmt, tmp_path / "file")
    write(nasty, fmt, None)
    assert capfdbinary.readouterr().out == (tmp_path / "file").read_bytes()


def test_parquet_is_not_poured_into_a_terminal(nasty: ScoreTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with pytest.raises(UsageError, match="binary"):
        write(nasty, "parquet", None)


def test_an_unknown_format_is_a_usage_error(nasty: ScoreTable) -> None:
    with pytest.raises(UsageError, match="no format 'xml'"):
        write(nasty, "xml", None)


@pytest.mark.parametrize("fmt", FORMATS)
def test_nothing_half_written_stays(
    fmt: str, nasty: ScoreTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "o").write_text("before")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(AuditError) as caught:
        write(nasty, fmt, folder / "o")
    assert "no space" in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert [p.name for p in folder.iterdir()] == ["o"]
    assert (folder / "o").read_text() == "before"


def test_places_that_cannot_be_written_to_say_why(nasty: ScoreTable, tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="does not exist"):
        write(nasty, "csv", tmp_path / "no" / "o.csv")
    with pytest.raises(AuditError, match="it is a folder"):
        write(nasty, "csv", tmp_path)
    with pytest.raises(AuditError, match="is not a folder"):
        write(nasty, "csv", nasty.path / "o.csv")
    with pytest.raises(AuditError, match="name is too long"):
        write(nasty, "csv", tmp_path / ("x" * 300))


def test_a_table_that_went_away_is_named_as_such(nasty: ScoreTable, tmp_path: Path) -> None:
    nasty.path.unlink()
    with pytest.raises(AuditError, match="is gone"):
        write(nasty, "csv", tmp_path / "o.csv")


def test_links_are_followed_and_modes_kept(nasty: ScoreTable, tmp_path: Path) -> None:
    real = tmp_path / "real.csv"
    real.write_text("old")
    real.chmod(0o640)
    (tmp_path / "link.csv").symlink_to(real)
    write(nasty, "csv", tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert real.read_text() != "old"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_a_pipe_is_written_to_and_not_replaced(nasty: ScoreTable, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write(nasty, "ndjson", pipe)
    reader.join(5)
    assert len(got[0].splitlines()) >= 10
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_broken_pipe_is_left_to_the_caller(fmt: str, nasty: ScoreTable, monkeypatch: pytest.MonkeyPatch) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with pytest.raises(BrokenPipeError), os.fdopen(write_end, "w", encoding="utf-8") as broken:  # noqa: PT012
        monkeypatch.setattr(sys, "stdout", broken)
        write(nasty, fmt, None)
