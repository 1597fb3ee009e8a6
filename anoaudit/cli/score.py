"""`anoaudit score`."""

from __future__ import annotations

from typing import Annotated

import typer

from anoaudit.cli import shared


def command(
    data: shared.DataArgument,
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", metavar="MODEL", help="The directory that `fit` wrote.", rich_help_panel=shared.MODEL
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE|-",
            help="Default: stdout. The suffix chooses the format.",
            rich_help_panel=shared.OUTPUT,
        ),
    ] = None,
    form: shared.FormatOption = None,
    html: shared.Html = None,
    top: shared.Top = 20,
    truth: shared.Truth = None,
    device: shared.DeviceOption = shared.Device.auto,
    id_column: shared.IdColumn = None,
    image_column: shared.ImageColumn = None,
    fps: shared.Fps = None,
    max_unreadable: shared.MaxUnreadable = "5%",
    fdr: shared.Fdr = None,
    threshold: shared.Threshold = None,
    top_k: shared.TopK = None,
    fail_on: shared.FailOn = [],  # noqa: B006
) -> int:
    """Score data with a model, in seconds and without PyTorch."""
    from anoaudit import api
    from anoaudit.outputs import keep_inputs
    from anoaudit.progress import StderrReporter

    path, chosen = shared.destination(out, form)
    inputs = (data, model, truth)
    if path is not None:
        keep_inputs(path, "-o", inputs)
    page, reporter = shared.html_file(html, inputs, path), StderrReporter()
    result = api.score(
        data, model=model, truth=truth, device=device.value,
        id_column=id_column, image_column=image_column, fps=fps, max_unreadable=max_unreadable,
        fdr=fdr, threshold=threshold, top_k=top_k, fail_on=fail_on,
        reporter=reporter,
    )  # fmt: skip
    if path is not None:
        keep_inputs(path, "-o", inputs, result.sources)
    code = shared.emit(result, path, chosen, top)
    if page is not None:
        api.report(result.table.path, model=model, data=data, html=page, reporter=reporter)
    return code
