"""The README's reference of commands and options, made from the program itself.

usage: python tests/cli/command_reference.py   writes it into README.md, between the two marks
"""

from __future__ import annotations

import importlib
import inspect
import typing
from enum import Enum
from pathlib import Path
from typing import Any

from typer.models import ArgumentInfo

README = Path(__file__).parents[2] / "README.md"
START, END = "<!-- commands: made by tests/cli/command_reference.py -->", "<!-- /commands -->"
COMMANDS = ("fit", "score", "report", "contaminate", "methods", "inspect", "doctor")


def reference() -> str:
    """A block that folds away for each command."""
    return "\n".join(_block(name) for name in COMMANDS)


def _block(name: str) -> str:
    command = importlib.import_module(f"anoaudit.cli.{name}").command
    hints = typing.get_type_hints(command, include_extras=True)
    usage, rows = ["anoaudit", name], []
    for parameter in inspect.signature(command).parameters.values():
        kind, info = typing.get_args(hints[parameter.name])[:2]
        if isinstance(info, ArgumentInfo):
            usage.append(info.metavar)
            rows.append((f"`{info.metavar}`", info.help or ""))
        else:
            rows.append((_option(parameter, kind, info), info.help or ""))
    lines = [f"| {_cell(left)} | {_cell(right)} |" for left, right in rows]
    head = f"<details><summary><code>{' '.join(usage)}</code></summary>\n\n{command.__doc__}\n"
    table = "\n| | |\n|---|---|\n" + "\n".join(lines) + "\n" if lines else ""
    return f"{head}{table}\n</details>"


def _option(parameter: inspect.Parameter, kind: Any, info: Any) -> str:
    first = (info.default,) if isinstance(info.default, str) else ()  # where Annotated leaves the first of the names
    names = [*first, *(info.param_decls or ())] or ["--" + parameter.name.replace("_", "-")]
    shown = ", ".join(f"`{name}`" for name in names)
    if kind is bool:
        return shown
    types = [part for part in (typing.get_args(kind) or (kind,)) if part is not type(None)]
    choices = [member.value for member in types[0]] if isinstance(types[0], type) and issubclass(types[0], Enum) else []
    value = info.metavar or "|".join(choices) or {int: "N", float: "X"}.get(types[0], "TEXT")
    default = parameter.default.value if isinstance(parameter.default, Enum) else parameter.default
    plain = isinstance(default, str | int | float) and default != ""
    return f"{shown} `{value}`" + (f" ({default})" if plain else "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def with_reference(text: str) -> str:
    """The README with the block between its marks made anew."""
    start, end = text.index(START) + len(START), text.index(END)
    return f"{text[:start]}\n{reference()}\n{text[end:]}"


if __name__ == "__main__":
    README.write_text(with_reference(README.read_text(encoding="utf-8")), encoding="utf-8")
