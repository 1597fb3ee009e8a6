"""Image features without any pretrained weights: a fixed bank of Gaussian-derivative filters (our choice).

Colour in an opponent space, smoothed; oriented gradients and blobs at three scales, rectified and pooled. This is what a
texture is made of, costs nothing to make, and is the same on every machine.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIGMAS = (1.0, 2.0, 4.0)
OPPONENT = ((0.299, 0.587, 0.114), (0.5, -0.5, 0.0), (0.25, 0.25, -0.5))  # luminance, red-green, yellow-blue


class FilterBank(nn.Module):
    """uint8[B, H, W, 3] → float32[B, C, H/4, W/4]; or, `pooled`, [B, 3C]: mean, spread and maximum of each over the places."""

    def __init__(self, size: int = 128, stride: int = 4, pooled: bool = False) -> None:
        super().__init__()
        self.height = self.width = size
        self.stride = stride
        self.pooled = pooled
        self.grid = None if pooled else (size // stride, size // stride)
        self.vector_channels = 0  # it knows textures, not what is in an image
        self.register_buffer("colour", torch.tensor(OPPONENT)[:, :, None, None])
        for i, sigma in enumerate(SIGMAS):
            self.register_buffer(f"bank_{i}", _bank(sigma))
        # Per scale: 3 smoothed colours, 4 orientations of luminance (both signs), blobs of 3 colours (both signs).
        self.channels = len(SIGMAS) * (3 + 2 * 4 + 2 * 3) * (3 if pooled else 1)

    def forward(self, images: Tensor) -> Tensor:
        """Features on a grid of a quarter of the image's resolution, or of the whole image."""
        x = F.conv2d(images.permute(0, 3, 1, 2).float() / 255.0, self.get_buffer("colour"))
        maps = []
        for i, sigma in enumerate(SIGMAS):
            bank = self.get_buffer(f"bank_{i}")
            radius = bank.shape[-1] // 2
            padded = F.pad(x, (radius, radius, radius, radius), mode="reflect")
            smooth_and_blob = F.conv2d(padded, bank[:2].repeat(3, 1, 1, 1), groups=3)  # [B, 6, H, W]
            smooth, blob = smooth_and_blob[:, 0::2], smooth_and_blob[:, 1::2]
            edge = F.conv2d(padded[:, :1], bank[2:])  # [B, 4, H, W]
            signed = torch.cat([edge, blob], dim=1) * sigma
            maps.append(torch.cat([smooth, torch.relu(signed), torch.relu(-signed)], dim=1))
        grid = F.avg_pool2d(torch.cat(maps, dim=1), self.stride)
        # Neighbouring places see each other: parts never lie to the pixel where the last one lay.
        near = F.avg_pool2d(grid, 3, stride=1, padding=1, count_include_pad=False)
        return torch.cat([near.mean((2, 3)), near.std((2, 3)), near.amax((2, 3))], dim=1) if self.pooled else near


def _bank(sigma: float) -> Tensor:
    """[6, 1, k, k]: a Gaussian, its Laplacian, and its derivative in four directions; unit L1 norm each."""
    radius = math.ceil(3 * sigma)
    axis = torch.arange(-radius, radius + 1, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    gauss = torch.exp(-(x**2 + y**2) / (2 * sigma**2))
    kernels = [gauss, ((x**2 + y**2) / sigma**2 - 2) * gauss]
    for k in range(4):
        angle = k * math.pi / 4
        kernels.append((x * math.cos(angle) + y * math.sin(angle)) * gauss)
    for k in range(1, 6):  # derivatives see no brightness
        kernels[k] = kernels[k] - kernels[k].mean()
    return torch.stack([kernel / kernel.abs().sum() for kernel in kernels])[:, None].float()
