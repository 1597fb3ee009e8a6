"""What becomes of stdout and stderr whose reader has gone: the work and its exit code stand."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast


def drop(stream: TextIO) -> None:
    """From now on what is written there goes nowhere, also what is still buffered."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextlib.contextmanager
def verdict_stands() -> Iterator[None]:
    """`| head` has what it wanted: the rest of stdout is dropped. (A full disk there is an error.)"""
    try:
        yield
    except BrokenPipeError:
        drop(sys.stdout)


class _Heedless:
    """stderr, where notes are told: a closed pipe or a full disk behind it is no reason to stop."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._heedless():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._heedless():
            self._stream.flush()

    @contextlib.contextmanager
    def _heedless(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            drop(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def heedless() -> Iterator[None]:
    """Inside, nothing fails for want of a stderr or stdout (`2>&-`, `>&-`), nor does what is written get into another file."""
    with contextlib.ExitStack() as stack:
        for number in (1, 2):  # a closed one's number would go to the next file that is opened
            try:
                os.fstat(number)
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
        if sys.stdout is None:
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        given = sys.stderr or stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        stack.enter_context(contextlib.redirect_stderr(cast(TextIO, _Heedless(given))))
        yield
