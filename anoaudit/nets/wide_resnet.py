"""Wide ResNet (Zagoruyko & Komodakis, BMVC 2016) for small images: depth 16 and width 4 by default, pooled to 64·width numbers."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class _Block(nn.Module):
    """Pre-activation residual block: norm, ReLU, 3×3, twice; the shortcut is 1×1 where the shape changes."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inner), nn.BatchNorm2d(outer)
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inner, outer, 1, stride, bias=False) if inner != outer or stride != 1 else None

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(x))
        kept = x if self.shortcut is None else self.shortcut(h)
        out: Tensor = kept + self.conv2(F.relu(self.norm2(self.conv1(h))))
        return out


class WideResNet(nn.Module):
    """float32[B, 3, H, W] → float32[B, 64·width]; H and W from about 16."""

    def __init__(self, depth: int = 16, width: int = 4) -> None:
        super().__init__()
        if (depth - 4) % 6:
            raise ValueError(f"depth {depth} is not 6n + 4")
        channels = [16, 16 * width, 32 * width, 64 * width]
        self.num_features = channels[-1]
        self.stem = nn.Conv2d(3, channels[0], 3, 1, 1, bias=False)
        blocks: list[nn.Module] = []
        for stage in range(3):
            for i in range((depth - 4) // 6):
                inner = channels[stage] if i == 0 else channels[stage + 1]
                blocks.append(_Block(inner, channels[stage + 1], 2 if stage > 0 and i == 0 else 1))
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(channels[-1])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """The mean over places of the last stage."""
        h = F.relu(self.norm(self.blocks(self.stem(x))))
        return h.mean(dim=(2, 3))
