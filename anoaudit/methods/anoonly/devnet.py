"""DevNet (Pang, Shen and van den Hengel 2019), as METHODS §2 states it: known anomalies deviate by 5, the rest not at all."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

MARGIN, HIDDEN = 5.0, 20


class DevNet(nn.Module):
    """f(x) = w·BN(ReLU(W x)): unlabelled |f|; known anomalies max(0, 5 − f).

    `loss` linear has no floor at 5: |5 − f| under full supervision, 5 − f without normal losses, where nothing holds f down.
    Without `norm` there is no BN. The score is f.
    """

    items_per_term = 1

    def __init__(self, features: int, norm: bool, loss: Literal["hinge", "linear", "absolute"] = "hinge") -> None:
        super().__init__()
        self.loss = loss
        bn: nn.Module = nn.BatchNorm1d(HIDDEN) if norm else nn.Identity()
        self.net = nn.Sequential(nn.Linear(features, HIDDEN), nn.ReLU(), bn, nn.Linear(HIDDEN, 1))

    def score(self, x_BF: Tensor) -> Tensor:
        """f, float32[B]."""
        score_B: Tensor = self.net(x_BF)[:, 0].float()
        return score_B

    def losses(self, x_BF: Tensor, anomalous_B: Tensor) -> Tensor:
        """See Base."""
        f_B = self.score(x_BF)
        missing_B = MARGIN - f_B
        if self.loss == "hinge":
            missing_B = missing_B.clamp_min(0)
        elif self.loss == "absolute":
            missing_B = missing_B.abs()
        return torch.where(anomalous_B, missing_B, f_B.abs())
