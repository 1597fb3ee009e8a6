"""Options that several commands share, each written once, and how a result leaves the program."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anoaudit.cli.streams import verdict_stands
from anoaudit.errors import UsageError

if TYPE_CHECKING:
    from anoaudit.result import Result

DATA, MODEL, OUTPUT, DECIDE, TRAIN = "Data", "Model", "Output", "Decision", "Training"


class Format(StrEnum):
    """Formats of a score table."""

    table = "table"
    json = "json"
    ndjson = "ndjson"
    csv = "csv"
    parquet = "parquet"
    markdown = "markdown"


class Device(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A folder of images, a video, a Parquet, Arrow or CSV file, a folder of them, or a quoted pattern.",
    ),
]
Truth = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN|FILE[:COLUMN]",
        help="1 anomaly, 0 normal; for evaluation only, never trained on.",
        rich_help_panel=DATA,
    ),
]
Columns = Annotated[
    list[str], typer.Option(metavar="NAME,…", help="Use only these columns as features.", rich_help_panel=DATA)
]
Exclude = Annotated[
    list[str], typer.Option(metavar="NAME,…", help="Columns that are no features.", rich_help_panel=DATA)
]
IdColumn = Annotated[
    str | None, typer.Option(metavar="NAME", help="The column that names the rows.", rich_help_panel=DATA)
]
ImageColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Tables of images: the column of their bytes or paths; found by itself where it holds bytes.",
        rich_help_panel=DATA,
    ),
]
Fps = Annotated[
    float | None,
    typer.Option(
        metavar="R",
        help="Frames a second: to take of a video (default: all), or that a folder of frames was taken at.",
        rich_help_panel=DATA,
    ),
]
MaxUnreadable = Annotated[
    str, typer.Option(metavar="N|P%", help="Exit 3 when more items than this cannot be read.", rich_help_panel=DATA)
]
DeviceOption = Annotated[
    Device, typer.Option(help="cuda fails when there is none; auto says what it uses.", rich_help_panel=TRAIN)
]
FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format",
        "-f",
        metavar="FORMAT",
        help="Of the score table: " + ", ".join(Format) + "; default: table.",
        rich_help_panel=OUTPUT,
    ),
]
Top = Annotated[
    int, typer.Option(metavar="N", min=0, help="How many items table and markdown list.", rich_help_panel=OUTPUT)
]
Html = Annotated[
    str | None,
    typer.Option("--html", metavar="FILE", help="Also write the report as one HTML file.", rich_help_panel=OUTPUT),
]
Fdr = Annotated[
    float | None,
    typer.Option(
        metavar="Q",
        help="Flag by Benjamini-Hochberg at this false discovery rate (default 0.1).",
        rich_help_panel=DECIDE,
    ),
]
Threshold = Annotated[float | None, typer.Option(metavar="X", help="Flag scores from X on.", rich_help_panel=DECIDE)]
TopK = Annotated[str | None, typer.Option(metavar="N|P%", help="Flag the N or P % worst.", rich_help_panel=DECIDE)]
FailOn = Annotated[
    list[str],
    typer.Option(
        metavar="CLAUSE",
        help="Exit 1 when it holds: count>N, rate>P%, score>=X, unreadable>N. Repeatable; quote it.",
        rich_help_panel=DECIDE,
    ),
]


def names(values: list[str]) -> list[str]:
    """`a,b` and repeated options alike."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def destination(out: str | None, given: Format | None) -> tuple[Path | None, str]:
    """Where the table goes (None is stdout) and in which format: the given one, else by the file's suffix."""
    from anoaudit.reports.formats import format_for

    path = None if out in (None, "-") else Path(str(out))
    if given is not None:
        return path, given.value
    found = format_for(path) if path is not None else Format.table.value
    if found is None:
        html = path is not None and path.suffix.lower() in (".html", ".htm")
        hint = f"write HTML with --html {path}" if html else "give --format"
        raise UsageError(f"the format of {path} is not clear from its name", hint)
    return path, found


def html_file(name: str | None, inputs: Iterable[str | Path | None], out: str | Path | None = None) -> Path | None:
    """Where the HTML report goes, `out` being what -o names. Asked before hours of work: raises UsageError where it would
    replace something, AuditError where it could not be written at their end.
    """
    from anoaudit.errors import AuditError
    from anoaudit.outputs import keep_inputs

    if name is None:
        return None
    path = Path(name)
    keep_inputs(path, "--html", inputs, table=False)
    if path.is_dir():
        raise UsageError(f"--html {path} is a folder", "give a file name")
    if out is not None and path.resolve() == Path(out).resolve():
        raise UsageError(f"-o and --html both name {path}", "give them different names")
    if not path.absolute().parent.is_dir():
        raise AuditError(f"cannot write {path}: the folder {path.parent} does not exist", "create the folder first")
    return path


class InterruptionError(Exception):
    """Ctrl-C in a command that may go on later; the text says what is kept of its work. typer would swallow the bare one."""


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C becomes InterruptionError, with what the work itself noted on it."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise InterruptionError(*getattr(stop, "__notes__", ["nothing is kept"])) from stop


def emit(result: Result, path: Path | None, form: str, top: int) -> int:
    """Write the table, name on stderr the clauses that fired, and return the exit code."""
    from anoaudit.reports.writers import write

    with verdict_stands():
        write(result.table, form, path, top=top)
        sys.stdout.flush()
    summary = result.table.summary
    if path is not None or form not in ("table", "markdown"):
        print(
            f"{summary.rows} items, {summary.unreadable} unreadable, {summary.flagged} flagged ({summary.rule})",
            file=sys.stderr,
        )
        for note in summary.notes:
            print(f"note: {note}", file=sys.stderr)
    for fired in result.fired:
        print(f"failed: {fired}", file=sys.stderr)
    if result.too_many_unreadable:
        print(f"error: {summary.unreadable} of {summary.rows} items are unreadable", file=sys.stderr)
        print("  repair or remove them, or allow more with --max-unreadable", file=sys.stderr)
    return result.exit_code
