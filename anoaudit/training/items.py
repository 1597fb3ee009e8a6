"""The items a method trains on: a random part of the dataset's readable items, the rest kept out for calibration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anoaudit.data.items import UNLABELLED, Chunk, Dataset, InputSpec
from anoaudit.errors import AuditError, UsageError

MIN_ITEMS = 20
MIN_HELD_OUT, MAX_HELD_OUT, HELD_OUT_SHARE = 50, 5_000, 0.2
MAX_TRAINING = {"table": 200_000, "images": 50_000}


@dataclass(frozen=True)
class Split:
    """Which items are trained on and which are kept out (bool[N] each, over all items of the dataset)."""

    train: npt.NDArray[np.bool_]
    held_out: npt.NDArray[np.bool_]
    labels: npt.NDArray[np.int8]  # of all items, -1 unknown
    clean: bool  # the held-out items are known normals


def split_items(
    readable: npt.NDArray[np.bool_],
    labels: npt.NDArray[np.int8],
    kind: str,
    seed: int,
    only_normal: bool,
    few_shot: bool = False,
) -> Split:
    """Keep 20 % of the items out (50 to 5,000, at most half; of known normals at most a third), train on the others.

    Of fewer than 50 items none are kept out unless they are known normals.

    With enough known normals (labels 0) the kept-out items are drawn from them alone: then p-values are exact. Else known
    anomalies (labels 1) stay out of them, for they have no place in a null. With `only_normal` training sees known normals
    only. Raises AuditError under 20 items, UsageError without normals.

    `few_shot`: one item is enough, known anomalies are never trained on, and nothing is kept out where 50 would be more than a
    third.
    """
    rng = np.random.default_rng(seed)
    least = 1 if few_shot else MIN_ITEMS
    if few_shot:
        readable = readable & (labels != 1)
    n = int(readable.sum())
    if n < least:
        count = "1 readable item is" if n == 1 else f"{n} readable items are"
        raise AuditError(f"{count} too few to fit a detector", f"give at least {least}")
    normal = readable & (labels == 0)
    if only_normal and normal.sum() < least:
        raise UsageError(
            f"--train-on normal: {int(normal.sum())} items are labelled 0 (normal)",
            f"label at least {least} normals with --labels",
        )
    usable = normal if only_normal else readable
    if few_shot and usable.sum() < 3 * MIN_HELD_OUT:
        return Split(usable, np.zeros_like(usable), labels, only_normal)
    clean = only_normal or int(normal.sum()) >= 3 * MIN_HELD_OUT
    pool = np.flatnonzero(normal if clean else readable & (labels != 1))
    # Of so few there is no null to be had, nor where nearly all are known anomalies.
    if len(pool) < MIN_ITEMS or (not clean and n < MIN_HELD_OUT):
        pool = pool[:0]
    # With fitted nulls the kept-out items come back for the final fit, so that half of a small set may be kept out.
    most = len(pool) // 3 if clean else len(pool) // 2
    size = min(max(round(HELD_OUT_SHARE * len(pool)), MIN_HELD_OUT), MAX_HELD_OUT, most)
    held_out = np.zeros(len(readable), dtype=bool)
    held_out[rng.choice(pool, size, replace=False)] = True
    train = (normal if only_normal else readable) & ~held_out
    return Split(some_of(train, labels, MAX_TRAINING[kind], rng), held_out, labels, clean)


def some_of(
    mask: npt.NDArray[np.bool_], labels: npt.NDArray[np.int8], most: int, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """At most so many of the marked items, at random; known anomalies, which are few, stay where there is room for them."""
    if mask.sum() <= most:
        return mask
    order = rng.permutation(np.flatnonzero(mask))
    first = order[np.argsort(labels[order] != 1, kind="stable")]
    kept = np.zeros_like(mask)
    kept[first[:most]] = True
    return kept


@dataclass(frozen=True)
class TrainingItems:
    """What a method's `fit` gets: the items to train on, streamed as often as wanted, and their labels.

    Where the kept-out items are known normals they stay out for good (`kept_out` is all false): their p-values are exact. Else
    they are among the items: a first fit without `kept_out` gives out-of-sample scores for the null, the final one takes all,
    because items that were trained on and items that were not cannot be ranked together (measured: kept-out normals outrank
    trained anomalies on small folders). Column rules and the features' scales come from all items in both fits (our choice).
    """

    dataset: Dataset
    spec: InputSpec
    split: Split
    mask: npt.NDArray[np.bool_]  # bool over the dataset: which items these are

    def __len__(self) -> int:
        return int(self.mask.sum())

    @property
    def labels(self) -> npt.NDArray[np.int8]:
        """int8[N] of the items in order, -1 unknown."""
        return self.split.labels[self.mask]

    @property
    def kept_out(self) -> npt.NDArray[np.bool_]:
        """bool[N] of the items in order: those that the first fit must not see."""
        return self.split.held_out[self.mask]

    def chunks(self, size: int) -> Iterator[Chunk]:
        """Training items, in dataset order. Items that became unreadable since raise AuditError."""
        for chunk in self.dataset.chunks(self.spec, size, self.mask):
            lost = next((reason for reason in chunk.reasons if reason is not None), None)
            if lost is not None:
                raise AuditError(f"{self.dataset.source} changed while it was being read ({lost})", "run fit again")
            yield chunk

    def values(self, size: int = 50_000) -> npt.NDArray[np.float64]:
        """All training rows of a table, float64[N, D]."""
        return np.concatenate([chunk.values for chunk in self.chunks(size)])


def training_items(dataset: Dataset, spec: InputSpec, split: Split) -> TrainingItems:
    """The items of a split that a method trains on."""
    return TrainingItems(dataset, spec, split, split.train if split.clean else split.train | split.held_out)


def survey(
    dataset: Dataset, spec: InputSpec
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int8], list[tuple[str, str]]]:
    """One pass: which items are readable, their labels, and (id, reason) of the unreadable ones."""
    n = len(dataset)
    readable, labels = np.zeros(n, dtype=bool), np.full(n, UNLABELLED, dtype=np.int8)
    unreadable: list[tuple[str, str]] = []
    position = 0
    for chunk in dataset.chunks(spec, 4096 if dataset.kind == "table" else 64):
        part = slice(position, position + len(chunk))
        readable[part], labels[part] = chunk.readable, chunk.labels
        unreadable += [
            (item, reason) for item, reason in zip(chunk.ids, chunk.reasons, strict=True) if reason is not None
        ]
        position += len(chunk)
    return readable, labels, unreadable
