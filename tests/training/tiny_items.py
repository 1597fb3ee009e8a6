"""Batches, data sets and a trainer in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anoaudit.data.items import Chunk, ColumnRule, ImageSpec, TableSpec
from anoaudit.progress import Reporter
from anoaudit.training.checkpoint import Checkpoints
from anoaudit.training.items import Split, TrainingItems
from anoaudit.training.trainer import Trainer

CPU = torch.device("cpu")


class Rows:
    """Batches of vectors."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.labels = torch.full((len(x),), -1, dtype=torch.int8)

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        return self.x[indices], self.labels[indices]


class Notes(Reporter):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


class Memory:
    """A dataset of an array: float64[N, D] or uint8[N, H, W, 3]."""

    source, name, ignored, timed = "memory", "memory", 0, False

    def __init__(self, values: np.ndarray, broken: tuple[int, ...] = ()) -> None:
        self.values, self.broken = values, broken
        self.kind: Any = "images" if values.ndim == 4 else "table"

    def __len__(self) -> int:
        return len(self.values)

    def chunks(self, spec: Any, size: int, only: np.ndarray | None = None) -> Iterator[Chunk]:
        marked = np.arange(len(self)) if only is None else np.flatnonzero(only)
        for start in range(0, len(marked), size):
            part = marked[start : start + size]
            reasons = ["broken" if i in self.broken else None for i in part]
            good = part[[reason is None for reason in reasons]]
            unknown = np.full(len(part), -1, dtype=np.int8)
            yield Chunk(start, [str(i) for i in part], [None] * len(part), reasons, self.values[good], unknown, unknown)

    def label_notes(self) -> tuple[str, ...]:
        return ()

    def outline(self) -> str:
        return "o"

    def fingerprint(self) -> str:
        return "f"


def items_of(values: np.ndarray, labels: np.ndarray | None = None) -> TrainingItems:
    """All items are trained on."""
    n = len(values)
    labels = np.full(n, -1, dtype=np.int8) if labels is None else labels
    spec: Any = (
        ImageSpec(values.shape[1], values.shape[2])
        if values.ndim == 4
        else TableSpec(
            (
                *(ColumnRule(f"x{j}", "numeric") for j in range(values.shape[1] - 1)),
                ColumnRule("c", "categorical", ("a", "b")),
            )
        )
    )
    everything = np.ones(n, dtype=bool)
    return TrainingItems(Memory(values), spec, Split(everything, ~everything, labels, False), everything)


def trainer_in(
    folder: Path, seed: int = 0, contamination: float = 0.1, resume: bool = False, **settings: Any
) -> Trainer:
    checkpoints = Checkpoints(folder, {"seed": seed, **settings}, resume)
    return Trainer(CPU, seed, contamination, checkpoints, Notes())
