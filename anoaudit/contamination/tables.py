"""Chosen rows of Parquet or CSV files into one file: Parquet keeps its types, CSV its text, delimiter and line ends."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from anoaudit.contamination.draw import Positions
from anoaudit.contamination.table_faults import Edit
from anoaudit.data.rows import DELIMITERS, columns_of, csv_header, csv_records
from anoaudit.errors import AuditError, UsageError

ROW_GROUP = 131_072


@dataclass(frozen=True)
class Part:
    """Rows of one table: positions are counted over all its files, in any order, with repeats if need be."""

    files: Sequence[Path]
    positions: Positions


def form_of(files: Sequence[Path]) -> str:
    """The suffix that a mixture of these files has: `.parquet` or `.csv`."""
    return ".parquet" if files[0].suffix.lower() == ".parquet" else ".csv"


def write(parts: Sequence[Part], order: Positions, columns: Sequence[str], path: Path) -> None:
    """The parts' rows, one part after the other and then put in `order`, with these columns.

    Raises UsageError when the parts' types do not go together, AuditError for a damaged file.
    """
    # Every row is read once, however often it is drawn; `index` leads from the mixture's rows to the ones read.
    wanted, index, before = [], [], 0
    for part in parts:
        unique, inverse = np.unique(part.positions, return_inverse=True)
        wanted.append(unique)
        index.append(inverse.reshape(-1) + before)
        before += len(unique)
    rows = np.concatenate(index)[order]
    if form_of(parts[0].files) == ".parquet":
        _write_parquet([part.files for part in parts], wanted, rows, columns, path)
    else:
        _write_csv([part.files for part in parts], wanted, rows, columns, path)


def rewrite(
    files: Sequence[Path],
    columns: Sequence[str],
    rows: int,
    edits: Sequence[Edit],
    path: Path,
    commas: Collection[int] = (),
) -> None:
    """All rows in their order into one file, some cells changed; edits name columns by their place in `columns`.

    Sources of edits are the rows as they were. Numbers of the columns `commas` have a decimal comma. Raises UsageError and
    AuditError as `write` does.
    """
    by_column: dict[int, list[Edit]] = {}
    for edit in edits:
        by_column.setdefault(edit.column, []).append(edit)
    every = np.arange(rows, dtype=np.int64)
    if form_of(files) == ".parquet":
        schema = common_schema(files, columns)
        empty = {j for j, some in by_column.items() if any(e.value is None and e.source is None for e in some)}
        fields = [field.with_nullable(True) if j in empty else field for j, field in enumerate(schema)]
        try:
            whole = pa.concat_tables([schema.empty_table(), *_parquet_rows(files, every, schema)])
            whole = whole.unify_dictionaries().combine_chunks().cast(pa.schema(fields))
            for j, some in by_column.items():
                whole = whole.set_column(j, whole.schema.field(j), _edited(whole.column(j), some, j in commas))
            with pq.ParquetWriter(path, whole.schema, compression="zstd") as writer:
                writer.write_table(whole, row_group_size=ROW_GROUP)
        except pa.ArrowException as error:
            raise AuditError(
                f"the rows cannot be written as Parquet: {_first_line(error)}", "check the columns' types"
            ) from error
        return
    delimiter, end = delimiter_for(columns, csv_header(files[0])[1]), _line_end(files[0])
    cells = list(_csv_cells(files, every, columns))
    changed = [
        (e, cells[e.source][e.column] if e.source is not None else _text(e, cells, e.column in commas)) for e in edits
    ]
    for edit, text in changed:
        cells[edit.row][edit.column] = text
    header = header_line(_names(files[0], columns), delimiter, end)
    _write_lines(path, (header, *(csv_line(row, delimiter, end) for row in cells)))


def _edited(column: Any, edits: Sequence[Edit], comma: bool) -> Any:
    """A column with copies, gaps and new numbers in it, the latter with a decimal comma if so asked."""
    index, gaps = np.arange(len(column)), np.zeros(len(column), dtype=bool)
    for edit in edits:
        if edit.source is not None:
            index[edit.row] = edit.source
        gaps[edit.row] |= edit.source is None and edit.value is None
    column = column.take(pa.array(index, mask=gaps))  # what is taken from nowhere is null, of any type
    new = {edit.row: edit.value for edit in edits if edit.value is not None}
    if not new:
        return column
    mask = np.zeros(len(column), dtype=bool)
    rows = sorted(new)
    mask[rows] = True
    if comma:
        values = pa.array([_spelt(repr(new[row]), comma) for row in rows])
    else:
        values = pa.array([_within(new[row], column.type) for row in rows], pa.float64())
    return pc.replace_with_mask(column.combine_chunks(), pa.array(mask), values.cast(column.type, safe=False))


def _spelt(number: str, comma: bool) -> str:
    return number.replace(".", ",") if comma else number


def _within(value: float, kind: Any) -> float:
    """The number, no further out than an integer column can hold."""
    if not pa.types.is_integer(kind):
        return value
    bits, signed = kind.bit_width, pa.types.is_signed_integer(kind)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return float(min(max(value, low), np.nextafter(float(high), 0) if bits == 64 else high))


def _text(edit: Edit, cells: Sequence[Sequence[str]], comma: bool) -> str:
    """A new number with as many decimals as the old one had; one with an exponent keeps that, and has decimals enough."""
    if edit.value is None:
        return ""
    old = cells[edit.row][edit.column].strip()
    plain = old.replace(".", "").replace(",", ".") if comma else old
    match = re.fullmatch(r"(.*)([eE])([+-]?)(\d+)", plain)
    if match is None:
        new = f"{edit.value:.{len(plain.partition('.')[2])}f}"
        return _spelt(new if float(new) != float(plain) else repr(edit.value), comma)
    mantissa, letter, sign, exponent = match.groups()
    digits = len(mantissa.partition(".")[2])
    while digits < 16 and (off := float(f"{edit.value:.{digits}e}")) != edit.value:
        if off != float(plain) and abs(off - edit.value) <= 0.005 * abs(edit.value):
            break  # as few as tell it well
        digits += 1
    head, _, power = f"{edit.value:.{digits}e}".partition("e")
    signs = "-" if int(power) < 0 else "+" if sign else ""
    return _spelt(f"{head}{letter}{signs}{abs(int(power)):0{len(exponent)}d}", comma)


def _write_parquet(
    files: Sequence[Sequence[Path]], wanted: Sequence[Positions], rows: Positions, columns: Sequence[str], path: Path
) -> None:
    schema = common_schema([file for some in files for file in some], columns)
    tables = [piece for some, keep in zip(files, wanted, strict=True) for piece in _parquet_rows(some, keep, schema)]
    try:
        whole = pa.concat_tables([schema.empty_table(), *tables]).unify_dictionaries().combine_chunks()
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for start in range(0, len(rows), ROW_GROUP):
                writer.write_table(whole.take(pa.array(rows[start : start + ROW_GROUP])))
    except pa.ArrowException as error:
        raise AuditError(
            f"the rows cannot be written as Parquet: {_first_line(error)}", "check the columns' types"
        ) from error


def common_schema(files: Sequence[Path], columns: Sequence[str]) -> Any:
    """The files' types; where they differ, the wider one. Raises UsageError naming a column that has none in common.

    What a file notes about itself as a whole (pandas' index, say) is left out: it need not hold for the mixture.
    """
    first = pq.read_schema(files[0])
    fields = [first.field(name) for name in columns]
    for file in files[1:]:
        other = pq.read_schema(file)
        for i, field in enumerate(fields):
            here = other.field(field.name)
            if here.equals(field):
                continue
            try:
                pair = [pa.schema([field]), pa.schema([here])]
                fields[i] = pa.unify_schemas(pair, promote_options="permissive").field(0)
            except pa.ArrowException as error:
                raise UsageError(
                    f"column {field.name!r} is {field.type} in {files[0]} and {here.type} in {file}",
                    "give them the same type",
                ) from error
    return pa.schema(fields)


def _parquet_rows(files: Sequence[Path], wanted: Positions, schema: Any) -> Iterator[Any]:
    """Tables of the wanted rows (ascending positions); row groups without any are not read."""
    start = 0
    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    end = start + file.metadata.row_group(group).num_rows
                    if np.searchsorted(wanted, start) == np.searchsorted(wanted, end):
                        start = end
                        continue
                    for batch in file.iter_batches(row_groups=[group]):
                        low, high = np.searchsorted(wanted, [start, start + len(batch)])
                        if high > low:
                            table = pa.Table.from_batches([batch]).select(schema.names)
                            table = table.take(pa.array(wanted[low:high] - start)).replace_schema_metadata()
                            yield table if table.schema.equals(schema) else table.cast(schema)
                        start += len(batch)
        except (pa.ArrowException, OSError) as error:
            raise AuditError(
                f"{path} cannot be read after row {start}: {_first_line(error)}", "re-create the file"
            ) from error


def _write_csv(
    files: Sequence[Sequence[Path]], wanted: Sequence[Positions], rows: Positions, columns: Sequence[str], path: Path
) -> None:
    delimiter, end = delimiter_for(columns, csv_header(files[0][0])[1]), _line_end(files[0][0])
    lines = [
        csv_line(cells, delimiter, end)
        for some, keep in zip(files, wanted, strict=True)
        for cells in _csv_cells(some, keep, columns)
    ]
    header = header_line(_names(files[0][0], columns), delimiter, end)
    _write_lines(path, (header, *(lines[row] for row in rows)))


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    # Bytes that are not UTF-8 go through unchanged, as the reader let them in.
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as out:
        out.writelines(lines)


def _names(path: Path, columns: Sequence[str]) -> list[str]:
    """The columns' names as the file spells them: bytes that are not UTF-8 as they are, not as escapes."""
    spelt = dict(zip(columns_of(path), csv_header(path, "surrogateescape")[0], strict=True))
    return [spelt[name] for name in columns]


def _csv_cells(files: Sequence[Path], wanted: Positions, columns: Sequence[str]) -> Iterator[list[str]]:
    """The wanted rows as cells. A row of the wrong length stays as it is: it is an item, an unreadable one."""
    keep = set(wanted.tolist())
    position = 0
    for path in files:
        names = columns_of(path)
        places = [names.index(name) for name in columns]
        for cells in csv_records(path, "surrogateescape"):
            if position in keep:
                if isinstance(cells, csv.Error):
                    raise AuditError(f"{path}, row {position} cannot be read: {cells}", "mend or remove the line")
                yield [cells[i] for i in places] if len(cells) == len(names) else cells
            position += 1


def csv_line(cells: Sequence[str], delimiter: str = ",", end: str = "\n", quoted: str = "") -> str:
    """One line of CSV, cells with any character of `quoted` in quotes, too.

    Python 3.11's csv.writer leaves a lone carriage return unquoted, and then nobody can read the line back.
    """
    special = (delimiter, '"', "\n", "\r", *quoted)
    done = ['"' + cell.replace('"', '""') + '"' if any(c in cell for c in special) else cell for cell in cells]
    return (delimiter.join(done) if done != [""] else '""') + end


def header_line(columns: Sequence[str], delimiter: str, end: str = "\n") -> str:
    """The first line, names with any delimiter in quotes: a reader finds the delimiter by counting those without."""
    return csv_line(columns, delimiter, end, DELIMITERS)


def delimiter_for(columns: Sequence[str], preferred: str) -> str:
    """The input's delimiter, for what has one column the one that a reader supposes where it finds none."""
    return preferred if len(columns) > 1 else DELIMITERS[0]


def _line_end(path: Path) -> str:
    """How most lines end (within a cell there may be another)."""
    with path.open("rb") as file:
        start = file.read(1024 * 1024).replace(b"\0", b"")  # of UTF-16, too
    return "\r\n" if 2 * start.count(b"\r\n") > start.count(b"\n") else "\n"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
