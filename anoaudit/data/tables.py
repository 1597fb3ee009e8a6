"""Tables: every row of the Parquet or CSV files is one item; several files are one table, their names the groups."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from anoaudit.data.encoding import encode, infer_spec
from anoaudit.data.images import item_id
from anoaudit.data.items import UNLABELLED, Chunk, InputSpec, Kind, TableSpec
from anoaudit.data.labels import notes_of, open_labels
from anoaudit.data.rows import ARROW, RawRows, columns_of, read_rows
from anoaudit.errors import AuditError, UsageError, among

SCAN_ROWS = 50_000
HEAD_ROWS = 1_000  # of a table, that tell whether a whole column has become another type
SAMPLE_ROWS = 200_000  # rules and statistics come from a uniform sample of at most so many rows


@dataclass(frozen=True)
class ColumnOptions:
    """Which columns are features (`--columns`, `--exclude`), which one names the items, which one holds their pictures."""

    columns: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    id_column: str | None = None
    image_column: str | None = None  # of a table of images


class TableFiles:
    """One table in one or more files of the same columns."""

    kind: Kind = "table"
    timed = False

    def __init__(
        self,
        source: str,
        root: Path,
        files: Sequence[Path],
        options: ColumnOptions,
        truth: str | None = None,
        labels: str | None = None,
        ignored: int = 0,
    ) -> None:
        self.source, self.root, self.files = source, root, list(files)
        self.name = root.stem if root.is_file() else root.resolve().name
        self.ignored = ignored
        self.options = options
        self.columns = columns_of(self.files[0])
        self._check_columns()
        self.truth, self.labels = (
            open_labels(spec, self.columns, options.id_column) if spec else None for spec in (truth, labels)
        )
        self._rows: int | None = None

    def _check_columns(self) -> None:
        for file in self.files[1:]:
            other = columns_of(file)
            if set(other) != set(self.columns):
                odd = sorted(set(other) ^ set(self.columns))[0]
                raise AuditError(
                    f"{file} and {self.files[0]} differ in column {odd!r}", "audit files of the same columns together"
                )
        wanted = self.options.id_column
        if wanted is not None and wanted not in self.columns:
            raise UsageError(
                f"there is no column {wanted!r} for --id-column", f"the columns are {among(self.columns, wanted)}"
            )

    def __len__(self) -> int:
        if self._rows is None:
            self._rows = sum(len(rows.reasons) for _, rows in self.raw(SCAN_ROWS, columns=[]))
        return self._rows

    def infer(self, seed: int) -> TableSpec:
        """One pass over the data: the number of rows, the labels checked, the rules from a uniform sample."""
        rng = np.random.default_rng(seed)
        kept: list[tuple[npt.NDArray[np.float64], pl.DataFrame]] = []
        held = total = 0
        broken, first = 0, ""
        for start, rows in self.raw(SCAN_ROWS):
            reasons = [reason for reason in rows.reasons if reason is not None]
            broken, first = broken + len(reasons), first or next(iter(reasons), "")
            ids, _ = self.ids_of(start, rows)
            for given in (self.truth, self.labels):
                if given is not None:
                    given.of(ids, rows.frame, range(start, start + len(ids)))
            kept.append((rng.random(rows.frame.height), rows.frame))
            total += rows.frame.height
            held += rows.frame.height
            if held > 2 * SAMPLE_ROWS:
                kept = [_smallest(kept)]
                held = SAMPLE_ROWS
        self._rows = total
        if total < 2:  # every column of a single row is constant, which would be a strange thing to say
            text = self.files[0].suffix.lower() not in {".parquet", *ARROW}
            none = "has no rows, only a header line" if text else "has no rows"
            few = "has one row only, and nothing to compare it with"
            raise AuditError(f"{self.source} {few if total else none}", "give a table with at least 20 rows")
        if broken == total:
            raise AuditError(f"{self.source}: no row can be read: {first}", "mend the header line or the delimiters")
        self.require_match()
        _, sample = _smallest(kept)
        return infer_spec(
            sample, list(self.options.columns) or None, [*self.options.exclude, *self.not_features()], total
        )

    def require_match(self) -> None:
        """After a whole pass: raise UsageError when truth or labels from a file name not one item, or several by one id."""
        for given in (self.truth, self.labels):
            if given is not None:
                given.require_match()

    def label_notes(self) -> tuple[str, ...]:
        """See Dataset."""
        return notes_of(self.truth, self.labels)

    @property
    def named(self) -> dict[str, str]:
        """The column of ids, if there is one: what `report` needs to join a truth."""
        return {} if self.options.id_column is None else {"id": self.options.id_column}

    def not_features(self) -> list[str]:
        """The columns of ids, truth and labels. Raises UsageError when one of them is named as a feature."""
        named = [self.options.id_column] + [given.column for given in (self.truth, self.labels) if given is not None]
        wrong = [name for name in named if name is not None and name in self.options.columns]
        if wrong:
            raise UsageError(
                f"column {wrong[0]!r} is named as a feature and as id, truth or labels", "leave it out of --columns"
            )
        return [name for name in named if name is not None]

    def chunks(self, spec: InputSpec, size: int, only: npt.NDArray[np.bool_] | None = None) -> Iterator[Chunk]:
        """See Dataset."""
        assert isinstance(spec, TableSpec)
        names = {rule.name for rule in spec.columns}
        missing = [rule.name for rule in spec.columns if rule.name not in self.columns]
        if missing:
            raise AuditError(
                f"column {missing[0]!r} is missing; the model needs it",
                f"the data's columns are {among(self.columns, missing[0])}",
            )
        needed = [name for name in self.columns if name in names or name in self.not_features()]
        for _, head in self.raw(HEAD_ROWS, needed):
            encode(head.frame, spec)  # refuses a column whose every value is of the wrong type
            break
        for start, rows in self.raw(size, needed):
            mask = None if only is None else only[start : start + len(rows.reasons)]
            if mask is not None and not mask.any():
                continue
            yield self._chunk(start, rows, spec, mask)
        if only is None:
            self.require_match()

    def _chunk(self, start: int, rows: RawRows, spec: TableSpec, mask: npt.NDArray[np.bool_] | None) -> Chunk:
        ids, group = self.ids_of(start, rows)
        frame, broken = rows.frame, rows.reasons
        places = range(start, start + len(ids)) if mask is None else (start + np.flatnonzero(mask)).tolist()
        if mask is not None:
            frame = frame.filter(pl.Series(mask))
            ids = [item for item, keep in zip(ids, mask, strict=True) if keep]
            broken = [reason for reason, keep in zip(broken, mask, strict=True) if keep]
            start += int(np.argmax(mask))
        values, reasons = encode(frame, spec, refuse=False)
        reasons = [first or second for first, second in zip(broken, reasons, strict=True)]
        readable = np.array([reason is None for reason in reasons], dtype=bool)
        nothing = np.full(len(ids), UNLABELLED, dtype=np.int8)
        return Chunk(
            start=start,
            ids=ids,
            groups=[group] * len(ids),
            reasons=reasons,
            values=values[readable],
            truth=self.truth.of(ids, frame, places) if self.truth else nothing,
            labels=self.labels.of(ids, frame, places) if self.labels else nothing,
        )

    def ids_of(self, start: int, rows: RawRows) -> tuple[list[str], str | None]:
        """Ids of these rows: the id column, else the row number, behind the file's name where there are several."""
        several = len(self.files) > 1
        file = item_id(rows.file, self.root if several and self.root.is_dir() else rows.file)
        first = rows.start if several else start
        prefix = f"{file}#" if several else ""
        numbers = [f"{prefix}{first + i}" for i in range(len(rows.reasons))]
        if self.options.id_column is not None:
            column = rows.frame[self.options.id_column]
            try:
                named = column.cast(pl.String).to_list()
            except pl.exceptions.PolarsError:
                raise UsageError(
                    f"--id-column {column.name!r} holds {column.dtype}, which are no ids", "name another"
                ) from None
            numbers = [name if name is not None else f"#{n}" for name, n in zip(named, numbers, strict=True)]
        return numbers, file if several else None

    def raw(self, size: int, columns: Sequence[str] | None = None) -> Iterator[tuple[int, RawRows]]:
        """All rows in order, each part with the number of its first row over all files; all columns, or those named."""
        start = 0
        order = self.columns if columns is None else columns
        for file in self.files:
            for rows in read_rows(file, size, columns):
                if order:  # files may hold the same columns in another order
                    rows = replace(rows, frame=pl.DataFrame({name: rows.frame[name] for name in order}))
                yield start, rows
                start += len(rows.reasons)

    def outline(self) -> str:
        """See Dataset."""
        parts = [f"{item_id(file, file)}\0{file.stat().st_size}" for file in self.files]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def fingerprint(self) -> str:
        """See Dataset."""
        digest = hashlib.sha256()
        for path in self.files:
            with path.open("rb") as file:
                digest.update(os.fsencode(path.name) + b"\0" + hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()


def _smallest(kept: list[tuple[npt.NDArray[np.float64], pl.DataFrame]]) -> tuple[npt.NDArray[np.float64], pl.DataFrame]:
    """The rows with the smallest random keys, in row order: a uniform sample in one pass."""
    keys = np.concatenate([key for key, _ in kept])
    try:
        frame = pl.concat([frame for _, frame in kept], how="vertical_relaxed")
    except pl.exceptions.PolarsError as error:
        raise AuditError(
            f"the files' columns differ in type: {str(error).splitlines()[0]}", "make them alike"
        ) from error
    if len(keys) <= SAMPLE_ROWS:
        return keys, frame
    best = np.sort(np.argpartition(keys, SAMPLE_ROWS)[:SAMPLE_ROWS])
    return keys[best], frame[best]
