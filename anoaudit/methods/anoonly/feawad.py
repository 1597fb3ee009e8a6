"""FEAWAD (Zhou et al. 2021), as METHODS §2 states it: an autoencoder's code and residual, weighed by a small network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MARGIN = 5.0
HIDDEN, CODE, HEAD = 128, 64, (256, 32)
SMALL = 1e-6


class Feawad(nn.Module):
    """f(x) from [residual / r, code, r], r the residual's norm: unlabelled |f| + r; known anomalies max(0, 5 − f) + max(0, 5 − r).

    r is the norm of the residual as it is (of the unit vector it would be a constant). BN stands before the last layer. The
    autoencoder is trained first, to reconstruct the unlabelled, then all together. The score is f.
    """

    items_per_term = 1

    def __init__(self, features: int, norm: bool) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(features, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CODE), nn.ReLU())
        self.decoder = nn.Sequential(nn.Linear(CODE, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, features))
        wide, narrow = HEAD
        bn: nn.Module = nn.BatchNorm1d(narrow) if norm else nn.Identity()
        self.head = nn.Sequential(
            nn.Linear(features + CODE + 1, wide),
            nn.ReLU(),
            nn.Linear(wide, narrow),
            nn.ReLU(),
            bn,
            nn.Linear(narrow, 1),
        )

    def reconstruction(self, x_BF: Tensor) -> Tensor:
        """The autoencoder's mean squared error, a scalar."""
        error: Tensor = (self.decoder(self.encoder(x_BF)).float() - x_BF).square().mean()
        return error

    def score_and_norm(self, x_BF: Tensor) -> tuple[Tensor, Tensor]:
        """f and r, float32[B] each."""
        code_BC = self.encoder(x_BF)
        residual_BF = x_BF - self.decoder(code_BC).float()
        norm_B1 = (residual_BF.square().sum(1, keepdim=True) + SMALL**2).sqrt()  # the root has no gradient at 0
        seen = torch.cat([residual_BF / norm_B1, code_BC.float(), norm_B1], dim=1)
        return self.head(seen)[:, 0].float(), norm_B1[:, 0]

    def score(self, x_BF: Tensor) -> Tensor:
        """f, float32[B]."""
        return self.score_and_norm(x_BF)[0]

    def losses(self, x_BF: Tensor, anomalous_B: Tensor) -> Tensor:
        """See Base."""
        f_B, norm_B = self.score_and_norm(x_BF)
        missing_B = (MARGIN - f_B).clamp_min(0) + (MARGIN - norm_B).clamp_min(0)
        return torch.where(anomalous_B, missing_B, f_B.abs() + norm_B)
