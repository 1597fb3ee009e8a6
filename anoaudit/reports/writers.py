"""Writes a score table in every format, to a file or to stdout, in bounded memory however many rows there are."""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from anoaudit.errors import AuditError, UsageError
from anoaudit.reports.document import frames, head, row_objects, to_line
from anoaudit.reports.files import cannot_write, replacing
from anoaudit.reports.formats import FORMATS, format_for
from anoaudit.reports.markdown import markdown
from anoaudit.reports.terminal import make_console, render
from anoaudit.scoring.table import ScoreTable, ScoreTableWriter

__all__ = ["FORMATS", "format_for", "write"]


def write(table: ScoreTable, fmt: str, destination: Path | None, *, top: int = 20) -> None:
    """Write the table as `fmt` to `destination`, None being stdout.

    `top` is how many items `table` and `markdown` list; the other formats hold every row in input order. A file appears
    whole or not at all. BrokenPipeError is left to the caller.
    """
    if fmt not in FORMATS:
        raise UsageError(f"there is no format {fmt!r}", f"use one of {', '.join(FORMATS)}")
    if not table.path.is_file():
        raise AuditError(f"the score table {table.path} is gone", "score the data again")
    if destination is None:
        try:
            _to_stdout(table, fmt, top)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise cannot_write("to stdout", error) from error
        return
    with replacing(destination) as part:
        if fmt == "table":
            with part.open("w", encoding="utf-8", newline="\n") as text:
                render(table, make_console(text), top)
        else:
            with part.open("wb") as binary:
                _BYTES[fmt](table, binary, top)


def _to_stdout(table: ScoreTable, fmt: str, top: int) -> None:
    if fmt == "table":
        render(table, make_console(), top)
        sys.stdout.flush()
        return
    if fmt == "parquet" and sys.stdout.isatty():
        raise UsageError("Parquet is binary and stdout is a terminal", "give a file with -o, or pipe the output")
    sys.stdout.flush()
    binary = getattr(sys.stdout, "buffer", None)
    if binary is not None:
        # Bytes, so that the formats are UTF-8 with plain line ends whatever the terminal's encoding is.
        _BYTES[fmt](table, binary, top)
        binary.flush()
    elif fmt == "parquet":
        raise UsageError("Parquet is binary and stdout takes text only", "give a file with -o")
    else:  # stdout replaced by a StringIO, as notebooks and tests do
        held = io.BytesIO()
        _BYTES[fmt](table, held, top)
        sys.stdout.write(held.getvalue().decode())


def _json(table: ScoreTable, out: IO[bytes], _top: int) -> None:
    """One line per row, so that the file can be read back (and looked at) without holding it whole."""
    first = head(table)
    lines = [f"{to_line(key)}: {to_line(value)}" for key, value in first.items()]
    out.write(_bytes("{\n" + ",\n".join(lines) + ',\n"rows": ['))
    separator = "\n"
    for row in row_objects(table):
        out.write(_bytes(separator + to_line(row)))
        separator = ",\n"
    out.write(b"\n]\n}\n")


def _ndjson(table: ScoreTable, out: IO[bytes], _top: int) -> None:
    for row in row_objects(table):
        out.write(_bytes(to_line(row) + "\n"))


def _csv(table: ScoreTable, out: IO[bytes], _top: int) -> None:
    header = True
    for frame in frames(table):
        # Not straight into `out`: polars would lose what kind of OSError it was, a broken pipe among them.
        out.write(frame.write_csv(include_header=header).encode())
        header = False
    if header:
        out.write(table.lazy().head(0).collect().write_csv().encode())


def _parquet(table: ScoreTable, out: IO[bytes], _top: int) -> None:
    if ScoreTable.open(table.path).summary.to_json() == table.summary.to_json():
        with table.path.open("rb") as source:
            shutil.copyfileobj(source, out, 1 << 20)
        return
    with tempfile.TemporaryDirectory(prefix="anoaudit-") as folder:  # the file's metadata is older than the table's
        writer = ScoreTableWriter(Path(folder) / "scores.parquet", table.optional)
        for frame in table.batches():
            writer.write(frame)
        with writer.close(table.summary).path.open("rb") as source:
            shutil.copyfileobj(source, out, 1 << 20)


def _markdown(table: ScoreTable, out: IO[bytes], top: int) -> None:
    out.write(_bytes(markdown(table, top)))


def _bytes(text: str) -> bytes:
    # A lone surrogate (a source path that is no UTF-8) becomes \udcff, which inside JSON is that very character.
    return text.encode("utf-8", "backslashreplace")


_BYTES: dict[str, Callable[[ScoreTable, IO[bytes], int], None]] = {
    "json": _json,
    "ndjson": _ndjson,
    "csv": _csv,
    "parquet": _parquet,
    "markdown": _markdown,
}
