"""Rows from Parquet, Arrow and CSV files in bounded memory: frames of raw columns, one row per input row, none dropped."""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import IO, Any

import polars as pl
import polars.selectors as cs
import pyarrow as pa
import pyarrow.parquet as pq

from anoaudit.errors import AuditError

ARROW = frozenset({".arrow", ".feather", ".ipc"})
SUFFIXES = frozenset({".parquet", ".csv", ".tsv"}) | ARROW
NULL_TOKENS = ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "-nan", "NaT", "null", "NULL", "None", "none")
DELIMITERS = ",;\t|"
csv.field_size_limit(16 * 1024 * 1024)


@dataclass(frozen=True)
class RawRows:
    """Consecutive rows of one file. `reasons` says which rows could not be split into columns (their cells are null).

    Text is without outer blanks and its words for "missing" are null, from Parquet as from CSV.
    """

    file: Path
    start: int  # row number within the file
    frame: pl.DataFrame
    reasons: list[str | None]


def columns_of(path: Path) -> list[str]:
    """Column names of a file. Raises AuditError when the file is not what its suffix says."""
    if path.suffix.lower() == ".parquet":
        with _parquet(path) as file:
            names = list(file.schema_arrow.names)
    elif path.suffix.lower() in ARROW:
        with _arrow(path) as reader:
            names = list(reader.schema.names)
    else:
        names, _ = csv_header(path)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise AuditError(f"{path} has two columns named {twice!r}", "rename one of them")
    return names


def read_rows(path: Path, size: int, columns: Sequence[str] | None = None) -> Iterator[RawRows]:
    """All rows of a Parquet, Arrow (Feather) or CSV file. Raises AuditError on a damaged file."""
    if path.suffix.lower() == ".parquet":
        yield from _parquet_rows(path, size, columns)
    elif path.suffix.lower() in ARROW:
        yield from _arrow_rows(path, size, columns)
    else:
        yield from _csv_rows(path, size, columns)


def _parquet(path: Path) -> pq.ParquetFile:
    try:
        if path.exists() and not path.is_file():
            raise OSError("not a regular file")
        return pq.ParquetFile(path, pre_buffer=False)  # else the whole file comes to be held
    except (pa.ArrowException, OSError) as error:
        raise AuditError(
            f"{path} is not a readable Parquet file: {_first_line(error)}", "check or re-create the file"
        ) from error


def _parquet_rows(path: Path, size: int, columns: Sequence[str] | None) -> Iterator[RawRows]:
    start = 0
    with _parquet(path) as file:
        wanted = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
        try:
            for batch in file.iter_batches(batch_size=size, columns=wanted):
                # Without columns arrow still knows the number of rows, polars does not.
                frame = _from_arrow(batch) if batch.num_columns else pl.DataFrame({"": [None] * len(batch)})
                yield RawRows(path, start, frame, [None] * len(batch))
                start += len(batch)
        except (pa.ArrowException, pl.exceptions.PolarsError, OSError) as error:
            raise AuditError(
                f"{path} is damaged after row {start}: {_first_line(error)}", "re-create the file"
            ) from error


@contextlib.contextmanager
def _arrow(path: Path) -> Iterator[Any]:
    """A reader of an Arrow file or of a stream in a file, as Hugging Face's `datasets` keeps them."""
    try:
        if path.exists() and not path.is_file():
            raise OSError("not a regular file")
        source = pa.memory_map(str(path))
        try:
            reader: Any = pa.ipc.open_file(source)
        except pa.ArrowInvalid:
            source.seek(0)
            reader = pa.ipc.open_stream(source)
    except (pa.ArrowException, OSError) as error:
        raise AuditError(
            f"{path} is not a readable Arrow file: {_first_line(error)}", "check or re-create the file"
        ) from error
    with source:
        yield reader


def _arrow_rows(path: Path, size: int, columns: Sequence[str] | None) -> Iterator[RawRows]:
    start = 0
    with _arrow(path) as reader:
        places = [i for i, name in enumerate(reader.schema.names) if columns is None or name in columns]
        count = getattr(reader, "num_record_batches", None)
        batches = iter(reader) if count is None else (reader.get_batch(i) for i in range(count))
        try:
            for whole in batches:
                some = whole.select([whole.schema.names[i] for i in places])
                for at in range(0, len(whole), size):
                    length = min(size, len(whole) - at)
                    frame = _from_arrow(some.slice(at, length)) if places else pl.DataFrame({"": [None] * length})
                    yield RawRows(path, start, frame, [None] * length)
                    start += length
        except (pa.ArrowException, pl.exceptions.PolarsError, OSError) as error:
            raise AuditError(
                f"{path} is damaged after row {start}: {_first_line(error)}", "re-create the file"
            ) from error


