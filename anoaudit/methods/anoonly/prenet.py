"""PReNet (Pang et al. 2023), as METHODS §2 states it: how many known anomalies are in a pair?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

HIDDEN = 20
STEP = 4.0  # a pair's label: 8 for two known anomalies, 4 for one, 0 for none


class PReNet(nn.Module):
    """f(l, r) = w·[h(l), h(r)], h(x) = BN(ReLU(W x)): L1 to the pair's label. Without `norm` there is no BN.

    The score is the mean over stored partners a (known anomalies) and u (unlabelled) of f(a, x) + f(x, u).
    """

    items_per_term = 2
    partner_a: Tensor
    partner_u: Tensor

    def __init__(self, features: int, norm: bool, partners: int = 30) -> None:
        super().__init__()
        bn: nn.Module = nn.BatchNorm1d(HIDDEN) if norm else nn.Identity()
        self.features = nn.Sequential(nn.Linear(features, HIDDEN), nn.ReLU(), bn)
        self.relation = nn.Linear(2 * HIDDEN, 1)
        self.partners = partners
        self.register_buffer("partner_a", torch.zeros(partners, HIDDEN))
        self.register_buffer("partner_u", torch.zeros(partners, HIDDEN))

    def losses(self, x_BF: Tensor, anomalous_B: Tensor) -> Tensor:
        """See Base. Both halves go through BN as one batch (our choice)."""
        left_PH, right_PH = self.features(x_BF).chunk(2)
        label_P = STEP * anomalous_B.view(2, -1).sum(0)
        f_P = self.relation(torch.cat([left_PH, right_PH], dim=1))[:, 0].float()
        loss_P: Tensor = (f_P - label_P).abs()
        return loss_P

    @torch.no_grad()
    def finish(self, anomalies_KF: Tensor, unlabelled_KF: Tensor) -> None:
        """Store the partners' features, K of each, as the trained network in eval mode sees them."""
        self.eval()
        self.partner_a.copy_(self.features(anomalies_KF))
        self.partner_u.copy_(self.features(unlabelled_KF))

    def score(self, x_BF: Tensor) -> Tensor:
        """float32[B]."""
        h_BKH = self.features(x_BF)[:, None].expand(-1, self.partners, -1)
        a_BKH, u_BKH = (p[None].expand_as(h_BKH) for p in (self.partner_a, self.partner_u))
        f_BK = self.relation(torch.cat([a_BKH, h_BKH], 2)) + self.relation(torch.cat([h_BKH, u_BKH], 2))
        score_B: Tensor = f_BK[:, :, 0].float().mean(1)
        return score_B
