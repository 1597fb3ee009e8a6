"""What can go wrong, as two types: the caller asked wrongly (exit 2), or the audit could not be done (exit 3).

Every message is one line that says what, and a hint of one line that says what to do next. Both are shown to users as they
are, so they name files, columns and options, never internals.
"""

from __future__ import annotations


class AnoauditError(Exception):
    """Base of the errors that are the user's to mend. `exit_code` is the process's."""

    exit_code = 3

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(AnoauditError):
    """Options, configuration or labels that cannot be meant (exit 2)."""

    exit_code = 2


class AuditError(AnoauditError):
    """The audit could not be done: input, model, device or training failed (exit 3)."""

    exit_code = 3
