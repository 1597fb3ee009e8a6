"""Several unlike detectors, each refitted without what it flags, and the mean of their standardised scores (our choice).

No single shallow detector is good on most tables (a Gaussian sees broken correlations, a forest extreme values, near
neighbours what lies apart from every group), and which one is good cannot be known without labels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from anoaudit.methods.loe.alternate import Head

BULK = 0.7  # the scores' median and this quantile standardise them: anomalies beyond keep their distance
LEAK = 0.2  # that one member finds an item most normal must not hide what another sees
LARGEST = 30.0  # beyond it a score grows with z, no longer with exp(z), which would overflow
FLOOR = 0.01  # of that quantile: duplicated rows have distance 0, whose logarithm would be infinite
SMALLEST = 0.01  # where the bulk is one value its spread is zero


class Ensemble(nn.Module):
    """Score: the geometric mean of the members' scores, each a power of its ratio to the median.

    exp(z) with z the mean over members of (log s − median) / (q₇₀ − median) of the training items' log s, where what is
    below zero counts a fifth; beyond z = LARGEST the tangent. The logarithms make unlike tails alike.
    """

    center: Tensor
    spread: Tensor
    floor: Tensor

    def __init__(self, members: dict[str, Head]) -> None:
        super().__init__()
        self.members = nn.ModuleDict(members)
        for name, value in (("center", 0.0), ("spread", 1.0), ("floor", 1.0)):
            self.register_buffer(name, torch.full((len(members),), value))
        self.double()  # logarithms over a narrow bulk enlarge rounding: in single precision two runtimes would not agree

    def fit(self, alternate: Callable[[Head, str], Tensor]) -> None:
        """`alternate` fits a member and returns its scores of the training items, float32[N]."""
        for k, (name, member) in enumerate(self.members.items()):
            score_N = alternate(cast(Head, member), name).double()
            levels = torch.tensor([0.5, BULK], dtype=torch.float64)
            median, bulk = torch.quantile(score_N[:: len(score_N) // 1_000_000 + 1], levels)
            floor = FLOOR * (bulk if bulk > 0 else score_N.mean().clamp_min(1e-12))
            self.floor[k], self.center[k] = floor, torch.log(median + floor)
            self.spread[k] = (torch.log(bulk + floor) - torch.log(median + floor)).clamp_min(SMALLEST)

    def score(self, x_BD: Tensor) -> Tensor:
        """score_B."""
        score_BM = torch.stack([member.score(x_BD) for member in self.members.values()], 1)  # type: ignore[operator]
        z_BM = (torch.log(score_BM + self.floor) - self.center) / self.spread
        z_B = torch.maximum(z_BM, LEAK * z_BM).mean(1)
        return (torch.exp(z_B.clamp_max(LARGEST)) * (1 + (z_B - LARGEST).clamp_min(0))).float()
