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
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help=", ".join(shared.Format) + "; default: table, or by the suffix of -o.",
            rich_help_panel=shared.OUTPUT,
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="FILE|-", help="Default: stdout.", rich_help_panel=shared.OUTPUT),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="How many items are listed or drawn; default: 20 in table and markdown, else all flagged.",
            rich_help_panel=shared.OUTPUT,
        ),
    ] = None,
    html: shared.Html = None,
    maps: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Write heat maps of the worst images into a folder.", rich_help_panel=shared.OUTPUT
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", metavar="MODEL", help="The model that scored; for heat maps.", rich_help_panel=shared.MODEL
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Where the images are, if they have moved.", rich_help_panel=shared.DATA),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", metavar="", help="Replace an existing folder of maps.", rich_help_panel=shared.OUTPUT),
    ] = False,
) -> int:
    """Show score tables: the ranking, the histogram, the groups, and with truth how good it is."""
    from anoaudit import api
    from anoaudit.errors import UsageError
    from anoaudit.outputs import keep_inputs
    from anoaudit.progress import StderrReporter
    from anoaudit.reports.writers import write

    path, chosen = shared.destination(out, form)
    written = html is not None or maps is not None
    if len(scores) > 1 and (path is not None or chosen not in ("table", "markdown") or written or model is not None):
        raise UsageError("several score tables do not fit one file", "report them one by one")
    if data is not None and not written:
        raise UsageError("--data is for pictures, and a table shows none", "add --html FILE or --maps DIR")
    inputs = (*scores, truth, model, data)
    if path is not None:
        keep_inputs(path, "-o", inputs)
    page = shared.html_file(html, inputs, path)
    tables = [
        api.report(
            item, truth=truth, model=model, data=data, html=page, maps=maps, top=top, force=force, reporter=StderrReporter()
        )
        for item in scores
    ]  # fmt: skip
    if written and out is None and form is None:
        return 0  # what was asked for is in the files
    for table in tables:
        write(table, chosen, path, top=20 if top is None else top)
    return 0
