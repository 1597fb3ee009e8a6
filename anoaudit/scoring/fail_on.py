"""`--fail-on` clauses: when an audit counts as failed (exit 1). Parsed before any work, judged on the finished table."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from anoaudit.errors import UsageError
from anoaudit.scoring.table import Summary

CLAUSE = re.compile(r"\s*(count|rate|score|unreadable)\s*(>=|>)\s*([0-9.eE+-]+)\s*(%?)\s*")
OPERATORS: dict[str, Callable[[float, float], bool]] = {">": operator.gt, ">=": operator.ge}


@dataclass(frozen=True)
class Clause:
    """`quantity` is count or rate (of flagged items), score (the highest) or unreadable (a count, or a share with %)."""

    text: str
    quantity: str
    comparison: str
    limit: float
    percent: bool

    def fires(self, summary: Summary, highest: float | None) -> str | None:
        """What was found when the clause fires, else None."""
        if self.quantity == "score":
            value, shown = highest, "no readable item" if highest is None else f"the highest score is {highest:.6g}"
        elif self.quantity == "count":
            value, shown = float(summary.flagged), f"{summary.flagged} flagged"
        elif self.quantity == "rate":
            value = 100.0 * summary.flagged / summary.readable if summary.readable else 0.0
            shown = f"{value:.4g} % flagged ({summary.flagged} of {summary.readable})"
        else:
            value, shown = float(summary.unreadable), f"{summary.unreadable} unreadable"
            if self.percent:
                value = 100.0 * summary.unreadable / summary.rows if summary.rows else 0.0
                shown = f"{value:.4g} % unreadable"
        if value is None or not OPERATORS[self.comparison](value, self.limit):
            return None
        return shown


def parse_clauses(texts: Sequence[str]) -> list[Clause]:
    """Read `count>N`, `rate>P%`, `score>=X`, `unreadable>N` (also `>=`, and `unreadable>P%`). Raises UsageError."""
    return [_parse(text) for text in texts]


def _parse(text: str) -> Clause:
    match = CLAUSE.fullmatch(text)
    hint = "clauses are count>N, rate>P%, score>=X, unreadable>N; quote them for the shell"
    if match is None:
        raise UsageError(f"--fail-on {text!r} is not a clause", hint)
    quantity, comparison, number, percent = match.groups()
    try:
        limit = float(number)
    except ValueError:
        raise UsageError(f"--fail-on {text!r}: {number!r} is not a number", hint) from None
    if (quantity == "rate") != bool(percent) and quantity != "unreadable":
        raise UsageError(
            f"--fail-on {text!r}: {'a rate is a percentage' if quantity == 'rate' else 'only rates take %'}", hint
        )
    if not math.isfinite(limit) or (percent and not 0 <= limit <= 100):  # it would never fire, or always
        raise UsageError(f"--fail-on {text!r}: {number}{percent} is out of range", hint)
    return Clause(text=text.strip(), quantity=quantity, comparison=comparison, limit=limit, percent=bool(percent))
