"""An isolation forest as LOE's detector: L_n is Liu, Ting & Zhou's score (ICDM 2008), the M-step grows all trees anew.

All trees are heaps of the same depth, so that scoring is a fixed number of gathers, in torch as in the exported graph.
"""

from __future__ import annotations

from math import ceil, log2

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from anoaudit.methods.loe.alternate import Head
from anoaudit.training.loop import Batches

TREES, SAMPLE, DEPTH = 100, 256, 8  # as published: trees, rows a tree grows on, log₂ of these
TRIES = 10

Floats = npt.NDArray[np.float64]


def mean_path(n: npt.NDArray[np.int64] | int) -> Floats:
    """c(n) [paper, eq. 1]: mean path of an unsuccessful search among n rows, 2H(n−1) − 2(n−1)/n."""
    size = np.maximum(np.atleast_1d(np.asarray(n, dtype=np.float64)), 1.0)
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, SAMPLE + 1))])
    path: Floats = 2 * harmonic[(size - 1).astype(int)] - 2 * (size - 1) / size
    return path


class IsolationForest(Head):
    """Score 2^(−E[path] / c(rows a tree grew on)), between 0 and 1."""

    feature: Tensor
    threshold: Tensor
    path: Tensor
    batch = 4096

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        inner, leaves = 2**DEPTH - 1, 2**DEPTH
        self.register_buffer("feature", torch.zeros(TREES * inner, dtype=torch.int64))
        self.register_buffer("threshold", torch.full((TREES * inner,), torch.inf))
        self.register_buffer("path", torch.zeros(TREES * leaves))  # over c, so that the mean's power of ½ is the score
        self.register_buffer("root", torch.arange(TREES)[None])

    def score(self, x_BD: Tensor) -> Tensor:
        """score_B."""
        root_1T = self.get_buffer("root")
        inner, leaves = 2**DEPTH - 1, 2**DEPTH
        node_BT = torch.zeros_like(x_BD[:, :1], dtype=torch.int64) + torch.zeros_like(root_1T)
        for _ in range(DEPTH):
            at_BT = node_BT + root_1T * inner
            value_BT = torch.gather(x_BD, 1, self.feature[at_BT])
            node_BT = 2 * node_BT + 1 + (value_BT >= self.threshold[at_BT]).long()
        return torch.exp2(-self.path[node_BT - inner + root_1T * leaves].mean(1))

    def m_step(self, data: Batches, weights_N: Tensor, device: torch.device) -> None:
        """Each tree draws its rows with the weights' odds, without replacement."""
        rng = np.random.default_rng(self.seed)
        odds_N = weights_N.double().numpy()
        able = int((odds_N > 0).sum())
        size = min(SAMPLE, able)
        drawn_TS = np.stack(
            [rng.choice(len(odds_N), size, replace=False, p=odds_N / odds_N.sum()) for _ in range(TREES)]
        )
        rows = np.unique(drawn_TS)
        x_RD = data.batch(torch.from_numpy(rows), device)[0].cpu().numpy()
        feature, threshold, path = _grow(x_RD[np.searchsorted(rows, drawn_TS)], rng)
        self.feature.copy_(torch.from_numpy(feature.ravel()))
        self.threshold.copy_(torch.from_numpy(threshold.ravel()))
        self.path.copy_(torch.from_numpy(path.ravel() / max(float(mean_path(size)[0]), 1.0)))


def _grow(
    x_TSD: npt.NDArray[np.float32], rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], Floats]:
    """All trees level by level: feature [T, 2^DEPTH − 1], threshold (same), path length of the leaves [T, 2^DEPTH].

    A node that is not split sends everything left, down to the leaf that has the path length of where it stopped.
    """
    trees, size, width = x_TSD.shape
    limit = min(DEPTH, ceil(log2(max(size, 2))))
    x = x_TSD.reshape(trees * size, width)
    tree = np.repeat(np.arange(trees), size)
    node = np.zeros(trees * size, dtype=np.int64)  # within the level
    feature = np.zeros((trees, 2**DEPTH - 1), dtype=np.int64)
    threshold = np.full((trees, 2**DEPTH - 1), np.inf, dtype=np.float32)
    stopped = np.full((trees, 1), np.nan)  # the path length where a node's branch has stopped
    for level in range(DEPTH):
        nodes = 2**level
        key = tree * nodes + node
        order = np.argsort(key, kind="stable")
        owner, starts = np.unique(key[order], return_index=True)
        counts = np.diff(np.append(starts, len(order)))
        chosen, low, high = _draw(x, order, starts, counts, rng)
        t, n = owner // nodes, owner % nodes
        split = (high > low) & (level < limit) & np.isnan(stopped[t, n])
        cut = (low + rng.random(len(owner)) * (high.astype(np.float64) - low)).astype(np.float32)
        cut = np.minimum(np.maximum(cut, np.nextafter(low, high)), high)  # neither side is empty after rounding
        feature[t[split], nodes - 1 + n[split]] = chosen[split]
        threshold[t[split], nodes - 1 + n[split]] = cut[split]
        ends = ~split & np.isnan(stopped[t, n])
        stopped[t[ends], n[ends]] = level + mean_path(counts[ends])
        stopped = np.repeat(stopped, 2, axis=1)  # an unsplit node's rows go left and take its length with them
        bar = threshold[tree, nodes - 1 + node]
        value = x[np.arange(len(x)), feature[tree, nodes - 1 + node]]
        node = 2 * node + (value >= bar)
    counts = np.zeros((trees, 2**DEPTH), dtype=np.int64)
    np.add.at(counts, (tree, node), 1)
    path = np.where(np.isnan(stopped), DEPTH + mean_path(counts.ravel()).reshape(counts.shape), stopped)
    return feature, threshold, path


def _draw(
    x: npt.NDArray[np.float32],
    order: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """A random column that varies within each node, and its ends there; equal ends where none varies.

    Columns are drawn until one varies, so that a table of thousands of columns is not gone through; what has had no luck in
    TRIES draws is.
    """
    chosen = np.zeros(len(starts), dtype=np.int64)
    low, high = np.zeros(len(starts), dtype=np.float32), np.zeros(len(starts), dtype=np.float32)
    ends = starts + counts
    pending = np.flatnonzero(counts > 1)
    for _ in range(TRIES):
        if len(pending) == 0:
            return chosen, low, high
        column = rng.integers(0, x.shape[1], len(pending))
        size = counts[pending]
        first = np.concatenate([[0], np.cumsum(size)[:-1]])
        rows = order[np.repeat(starts[pending] - first, size) + np.arange(size.sum())]
        values = x[rows, np.repeat(column, size)]
        chosen[pending] = column
        low[pending], high[pending] = np.minimum.reduceat(values, first), np.maximum.reduceat(values, first)
        pending = pending[high[pending] <= low[pending]]
    for k in pending:
        part = x[order[starts[k] : ends[k]]]
        varying = np.flatnonzero(part.max(0) > part.min(0))
        if len(varying):
            chosen[k] = rng.choice(varying)
            low[k], high[k] = part[:, chosen[k]].min(), part[:, chosen[k]].max()
    return chosen, low, high
