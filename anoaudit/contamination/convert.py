"""A table in one form into the other: Parquet's values as text, CSV's text as numbers where nothing is lost by it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from anoaudit.contamination.tables import csv_line, delimiter_for, header_line
from anoaudit.data.rows import columns_of, read_rows
from anoaudit.errors import UsageError

ROWS = 50_000
_WHOLE = (
    r"^-?(0|[1-9][0-9]{0,17})$"  # a leading zero or more digits than an integer has tell of a name, not of a number
)
_DECIMAL = r"^-?(0|[1-9][0-9]{0,14})(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?$"


@contextmanager
def in_form(form: str, path: Path) -> Iterator[Path]:
    """Where to write a table as `form`, the suffix of what it is made of; in the end it lies at `path`, in that one's form.

    Raises UsageError for what the other form cannot hold.
    """
    if path.suffix.lower() == form:
        yield path
        return
    first = path.with_name(path.name + form)
    yield first
    if form == ".csv":
        _to_parquet(first, path)
    else:
        _to_csv(first, path)
    first.unlink()


def _to_parquet(source: Path, path: Path) -> None:
    frames = [pl.DataFrame(schema=dict.fromkeys(columns_of(source), pl.String))]
    for rows in read_rows(source, ROWS):
        odd = next((i for i, reason in enumerate(rows.reasons) if reason is not None), None)
        if odd is not None:
            raise UsageError(
                f"row {rows.start + odd} of the result cannot be a row of Parquet: {rows.reasons[odd]}",
                _instead(path, ".csv"),
            )
        frames.append(rows.frame)
    whole = pl.concat(frames)
    table = pa.table([_typed(column).to_arrow() for column in whole], names=whole.columns)
    pq.write_table(table, path, compression="zstd")


def _typed(column: pl.Series) -> pl.Series:
    present = column.drop_nulls()
    for pattern, kind in ((_WHOLE, pl.Int64), (_DECIMAL, pl.Float64)):
        if present.len() and present.str.contains(pattern).all():
            return column.cast(kind)
    return column


def _to_csv(source: Path, path: Path) -> None:
    with pq.ParquetFile(source) as file, path.open("w", encoding="utf-8", newline="") as out:
        names = file.schema_arrow.names
        delimiter = delimiter_for(names, ",")
        out.write(header_line(names, delimiter))
        for batch in file.iter_batches(batch_size=ROWS):
            columns = [_text(batch.column(i), name, path) for i, name in enumerate(names)]
            out.writelines(csv_line(cells, delimiter) for cells in zip(*columns, strict=True))


def _text(values: pa.Array, name: str, path: Path) -> list[str]:
    if pa.types.is_decimal(values.type):  # polars has no wide ones
        values = values.cast(pa.string())
    column = pl.Series("", pl.from_arrow(values))
    kind = column.dtype
    plain = kind.is_numeric() or kind.is_temporal() or kind in (pl.Boolean, pl.String, pl.Categorical, pl.Enum, pl.Null)
    if not plain or kind == pl.Duration:
        raise UsageError(f"column {name!r} holds {kind}, which CSV cannot", _instead(path, ".parquet"))
    if isinstance(kind, pl.Datetime) and kind.time_zone is not None:
        column = column.dt.convert_time_zone("UTC").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    return column.cast(pl.String).fill_null("").to_list()


def _instead(path: Path, form: str) -> str:
    return f"write to {path.with_suffix(form).name}"
