"""The encoder's maps at several scales, each with its memory, and how far their vectors lie from what is remembered."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anoaudit.nets.encoder import Encoder
from anoaudit.nets.memory import Memory


class MemoryScales(nn.Module):
    """Pixels in [0, 1], float32[B, 3, H, W] → a scale's vectors f_s [B, d, h, w] and deviations Δ_s = f_s/c_s − HF_s(f_s/‖f_s‖).

    The memory is asked by direction; c_s is the mean length of training normals' vectors, so that an unusual length deviates, too
    (ours). Channels are standardised before, by the batches' moments (batch normalisation without affine weights, ours: what
    leaves a ReLU lies in one narrow cone, where no β tells the slots apart). `heads` lead on to `projection` coordinates in which
    views are contrasted, as in SimCLR (ours: the contrast scatters normals, and what is remembered should not follow it all the
    way); 0: no heads. `whole`: one more memory, of the mean over places of the coarsest map. `pooled`: see `vectors`.
    """

    levels: Tensor

    def __init__(
        self, encoder: Encoder, slots: int, projection: int, beta: float | None, whole: bool, pooled: bool
    ) -> None:
        super().__init__()
        self.encoder, self.whole, self.pooled = encoder, whole, pooled
        self.widths = encoder.channels + encoder.channels[-1:] * whole
        self.grids = encoder.grids + [(1, 1)] * whole
        self.frozen = False
        self.register_buffer("levels", torch.ones(len(self.widths)))
        self.norms = nn.ModuleList(nn.BatchNorm2d(d, affine=False) for d in self.widths)
        self.heads = nn.ModuleList(_head(d, projection) if projection else nn.Identity() for d in self.widths)
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
        """[B, d, h, w] of each scale."""
        found = self.encoder(pixels_BCHW)
        if self.whole:
            found = [*found, found[-1].mean((2, 3), keepdim=True)]
        return [norm(m.float()) for norm, m in zip(self.norms, found, strict=True)]

    def vectors(self, pixels_BCHW: Tensor) -> list[Tensor]:
        """What was contrasted at each scale: the vectors of each place [B, h·w, d], or `pooled` [B, 1, d]."""
        maps = self.maps(pixels_BCHW)
        return [pooled_vector(m)[:, None] if self.pooled else place_vectors(m) for m in maps]

    def deviations(self, vectors: list[Tensor]) -> list[Tensor]:
        """Δ_s of vectors [B, L, d] of each scale."""
        found = []
        for f_BLD, memory, level in zip(vectors, self.memories, self.levels, strict=True):
            retrieved_ND = memory(F.normalize(f_BLD.flatten(0, 1), dim=1))
            found.append(f_BLD / level - retrieved_ND.reshape(f_BLD.shape))
        return found

    @torch.no_grad()
    def measure(self, batches: Iterable[Tensor]) -> None:
        """c_s, from pixels of training normals."""
        lengths = [torch.stack([f.norm(dim=2).mean() for f in self.vectors(pixels)]) for pixels in batches]
        self.levels.copy_(torch.stack(lengths).mean(0).clamp_min(1e-12))


def place_vectors(map_BDhw: Tensor) -> Tensor:
    """[B, h·w, d]."""
    return map_BDhw.flatten(2).transpose(1, 2)


def pooled_vector(map_BDhw: Tensor) -> Tensor:
    """[B, d], the mean over places."""
    return map_BDhw.mean((2, 3))


def _head(width: int, projection: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, projection))
