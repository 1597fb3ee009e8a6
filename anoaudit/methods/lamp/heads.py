"""Reconstruction as detection: an autoencoder and an error make a head; LAMP and LOE train it, each with its own loss.

A head offers `errors(x)`, per element and in [0, 1] for inputs in [0, 1], and the scores made of them. What LOE needs of a loss
pair is there, too.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anoaudit.data.items import TableSpec
from anoaudit.methods.lamp.metrics import Metric
from anoaudit.methods.lamp.options import PIXELS, LampOptions
from anoaudit.nets.autoencoders import ConvAutoencoder, MLPAutoencoder, Tiled, TimmAutoencoder
from anoaudit.nets.table_input import TableInput

EPSILON = 0.1  # LOE's L_a of a reconstruction is 1/(L_n + 0.1) (METHODS §1)
MOST_TILES = 64  # of a batch, trained on at once; fewer where tiles are large


class Reconstruction(nn.Module):
    """A network, its error, and the share of the elements, the worst ones, whose mean is the score."""

    unit: Tensor

    def __init__(self, net: nn.Module, metric: str, top: float) -> None:
        super().__init__()
        self.net, self.metric, self.top = net, Metric(metric), top
        self.register_buffer("unit", torch.ones(()))

    @torch.no_grad()
    def start(self, x: Tensor) -> None:
        """LOE's losses are in units of the error that the items' mean makes (our choice: else L_a's 0.1 hides small errors)."""
        self.unit.copy_(self.between(x, x.mean(0, keepdim=True).expand_as(x)).mean().clamp_min(1e-6))

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        """The error of each element of reconstructions y, [B, …]."""
        found: Tensor = self.metric(x, y)
        return found

    def errors(self, x: Tensor) -> Tensor:
        """Of each element, [B, …]."""
        return self.between(x, self.net(x))

    def training_errors(self, x: Tensor) -> Tensor:
        """The errors that a step is taken by."""
        return self.errors(x)

    def losses(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """LOE's pair: L_n the mean error, L_a = 1/(L_n + 0.1), each [B]."""
        normal_B = self.errors(x).flatten(1).mean(1) / self.unit
        return normal_B, 1.0 / (normal_B + EPSILON)

    def worst(self, errors_BN: Tensor) -> Tensor:
        """score_B: the mean over the worst share of the errors."""
        if self.top >= 1:
            return errors_BN.mean(1)
        return errors_BN.topk(max(1, round(self.top * errors_BN.shape[1])), dim=1).values.mean(1)


class RowReconstruction(Reconstruction):
    """float32[B, F] of `TableInput` with scaling=interval → errors [B, D], one a column in the table's order.

    A category's error is half the sum over its levels, in [0, 1] like a number's: for L1 the total variation distance.
    """

    columns: Tensor

    def __init__(self, spec: TableSpec, inlet: TableInput, options: LampOptions) -> None:
        levels = [len(spec.columns[j].categories) + 2 for j in inlet.categorical]
        hidden = options.hidden or 64
        latent = options.latent or bottleneck(inlet.width)
        net = MLPAutoencoder(len(inlet.numeric), levels, [hidden, latent, hidden])
        super().__init__(net, options.metric or "l2", 1.0 if options.top is None else options.top)
        owner = [*inlet.numeric, *(j for j, count in zip(inlet.categorical, levels, strict=True) for _ in range(count))]
        share = [1.0] * len(inlet.numeric) + [0.5] * sum(levels)
        columns = torch.zeros(inlet.width, len(spec.columns))
        columns[torch.arange(inlet.width), torch.tensor(owner)] = torch.tensor(share)
        self.register_buffer("columns", columns)

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        """Of each column, float32[B, D]."""
        found = super().between(x, y)
        with torch.autocast(x.device.type, enabled=False):
            return found @ self.columns

    def score(self, x: Tensor) -> Tensor:
        """score_B."""
        return self.worst(self.errors(x))

    def score_and_errors(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """score_B and errors [B, D]."""
        errors = self.errors(x)
        return self.worst(errors), errors


class ImageReconstruction(Reconstruction):
    """float32[B, 3, H, W] in [0, 1] → errors [B, C, H, W]; the map is their mean over channels and over `smooth` × `smooth` pixels.

    A defect is wrong over some area; a speck of one pixel that came out wrong is noise (our choice, by development images).
    """

    def __init__(self, net: nn.Module, metric: str, top: float, smooth: int = 1) -> None:
        super().__init__(net, metric, top)
        self.smooth = smooth

    def training_errors(self, x: Tensor) -> Tensor:
        """Of tiled images some tiles at random, as many as images at least: all would fill the memory. Each counts as a sample."""
        if not isinstance(self.net, Tiled):
            return self.errors(x)
        tiles = self.net.tiles(x)
        most = max(len(x), min(MOST_TILES, PIXELS // self.net.tile**2))
        some = torch.randperm(len(tiles), device=tiles.device)[:most]
        found: Tensor = self.metric(tiles[some], self.net.net(tiles[some]))
        return found

    def score(self, x: Tensor) -> Tensor:
        """score_B."""
        return self.score_and_map(x)[0]

    def score_and_map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """score_B and map [B, H, W]."""
        found = self.errors(x).mean(1)
        if self.smooth > 1:
            padding = self.smooth // 2
            found = F.avg_pool2d(found[:, None], self.smooth, 1, padding, count_include_pad=False)[:, 0]
        return self.worst(found.flatten(1)), found


def bottleneck(features: int) -> int:
    """Numbers in a row's bottleneck: a quarter of the features, from 2 to 32 (our choice)."""
    return min(32, max(2, features // 4))


def image_head(pixels: Any, options: LampOptions) -> ImageReconstruction:
    """The plain autoencoder, or the one around the timm network that `--backbone` names; for tiles where there are any."""
    side = options.tile or pixels.height
    width, depth, latent = options.width or 16, options.depth or 4, options.latent or 16
    net: nn.Module
    if pixels.encoder is None:
        net = ConvAutoencoder(side, side, width, depth, latent)
    else:
        net = TimmAutoencoder(pixels.encoder, side, side, depth, width, latent, options.encoder != "trained")
    if options.tile:
        net = Tiled(net, options.tile)
    top = 0.01 if options.top is None else options.top
    return ImageReconstruction(net, options.metric or "l2", top, options.smooth or 1)
