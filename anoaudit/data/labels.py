"""Truth (for evaluation) and labels (supervision): the same values from a column or a file, joined on the item's id.

1 is an anomaly, 0 is normal, null is unknown. `true` and `false` are read as 1 and 0. Anything else is refused, because
a misread label is worse than none.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from anoaudit.data.items import UNLABELLED
from anoaudit.data.rows import NULL_TOKENS, columns_of, read_rows
from anoaudit.errors import AuditError, UsageError, among

VALUES = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
READ_ROWS = 50_000
ID_COLUMNS, LABEL_COLUMNS = ("id", "path"), ("label", "anomaly")


def parse(values: pl.Series, where: str) -> npt.NDArray[np.int8]:
    """int8[N] of 1, 0 and -1 (null). `where` names the column in the error. Raises UsageError on any other value."""
    try:
        text = values.cast(pl.String).str.strip_chars()
    except pl.exceptions.PolarsError:
        raise UsageError(
            f"{where} holds {values.dtype}; labels are 1 (anomaly), 0 (normal) or empty", "name another"
        ) from None
    text = text.set(text.is_in(NULL_TOKENS), None).str.to_lowercase()
    distinct = text.drop_nulls().unique().to_list()
    bad = sorted(value for value in distinct if value not in VALUES)
    if bad:
        raise UsageError(
            f"{where} holds {bad[0]!r}; labels are 1 (anomaly), 0 (normal) or empty",
            "write labels as 0/1 or true/false; name another column with FILE:COLUMN",
        )
    return text.replace_strict(VALUES, default=UNLABELLED, return_dtype=pl.Int8).fill_null(UNLABELLED).to_numpy()


class Labels:
    """Labels of one source. Exactly one of `column` (a column of the data) and `by_id` (a file's rows) is set."""

    def __init__(self, spec: str, column: str | None = None, by_id: dict[str, int] | None = None) -> None:
        self.spec = spec
        self.column = column
        self.by_id = by_id or {}
        self._used: set[str] = set()
        self._places: dict[str, int] = {}  # where the data has them
        self._twice: dict[str, None] = {}  # those that it has at several places, in the order of their finding
        self._example = ""  # an id of the data

    def of(
        self, ids: Sequence[str], frame: pl.DataFrame | None = None, places: Iterable[int] = ()
    ) -> npt.NDArray[np.int8]:
        """int8[B] for these items; `frame` holds the rows when the labels are a column.

        `places` are the items' numbers in the data, where ids may come twice.
        """
        if self.column is not None:
            assert frame is not None
            return parse(frame[self.column], f"column {self.column!r}")
        found = [self.by_id.get(item, UNLABELLED) for item in ids]
        self._used.update(item for item in ids if item in self.by_id)
        for item, place in zip(ids, places, strict=False):
            if self.by_id.get(item, UNLABELLED) != UNLABELLED and self._places.setdefault(item, place) != place:
                self._twice[item] = None
        self._example = self._example or next(iter(ids), "")
        return np.array(found, dtype=np.int8)

    def require_match(self) -> None:
        """After a whole pass over the data: raise UsageError when not one id was found, or one is that of several rows."""
        if self._twice:
            n = len(self._twice)
            name = f"1 id in {self.spec} names" if n == 1 else f"{n:,} ids in {self.spec} each name"
            raise UsageError(
                f"{name} several rows of the data (the first is {next(iter(self._twice))!r})",
                "name a column that differs from row to row with --id-column, or label by row number",
            )
        if self.column is None and not self._used:
            first = next(iter(self.by_id), "")
            raise UsageError(
                f"none of the {len(self.by_id)} ids in {self.spec} is in the data (the first is {first!r}, "
                f"the data's {self._example!r})",
                "ids are paths relative to DATA (clip.mp4#000123 for a frame), values of --id-column, or row numbers from 0",
            )

    def note(self) -> str:
        """After a whole pass over the data: what to tell of a file's ids that are not in it, empty where all are."""
        missing = [item for item in self.by_id if item not in self._used]
        if not missing:
            return ""
        is_are = "is" if len(missing) == 1 else "are"
        return f"{len(missing)} of the {len(self.by_id)} ids in {self.spec} {is_are} not in the data (the first is {missing[0]!r})"

    def attach(self, root: Path, ids: Sequence[str]) -> None:
        """Join a file's rows with all items of DATA. Raises UsageError as `require_match` does."""
        self.translate(root, set(ids))
        self.of(ids, places=range(len(ids)))
        self.require_match()

    def translate(self, root: Path, ids: Iterable[str]) -> None:
        """Read the file's paths as relative to the file's own folder where they match nothing relative to DATA."""
        if self.column is not None or any(item in self.by_id for item in ids):
            return
        folder = split_spec(self.spec)[0].resolve().parent
        root = root.parent if root.is_file() else root
        moved = {os.path.relpath(folder / key, root.resolve()).replace(os.sep, "/"): v for key, v in self.by_id.items()}
        if any(item in moved for item in ids):
            self.by_id = moved


def notes_of(*given: Labels | None) -> tuple[str, ...]:
    """After a whole pass: the notes of truth and labels."""
    return tuple(dict.fromkeys(note for labels in given if labels is not None and (note := labels.note())))


def open_labels(spec: str, columns: Sequence[str] = (), id_column: str | None = None) -> Labels:
    """`COLUMN` or `FILE[:COLUMN]`; a column of the data wins over a file of that name. Raises UsageError.

    A file's ids are in its column `id_column`, as the data calls them, else in `id` or `path`.
    """
    if spec in columns:
        return Labels(spec, column=spec)
    path, column = split_spec(spec)
    if not path.is_file():
        known = f"the data's columns are {among(columns, spec)}" if columns else "give a CSV or Parquet file"
        raise UsageError(f"{spec!r} is neither a column of the data nor a file", known)
    frame = _read(path)
    keys = [*filter(None, [id_column]), *ID_COLUMNS]
    key = next((name for name in keys if name in frame.columns), None)
    if key is None:
        known = " or ".join(map(repr, dict.fromkeys(keys)))
        shared = next(
            (name for name in frame.columns if name in columns and name not in (*LABEL_COLUMNS, column)), None
        )
        hint = f"; if {shared!r} names the rows, give --id-column {shared}" if shared and id_column is None else ""
        raise UsageError(f"{path} has no column {known} to join on", f"its columns are {among(frame.columns)}{hint}")
    name = column or next((name for name in LABEL_COLUMNS if name in frame.columns), None)
    if name is None or name not in frame.columns:
        raise UsageError(
            f"{path} has no column {column or 'label'!r}",
            f"its columns are {among(frame.columns)}; give {path}:COLUMN",
        )
    values = parse(frame[name], f"{path}, column {name!r}")
    by_id: dict[str, int] = {}
    for item, value in zip(_as_ids(frame[key], path), values.tolist(), strict=True):
        if item is None:
            raise UsageError(f"{path} has a row without {key!r}", "every label needs the id of its item")
        if by_id.setdefault(item, value) != value:
            raise UsageError(f"{path} labels {item!r} twice, differently", "keep one label an item")
    return Labels(spec, by_id=by_id)


def split_spec(spec: str) -> tuple[Path, str | None]:
    """`FILE:COLUMN` → (file, column); a file whose own name has a colon is tried first."""
    if Path(spec).is_file() or ":" not in spec:
        return Path(spec), None
    file, _, column = spec.rpartition(":")
    return Path(file), column


def _read(path: Path) -> pl.DataFrame:
    """A labels file, read by the same rules as data."""
    try:
        names = columns_of(path)
        parts = list(read_rows(path, READ_ROWS))
    except AuditError as error:
        raise UsageError(f"cannot read labels: {error.message}", "give CSV or Parquet") from error
    for part in parts:
        for i, reason in enumerate(part.reasons):
            if reason is not None:
                raise UsageError(f"{path}, row {part.start + i} (from 0): {reason}", "mend the labels file")
    if not parts:
        return pl.DataFrame({name: [] for name in names}, schema=dict.fromkeys(names, pl.String))
    return pl.concat([part.frame for part in parts])


def _as_ids(values: pl.Series, path: Path) -> list[str | None]:
    try:
        return values.cast(pl.String).to_list()
    except pl.exceptions.PolarsError:
        raise UsageError(
            f"{path}: column {values.name!r} holds {values.dtype}, which are no ids", "give text or numbers"
        ) from None
