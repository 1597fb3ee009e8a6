"""Opens scores from whichever format they were written in, or from a model's directory, as one score table.

What is not Parquet is converted once into a temporary Parquet file, which goes when the process ends.
"""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv

from anoaudit.errors import AuditError
from anoaudit.reports.formats import format_for
from anoaudit.scoring.table import COLUMNS, READABLE, UNREADABLE, ScoreTable, ScoreTableWriter, Summary, schema

_HINT = "give a file that anoaudit wrote with -o, or a model's folder"
_BATCH = 20_000

#: What no score table may hold, each with the words for it.
_FAULTS: dict[str, pl.Expr] = {
    "an item has no id": pl.col("id").is_null(),
    f"a status is neither {READABLE!r} nor {UNREADABLE!r}": ~pl.col("status")
    .is_in([READABLE, UNREADABLE])
    .fill_null(False),
    "a readable item's score is not a number": (pl.col("status") == READABLE)
    & ~pl.col("score").is_finite().fill_null(False),
    "an unreadable item has a score": (pl.col("status") == UNREADABLE) & pl.col("score").is_not_null(),
    "an item is neither flagged nor not": pl.col("flagged").is_null(),
}
_OPTIONAL_FAULTS: dict[str, dict[str, pl.Expr]] = {
    "truth": {"a truth is neither 0, 1 nor unknown": (pl.col("truth") != 0) & (pl.col("truth") != 1)},
    "label": {"a label is neither 0, 1 nor unknown": (pl.col("label") != 0) & (pl.col("label") != 1)},
    "time": {"a time is not a number": ~pl.col("time").is_finite()},
}


@dataclass
class _Tally:
    """The counts of a summary, taken from the rows themselves."""

    rows: int = 0
    readable: int = 0
    unreadable: int = 0
    flagged: int = 0
    threshold: float | None = None

    def add(self, other: _Tally) -> None:
        self.rows += other.rows
        self.readable += other.readable
        self.unreadable += other.unreadable
        self.flagged += other.flagged
        known = [t for t in (self.threshold, other.threshold) if t is not None]
        self.threshold = min(known, default=None)


def read(path: Path) -> ScoreTable:
    """The score table in `path`: Parquet, CSV, JSON or NDJSON as `write` made it, or a model's directory.

    Every row is checked. CSV and NDJSON carry no summary, so theirs is counted from the rows. Raises AuditError.
    """
    try:
        if path.is_dir():
            return _read_parquet(_in_model(path))
        if not path.exists():
            raise AuditError(f"{path} does not exist", _HINT)
        fmt = format_for(path)
        if fmt == "parquet" or (fmt is None and _starts_with(path, b"PAR1")):
            return _read_parquet(path)
        if fmt == "csv":
            return _convert(path, lambda: _csv_frames(path), None)
        if fmt == "ndjson":
            return _convert(path, lambda: _line_frames(path), None)
        if fmt == "json":
            return _read_json(path)
    except OSError as error:
        raise AuditError(f"cannot read {path}: {error.strerror or error}", _HINT) from error
    raise AuditError(f"{path} is in no format that can be read back (Parquet, CSV, JSON, NDJSON)", _HINT)


def _in_model(folder: Path) -> Path:
    if (folder / "scores.parquet").is_file():
        return folder / "scores.parquet"
    if not (folder / "manifest.json").is_file():
        raise AuditError(f"{folder} is not a model: it has no manifest.json", _HINT)
    raise AuditError(
        f"the model holds no scores; {folder / 'scores.parquet'} is not there",
        f"write them with `anoaudit score DATA --model {folder} -o scores.parquet` and give that file",
    )


def _read_parquet(path: Path) -> ScoreTable:
    table = ScoreTable.open(path)
    try:
        types = table.lazy().collect_schema()
        if any(types[name] != dtype for name, dtype in schema(table.optional).items()):
            # Another tool has written it again, with its own types for the same values.
            return _convert(path, table.batches, table.summary)
        summary = _settled(table.summary, _tally(table.lazy(), table.optional, path))
    except (pl.exceptions.PolarsError, pa.ArrowException) as error:
        raise _damaged(path, error) from error
    return replace(table, summary=summary)


