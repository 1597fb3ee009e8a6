"""Which samples are taken for anomalies, and what each then costs.

LOE (Qiu et al. 2022, eq. 3): minimise Σ_i (1 − y_i)·L_n(x_i) + y_i·L_a(x_i) over parameters and labels in turn. The labels'
turn is a ranking by S = L_n − L_a of the same forward pass, without gradient [code]; the assignment knows nothing of the
detector that gave the losses.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Literal

import torch
from torch import Tensor

AssignmentKind = Literal["blind", "refine", "soft", "hard", "gt"]


class Assignment:
    """The labels y and the loss of a batch under one assignment; `alpha` is the assumed share of anomalous items.

    ⌊αB⌋ items are flagged. Where that is none, a running pool of the last ⌈10/α⌉ items says which scores are among the α
    largest (our choice), so that small batches do not silently train blind.
    """

    def __init__(self, kind: AssignmentKind, alpha: float, warmup: int = 2) -> None:
        self.kind, self.alpha = kind, alpha
        self.warmup = 0 if kind == "gt" else warmup
        self._pool: deque[float] = deque(maxlen=math.ceil(10 / alpha) if alpha > 0 else 1)
        self._epoch = -1

    def targets(self, normal_B: Tensor, anomaly_B: Tensor, labels_B: Tensor, epoch: int) -> Tensor:
        """y_B: 0 normal, 1 anomalous, ½ for LOE_S; for refine 1 means dropped. `labels_B` (1, 0, −1) matters to `gt` alone."""
        if epoch != self._epoch:  # a resumed run starts its epoch with an empty pool as well
            self._pool.clear()
            self._epoch = epoch
        if self.kind == "gt":
            return (labels_B == 1).to(normal_B.dtype)
        if self.kind == "blind" or epoch < self.warmup or self.alpha == 0:
            return torch.zeros_like(normal_B)
        # refine drops by L_n, the others rank by L_n − L_a.
        score_B = normal_B if self.kind == "refine" else normal_B - anomaly_B
        flagged_B = self._flag(score_B.detach().float())
        return flagged_B.to(normal_B.dtype) * (0.5 if self.kind == "soft" else 1.0)

    def loss(self, normal_B: Tensor, anomaly_B: Tensor, labels_B: Tensor, epoch: int) -> Tensor:
        """Scalar: one plain mean over the batch."""
        y_B = self.targets(normal_B.detach(), anomaly_B.detach(), labels_B, epoch)
        if self.kind == "refine":
            kept_B = y_B == 0
            # With everything dropped there is nothing to learn from, but the graph must stay differentiable.
            return normal_B[kept_B].mean() if bool(kept_B.any()) else normal_B.mean() * 0.0
        return ((1 - y_B) * normal_B + y_B * anomaly_B).mean()

    def _flag(self, score_B: Tensor) -> Tensor:
        """bool[B]: the ⌊αB⌋ largest, or those that would be among the α largest of the pool."""
        count = int(self.alpha * len(score_B) + 1e-9)
        flagged_B = torch.zeros(len(score_B), dtype=torch.bool, device=score_B.device)
        if count > 0:
            flagged_B[score_B.topk(count).indices] = True
            return flagged_B
        self._pool.extend(score_B.tolist())
        among = int(self.alpha * len(self._pool) + 1e-9)
        if among > 0:
            flagged_B = score_B >= sorted(self._pool)[-among]
        return flagged_B
