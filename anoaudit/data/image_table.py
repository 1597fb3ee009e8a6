"""Tables of images: every row is one image item, its picture in a column, as bytes, as a path, or as Hugging Face's `Image`.

The other columns are no features; one may name the items, others may hold truth and labels.
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image

from anoaudit.data.decoding import FORMATS, UnreadableImageError, decode, decode_picture, read_image, read_picture
from anoaudit.data.images import pixels_of, sizes_of
from anoaudit.data.items import UNLABELLED, Chunk, ImageSpec, InputSpec, Kind, Picture
from anoaudit.data.rows import RawRows
from anoaudit.data.tables import TableFiles
from anoaudit.errors import UsageError, among

AHEAD = 2  # chunks that threads decode while the caller works
PROBED = 5  # values that are looked at to tell pictures from other bytes
READ = 64

Cell = bytes | Path | str  # the picture encoded, where it lies, or the reason why there is none
T = TypeVar("T")


class ImageTable:
    """The rows of Parquet, Arrow or CSV files as images."""

    kind: Kind = "images"
    timed = False

    def __init__(self, table: TableFiles, column: str) -> None:
        self._table, self.column = table, column
        self.source, self.name, self.ignored, self.files = table.source, table.name, table.ignored, table.files
        self.named = {"image": column, **table.named}  # what `report` needs to open it again

    def __len__(self) -> int:
        return len(self._table)

    def chunks(self, spec: InputSpec, size: int, only: npt.NDArray[np.bool_] | None = None) -> Iterator[Chunk]:
        """See Dataset. Threads decode up to two chunks ahead while the caller works on the last one."""
        assert isinstance(spec, ImageSpec)

        def pixels(cell: Cell) -> Picture | str:
            if isinstance(cell, bytes):
                return _tried(lambda: decode(cell, spec))
            return _tried(lambda: read_image(cell, spec)) if isinstance(cell, Path) else cell

        for part, results in self._decoded(size, only, pixels):
            good = [result for result in results if not isinstance(result, str)]
            yield Chunk(
                start=part.start,
                ids=part.ids,
                groups=[part.group] * len(part.ids),
                reasons=[result if isinstance(result, str) else None for result in results],
                values=pixels_of(good, spec),
                truth=part.truth,
                labels=part.labels,
                sizes=sizes_of(good),
            )
        if only is None:
            self._table.require_match()

    def pictures(self, longest: int, only: npt.NDArray[np.bool_]) -> Iterator[tuple[str, Picture | str]]:
        """Ids of the marked items, each with its image for the eye or the reason why there is none."""

        def picture(cell: Cell) -> Picture | str:
            if isinstance(cell, bytes):
                return _tried(lambda: decode_picture(cell, longest))
            return _tried(lambda: read_picture(cell, longest)) if isinstance(cell, Path) else cell

        for part, results in self._decoded(READ, only, picture):
            yield from zip(part.ids, results, strict=True)

    def label_notes(self) -> tuple[str, ...]:
        """See Dataset."""
        return self._table.label_notes()

    def outline(self) -> str:
        """See Dataset."""
        return self._table.outline()

    def fingerprint(self) -> str:
        """See Dataset. Of pictures that lie elsewhere, the paths alone."""
        return self._table.fingerprint()

    def _decoded(
        self, size: int, only: npt.NDArray[np.bool_] | None, decoder: Callable[[Cell], T]
    ) -> Iterator[tuple[_Part, list[T]]]:
        with ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 2), thread_name_prefix="decode") as pool:
            ahead: deque[tuple[_Part, list[Future[T]]]] = deque()
            try:
                for part in self._parts(size, only):
                    ahead.append((part, [pool.submit(decoder, cell) for cell in part.cells]))
                    if len(ahead) > AHEAD:
                        done, futures = ahead.popleft()
                        yield done, [future.result() for future in futures]
                while ahead:
                    done, futures = ahead.popleft()
                    yield done, [future.result() for future in futures]
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _parts(self, size: int, only: npt.NDArray[np.bool_] | None) -> Iterator[_Part]:
        wanted = [self.column, *self._table.not_features()]
        needed = [name for name in self._table.columns if name in wanted]
        for start, rows in self._table.raw(size, needed):
            mask = np.ones(len(rows.reasons), dtype=bool) if only is None else only[start : start + len(rows.reasons)]
            if mask.any():
                yield _Part(self._table, self.column, start, rows, mask)


class _Part:
    """Consecutive rows, those that are wanted."""

    def __init__(self, table: TableFiles, column: str, start: int, rows: RawRows, mask: npt.NDArray[np.bool_]) -> None:
        ids, self.group = table.ids_of(start, rows)
        frame = rows.frame.filter(pl.Series(mask))
        places = (start + np.flatnonzero(mask)).tolist()
        self.start = places[0]
        self.ids = [item for item, keep in zip(ids, mask, strict=True) if keep]
        broken = [reason for reason, keep in zip(rows.reasons, mask, strict=True) if keep]
        folder = rows.file.parent
        cells = frame[column].to_list()
        self.cells: list[Cell] = [reason or _cell(v, folder) for v, reason in zip(cells, broken, strict=True)]
        nothing = np.full(len(self.ids), UNLABELLED, dtype=np.int8)
        self.truth = table.truth.of(self.ids, frame, places) if table.truth else nothing
        self.labels = table.labels.of(self.ids, frame, places) if table.labels else nothing


def image_column(table: TableFiles, named: str | None) -> str | None:
    """The column that holds the pictures: the one named, else the only one whose values are images; None where there is none.

    Hugging Face's `Image` (a struct of `bytes` and `path`) and plain bytes are recognised; paths have to be named, as text
    may be anything. Raises UsageError for a name that there is not or that holds nothing of the kind, and for several columns.
    """
    if named is not None:
        if named not in table.columns:
            raise UsageError(
                f"there is no column {named!r} for --image-column", f"the columns are {among(table.columns, named)}"
            )
        kind = _head(table)[named].dtype
        if kind != pl.String and not _holds_bytes(kind):
            raise UsageError(
                f"--image-column {named}: the column holds {kind}",
                "it takes bytes, paths, or structs of bytes and path",
            )
        return named
    head = _head(table)
    found = [name for name in head.columns if _holds_bytes(head[name].dtype) and _pictured(head[name])]
    if len(found) > 1:
        raise UsageError(
            f"{table.source} has several columns of images: {', '.join(found)}", "choose one with --image-column"
        )
    return found[0] if found else None


def _head(table: TableFiles) -> pl.DataFrame:
    return next((rows.frame for _, rows in table.raw(READ)), pl.DataFrame({name: [] for name in table.columns}))


def _holds_bytes(kind: Any) -> bool:
    if isinstance(kind, pl.Struct):
        return {"bytes", "path"} <= {field.name for field in kind.fields}
    return bool(kind == pl.Binary)


def _pictured(column: pl.Series) -> bool:
    """Whether the first values are images (or, in a struct, are told by a path alone); one damaged one among them may be."""
    values = column.drop_nulls().head(PROBED).to_list()
    return any(isinstance(value, dict) and value["bytes"] is None and value["path"] for value in values) or any(
        _is_image(value["bytes"] if isinstance(value, dict) else value) for value in values
    )


def _is_image(data: bytes | None) -> bool:
    if not data:
        return False
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS):
            return True
    except Exception:  # Pillow's plugins raise nearly anything
        return False


def _cell(value: Any, folder: Path) -> Cell:
    """Paths are relative to the table's own folder."""
    if isinstance(value, dict):
        value = value["path"] if value["bytes"] is None else value["bytes"]
    if value is None or value == "" or value == b"":
        return "no image in this row"
    return folder / value if isinstance(value, str) else bytes(value)


def _tried(read: Callable[[], T]) -> T | str:
    try:
        return read()
    except UnreadableImageError as error:
        return str(error)
