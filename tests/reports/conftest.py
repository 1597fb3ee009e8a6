from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from report_rows import NASTY, Maker, row

from anoaudit.scoring.table import OPTIONAL, ScoreTable, ScoreTableWriter, Summary, schema


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    """Writes a score table from rows, ranked, with the summary's counts taken from them."""
    made = 0

    def maker(rows: list[dict[str, Any]], **summary: Any) -> ScoreTable:
        nonlocal made
        made += 1
        optional = [name for name in OPTIONAL if any(name in r for r in rows)]
        filled = [dict.fromkeys(OPTIONAL) | r for r in rows]
        columns = schema(optional)
        frame = pl.DataFrame([{name: r[name] for name in columns} for r in filled], schema=columns)
        ranks = pl.col("score").rank("ordinal", descending=True).cast(pl.UInt32)
        frame = frame.with_columns(pl.col("rank").fill_null(ranks))
        readable = int((frame["status"] == "ok").sum())
        flagged = frame.filter(pl.col("flagged"))["score"].to_list()
        known: dict[str, Any] = {
            "rows": frame.height,
            "readable": readable,
            "unreadable": frame.height - readable,
            "flagged": len(flagged),
            "threshold": min(flagged, default=None),
        }
        writer = ScoreTableWriter(tmp_path / f"scores-{made}.parquet", optional)
        writer.write(frame)
        return writer.close(Summary(**{**known, **summary}))

    return maker


@pytest.fixture
def nasty(make: Maker) -> ScoreTable:
    """Awkward ids, some flagged, one unreadable, with a truth and everything a summary can say."""
    rows = [
        row(
            item,
            0.1 + i / 3,
            p_value=0.5 / (i + 1),
            flagged=i > 8,
            truth=[0, 1, None][i % 3],
            group=f"g|{i % 2}",
            why="amount_usd +1.0",
        )
        for i, item in enumerate(NASTY)
    ]
    rows.append(row("broken|\n.png", None, truth=1, reason="cut | off\nhere"))
    return make(
        rows,
        source="/data/[red]set[/red]|x",
        kind="images",
        ignored=2,
        rule="Benjamini-Hochberg, estimated FDR 0.1",
        calibration={"kind": "fitted-null"},
        model={"name": "m.anoaudit", "method": "loe"},
        notes=("a note with [b]markup[/b]",),
    )
