"""Rows from Parquet and CSV files in bounded memory: frames of raw columns, one row per input row, none dropped."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from anoaudit.errors import AuditError

SUFFIXES = frozenset({".parquet", ".csv", ".tsv"})
NULL_TOKENS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "none")
DELIMITERS = ",;\t|"
csv.field_size_limit(16 * 1024 * 1024)


@dataclass(frozen=True)
class RawRows:
    """Consecutive rows of one file. `reasons` says which rows could not be split into columns (their cells are null)."""

    file: Path
    start: int  # row number within the file
    frame: pl.DataFrame
    reasons: list[str | None]


def columns_of(path: Path) -> list[str]:
    """Column names of a file. Raises AuditError when the file is not what its suffix says."""
    if path.suffix.lower() == ".parquet":
        with _parquet(path) as file:
            return list(file.schema_arrow.names)
    header, _ = _header(path)
    return header


def read_rows(path: Path, size: int, columns: Sequence[str] | None = None) -> Iterator[RawRows]:
    """All rows of a Parquet or CSV file. Raises AuditError on a damaged file."""
    if path.suffix.lower() == ".parquet":
        yield from _parquet_rows(path, size, columns)
    else:
        yield from _csv_rows(path, size, columns)


def _parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise AuditError(f"{path} is not a readable Parquet file: {_first_line(error)}", "check or re-create the file") from error


def _parquet_rows(path: Path, size: int, columns: Sequence[str] | None) -> Iterator[RawRows]:
    start = 0
    with _parquet(path) as file:
        wanted = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
        try:
            for batch in file.iter_batches(batch_size=size, columns=wanted):
                # Without columns arrow still knows the number of rows, polars does not.
                frame = pl.DataFrame(pl.from_arrow(batch)) if batch.num_columns else pl.DataFrame({"": [None] * len(batch)})
                yield RawRows(path, start, frame, [None] * len(batch))
                start += len(batch)
        except (pa.ArrowException, pl.exceptions.PolarsError, OSError) as error:
            raise AuditError(f"{path} is damaged after row {start}: {_first_line(error)}", "re-create the file") from error


def _header(path: Path) -> tuple[list[str], str]:
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            line = file.readline(1024 * 1024)
    except OSError as error:
        raise AuditError(f"{path} cannot be read: {error.strerror or error}", "check the file's permissions") from error
    if not line.strip():
        raise AuditError(f"{path} is empty", "give a file with a header line and rows")
    delimiter = max(DELIMITERS, key=line.count)  # the first of them when the line has none: a one-column file
    try:
        names = next(csv.reader([line], delimiter=delimiter))
    except (csv.Error, StopIteration) as error:
        raise AuditError(f"{path} has no readable header line: {error}", "give a CSV file with a header line") from error
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise AuditError(f"{path} has two columns named {twice!r}", "rename one of them")
    return names, delimiter


def _csv_rows(path: Path, size: int, columns: Sequence[str] | None) -> Iterator[RawRows]:
    """Every cell is text here; the rules in `encoding` make it numbers. A row of the wrong length keeps its place."""
    names, delimiter = _header(path)
    wanted = [i for i, name in enumerate(names) if columns is None or name in columns]
    start = 0
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        next(reader)
        rows: list[list[str]] = []
        reasons: list[str | None] = []
        blank = [""] * len(names)
        while True:
            try:
                row = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                rows.append(blank)
                reasons.append(f"malformed line: {error}")
                continue
            if not row and len(names) > 1:
                continue  # a blank line is no row
            if len(row) == len(names) or not row:
                rows.append(row or blank)
                reasons.append(None)
            else:
                rows.append(blank)
                reasons.append(f"{len(row)} fields where the header has {len(names)}")
            if len(rows) == size:
                yield RawRows(path, start, _text_frame(names, wanted, rows), reasons)
                start += size
                rows, reasons = [], []
        if rows:
            yield RawRows(path, start, _text_frame(names, wanted, rows), reasons)


def _text_frame(names: list[str], wanted: list[int], rows: list[list[str]]) -> pl.DataFrame:
    cells = list(zip(*rows, strict=True))
    if not wanted:
        return pl.DataFrame({"": [None] * len(rows)})
    frame = pl.DataFrame({names[i]: pl.Series(names[i], cells[i], dtype=pl.String) for i in wanted})
    stripped = pl.all().str.strip_chars()
    return frame.select(pl.when(stripped.is_in(NULL_TOKENS)).then(None).otherwise(stripped).name.keep())


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
