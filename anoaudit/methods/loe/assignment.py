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
    largest (our choice), so that small batches do not silently train blind. The pool outlives epochs, as few items never
    fill it in one; the training loop keeps it with the checkpoints.
    """

    def __init__(self, kind: AssignmentKind, alpha: float, warmup: int = 2) -> None:
        self.kind, self.alpha = kind, alpha
        self.warmup = 0 if kind == "gt" else warmup
        self.pool: deque[float] = deque(maxlen=math.ceil(10 / alpha) if alpha > 0 else 1)

    def targets(self, normal_B: Tensor, anomaly_B: Tensor, labels_B: Tensor, epoch: int) -> Tensor:
        """y_B: 0 normal, 1 anomalous, ½ for LOE_S; for refine 1 means dropped. `labels_B` (1, 0, −1) matters to `gt` alone."""
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
        """bool[B]: the ⌊αB⌋ largest, or those that are among the ⌊αP⌋ largest of the pool."""
        self.pool.extend(score_B.tolist())
        flagged_B = torch.zeros(len(score_B), dtype=torch.bool, device=score_B.device)
        count = self._count(len(score_B))
        if count > 0:
            flagged_B[score_B.topk(count).indices] = True
            return flagged_B
        among_P = torch.tensor(list(self.pool)).topk(self._count(len(self.pool))).indices
        among_B = among_P - (len(self.pool) - len(score_B))  # the batch is the pool's end
        flagged_B[among_B[among_B >= 0].to(flagged_B.device)] = True
        return flagged_B

    def _count(self, size: int) -> int:
        """⌊α·size⌋, with 0.29·100 being 29."""
        return int(self.alpha * size + 1e-9)
