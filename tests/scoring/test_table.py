from __future__ import annotations

import json
import os
import resource
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from anoaudit.errors import AuditError
from anoaudit.scoring.table import COLUMNS, METADATA_KEY, ScoreTable, ScoreTableWriter, Summary, schema

SUMMARY = Summary(
    source="data/größe", fingerprint="ab", kind="table", rows=3, readable=2, unreadable=1, ignored=4, flagged=1, rule="score ≥ 2",
    threshold=2.0, calibration={"kind": "none", "n": 3}, model={"name": "m"}, provider="CPUExecutionProvider", notes=("a", "b\nc"),
)  # fmt: skip


def frame(n: int = 3, truth: bool = False) -> pl.DataFrame:
    rows: dict[str, Any] = {
        "why": ["c0 +1.0"] * n, "id": [f"i{k}" for k in range(n)], "status": ["ok"] * n, "reason": [None] * n,
        "score": [float(k) for k in range(n)], "p_value": [None] * n, "flagged": [False] * n,
        "rank": list(range(n, 0, -1)), "group": [None] * n,
    }  # fmt: skip
    return pl.DataFrame(rows | ({"truth": [None] * n} if truth else {}))


def write(path: Path, truth: bool = False, n: int = 3) -> ScoreTable:
    writer = ScoreTableWriter(path, ["truth"] if truth else [])
    writer.write(frame(n, truth))
    return writer.close(SUMMARY)


@pytest.mark.parametrize("truth", [False, True])
def test_one_schema(tmp_path: Path, truth: bool) -> None:
    table = write(tmp_path / "s.parquet", truth)
    again = ScoreTable.open(table.path)
    assert again == table
    assert again.summary == SUMMARY
    assert again.has_truth == truth
    for found in (again.lazy().collect(), *again.batches(), again.top(3)):
        assert dict(found.schema) == schema(["truth"] if truth else [])
    assert list(schema(["truth"] if truth else [])) == [*COLUMNS, *(["truth"] if truth else [])]


def test_batches_and_top(tmp_path: Path) -> None:
    table = write(tmp_path / "s.parquet", n=10)
    assert [len(part) for part in table.batches(4)] == [4, 4, 2]
    assert table.top(2)["id"].to_list() == ["i9", "i8"]
    assert table.top(0).height == 0


def test_an_empty_table(tmp_path: Path) -> None:
    writer = ScoreTableWriter(tmp_path / "s.parquet")
    table = writer.close(Summary())
    assert ScoreTable.open(table.path).lazy().collect().height == 0


def test_a_path_that_looks_like_a_pattern(tmp_path: Path) -> None:
    table = write(tmp_path / "s[1]*?.parquet")
    assert ScoreTable.open(table.path).lazy().collect().height == 3


def test_the_summary_is_read_as_it_was_written() -> None:
    assert Summary.from_json(json.loads(json.dumps(SUMMARY.to_json()))) == SUMMARY
    assert Summary.from_json({}) == Summary()
    assert Summary.from_json({"from": "the future"}) == Summary()


WRONG: list[dict[str, Any]] = [
    {"rows": "3"}, {"rows": 1.5}, {"rows": True}, {"rule": None}, {"notes": "text"}, {"notes": [1]}, {"threshold": "2"},
    {"threshold": float("nan")}, {"calibration": []}, {"model": "m"}, {"source": 1},
]  # fmt: skip


@pytest.mark.parametrize("values", WRONG)
def test_damaged_summaries(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        Summary.from_json(values)


@pytest.mark.parametrize(
    "meta",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b'{"summary": []}',
        b'{"summary": {"rows": "x"}}',
        b"[" * 200_000,
        b"\xff",
        b'{"summary": {"rows": null}}',
    ],
)
def test_damaged_metadata(tmp_path: Path, meta: bytes) -> None:
    path = tmp_path / "s.parquet"
    table = frame().select(list(COLUMNS)).to_arrow().replace_schema_metadata({METADATA_KEY: meta})
    pq.write_table(table, path)
    with pytest.raises(AuditError, match="damaged"):
        ScoreTable.open(path)


def test_a_table_of_someone_else_has_an_empty_summary(tmp_path: Path) -> None:
    frame().write_parquet(tmp_path / "s.parquet")
    assert ScoreTable.open(tmp_path / "s.parquet").summary == Summary()


def test_what_is_no_score_table(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("id,score\n")
    (tmp_path / "empty").write_bytes(b"")
    pl.DataFrame({"id": ["a"]}).write_parquet(tmp_path / "other")
    for name in ("text", "empty", "other", "nothing", "."):
        with pytest.raises(AuditError) as caught:
            ScoreTable.open(tmp_path / name)
        assert "\n" not in caught.value.message
    with pytest.raises(AuditError, match="no column 'status'"):
        ScoreTable.open(tmp_path / "other")


def test_damaged_files_never_crash(tmp_path: Path) -> None:
    data = write(tmp_path / "s.parquet", n=500).path.read_bytes()
    refused, lines = 0, []
    for step in range(200):
        damaged = bytearray(data)
        damaged[step * 7919 % len(data)] ^= 0x5A
        (tmp_path / "d.parquet").write_bytes(damaged[: len(data) - (step % 5 == 0) * step])
        try:
            for _ in ScoreTable.open(tmp_path / "d.parquet").batches():
                pass
        except AuditError as error:
            refused += 1
            lines.append(error.message)
    assert not any("\n" in line for line in lines)
    assert refused > 40


def test_abandoning(tmp_path: Path) -> None:
    writer = ScoreTableWriter(tmp_path / "s.parquet")
    writer.write(frame())
    writer.abandon()
    writer.abandon()
    assert os.listdir(tmp_path) == []


def test_abandoning_on_a_full_disk(tmp_path: Path) -> None:
    writer = ScoreTableWriter(tmp_path / "s.parquet")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match="large"):
            writer.write(frame(1000))
        writer.abandon()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []
