"""`anoaudit methods`."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show one method's options.")] = None,
) -> int:
    """List the methods, or one method's options for --set."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from anoaudit.methods.registry import METHODS, find_method
    from anoaudit.options import describe

    console = Console(highlight=False)
    if name is None:
        for method in METHODS.values():
            console.print(Text.assemble((method.name, "bold"), f"  {method.title}"))
            grid = Table.grid(padding=(0, 2, 0, 0))
            grid.add_column(min_width=8)
            grid.add_column(overflow="fold")
            for what, told in (
                ("", method.summary),
                ("data", method.data),
                ("labels", method.labels),
                ("when", method.when),
            ):
                grid.add_row(Text(f"  {what}", "dim"), Text(told))
            console.print(grid)
        console.print(Text("options of one: anoaudit methods NAME", "dim"))
        return 0
    chosen = find_method(name)
    console.print(Text.assemble((chosen.title, "bold"), f"\n{chosen.summary}\n{chosen.paper}\n"))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)
    for heading in ("--set", "default", "value", "what it does"):
        table.add_column(heading, overflow="fold")
    for option, kind, default, text in describe(chosen.options):
        table.add_row(Text(option), Text(default), Text(kind), Text(text))
    console.print(table)
    return 0
