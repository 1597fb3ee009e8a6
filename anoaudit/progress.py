"""Progress on stderr: a bar on a terminal, elsewhere one plain line every half minute. stdout is for results."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

PLAIN_SECONDS = 30.0


class Task(Protocol):
    """One phase of work under way."""

    def update(self, done: int, text: str = "") -> None:
        """`done` of the total; `text` is the loss, say."""
        ...


class Reporter:
    """Silent: what the library uses. `phase` yields a task, `note` says one line."""

    def note(self, text: str) -> None:
        """One line that the user should see."""

    @contextmanager
    def phase(self, name: str, total: int | None) -> Iterator[Task]:
        """A phase with `total` steps (None when unknown)."""
        yield _Silent()


class _Silent:
    def update(self, done: int, text: str = "") -> None:
        pass


class StderrReporter(Reporter):
    """What the command line uses."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)

    def note(self, text: str) -> None:
        """One line on stderr, control characters in names spelt out; on a terminal a long one is wrapped between its words."""
        from anoaudit.reports.words import printable

        self._console.print(printable(text), markup=False, soft_wrap=not self._console.is_terminal)

    @contextmanager
    def phase(self, name: str, total: int | None) -> Iterator[Task]:
        """A bar on a terminal, plain lines elsewhere."""
        if not self._console.is_terminal or self._console.is_dumb_terminal:
            yield _Plain(name, total)
            return
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"), BarColumn(bar_width=30), TaskProgressColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[text]}", markup=False),
        )  # fmt: skip
        with Progress(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task(name, total=total, text="")

            class Bar:
                def update(self, done: int, text: str = "") -> None:
                    bar.update(task, completed=done, text=text)

            yield Bar()


class _Plain:
    def __init__(self, name: str, total: int | None) -> None:
        self._name, self._total = name, total
        self._last = time.monotonic()

    def update(self, done: int, text: str = "") -> None:
        now = time.monotonic()
        if now - self._last >= PLAIN_SECONDS:
            self._last = now
            of = f" of {self._total}" if self._total else ""
            print(f"{self._name}: {done}{of} {text}".rstrip(), file=sys.stderr, flush=True)
