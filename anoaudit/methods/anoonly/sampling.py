"""What is in a batch (METHODS §2): so many known anomalies, so many unlabelled, drawn again where there are too few."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Generator, Tensor


def in_turn(pool: Tensor, count: int, generator: Generator) -> Tensor:
    """`count` entries of the pool, int64: random orders of it one after the other, so that all come equally often.

    Of a pool smaller than `count` entries come more than once: that is the drawing with replacement.
    """
    rounds = math.ceil(count / len(pool))
    return torch.cat([pool[torch.randperm(len(pool), generator=generator)] for _ in range(rounds)])[:count]


def pools(labels_N: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of the known anomalies (labels 1) and of the unlabelled items (all others)."""
    known = labels_N == 1
    return torch.nonzero(known)[:, 0], torch.nonzero(~known)[:, 0]


class Composition:
    """A sampler: `steps` batches an epoch of `size`, however few the items are.

    Where memory ran out the loop asks for less than `size`, and less it is in proportion.
    """

    def __init__(self, labels_N: Tensor, steps: int, size: int) -> None:
        self.anomalies, self.unlabelled = pools(labels_N)
        self.steps, self._size, self._usual = steps, size, min(size, len(labels_N))

    def size(self, asked: int) -> int:
        """Of a batch, when the loop asks for so many."""
        return self._size if asked >= self._usual else self._size * asked // self._usual


class Halves(Composition):
    """As many unlabelled items as known anomalies, in this order."""

    def __call__(self, generator: Generator, asked: int) -> Iterator[Tensor]:
        """int64[size] each."""
        half = max(self.size(asked) // 2, 1)
        u, a = (in_turn(pool, self.steps * half, generator) for pool in (self.unlabelled, self.anomalies))
        yield from torch.cat([u.view(self.steps, half), a.view(self.steps, half)], dim=1)


class Pairs(Composition):
    """Pairs: a quarter of two known anomalies, a quarter of one and an unlabelled item, half of two unlabelled items.

    A batch is the left items, then the right ones in the same order.
    """

    def __call__(self, generator: Generator, asked: int) -> Iterator[Tensor]:
        """int64[2 · size] each: `size` pairs."""
        n = max(self.size(asked) // 4, 1)
        for _ in range(self.steps):
            a, u = in_turn(self.anomalies, 3 * n, generator), in_turn(self.unlabelled, 5 * n, generator)
            yield torch.cat([a[: 2 * n], u[: 2 * n], a[2 * n :], u[2 * n :]])


class Unlabelled(Composition):
    """Unlabelled items alone: what FEAWAD's autoencoder reconstructs."""

    def __call__(self, generator: Generator, asked: int) -> Iterator[Tensor]:
        """int64[size] each."""
        size = self.size(asked)
        yield from in_turn(self.unlabelled, self.steps * size, generator).view(self.steps, size)
