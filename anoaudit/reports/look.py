"""What a console can show, and text cut to fit it: glyphs or ASCII, colour or none, columns aligned by cells."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from anoaudit.reports import words

_PLAIN_WIDTH = 120  # of files and pipes, which have no width of their own


class _Console(Console):
    """A console that leaves a broken pipe to its caller: rich would exit with 1, which here means a finding."""

    def on_broken_pipe(self) -> None:
        raise  # called while the BrokenPipeError is being handled


def make_console(file: IO[str] | None = None) -> Console:
    """A console for results: on stdout with all its terminal can do, or on a file as plain text."""
    if file is not None:
        return _Console(file=file, width=_PLAIN_WIDTH, color_system=None, force_terminal=False, legacy_windows=False)
    return _Console(width=None if sys.stdout.isatty() or os.environ.get("COLUMNS") else _PLAIN_WIDTH)


@dataclass(frozen=True)
class Column:
    """One column of a table without rules; its cells are cut to size before they come here."""

    name: str
    cells: Sequence[str]
    styles: Sequence[str] = ()
    right: bool = False


class Look:
    """Prints lines to a console within its width, encoding and colours."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.width = max(40, console.width)
        self.ascii = console.options.ascii_only or console.legacy_windows
        self._encoding = console.encoding or "utf-8"
        # NO_COLOR, a pipe or a dumb terminal: no escape codes at all, so neither bold nor dim.
        self._plain = console.no_color or console.color_system is None
        self.mark = "*" if self.ascii else "●"
        self.ellipsis = "..." if self.ascii else "…"
        self.rule = "---" if self.ascii else "───"
        self.dash = "-" if self.ascii else "–"

    def line(self, *parts: tuple[str, str], indent: int = 2) -> None:
        """Print one line of texts and their styles, as `Text` and never as markup."""
        text = Text(" " * indent, no_wrap=True, overflow="ignore", end="")
        for value, style in parts:
            text.append(self.safe(value), style="" if self._plain else style)
        text.rstrip()
        self.console.print(text, soft_wrap=True)

    def title(self, title: str, remark: str = "") -> None:
        """Print a section's heading after an empty line."""
        self.console.print()
        self.line((title, "bold"), (f"  {remark}" if remark else "", "dim"), indent=0)

    def wrapped(self, value: str, style: str = "", indent: int = 2, lead: tuple[str, str] = ("", "")) -> None:
        """Print a text over as many lines as it needs, `lead` standing before the first."""
        for part in Text(self.safe(value)).wrap(self.console, self.width - indent - cell_len(lead[0]), overflow="fold"):
            self.line(lead, (part.plain.rstrip(), style), indent=indent)
            lead = (" " * cell_len(lead[0]), "")

    def columns(self, columns: Sequence[Column]) -> None:
        """Print columns side by side, under their names where there are any."""
        widths = [self.needs(column) for column in columns]
        if any(column.name for column in columns):
            names = [self._pad(c.name, w, c.right, last=c is columns[-1]) for c, w in zip(columns, widths, strict=True)]
            self.line(("  ".join(names), "dim"))
        for row in range(max(len(column.cells) for column in columns)):
            parts = []
            for column, width in zip(columns, widths, strict=True):
                last = column is columns[-1]
                cell = self._pad(self.safe(column.cells[row]), width, column.right, last)
                parts.append((cell + ("" if last else "  "), column.styles[row] if column.styles else ""))
            self.line(*parts)

    def needs(self, column: Column) -> int:
        """The cells that a column takes."""
        return max([cell_len(column.name), *(cell_len(self.safe(cell)) for cell in column.cells)])

    def safe(self, value: str) -> str:
        """One line of what the encoding can carry."""
        carried: bytes = words.printable(value).encode(self._encoding, "backslashreplace")
        return carried.decode(self._encoding)

    def middle(self, value: str, width: int) -> str:
        """The text within `width` cells, its middle left out: of a path both ends tell, the file's name most."""
        value = self.safe(value)
        if cell_len(value) <= width:
            return value
        room = max(2, width - len(self.ellipsis))
        return _fit(value, room // 3) + self.ellipsis + _fit(value[::-1], room - room // 3)[::-1]

    def end(self, value: str, width: int) -> str:
        """The text within `width` cells, its end left out."""
        value = self.safe(value)
        if cell_len(value) <= width:
            return value
        return _fit(value, width - len(self.ellipsis)).rstrip(" ,") + self.ellipsis

    def entries(self, value: str, width: int) -> str:
        """The text within `width` cells, of its entries (separated by commas) the last ones left out whole."""
        value = self.safe(value)
        parts = value.split(", ")
        while cell_len(value) > width and len(parts) > 1:
            parts.pop()
            value = f"{', '.join(parts)} {self.ellipsis}"
        return self.end(value, width)

    def bar(self, part: float, width: int) -> str:
        """A bar of `part` (0 to 1) of `width` cells; something is never drawn as nothing."""
        eighths = max(round(min(1.0, max(0.0, part)) * width * 8), 1 if part > 0 else 0)
        if self.ascii:
            return "#" * -(-eighths // 8)
        return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()

    def height(self, part: float) -> str:
        """One cell as high as `part` (0 to 1), never empty."""
        return (".:-=+*#@" if self.ascii else "▁▂▃▄▅▆▇█")[min(7, max(0, int(part * 8)))]

    @staticmethod
    def _pad(value: str, width: int, right: bool, last: bool) -> str:
        space = " " * (width - cell_len(value))
        return space + value if right else value + ("" if last else space)


def share_out(room: int, needs: Sequence[int]) -> list[int]:
    """Widths of at least eight cells that fit into `room`.

    The least needy is served first and leaves the rest to others; where two must be cut, the first gets three fifths.
    """
    if sum(needs) <= room:
        return list(needs)
    widths = [0] * len(needs)
    waiting = sorted(range(len(needs)), key=lambda i: needs[i])
    for place in list(waiting):
        fair = room * (3 if place == 0 else 2) // sum(3 if i == 0 else 2 for i in waiting)
        widths[place] = max(8, min(needs[place], fair))
        room -= widths[place]
        waiting.remove(place)
    return widths


def _fit(value: str, width: int) -> str:
    kept, used = [], 0
    for character in value:
        used += cell_len(character)
        if used > width:
            break
        kept.append(character)
    return "".join(kept)
