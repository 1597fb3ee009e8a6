"""MHRot as LOE's detector: predicted shifts and rotations (Hendrycks et al., NeurIPS 2019), METHODS §1.

A network trained from scratch tells how an image was shifted and turned; it learns that for what it has seen often.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHIFTS = (0, -1, 1)
TURNS = 4
CLASSES = (len(SHIFTS), len(SHIFTS), TURNS)  # of the three heads


class MHRot(nn.Module):
    """36 views: 3 shifts across × 3 down × 4 quarter turns; three heads say which (3, 3 and 4 classes).

    A shift is a quarter of the side (8 px of 32), reflected at the border. L_n: cross-entropy to the true transform, mean over
    heads and views (the paper sums over views, which ranks alike). L_a: cross-entropy to the uniform distribution, likewise.
    """

    targets: Tensor

    def __init__(self, net: nn.Module, features: int, size: int) -> None:
        super().__init__()
        self.net, self.size, self.shift = net, size, size // 4
        self.heads = nn.ModuleList(nn.Linear(features, classes) for classes in CLASSES)
        every = list(itertools.product(range(len(SHIFTS)), range(len(SHIFTS)), range(TURNS)))
        self.register_buffer("targets", torch.tensor(every))  # [36, 3]

    def start(self, x: Tensor) -> None:
        """Nothing depends on the data."""

    def views(self, x_BCHW: Tensor) -> Tensor:
        """[B, 36, C, H, W], in the order of `targets`."""
        s, size = self.shift, self.size
        padded = F.pad(x_BCHW, (s, s, s, s), mode="reflect")
        shifted = [
            padded[:, :, s + dy * s : s + dy * s + size, s + dx * s : s + dx * s + size]
            for dx in SHIFTS
            for dy in SHIFTS
        ]
        return torch.stack([_turned(view, k) for view in shifted for k in range(TURNS)], dim=1)

    def losses(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(normal_B, anomaly_B) of float32[B, 3, H, W], or [B, H·W, 3] as the feature cache holds them."""
        x_BCHW = x if x.dim() == 4 else x.transpose(1, 2).reshape(-1, 3, self.size, self.size)
        views_BVCHW = self.views(x_BCHW)
        count = views_BVCHW.shape[1]
        h_NF = self.net(views_BVCHW.flatten(0, 1))
        normal_BV = anomaly_BV = torch.zeros(1, device=x.device)
        for j, (head, classes) in enumerate(zip(self.heads, CLASSES, strict=True)):
            log_p_BVK = F.log_softmax(head(h_NF).float(), dim=-1).reshape(-1, count, classes)
            hit_VK = F.one_hot(self.targets[:, j], classes).to(log_p_BVK.dtype)
            normal_BV = normal_BV - (log_p_BVK * hit_VK).sum(-1) / len(self.heads)
            anomaly_BV = anomaly_BV - log_p_BVK.mean(-1) / len(self.heads)
        return normal_BV.mean(1), anomaly_BV.mean(1)

    def score(self, x_BCHW: Tensor) -> Tensor:
        """L_n."""
        return self.losses(x_BCHW)[0]


def _turned(x_BCHW: Tensor, quarters: int) -> Tensor:
    """Like torch.rot90 over H and W, in operations that every exporter knows."""
    if quarters == 0:
        return x_BCHW
    if quarters == 2:
        return x_BCHW.flip((2, 3))
    turned = x_BCHW.transpose(2, 3)
    return turned.flip(2) if quarters == 1 else turned.flip(3)
