"""A learnable memory of prototypes, read by one step of a modern Hopfield network (Ramsauer et al., ICLR 2021); diagnostics."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Memory(nn.Module):
    """Unit queries z [N, d] → softmax(β z Mᵀ) M [N, d], M the prototypes [slots, d] on the unit sphere.

    Prototypes are normalised where they are read (our choice): β alone then says how sharp the retrieval is. With unit vectors
    β = 1 averages the whole memory; β = √d (the default) reads one or a few slots (METHODS §4).
    """

    def __init__(self, slots: int, width: int, beta: float | None = None) -> None:
        super().__init__()
        self.beta = math.sqrt(width) if beta is None else beta
        self.slots = nn.Parameter(F.normalize(torch.randn(slots, width), dim=1))

    @torch.no_grad()
    def start(self, z_ND: Tensor) -> None:
        """Begin with queries drawn at random, a little blurred: random directions would lie far from all of them (our choice)."""
        count, width = self.slots.shape
        chosen = torch.randint(len(z_ND), (count,)).to(z_ND.device)
        noise = torch.randn(count, width).to(z_ND) * (0.1 / math.sqrt(width))
        self.slots.copy_(F.normalize(z_ND[chosen] + noise, dim=1))

    def weights(self, z_ND: Tensor) -> Tensor:
        """How much of each slot a query reads: [N, slots], rows sum to 1."""
        with torch.autocast(z_ND.device.type, enabled=False):  # bfloat16 would blur β z·m by a tenth
            return torch.softmax(self.beta * (z_ND.float() @ F.normalize(self.slots, dim=1).T), dim=1)

    def forward(self, z_ND: Tensor) -> Tensor:
        """The retrieved prototypes, inside the unit sphere."""
        with torch.autocast(z_ND.device.type, enabled=False):
            return self.weights(z_ND) @ F.normalize(self.slots, dim=1)

    @torch.no_grad()
    def diagnose(self, z_ND: Tensor) -> dict[str, float]:
        """How the memory is read by these queries.

        `effective_slots`: mean over queries of exp(entropy of the weights), 1 to slots. `used`: share of slots that some query
        reads most. `spread`: mean over coordinates of the retrieved prototypes' standard deviation, times √d: 0 when all
        queries retrieve the same, at most 1 (on the whole sphere).
        """
        weights_NM = self.weights(z_ND)
        entropy_N = -(weights_NM * weights_NM.clamp_min(1e-30).log()).sum(1)
        retrieved_ND = self(z_ND)
        spread = retrieved_ND.std(0, correction=0).mean() * math.sqrt(self.slots.shape[1])
        return {
            "slots": len(self.slots),
            "effective_slots": float(entropy_N.exp().mean()),
            "used": len(torch.unique(weights_NM.argmax(1))) / len(self.slots),
            "spread": float(spread),
        }