def _from_arrow(batch: pa.RecordBatch) -> pl.DataFrame:
    for i, kind in enumerate(batch.schema.types):
        if pa.types.is_decimal256(kind):  # polars has no such type; as text it is read exactly
            batch = batch.set_column(i, batch.schema.names[i], batch.column(i).cast(pa.string()))
    places = pa.RecordBatch.from_arrays(batch.columns, [str(i) for i in range(batch.num_columns)])
    frame = pl.DataFrame(pl.from_arrow(places))
    frame.columns = batch.schema.names  # only now: polars gives a column whose name is empty another one
    return frame.with_columns(_cleaned((cs.string(include_categorical=True) | cs.enum()).cast(pl.String)))


def _cleaned(text: pl.Expr) -> pl.Expr:
    stripped = text.str.strip_chars()
    return pl.when(stripped.is_in(NULL_TOKENS)).then(None).otherwise(stripped).name.keep()


def _open_text(path: Path, errors: str) -> IO[str]:
    try:
        if path.exists() and not path.is_file():
            raise OSError("not a regular file")
        with path.open("rb") as file:
            mark = file.read(2)
        wide = mark in (b"\xff\xfe", b"\xfe\xff")  # Excel's "Unicode text"
        if wide:  # an odd byte in it is below 128 as well as above, which not every way of showing it takes
            return path.open(encoding="utf-16", errors="backslashreplace", newline="")
        return path.open(encoding="utf-8-sig", errors=errors, newline="")
    except OSError as error:
        raise AuditError(f"{path} cannot be read: {error.strerror or error}", "check the file's permissions") from error


def csv_header(path: Path, errors: str = "backslashreplace") -> tuple[list[str], str]:
    """Column names and delimiter of a CSV file. Raises AuditError when it has no header line."""
    with _open_text(path, errors) as file:
        lines = iter(lambda: file.readline(1024 * 1024), "")
        line = next((line for line in lines if line.strip()), "")
        if line.count('"') % 2:  # a line break within a name, if the quotes are even after some lines more
            longer = accumulate(islice(lines, 10), initial=line)
            line = next((text for text in longer if text.count('"') % 2 == 0), line)
        if not line:
            raise AuditError(f"{path} is empty", "give a file with a header line and rows")
        if "\0" in line:
            raise AuditError(f"{path} is not a text file", "give a CSV file with a header line")
        bare = re.sub(r'"[^"]*"', "", line)
        by_suffix = path.suffix.lower() == ".tsv" and "\t" in bare
        # The first of them when the line has none: a one-column file.
        delimiter = "\t" if by_suffix else max(DELIMITERS, key=bare.count)
        file.seek(0)
        try:
            return _first_row(csv.reader(file, delimiter=delimiter)), delimiter
        except (csv.Error, StopIteration) as error:
            raise AuditError(
                f"{path} has no readable header line: {error}", "give a CSV file with a header line"
            ) from error


def _first_row(reader: Iterator[list[str]]) -> list[str]:
    return next(row for row in reader if len(row) > 1 or (row and row[0].strip()))


def csv_records(path: Path, errors: str = "backslashreplace") -> Iterator[list[str] | csv.Error]:
    """The cells of every row below the header, of any number, or why a line is malformed: what counts as a row is decided here.

    `errors` says how bytes that are not UTF-8 show: by default as escapes, so that different values stay different.
    """
    names, delimiter = csv_header(path)
    with _open_text(path, errors) as file:
        reader = csv.reader(file, delimiter=delimiter)
        _first_row(reader)
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield error
                continue
            if row or len(names) == 1:  # else a blank line, which is no row
                yield row or [""]


def _csv_rows(path: Path, size: int, columns: Sequence[str] | None) -> Iterator[RawRows]:
    """Every cell is text here; the rules in `encoding` make it numbers. A row of the wrong length keeps its place."""
    names, _ = csv_header(path)
    wanted = [i for i, name in enumerate(names) if columns is None or name in columns]
    blank = [""] * len(names)
    start = 0
    records = csv_records(path)
    while some := list(islice(records, size)):
        rows = [row if isinstance(row, list) and len(row) == len(names) else blank for row in some]
        yield RawRows(path, start, _text_frame(names, wanted, rows), [_fault(row, len(names)) for row in some])
        start += len(some)


def _fault(row: list[str] | csv.Error, fields: int) -> str | None:
    if isinstance(row, csv.Error):
        return f"malformed line: {row}"
    return None if len(row) == fields else f"{len(row)} fields where the header has {fields}"


def _text_frame(names: list[str], wanted: list[int], rows: list[list[str]]) -> pl.DataFrame:
    cells = list(zip(*rows, strict=True))
    if not wanted:
        return pl.DataFrame({"": [None] * len(rows)})
    frame = pl.DataFrame({names[i]: pl.Series(names[i], cells[i], dtype=pl.String) for i in wanted})
    return frame.select(_cleaned(pl.all()))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
