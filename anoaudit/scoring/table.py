"""The score table: one row per input item, defined once, the same in every format.

It lives in a Parquet file (so that two million rows need no memory) whose key-value metadata carries the summary. Scoring
writes it, reports read it, and nothing else defines its columns.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from anoaudit.errors import AuditError

SCHEMA_VERSION = 1
METADATA_KEY = b"anoaudit"

#: Every score table has these columns in this order; those of OPTIONAL follow where there is such a thing.
COLUMNS: dict[str, Any] = {
    "id": pl.String,
    "status": pl.String,  # "ok" or "unreadable"
    "reason": pl.String,  # why it is unreadable, else null
    "score": pl.Float64,  # higher is more anomalous; null when unreadable
    "p_value": pl.Float64,  # tail probability under the normal reference; null when there is none
    "flagged": pl.Boolean,  # the decision
    "rank": pl.UInt32,  # 1 is the most anomalous; null when unreadable
    "group": pl.String,  # sub-folder or file, null at the top level
    "why": pl.String,  # the columns or the place that deviate most
}
OPTIONAL: dict[str, Any] = {
    "time": pl.Float64,  # seconds from the start of the item's group; null where there is none
    "label": pl.Int8,  # of an audit, what training was told: 1, 0 or null
    "truth": pl.Int8,  # for evaluation: 1, 0 or null
}
READABLE, UNREADABLE = "ok", "unreadable"


def schema(optional: Collection[str] = ()) -> dict[str, Any]:
    """Columns and polars types of a score table with those of OPTIONAL that are named (other names do not matter)."""
    return {**COLUMNS, **{name: dtype for name, dtype in OPTIONAL.items() if name in optional}}


@dataclass(frozen=True)
class Summary:
    """What was scored, by what, and by which rule it was decided: the `summary` of every report."""

    source: str = ""
    fingerprint: str = ""
    kind: str = ""  # "images" or "table"
    rows: int = 0
    readable: int = 0
    unreadable: int = 0
    ignored: int = 0  # files of other kinds beside the data, not items
    flagged: int = 0
    rule: str = "unknown"  # as shown to the reader, e.g. "Benjamini-Hochberg, estimated FDR 0.1"
    threshold: float | None = None  # the smallest flagged score, or the given one
    calibration: dict[str, Any] = field(default_factory=dict)  # at least {"kind": ...} when known
    model: dict[str, Any] = field(default_factory=dict)  # name, method, hash
    columns: dict[str, Any] = field(default_factory=dict)  # of a table: which is `id`, which `image`
    provider: str = ""  # onnxruntime's execution provider that really ran
    contamination: dict[str, Any] = field(
        default_factory=dict
    )  # of an audit: assumed share, how estimated, how it matters
    command: dict[str, Any] = field(default_factory=dict)  # what made it: `verb`, and `options` other than the defaults
    notes: tuple[str, ...] = ()  # one line each: what the reader should know before trusting the numbers

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "notes": list(self.notes)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Summary:
        """The inverse of `to_json`; unknown keys of a newer version are ignored.

        Raises ValueError, TypeError or AttributeError when malformed.
        """
        if not isinstance(values, dict):
            raise TypeError("the summary is not an object")
        kept: dict[str, Any] = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        plain = cls().to_json()
        for name, value in kept.items():
            if name == "threshold":
                good = value is None or (type(value) in (int, float) and math.isfinite(value))
            elif name == "notes":
                good = isinstance(value, list | tuple) and all(isinstance(note, str) for note in value)
            else:
                good = type(value) is type(plain[name])
            if not good:
                raise ValueError(f"{name} is {value!r}")
        return cls(**{**kept, "notes": tuple(kept.get("notes", ()))})


@dataclass(frozen=True)
class ScoreTable:
    """A finished score table on disk. `path` is a Parquet file with the columns above."""

    path: Path
    summary: Summary
    optional: frozenset[str] = frozenset()

    @property
    def has_truth(self) -> bool:
        """Whether a truth is known of any item."""
        return "truth" in self.optional

    @property
    def has_time(self) -> bool:
        """Whether items have a time."""
        return "time" in self.optional

    @property
    def has_labels(self) -> bool:
        """Whether training was given labels."""
        return "label" in self.optional

    @classmethod
    def open(cls, path: Path) -> ScoreTable:
        """Open a score table written by `ScoreTableWriter`. Raises AuditError when it is not one."""
        try:
            footer = pq.read_metadata(path)  # key-values added at the end are in the file's metadata, not the schema's
            names = footer.schema.to_arrow_schema().names
        except (OSError, pa.ArrowException) as error:
            raise AuditError(
                f"{path} is not a readable Parquet file", "give the score table that fit or score wrote"
            ) from error
        missing = [name for name in COLUMNS if name not in names]
        if missing:
            raise AuditError(
                f"{path} is not a score table: it has no column {missing[0]!r}",
                "give the file that `anoaudit score -o` wrote",
            )
        try:
            meta = json.loads((footer.metadata or {}).get(METADATA_KEY, b"{}"))
            summary = Summary.from_json(meta.get("summary", {}))
        except (ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise AuditError(f"{path}: the score table's metadata is damaged", "score the data again") from error
        return cls(path, summary, frozenset(OPTIONAL.keys() & set(names)))

    def lazy(self) -> pl.LazyFrame:
        """All rows in input order."""
        return pl.scan_parquet(self.path, glob=False)

    def batches(self, size: int = 50_000) -> Iterator[pl.DataFrame]:
        """Rows in input order, at most `size` at a time. Raises AuditError on a damaged file."""
        try:
            with pq.ParquetFile(self.path) as file:
                for batch in file.iter_batches(batch_size=size):
                    yield pl.DataFrame(pl.from_arrow(batch))
        except (OSError, pa.ArrowException) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
            raise AuditError(f"{self.path} cannot be read: {reason}", "score the data again") from error

    def top(self, n: int) -> pl.DataFrame:
        """The n most anomalous readable rows, the worst first (by score where ranks were streamed away)."""
        return (
            self.lazy()
            .filter(pl.col("status") == READABLE)
            .sort("score", descending=True, maintain_order=True)
            .head(n)
            .collect()
        )


class ScoreTableWriter:
    """Writes a score table batch by batch; the summary may come last (Parquet keeps it in the footer)."""

    def __init__(self, path: Path, optional: Collection[str] = ()) -> None:
        self.path = path
        self.optional = frozenset(OPTIONAL.keys() & set(optional))
        self._schema = pl.DataFrame(schema=schema(self.optional)).to_arrow().schema
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")

    def write(self, frame: pl.DataFrame) -> None:
        """Append rows; columns are put in order and cast."""
        typed = frame.select([pl.col(name).cast(dtype) for name, dtype in schema(self.optional).items()])
        self._writer.write_table(typed.to_arrow().cast(self._schema))

    def close(self, summary: Summary) -> ScoreTable:
        """Write the summary and finish the file."""
        document = {"schema_version": SCHEMA_VERSION, "summary": summary.to_json()}
        self._writer.add_key_value_metadata({METADATA_KEY: json.dumps(document).encode()})
        self._writer.close()
        return ScoreTable(self.path, summary, self.optional)

    def abandon(self) -> None:
        """Close without a summary and remove the file; for a second time, or on a full disk, without complaint."""
        with contextlib.suppress(OSError, pa.ArrowException):
            self._writer.close()
        self.path.unlink(missing_ok=True)
