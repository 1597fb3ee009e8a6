"""The worst items once more: their maps from the model and their pictures from the source, without scoring the rest."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import polars as pl

from anoaudit.data.items import Chunk, Dataset, ImageSpec, Picture
from anoaudit.errors import AuditError

if TYPE_CHECKING:
    from anoaudit.model.session import Session
    from anoaudit.scoring.table import ScoreTable

__all__ = ["Mapped", "Picture", "changed", "marked", "on_pictures", "pictures", "run_maps", "worst"]

BATCH = 32
AT_LEAST = 20

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Mapped:
    """One item's score and map (float32[h, w], in the detector's own units), or the reason why there is none."""

    id: str
    score: float | None = None
    map: npt.NDArray[np.float32] | None = None
    reason: str | None = None


@runtime_checkable
class Pictured(Protocol):
    """A dataset that can show its items in their own proportions."""

    def pictures(self, longest: int, only: Mask) -> Iterator[tuple[str, Picture | str]]:
        """Ids of the items that `only` (bool[N]) marks, each with its image or the reason why there is none."""
        ...


def worst(table: ScoreTable, n: int | None, at_least: int = AT_LEAST) -> pl.DataFrame:
    """The n most anomalous readable rows; without n all flagged ones, and at least the `at_least` worst."""
    return table.top(max(table.summary.flagged, at_least) if n is None else max(0, n))


def marked(dataset: Dataset, table: ScoreTable, ids: Collection[str]) -> Mask:
    """bool[N]: which of the dataset's items have one of these ids.

    A dataset that does not list its ids is taken to be in the table's order, in which it was scored. Raises AuditError when
    it then has another number of items.
    """
    wanted = set(ids)
    known = getattr(dataset, "ids", None)
    if known is None:
        if len(dataset) != table.summary.rows:
            raise AuditError(
                f"{dataset.source} has {len(dataset)} items, but {table.summary.rows} were scored",
                "--data names the data that was scored, unchanged",
            )
        known = table.lazy().select("id").collect()["id"].to_list()
    return np.array([item in wanted for item in known], dtype=bool)


def run_maps(dataset: Dataset, session: Session, spec: ImageSpec, only: Mask) -> Iterator[Mapped]:
    """The marked items through the model again, in the dataset's order, a batch at a time. Raises AuditError."""
    from anoaudit.model.session import batch_of  # not at the top: a report without maps needs no onnxruntime

    with _reading(dataset):
        for chunk in dataset.chunks(spec, batch_of(spec), only):
            scores, found = session.run(chunk.values) if len(chunk.values) else (np.empty(0, np.float32), None)
            maps = None if found is None else on_pictures(found, chunk, spec)
            place = iter(range(len(scores)))
            for item, reason in zip(chunk.ids, chunk.reasons, strict=True):
                if reason is not None:
                    yield Mapped(item, reason=reason)
                    continue
                i = next(place)
                if maps is None or not (np.isfinite(scores[i]) and np.isfinite(maps[i]).all()):
                    yield Mapped(item, reason="the model gives no finite map")
                else:
                    yield Mapped(item, float(scores[i]), maps[i])


def on_pictures(maps: npt.NDArray[np.float32], chunk: Chunk, spec: ImageSpec) -> list[npt.NDArray[np.float32]]:
    """Each readable item's map (of float32[R, h, w]) without what lies on the margin around its picture."""
    if chunk.sizes is None:
        return list(maps)
    return [spec.without_margin(values, *size) for values, size in zip(maps, chunk.sizes.tolist(), strict=True)]


def pictures(
    dataset: Dataset, only: Mask, longest: int, spec: ImageSpec | None = None
) -> Iterator[tuple[str, Picture | str]]:
    """The marked items' images for the eye, no side longer than `longest` pixels, each or the reason why there is none.

    A dataset that cannot show its items is decoded at the size of `spec`, or `longest` squared.
    """
    with _reading(dataset):
        if isinstance(dataset, Pictured):
            yield from dataset.pictures(longest, only)
            return
        size = spec or ImageSpec(longest, longest)
        for chunk in dataset.chunks(size, BATCH, only):
            values = iter(chunk.values)
            for item, reason in zip(chunk.ids, chunk.reasons, strict=True):
                yield item, Picture(next(values), size.width, size.height) if reason is None else reason


def changed(scores: Mapping[str, float], rows: pl.DataFrame) -> int:
    """How many of these scores differ from the table's by more than 1 %: the data is no longer what was scored."""
    then = dict(zip(rows["id"], rows["score"], strict=True))
    return sum(not np.isclose(now, then[item], rtol=1e-2, atol=1e-6) for item, now in scores.items() if item in then)


@contextmanager
def _reading(dataset: Dataset) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AuditError(
            f"{dataset.source} cannot be read: {error.strerror or error}", "check the files and the disk"
        ) from error
