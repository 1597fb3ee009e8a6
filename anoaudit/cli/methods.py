"""`anoaudit methods`."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show one method's options.")] = None,
) -> int:
    """List the methods, or one method's options for --set."""
    from anoaudit.methods.registry import METHODS, find_method
    from anoaudit.options import describe
    from anoaudit.reports.look import Look, make_console

    look = Look(make_console())
    if name is None:
        for method in METHODS.values():
            look.line((method.name, "bold"), (f"  {method.title}", ""), indent=0)
            look.wrapped(method.summary)
            for what, told in (("data", method.data), ("labels", method.labels), ("when", method.when)):
                look.wrapped(told, lead=(f"{what:8}", "dim"))
            look.line()
        look.line(("options of one: anoaudit methods NAME", "dim"), indent=0)
        return 0
    chosen = find_method(name)
    options = describe(chosen.options)
    width = max(len(option) for option, *_ in options) + 2
    look.line((chosen.title, "bold"), indent=0)
    look.wrapped(chosen.summary, indent=0)
    look.wrapped(chosen.paper, "dim", indent=0)
    look.line()
    look.line((f"{'--set':{width}}default; what it takes, what it does", "dim"), indent=0)
    for option, kind, default, text in options:
        look.wrapped(f"{default}; {kind}", indent=0, lead=(f"{option:{width}}", "bold"))
        look.wrapped(text, "dim", indent=width)
    return 0
