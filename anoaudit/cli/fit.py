"""`anoaudit fit`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from anoaudit.cli import shared


def command(
    data: shared.DataArgument,
    method: Annotated[
        str, typer.Option(metavar="NAME", help="See `anoaudit methods`.", rich_help_panel=shared.TRAIN)
    ] = "loe",
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="MODEL",
            help="Model directory; default: <name>.anoaudit.",
            rich_help_panel=shared.OUTPUT,
        ),
    ] = None,
    contamination: Annotated[
        str | None,
        typer.Option(
            metavar="α|auto",
            help="Assumed share of anomalous items in the data (default 10%, and 0 with --train-on normal), or auto: estimated.",
            rich_help_panel=shared.TRAIN,
        ),
    ] = None,
    alpha_sensitivity: Annotated[
        bool,
        typer.Option(
            "--alpha-sensitivity",
            metavar="",
            help="Also say how the ranking changes at α/2 and 2α, by short runs.",
            rich_help_panel=shared.TRAIN,
        ),
    ] = False,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN|FILE[:COLUMN]",
            help="Supervision: 1 known anomaly, 0 known normal, empty unlabelled.",
            rich_help_panel=shared.DATA,
        ),
    ] = None,
    train_on: Annotated[
        str,
        typer.Option(
            metavar="all|normal", help="Fit on all items, or on the known normals.", rich_help_panel=shared.TRAIN
        ),
    ] = "all",
    truth: shared.Truth = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|none",
            help="Images: a timm model, or none, without pretrained weights.",
            rich_help_panel=shared.TRAIN,
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Images: the backbone's weights, safetensors.", rich_help_panel=shared.TRAIN),
    ] = None,
    backbone_arg: Annotated[
        list[str],
        typer.Option(metavar="K=V", help="Images: a model argument, or mean, std, size.", rich_help_panel=shared.TRAIN),
    ] = [],  # noqa: B006
    device: shared.DeviceOption = shared.Device.auto,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Same seed, same machine, same model.", rich_help_panel=shared.TRAIN)
    ] = 0,
    set_: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="K=V",
            help="An option of the method; see `anoaudit methods NAME`.",
            rich_help_panel=shared.TRAIN,
        ),
    ] = [],  # noqa: B006
    resume: Annotated[
        bool, typer.Option("--resume", metavar="", help="Go on with an interrupted fit.", rich_help_panel=shared.TRAIN)
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", metavar="", help="Replace an existing model.", rich_help_panel=shared.OUTPUT)
    ] = False,
    columns: shared.Columns = [],  # noqa: B006
    exclude: shared.Exclude = [],  # noqa: B006
    id_column: shared.IdColumn = None,
    image_column: shared.ImageColumn = None,
    fps: shared.Fps = None,
    max_unreadable: shared.MaxUnreadable = "5%",
    form: shared.FormatOption = None,
    html: shared.Html = None,
    top: shared.Top = 20,
    fdr: shared.Fdr = None,
    threshold: shared.Threshold = None,
    top_k: shared.TopK = None,
    fail_on: shared.FailOn = [],  # noqa: B006
) -> int:
    """Train a detector on contaminated data, rank that same data, write a model."""
    # Before torch loads: its threads spin while they wait, which on a busy machine made small networks train 15 times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from anoaudit import api
    from anoaudit.progress import StderrReporter

    page, reporter = shared.html_file(html, (data, labels, truth, weights), out), StderrReporter()
    with shared.interruptible():
        result = api.fit(
            data, method=method, out=out, contamination=contamination, alpha_sensitivity=alpha_sensitivity, labels=labels,
            train_on=train_on, truth=truth, backbone=backbone, weights=weights, backbone_args=backbone_arg, device=device.value,
            seed=seed, options=set_, resume=resume, force=force, columns=shared.names(columns), exclude=shared.names(exclude),
            id_column=id_column, image_column=image_column, fps=fps, max_unreadable=max_unreadable,
            fdr=fdr, threshold=threshold, top_k=top_k, fail_on=fail_on,
            reporter=reporter,
        )  # fmt: skip
    code = shared.emit(result, None, (form or shared.Format.table).value, top)
    if page is not None:
        api.report(result.table.path.parent, data=data, html=page, reporter=reporter)
    return code
