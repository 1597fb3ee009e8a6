"""Autoencoders, for images and for table rows: inputs in [0, 1] in, reconstructions in [0, 1] out, of the same shape.

They know nothing of the error that is taken of them, or of what is made of it.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anoaudit.nets.backbones import TimmBackbone

SLOPE = 0.2  # of the LeakyReLUs


class Decoder(nn.Module):
    """Nearest-neighbour doubling and a 3×3 convolution, once for each size: [B, filters[0], h, w] → [B, 3, H, W] in (0, 1).

    `filters` counts the channels of each stage, `sizes` the [height, width] after each stage, the image's last.
    """

    def __init__(self, filters: Sequence[int], sizes: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.sizes = list(sizes)
        ends = [*filters, 3]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(ends))
        assert len(self.convs) == len(self.sizes)

    def forward(self, h: Tensor) -> Tensor:
        """The picture."""
        for k, (conv, size) in enumerate(zip(self.convs, self.sizes, strict=True)):
            h = conv(F.interpolate(h, size=size, mode="nearest"))
            h = F.leaky_relu(h, SLOPE) if k + 1 < len(self.convs) else torch.sigmoid(h)
        return h


class ConvAutoencoder(nn.Module):
    """float32[B, 3, H, W] in [0, 1] → the same shape, for images of one size (any from 2^depth pixels a side).

    Encoder: 3×3 convolutions of stride 2 with width, 2·width, 4·width, … filters and LeakyReLU (64-128-256-512 at width 64 and
    depth 4, METHODS §5), then 1×1 to `latent` channels, the bottleneck (our choice: without it a wide network copies).
    """

    def __init__(self, height: int, width_px: int, width: int = 16, depth: int = 4, latent: int = 16) -> None:
        super().__init__()
        filters = [width << k for k in range(depth)]
        sizes = halved(height, width_px, depth)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise([3, *filters])
        )
        self.squeeze = nn.Conv2d(filters[-1], latent, 1)
        self.widen = nn.Conv2d(latent, filters[-1], 1)
        self.decoder = Decoder(filters[::-1], sizes[-2::-1])

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction."""
        h = x * 2 - 1
        for conv in self.convs:
            h = F.leaky_relu(conv(h), SLOPE)
        out: Tensor = self.decoder(F.leaky_relu(self.widen(self.squeeze(h)), SLOPE))
        return out


class TimmAutoencoder(nn.Module):
    """A timm network as encoder, up to one of its maps, and the plain decoder behind a 1×1 bottleneck.

    float32[B, 3, H, W] in [0, 1] → the same shape. `backbone` gives a map of `depth` halvings. A frozen encoder stays as it is,
    in eval semantics; else all is trained, from a copy.
    """

    def __init__(
        self,
        backbone: TimmBackbone,
        height: int,
        width_px: int,
        depth: int = 4,
        width: int = 16,
        latent: int = 16,
        frozen: bool = True,
    ) -> None:
        super().__init__()
        assert backbone.stages is not None
        self.stage, self.frozen = backbone.stages[0], frozen
        self.net = backbone.net if frozen else copy.deepcopy(backbone.net).requires_grad_(True)
        self.register_buffer("mean", backbone.get_buffer("mean") / 255.0)
        self.register_buffer("std", backbone.get_buffer("std") / 255.0)
        self.squeeze = nn.Conv2d(backbone.channels, latent, 1)
        filters = [width << k for k in range(depth)]
        self.widen = nn.Conv2d(latent, filters[-1], 1)
        self.decoder = Decoder(filters[::-1], halved(height, width_px, depth)[-2::-1])

    def train(self, mode: bool = True) -> TimmAutoencoder:
        """A frozen encoder's running means do not move."""
        super().train(mode)
        if self.frozen:
            self.net.train(False)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction."""
        (h,) = self.net.forward_intermediates(  # type: ignore[operator]
            (x - self.get_buffer("mean")) / self.get_buffer("std"),
            indices=[self.stage],
            intermediates_only=True,
            output_fmt="NCHW",
        )
        out: Tensor = self.decoder(F.leaky_relu(self.widen(self.squeeze(h)), SLOPE))
        return out


class Tiled(nn.Module):
    """A network for tiles of `tile` pixels a side, applied to each tile of larger images at once: [B, 3, H, W] → the same shape.

    H and W are multiples of the tile's side.
    """

    def __init__(self, net: nn.Module, tile: int) -> None:
        super().__init__()
        self.net, self.tile = net, tile

    def forward(self, x: Tensor) -> Tensor:
        """The tiles' reconstructions, put together."""
        height, width = x.shape[-2:]
        return self._joined(self.net(self.tiles(x)), height // self.tile, width // self.tile)

    def tiles(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B·rows·columns, C, tile, tile], those of an image together."""
        channels, (height, width), t = x.shape[1], x.shape[-2:], self.tile
        cut = x.reshape(-1, channels, height // t, t, width // t, t)
        return cut.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, t, t)

    def _joined(self, tiles: Tensor, rows: int, columns: int) -> Tensor:
        channels, t = tiles.shape[1], self.tile
        grid = tiles.reshape(-1, rows, columns, channels, t, t)
        return grid.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, rows * t, columns * t)


class MLPAutoencoder(nn.Module):
    """float32[B, F] → the same shape. The first `numbers` features come back in (0, 1), then one softmax for each category.

    `categories` counts the levels of each categorical column; their features stand behind the numbers'. `sizes` are the widths
    of the hidden layers, the narrowest in their middle.
    """

    def __init__(self, numbers: int, categories: Sequence[int], sizes: Sequence[int]) -> None:
        super().__init__()
        self.blocks = [numbers, *categories]
        features = sum(self.blocks)
        ends = [features, *sizes, features]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(ends))

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction."""
        h = x
        for k, layer in enumerate(self.layers):
            h = layer(h)
            if k + 1 < len(self.layers):
                h = F.leaky_relu(h, SLOPE)
        if len(self.blocks) == 1:
            return torch.sigmoid(h)
        numbers, *levels = torch.split(h, self.blocks, dim=1)
        return torch.cat([torch.sigmoid(numbers), *(torch.softmax(part, dim=1) for part in levels)], dim=1)


def halved(height: int, width: int, times: int) -> list[tuple[int, int]]:
    """[height, width] of an image and of what convolutions of stride 2 make of it, one after another."""
    sizes = [(height, width)]
    for _ in range(times):
        height, width = (height + 1) // 2, (width + 1) // 2
        sizes.append((height, width))
    return sizes
