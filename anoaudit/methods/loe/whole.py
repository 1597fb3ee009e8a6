"""An image by its places and as a whole (our choice): a defect shows at a place, another thing in the picture at none.

How far each is heeded depends on the images: where they show the same parts at the same places, a place says much; where
anything may lie anywhere, next to nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from anoaudit.methods.loe.gaussian import Gaussian, GaussianMap
from anoaudit.methods.loe.nearest import NearestSamples
from anoaudit.training.features import RowBatches
from anoaudit.training.loop import Batches

SMALL = 1e-6  # keeps a constant feature from a division by zero
DEAD = 1e-2  # of the root mean square spread: a feature that hardly moved in training counts as if it had moved so much


class GaussianImage(GaussianMap):
    """A Gaussian at every place, and the whole image's standardised vector by a Gaussian and by its nearest others.

    All are fitted to the items not left out. Score: places^R · whole^(1 − R), with R the `alignment` of the images (see
    `alignment_of`) and whole = √(Gaussian · nearest²), both squared distances that are 1 where they are usual: their scales
    cancel, and what is far out in one is far out. The map is the places'.
    """

    shift: Tensor
    scale: Tensor
    usual: Tensor
    alignment: Tensor

    def __init__(self, channels: Tensor, grid: tuple[int, int], top: float, width: int, seed: int = 0) -> None:
        super().__init__(channels, grid, top)
        self.whole, self.nearest = Gaussian(width), NearestSamples(width, seed)
        self.nearest.double()  # distances of what is next to each other are small differences of large numbers
        self.register_buffer("shift", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("usual", torch.tensor(1.0))
        self.register_buffer("alignment", torch.tensor(1.0))

    def m_step(self, data: Batches, weights_N: Tensor, device: torch.device) -> None:
        """See Head; `data.vectors` are the whole images', `data.alignment` is R."""
        super().m_step(data, weights_N, device)
        vectors: Tensor = data.vectors  # type: ignore[attr-defined]
        self.alignment.fill_(data.alignment)  # type: ignore[attr-defined]
        self.shift.copy_(vectors.mean(0))
        std = vectors.std(0)
        self.scale.copy_(std.clamp_min(SMALL + DEAD * std.square().mean().sqrt()))  # a dead channel must not shout
        standard = self._standard(vectors.to(device))
        rows = RowBatches(standard, np.zeros(len(vectors), dtype=np.int8))
        self.whole.m_step(rows, weights_N, device)
        self.nearest.m_step(rows, weights_N, device)
        self.usual.copy_(self.nearest.scores(rows, device).median().clamp_min(SMALL))

    def scores(self, data: Batches, device: torch.device) -> Tensor:
        """See Head."""
        vectors: Tensor = data.vectors  # type: ignore[attr-defined]
        size = self.nearest.batch
        parts = zip(torch.split(super().scores(data, device), size), torch.split(vectors, size), strict=True)
        return torch.cat([self._together(*(part.to(device) for part in both)).cpu() for both in parts])

    def whole_distance(self, vector_BG: Tensor) -> Tensor:
        """Of the whole images, [B]."""
        x_BG = self._standard(vector_BG)
        near_B = (self.nearest.score(x_BG) / self.usual).float()
        return self.whole.distance(x_BG[:, None])[:, 0].sqrt() * near_B

    def score_and_map_of(self, features_BCHW: Tensor, vector_BG: Tensor) -> tuple[Tensor, Tensor]:
        """score_B and map_Bhw of maps with all channels and the images' vectors."""
        places_B, map_Bhw = self.score_and_map(features_BCHW)
        return self._together(places_B, vector_BG), map_Bhw

    def _together(self, places_B: Tensor, vector_BG: Tensor) -> Tensor:
        whole_B = self.whole_distance(vector_BG)
        return places_B.pow(self.alignment) * whole_B.pow(1 - self.alignment)

    def _standard(self, vector_BG: Tensor) -> Tensor:
        return (vector_BG - self.shift) / self.scale
