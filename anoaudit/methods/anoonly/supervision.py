"""The one place that knows which part of a base loss is normal, and drops it (Zhou et al. 2023, arXiv 2305.18798).

The normal items are still in the batch: they act through the statistics of the batch normalisation, not through a loss of their
own. (A pair of a known anomaly and an unlabelled item, PReNet's, counts as anomalous and is trained.)
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor

Kind = Literal["anomaly-only", "full"]


class Base(Protocol):
    """What is wrapped: an `nn.Module` with a loss a term, where a term is one item or a pair of them.

    It knows what it wants of known anomalies and of the rest, not which of it is trained.
    """

    items_per_term: int

    def losses(self, x_BF: Tensor, anomalous_B: Tensor) -> Tensor:
        """loss_P of P = B / items_per_term terms. Of pairs, the first halves of x and bool[B] stand on the left."""
        ...

    def score(self, x_BF: Tensor) -> Tensor:
        """float32[B], higher is more anomalous."""
        ...


def normal_terms(anomalous_B: Tensor, items_per_term: int) -> Tensor:
    """bool[P]: the terms without any known anomaly."""
    return ~anomalous_B.view(items_per_term, -1).any(0)


def supervised_loss(base: Base, x_BF: Tensor, anomalous_B: Tensor, kind: Kind) -> Tensor | None:
    """Mean of the base's losses: of all terms, or (anomaly-only) of those with a known anomaly; None where there is none.

    The mean is over the terms that count (our choice: the papers' optimisers hardly see a constant factor). A term that is
    dropped is left out by index: no gradient reaches it, whatever its value.
    """
    loss_P = base.losses(x_BF, anomalous_B)
    if kind == "anomaly-only":
        loss_P = loss_P[torch.nonzero(~normal_terms(anomalous_B, base.items_per_term))[:, 0]]
    return loss_P.mean() if len(loss_P) else None
