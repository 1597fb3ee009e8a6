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

    def __init__(self, encoder: Encoder, slots: int, width: int, beta: float | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.frozen = False
        self.necks = nn.ModuleList(
            nn.Conv2d(channels, width, 1, bias=False) if width else nn.Identity() for channels in encoder.channels
        )
        self.widths = [width or channels for channels in encoder.channels]
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
        return [neck(m).float() for neck, m in zip(self.necks, self.encoder(pixels_BCHW), strict=True)]

    def embeddings(self, pixels_BCHW: Tensor) -> list[Tensor]:
        """Unit vectors [B, h·w, d] of each scale, a place each."""
        return [F.normalize(m.flatten(2).transpose(1, 2), dim=2) for m in self.maps(pixels_BCHW)]

    def deviations(self, pixels_BCHW: Tensor) -> list[Tensor]:
        """Δ_s = z_s − HF_s(z_s), [B, h·w, d] of each scale."""
        found = []
        for z_BLD, memory in zip(self.embeddings(pixels_BCHW), self.memories, strict=True):
            found.append(z_BLD - memory(z_BLD.flatten(0, 1)).reshape(z_BLD.shape))
        return found
