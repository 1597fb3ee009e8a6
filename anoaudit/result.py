"""What `fit` and `score` give back: a score table, and what the exit code is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anoaudit.scoring.fail_on import Clause
    from anoaudit.scoring.scorer import Limit
    from anoaudit.scoring.table import ScoreTable


@dataclass(frozen=True)
class Result:
    """A score table, whether too many items were unreadable (exit 3), and which `fail_on` clauses fired (exit 1)."""

    table: ScoreTable
    too_many_unreadable: bool
    fired: tuple[str, ...]
    sources: tuple[Path, ...] = ()  # the files that were read

    @property
    def exit_code(self) -> int:
        """0 pass, 1 a clause fired, 3 could not audit; 3 wins over 1."""
        return 3 if self.too_many_unreadable else 1 if self.fired else 0


def result_of(table: ScoreTable, clauses: Sequence[Clause], limit: Limit, sources: tuple[Path, ...] = ()) -> Result:
    """The result of a score table: which clauses fire, and whether `limit` allows so many unreadable items."""
    import polars as pl

    highest = (
        table.lazy().select(pl.col("score").max()).collect().item()
        if any(c.quantity == "score" for c in clauses)
        else None
    )
    fired = []
    for clause in clauses:
        found = clause.fires(table.summary, highest)
        if found is not None:
            fired.append(f"{clause.text}: {found}")
    return Result(table, limit.exceeded(table.summary.unreadable, table.summary.rows), tuple(fired), sources)
