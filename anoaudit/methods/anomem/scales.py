"""The encoder's maps at several scales, each with its memory: unit embeddings and how far they lie from what is remembered."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from anoaudit.nets.encoder import Encoder
from anoaudit.nets.memory import Memory


class MemoryScales(nn.Module):
    """Pixels in [0, 1], float32[B, 3, H, W] → a scale's unit embeddings z_s [B, d, h, w] and deviations z_s − HF_s(z_s).

    `width` d > 0: a linear map of each place to d coordinates comes first (ours: what leaves a ReLU lies in one narrow cone, where
    no β tells the slots apart); 0: the encoder's channels as they are.
    """

    def __init__(self, encoder: Encoder, slots: int, width: int, beta: float | None, whole: bool, pooled: bool) -> None:
        super().__init__()
        self.encoder, self.whole, self.pooled = encoder, whole, pooled
        inputs = encoder.channels + encoder.channels[-1:] * whole
        self.grids = encoder.grids + [(1, 1)] * whole
        self.frozen = False
        self.necks = nn.ModuleList(
            nn.Conv2d(channels, width, 1, bias=False) if width else nn.Identity() for channels in inputs
        )
        self.widths = [width or channels for channels in inputs]
        self.memories = nn.ModuleList(Memory(slots, d, beta) for d in self.widths)

    def freeze(self) -> None:
        """Stage 1 is over."""
        self.frozen = True
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> MemoryScales:
        """See `freeze`."""
        super().train(mode and not self.frozen)
        return self

    def maps(self, pixels_BCHW: Tensor) -> list[Tensor]:
        """[B, d, h, w] of each scale, not normalised: vectors of several places may be averaged first."""
        found = self.encoder(pixels_BCHW)
        if self.whole:
            found = [*found, found[-1].mean((2, 3), keepdim=True)]
        return [neck(m).float() for neck, m in zip(self.necks, found, strict=True)]

    def queries(self, pixels_BCHW: Tensor) -> list[Tensor]:
        """What was contrasted, unit vectors of each scale: of each place [B, h·w, d], or `pooled` [B, 1, d]."""
        maps = self.maps(pixels_BCHW)
        return [pooled_vector(m)[:, None] if self.pooled else place_vectors(m) for m in maps]

    def deviations(self, queries: list[Tensor]) -> list[Tensor]:
        """Δ_s = z_s − HF_s(z_s) of unit vectors [B, L, d] of each scale."""
        return [
            z_BLD - memory(z_BLD.flatten(0, 1)).reshape(z_BLD.shape)
            for z_BLD, memory in zip(queries, self.memories, strict=True)
        ]


def place_vectors(map_BDhw: Tensor) -> Tensor:
    """Unit vectors [B, h·w, d]."""
    return F.normalize(map_BDhw.flatten(2).transpose(1, 2), dim=2)


def pooled_vector(map_BDhw: Tensor) -> Tensor:
    """Unit vectors [B, d] of the mean over places."""
    return F.normalize(map_BDhw.mean((2, 3)), dim=1)
