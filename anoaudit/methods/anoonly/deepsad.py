"""DeepSAD (Ruff et al. 2020), as METHODS §2 states it: the unlabelled near a centre, known anomalies away from it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTHS = (100, 20, 10)
EPSILON = 1e-6
NEAR_ZERO = 0.1  # a centre's coordinate at 0 would let a bias-free network collapse onto it


class DeepSAD(nn.Module):
    """d² = ‖φ(x) − c‖²: unlabelled d²; known anomalies 1/(d² + 1e-6). φ has no bias; BN has no scale and shift of its own.

    c is the mean output of the untrained network in eval mode (as in Deep SVDD; the mode is our choice). The score is d².
    """

    items_per_term = 1
    center: Tensor

    def __init__(self, features: int, norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inner = features
        for width in WIDTHS[:-1]:
            layers.append(nn.Linear(inner, width, bias=False))
            layers += [nn.BatchNorm1d(width, affine=False)] if norm else []
            layers.append(nn.LeakyReLU())
            inner = width
        self.net = nn.Sequential(*layers, nn.Linear(inner, WIDTHS[-1], bias=False))
        self.register_buffer("center", torch.zeros(WIDTHS[-1]))

    @torch.no_grad()
    def start(self, x_NF: Tensor) -> None:
        """Fix c, by training items."""
        mean = self.net.eval()(x_NF).float().mean(0)
        sign = torch.where(mean < 0, -1.0, 1.0)
        self.center.copy_(torch.where(mean.abs() < NEAR_ZERO, NEAR_ZERO * sign, mean))

    def score(self, x_BF: Tensor) -> Tensor:
        """d², float32[B]."""
        distance_B: Tensor = (self.net(x_BF).float() - self.center).square().sum(1)
        return distance_B

    def losses(self, x_BF: Tensor, anomalous_B: Tensor) -> Tensor:
        """See Base."""
        distance_B = self.score(x_BF)
        return torch.where(anomalous_B, 1.0 / (distance_B + EPSILON), distance_B)
