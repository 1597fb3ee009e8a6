"""`anoaudit report`."""

from __future__ import annotations

from typing import Annotated

import typer

from anoaudit.cli import shared


def command(
    scores: Annotated[
        list[str], typer.Argument(metavar="SCORES|MODEL…", help="Score tables (parquet, csv, json, ndjson) or models.")
    ],
    truth: shared.Truth = None,
    form: Annotated[
        shared.Format | None,
        typer.Option("--format", "-f", help="Default: table, or by the suffix of -o.", rich_help_panel=shared.OUTPUT),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="FILE|-", help="Default: stdout.", rich_help_panel=shared.OUTPUT),
    ] = None,
    top: shared.Top = 20,
) -> int:
    """Show score tables: the ranking, the histogram, the groups, and with truth how good it is."""
    from anoaudit import api
    from anoaudit.errors import UsageError
    from anoaudit.reports.writers import write

    path, chosen = shared.destination(out, form)
    if len(scores) > 1 and (path is not None or chosen not in ("table", "markdown")):
        raise UsageError("several score tables do not fit one file", "report them one by one")
    shared.refuse_overwriting(path, scores, truth)
    tables = [api.report(item, truth=truth) for item in scores]
    for table in tables:
        write(table, chosen, path, top=top)
    return 0
