"""Bias-free perceptrons, one at a time and K at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def bias_free_mlp(sizes: Sequence[int], activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers without bias, an activation between them: a bias would let a one-class loss collapse to a constant."""
    layers: list[nn.Module] = []
    for i, (inner, outer) in enumerate(itertools.pairwise(sizes)):
        if i:
            layers.append(activation())
        layers.append(nn.Linear(inner, outer, bias=False))
    return nn.Sequential(*layers)


class ParallelMLP(nn.Module):
    """K bias-free perceptrons of the same shape side by side: x [B, D] → [B, K, D_out], as batched matrix products.

    With `norm`, each hidden unit of each perceptron is normalised over the batch, without scale and shift of its own.
    """

    def __init__(self, count: int, sizes: Sequence[int], norm: bool = False) -> None:
        super().__init__()
        self.weights = nn.ParameterList()
        for inner, outer in itertools.pairwise(sizes):
            bound = 1.0 / math.sqrt(inner)  # nn.Linear's own initialisation
            self.weights.append(nn.Parameter(torch.empty(count, inner, outer).uniform_(-bound, bound)))
        self.norms = nn.ModuleList(nn.BatchNorm1d(count * width, affine=False) for width in sizes[1:-1] if norm)

    def forward(self, x: Tensor) -> Tensor:
        """[B, D] → [B, K, D_out]."""
        h = torch.einsum("bd,kde->bke", x, self.weights[0])
        for i, weight in enumerate(list(self.weights)[1:]):
            if len(self.norms) > 0:
                h = self.norms[i](h.flatten(1)).view_as(h)
            h = torch.einsum("bkd,kde->bke", torch.relu(h), weight)
        return h