def _read_json(path: Path) -> ScoreTable:
    found = _line_layout(path)
    if found is None:  # formatted again by another tool: it has to be read whole
        try:
            whole = json.loads(path.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise _damaged(path, error) from error
        if not isinstance(whole, dict) or not isinstance(whole.get("rows"), list):
            raise AuditError(f"{path} is not a score document: it has no rows", _HINT)
        return _convert(path, lambda: _object_frames(iter(whole["rows"]), path), _summary(whole, path))
    head, start = found
    return _convert(path, lambda: _line_frames(path, start), _summary(head, path))


def _line_layout(path: Path) -> tuple[dict[str, Any], int] | None:
    """The document's head and the number of its lines, None when the file is not laid out one row per line."""
    lines: list[str] = []
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for line in islice(file, 10):
                lines.append(line)
                if line == '"rows": [\n':
                    head = json.loads("".join(lines) + "]}")
                    first = next(file, "").rstrip(",\n")
                    if first != "]":
                        json.loads(first)
                    return head, len(lines)
    except ValueError:
        return None
    return None


def _summary(head: dict[str, Any], path: Path) -> Summary:
    try:
        return Summary.from_json(head.get("summary") or {})
    except (TypeError, ValueError, AttributeError) as error:
        raise AuditError(f"{path}: the summary is damaged", "score the data again") from error


def _line_frames(path: Path, skip: int = 0) -> Iterator[pl.DataFrame]:
    """Rows that stand one per line, after `skip` lines of a document's head."""

    def rows() -> Iterator[Any]:
        # newline="\n": a carriage return inside a row must not end it.
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(islice(file, skip, None), start=skip + 1):
                text = line.strip()
                if skip and text == "]":
                    return
                if not text:
                    continue
                try:
                    yield json.loads(text.rstrip(",") if skip else text)
                except (ValueError, RecursionError) as error:
                    raise AuditError(
                        f"{path}: line {number} is not one JSON object", "the file is cut off or damaged"
                    ) from error
        if skip:
            raise AuditError(f"{path} ends within its rows", "the file is cut off: write it again")

    return _object_frames(rows(), path)


def _object_frames(rows: Iterator[Any], path: Path) -> Iterator[pl.DataFrame]:
    names: list[str] | None = None
    while batch := list(islice(rows, _BATCH)):
        if not all(isinstance(row, dict) for row in batch):
            raise AuditError(f"{path} is not a score table: a row is not an object", _HINT)
        names = names or list(batch[0])
        columns = _loose(names)
        missing = [name for row in batch for name in columns if name not in row]
        if missing:
            raise AuditError(f"{path} is not a score table: a row has no {missing[0]!r}", _HINT)
        yield pl.DataFrame(
            {name: pl.Series([row[name] for row in batch], dtype=kind) for name, kind in columns.items()}
        )


def _csv_frames(path: Path) -> Iterator[pl.DataFrame]:
    parse = pa_csv.ParseOptions(newlines_in_values=True)
    size = pa_csv.ReadOptions(block_size=1 << 24)
    with pa_csv.open_csv(path, read_options=size, parse_options=parse) as reader:
        names = reader.schema.names
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise AuditError(f"{path} is not a score table: it has no column {missing[0]!r}", _HINT)
    types = {pl.String: pa.string(), pl.Float64: pa.float64(), pl.Boolean: pa.bool_()}
    wanted = {name: types[dtype] for name, dtype in _loose(names).items()}
    convert = pa_csv.ConvertOptions(
        column_types=wanted,
        include_columns=list(wanted),
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,  # a quoted nothing is an empty text
    )
    with pa_csv.open_csv(path, read_options=size, parse_options=parse, convert_options=convert) as reader:
        for batch in reader:
            yield pl.DataFrame(pl.from_arrow(batch))


def _loose(names: Sequence[str]) -> dict[str, Any]:
    """The columns with whole numbers as floats: tools that know no missing integer write 3.0 for 3."""
    wanted = schema(names)
    return {name: pl.Float64 if dtype.is_integer() else dtype for name, dtype in wanted.items()}


def _convert(path: Path, frames: Callable[[], Iterator[pl.DataFrame]], summary: Summary | None) -> ScoreTable:
    """Spool the frames into a temporary score table, checking every one."""
    target = Path(_scratch().name) / f"{secrets.token_hex(6)}.parquet"
    writer: ScoreTableWriter | None = None
    total = _Tally()
    try:
        for frame in frames():
            if writer is None:
                writer = ScoreTableWriter(target, frame.columns)
            total.add(_tally(frame.lazy(), writer.optional, path))
            writer.write(frame)
    except BaseException as error:
        if writer is not None:
            writer.abandon()
        if isinstance(error, pl.exceptions.PolarsError | pa.ArrowException | ValueError | TypeError | OverflowError):
            raise _damaged(path, error) from error
        raise
    if writer is None:
        writer = ScoreTableWriter(target)
    return writer.close(_settled(summary, total))


def _tally(rows: pl.LazyFrame, optional: Iterable[str], path: Path) -> _Tally:
    """Count the rows and refuse what no score table may hold."""
    faults = _FAULTS | {words: fault for name in optional for words, fault in _OPTIONAL_FAULTS[name].items()}
    found = rows.select(
        *(expr.any().alias(words) for words, expr in faults.items()),
        pl.len().alias("rows"),
        (pl.col("status") == READABLE).sum().alias("readable"),
        (pl.col("status") == UNREADABLE).sum().alias("unreadable"),
        pl.col("flagged").sum().alias("flagged"),
        pl.col("score").filter(pl.col("flagged")).min().alias("threshold"),
    ).collect()
    counts = found.row(0, named=True)
    for words in faults:
        if counts.pop(words):
            raise AuditError(f"{path} is not a sound score table: {words}", "write the scores again, unchanged")
    return _Tally(**counts)


def _settled(summary: Summary | None, tally: _Tally) -> Summary:
    """The summary, its counts made to agree with the rows that are really there."""
    counts = {"rows": tally.rows, "readable": tally.readable, "unreadable": tally.unreadable, "flagged": tally.flagged}
    if summary is None:
        summary = Summary(rule="not told by the file, which says only what is flagged")
    if summary.rows == 0 and tally.rows:
        return replace(summary, **counts, threshold=tally.threshold)  # type: ignore[arg-type]
    if all(getattr(summary, name) == value for name, value in counts.items()):
        return summary
    note = f"this file holds {tally.rows:,} of the {summary.rows:,} items that were scored"
    notes = summary.notes if summary.rows == tally.rows else (*summary.notes, note)
    return replace(summary, **counts, notes=notes)  # type: ignore[arg-type]


def _damaged(path: Path, error: Exception) -> AuditError:
    first = next(iter(str(error).splitlines()), "") or type(error).__name__
    return AuditError(f"{path} cannot be read as a score table: {first}", _HINT)


def _starts_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    """One temporary folder per process, removed at its end."""
    return tempfile.TemporaryDirectory(prefix="anoaudit-")
