"""The names of the report formats and the file suffixes that mean them. Imports nothing, which keeps `--help` quick."""

from __future__ import annotations

from pathlib import PurePath

#: Every format `writers.write` knows, the terminal's own first.
FORMATS: tuple[str, ...] = ("table", "json", "ndjson", "csv", "parquet", "markdown")

_SUFFIXES = {
    ".json": "json",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".csv": "csv",
    ".parquet": "parquet",
    ".md": "markdown",
    ".markdown": "markdown",
    ".txt": "table",
}


def format_for(path: str | PurePath) -> str | None:
    """The format a file name asks for by its suffix, None when the suffix says nothing."""
    return _SUFFIXES.get(PurePath(path).suffix.lower())
