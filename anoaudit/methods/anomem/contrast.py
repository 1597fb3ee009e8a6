"""Stage 1: encoder and memories learn together, by contrasting what the memory retrieves for one view with the other view.

Source: METHODS §4. Anchor and positive and the anomalies' bypass are the paper's, the form of the contrast ours.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anoaudit.nets.memory import Memory

NEVER = -1e4  # as good as −∞ beside |a·b|/τ ≤ 1000, and harmless to gradients


def memory_contrast(
    z1_ND: Tensor,
    z2_ND: Tensor,
    anomalous_N: Tensor,
    image_N: Tensor,
    memory: Memory | None,
    temperature: float,
    head: nn.Module,
) -> tuple[Tensor, Tensor]:
    """(contrastive loss, variance term), scalars, of unit embeddings of two views; `image_N` says which image each is of.

    Normals: the anchor is the prototype retrieved for view 1, the positive view 2's embedding, the negatives view 2's
    embeddings of other normal images. Labelled anomalies: the anchor is the raw embedding, the negatives all other images. They
    are kept out of the normals' negatives and out of the variance term, and the sum is divided by the number of normals, so
    that the memory's gradient is the same with and without them. Both orders of the views count. Without a memory all anchors
    are raw embeddings (for comparisons). Anchors, positives and negatives are compared behind the `head`.
    """
    with torch.autocast(z1_ND.device.type, enabled=False):
        z1_ND, z2_ND = z1_ND.float(), z2_ND.float()
        normal_N = ~anomalous_N
        count = normal_N.sum().clamp_min(1)
        other_NN = image_N[:, None] != image_N[None, :]
        seen_NN = other_NN & (anomalous_N[:, None] | normal_N[None, :]) | torch.eye(
            len(image_N), dtype=torch.bool, device=image_N.device
        )
        total = variance = z1_ND.sum() * 0.0
        for query_ND, positive_ND in ((z1_ND, z2_ND), (z2_ND, z1_ND)):
            if memory is None:
                anchor_ND = query_ND
            else:
                retrieved_ND = memory(query_ND)
                anchor_ND = torch.where(anomalous_N[:, None], query_ND, retrieved_ND)
                variance = variance + _variance(retrieved_ND[normal_N]) / 2
            anchor_NP, positive_NP = (F.normalize(head(v), dim=1) for v in (anchor_ND, positive_ND))
            logits_NN = (anchor_NP @ positive_NP.T / temperature).masked_fill(~seen_NN, NEVER)
            loss_N = torch.logsumexp(logits_NN, dim=1) - logits_NN.diagonal()
            total = total + loss_N.sum() / (2 * count)
        return total, variance


def _variance(retrieved_ND: Tensor) -> Tensor:
    """Σ_j max(0, T − std(u_j)) / √d with T = 1/√d, so that it lies between 0 and 1 at every width (the division is ours)."""
    if len(retrieved_ND) < 2:
        return retrieved_ND.sum() * 0.0
    width = retrieved_ND.shape[1]
    spread_D = (retrieved_ND.var(0, correction=0) + 1e-8).sqrt()
    return F.relu(1 / math.sqrt(width) - spread_D).sum() / math.sqrt(width)
