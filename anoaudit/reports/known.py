"""The known anomalies of an audit that the model does not flag: a label to check, or a kind of anomaly it has not learned."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from anoaudit.scoring.table import READABLE, ScoreTable


@dataclass(frozen=True)
class KnownAnomalies:
    """How many items are labelled 1, how many of them are unreadable, and how many readable ones are not flagged.

    `rows` are of the latter, the lowest score first.
    """

    labelled: int
    unreadable: int
    below: int
    rows: pl.DataFrame

    def to_json(self) -> dict[str, int]:
        """The counts."""
        return {"labelled": self.labelled, "unreadable": self.unreadable, "below_decision": self.below}


def known_anomalies(table: ScoreTable, n: int = 10) -> KnownAnomalies | None:
    """With the n lowest rows; None of a table in which nothing is labelled 1."""
    if not table.has_labels:
        return None
    labelled = table.lazy().filter(pl.col("label") == 1)
    readable = pl.col("status") == READABLE
    missed = readable & ~pl.col("flagged").fill_null(False)
    counts = labelled.select(pl.len().alias("all"), (~readable).sum().alias("lost"), missed.sum().alias("below"))
    total, lost, below = counts.collect().row(0)
    if not total:
        return None
    rows = labelled.filter(missed).sort("score", maintain_order=True).head(n).collect()
    return KnownAnomalies(int(total), int(lost), int(below), rows)
