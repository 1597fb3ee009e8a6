"""Joins a known truth to a score table that was made without one. Reading truth files is the data room's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl

from anoaudit.errors import UsageError
from anoaudit.reports.files import replacing
from anoaudit.scoring.table import OPTIONAL, ScoreTable, ScoreTableWriter


def with_truth(table: ScoreTable, truth: Mapping[str, int | None], out: Path) -> ScoreTable:
    """Write a copy of the table to `out`, its `truth` column looked up by id: 1, 0, or null where nothing is known.

    A truth column the table already has is replaced. Raises UsageError when not one id of `truth` is in the table.
    """
    wrong = next((value for value in truth.values() if value not in (0, 1, None)), None)
    if wrong is not None:
        raise UsageError(
            f"the truth holds {wrong!r}", "use 1 for an anomaly, 0 for a normal item, and nothing for unknown"
        )
    with replacing(out) as part:
        writer = ScoreTableWriter(part, {*table.optional, "truth"})
        try:
            matched = 0
            for frame in table.batches():
                ids = frame["id"].to_list()
                matched += sum(item in truth for item in ids)
                column = pl.Series("truth", [truth.get(item) for item in ids], dtype=OPTIONAL["truth"])
                writer.write(frame.with_columns(column))
            if truth and not matched:
                example = next(iter(truth))
                raise UsageError(
                    f"the truth and the scores share no id (the truth has {example!r})",
                    "ids are paths relative to the data, or the values of --id-column",
                )
            writer.close(table.summary)
        except BaseException:
            writer.abandon()
            raise
    return replace(table, path=out, optional=table.optional | {"truth"})
