"""`anoaudit inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The directory that `fit` wrote.")],
    json: Annotated[bool, typer.Option("--json", help="The manifest as JSON.")] = False,
) -> int:
    """Check a model's integrity and show what it says of itself."""
    from anoaudit.model.artefact import load_model
    from anoaudit.model.card import render_card

    loaded = load_model(model)
    if json:
        print(loaded.manifest.dumps(), end="")
        return 0
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console(highlight=False)
    card = render_card(loaded.manifest, model.name)
    console.print(Markdown(card) if console.is_terminal else card, markup=False)
    console.print(f"integrity ok · model hash {loaded.hash}", markup=False)
    return 0
