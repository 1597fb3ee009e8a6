"""The JSON document: schema_version, summary, metrics, known_anomalies, timeline and rows; strict: no NaN, no infinity."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import polars as pl
import polars.selectors as cs

from anoaudit.reports.known import known_anomalies
from anoaudit.reports.metrics import metrics
from anoaudit.reports.timeline import timeline
from anoaudit.scoring.table import SCHEMA_VERSION, ScoreTable, schema

# JSON allows these inside a string, yet many line readers break lines at them: an NDJSON row must stay one line.
_LINE_BREAKS = {ord(c): f"\\u{ord(c):04x}" for c in "\x85\u2028\u2029"}


def document(table: ScoreTable, rows: int | None = None) -> dict[str, Any]:
    """The report as one object: all rows in input order, or with `rows` the n worst ones, the worst first."""
    kept = row_objects(table) if rows is None else _objects(table, table.top(max(0, rows)))
    return {**head(table), "rows": list(kept)}


def head(table: ScoreTable) -> dict[str, Any]:
    """The document without its rows."""
    found, known = timeline(table), known_anomalies(table)
    return {
        "schema_version": SCHEMA_VERSION,
        "summary": finite(table.summary.to_json()),
        "metrics": metrics(table),
        "known_anomalies": None if known is None else known.to_json(),
        "timeline": None if found is None else asdict(found),
    }


def frames(table: ScoreTable) -> Iterator[pl.DataFrame]:
    """All rows in input order, batch by batch, the table's columns only, numbers that are not finite as null."""
    for frame in table.batches():
        yield _clean(table, frame)


def row_objects(table: ScoreTable) -> Iterator[dict[str, Any]]:
    """All rows in input order, one plain object each."""
    for frame in frames(table):
        yield from frame.iter_rows(named=True)


def to_line(value: Any) -> str:
    """Strict JSON in one line, UTF-8 kept readable."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    return text if text.isascii() else text.translate(_LINE_BREAKS)


def finite(value: Any) -> Any:
    """The same value with None for every number that JSON has no word for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def _objects(table: ScoreTable, frame: pl.DataFrame) -> Iterator[dict[str, Any]]:
    yield from _clean(table, frame).iter_rows(named=True)


def _clean(table: ScoreTable, frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(list(schema(table.optional))).with_columns(
        pl.when(cs.float().is_finite()).then(cs.float()).name.keep()
    )
