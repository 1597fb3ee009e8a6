"""`anoaudit inspect`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer


def command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The directory that `fit` wrote.")],
    json: Annotated[bool, typer.Option("--json", metavar="", help="The manifest as JSON.")] = False,
) -> int:
    """Check a model's integrity and show what it says of itself."""
    from anoaudit.model.artefact import load_model

    loaded = load_model(model)
    if json:
        print(loaded.manifest.dumps(), end="")
        return 0
    from anoaudit.model.card import card_facts
    from anoaudit.reports.look import Look, make_console

    look, manifest = Look(make_console()), loaded.manifest
    facts = [
        ("model", f"{model.name}, {manifest.method}, written by anoaudit {manifest.anoaudit}"),
        *((term, text.replace("`", "")) for term, text in card_facts(manifest)),
        ("integrity", "ok: no file was added or changed since"),
        ("SHA-256", loaded.hash),
        ("use", f"anoaudit score DATA --model {shlex.quote(str(model))}"),
    ]
    label = max(len(term) for term, _ in facts) + 2
    for term, text in facts:
        look.wrapped(text, indent=0, lead=(f"{term:{label}}", "dim"))
    return 0
