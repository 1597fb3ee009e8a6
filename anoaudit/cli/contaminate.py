"""`anoaudit contaminate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from anoaudit.cli import shared
from anoaudit.errors import UsageError


def command(
    data: shared.DataArgument,
    ratio: Annotated[str, typer.Option(metavar="R|P%", help="Share of anomalies in the result: 0.1 or 10%.")],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="OUT", help="A folder for images; a .parquet or .csv file for tables."),
    ],
    anomalies: Annotated[
        str | None,
        typer.Option("--with", metavar="ANOMALIES", help="Where the anomalies come from; DATA is all normal."),
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(metavar="COLUMN|FILE[:COLUMN]", help="Which items of DATA are anomalies (1) and normal (0)."),
    ] = None,
    corrupt: Annotated[
        list[str],
        typer.Option(
            metavar="KIND,…",
            help="Damage items of DATA, which is all normal. Images: blur, noise, occlusion, cutpaste, colour, jpeg, rotation, "
            "foreign. Tables: gaussian, shuffle, scale, missing, duplicate.",
        ),
    ] = [],  # noqa: B006
    severity: Annotated[int, typer.Option(metavar="N", help="Of --corrupt: 1, hardly to be seen, to 5, drastic.")] = 3,
    columns: Annotated[list[str], typer.Option(metavar="NAME,…", help="Of --corrupt: damage only these columns.")] = [],  # noqa: B006
    exclude: Annotated[list[str], typer.Option(metavar="NAME,…", help="Of --corrupt: leave these columns alone.")] = [],  # noqa: B006
    id_column: shared.IdColumn = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Same seed, same bytes.")] = 0,
    with_replacement: Annotated[
        bool, typer.Option("--with-replacement", metavar="", help="Draw anomalies more than once.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", metavar="", help="Replace what an earlier contaminate wrote.")
    ] = False,
) -> int:
    """Make a data set with a known share of anomalies; the input stays untouched."""
    from anoaudit import api
    from anoaudit.options import parse_share
    from anoaudit.reports.words import printable

    try:
        share = parse_share(ratio)
    except ValueError:
        raise UsageError(f"--ratio {ratio!r} is no share", "for example 0.1 or 10%") from None
    mixture = api.contaminate(
        data,
        out,
        ratio=share,
        anomalies=anomalies,
        truth=truth,
        seed=seed,
        with_replacement=with_replacement,
        id_column=id_column,
        force=force,
        corrupt=shared.names(corrupt),
        severity=severity,
        columns=shared.names(columns),
        exclude=shared.names(exclude),
    )
    print(
        f"{mixture.path}: {mixture.normals} normals and {mixture.anomalies} anomalies ({100 * mixture.ratio:.4g} %); "
        f"labels in {mixture.labels}",
        file=sys.stderr,
    )
    if corrupt and mixture.unlabelled:
        items = (
            "1 unreadable item stays" if mixture.unlabelled == 1 else f"{mixture.unlabelled:,} unreadable items stay"
        )
        print(f"note: {items} in the result, without a label", file=sys.stderr)
    if mixture.emptied:
        (first, reason), n = mixture.emptied[0], len(mixture.emptied)
        files = "1 file is" if n == 1 else f"{n:,} files are"
        print(
            f"note: {files} unreadable, and empty in the result; the first: {printable(first)}: {reason}",
            file=sys.stderr,
        )
    for note in mixture.notes:
        print(f"note: {note}", file=sys.stderr)
    return 0
