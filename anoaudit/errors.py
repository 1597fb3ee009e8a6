"""What can go wrong, as two types: the caller asked wrongly (exit 2), or the audit could not be done (exit 3).

Every message is one line that says what, and a hint of one line that says what to do next. Both are shown to users as they
are, so they name files, columns and options, never internals.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

LONGEST = 500
_NAMED = 12


class AnoauditError(Exception):
    """Base of the errors that are the user's to mend. `exit_code` is the process's.

    Messages quote file, column and tensor names, which are anyone's: they are bounded, and nothing in them steers a terminal.
    """

    exit_code = 3

    def __init__(self, message: str, hint: str = "") -> None:
        self.message, self.hint = _one_line(message), _one_line(hint)
        super().__init__(self.message)


def _one_line(text: str) -> str:
    shown = _cut(text)  # first: a name may be as long as its file
    return _cut("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:340]} … {text[-150:]}"


class UsageError(AnoauditError):
    """Options, configuration or labels that cannot be meant (exit 2)."""

    exit_code = 2


class AuditError(AnoauditError):
    """The audit could not be done: input, model, device or training failed (exit 3)."""

    exit_code = 3


def among(names: Sequence[str], wanted: str = "") -> str:
    """For hints: the names there are, at most a dozen and how many more, the nearest to `wanted` before them."""
    shown = ", ".join(names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    near = difflib.get_close_matches(wanted, names, n=1) if wanted else []
    return shown + more + (f"; did you mean {near[0]}?" if near else "")
