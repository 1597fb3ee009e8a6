"""Random views of a batch of images, in torch on the batch's device, one draw an image (SimCLR's, without its blur).

All draws come from torch's default generators, which the training loop seeds for each epoch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """`crop`: smallest share of the area; `jitter`: strength of brightness, contrast and saturation (hue a quarter of it)."""

    crop: float = 0.08
    jitter: float = 0.4
    jitter_share: float = 0.8
    grey_share: float = 0.2
    flip: bool = True


SIMCLR = Augmentation()
#: Ours, for pictures whose colours and details matter: crops that keep a third of the area and always overlap, little colour.
MILD = Augmentation(crop=0.35, jitter=0.1, jitter_share=0.8, grey_share=0.0)


@dataclass(frozen=True)
class View:
    """`pixels` float32[B, 3, H, W]; the view's point p lies at scale·p + shift in the image, both in [−1, 1], (x, y)."""

    pixels: Tensor
    scale: Tensor  # [B, 2], like shift
    shift: Tensor

    def locate(self, points_BP2: Tensor) -> Tensor:
        """Points of the image, in the view's coordinates."""
        return (points_BP2 - self.shift[:, None]) / self.scale[:, None]


def view(pixels_BCHW: Tensor, how: Augmentation) -> View:
    """One random view of each image, pixels in [0, 1], in single precision."""
    with torch.autocast(pixels_BCHW.device.type, enabled=False):
        return _view(pixels_BCHW, how)


def _view(pixels_BCHW: Tensor, how: Augmentation) -> View:
    count, device = len(pixels_BCHW), pixels_BCHW.device
    area = torch.empty(count, device=device).uniform_(how.crop, 1.0)
    aspect = torch.empty(count, device=device).uniform_(-math.log(4 / 3), math.log(4 / 3)).exp().sqrt()
    scale_B2 = torch.stack([(area.sqrt() * aspect).clamp_max(1.0), (area.sqrt() / aspect).clamp_max(1.0)], dim=1)
    shift_B2 = (1 - scale_B2) * torch.empty(count, 2, device=device).uniform_(-1, 1)
    if how.flip:
        mirrored = torch.where(torch.rand(count, device=device) < 0.5, -1.0, 1.0)
        scale_B2 = scale_B2 * torch.stack([mirrored, torch.ones_like(mirrored)], dim=1)
    theta = torch.zeros(count, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = scale_B2[:, 0], scale_B2[:, 1], shift_B2
    grid = F.affine_grid(theta, list(pixels_BCHW.shape), align_corners=False)
    cropped = F.grid_sample(pixels_BCHW, grid, padding_mode="reflection", align_corners=False)
    return View(_recoloured(cropped, how), scale_B2, shift_B2)


def common_points(a: View, b: View, count: int) -> Tensor:
    """[B, count, 2] random points of each image that both views show; where they do not overlap, between the two."""
    low_B2 = torch.maximum(a.shift - a.scale.abs(), b.shift - b.scale.abs())
    high_B2 = torch.minimum(a.shift + a.scale.abs(), b.shift + b.scale.abs())
    place_BP2 = torch.rand(len(low_B2), count, 2, device=low_B2.device)
    return low_B2[:, None] + place_BP2 * (high_B2 - low_B2)[:, None]


def _recoloured(x_BCHW: Tensor, how: Augmentation) -> Tensor:
    """Brightness, contrast, saturation, hue (a turn of the chroma in YIQ), in this order, then grey for some."""
    count, device = len(x_BCHW), x_BCHW.device

    def factor(strength: float) -> Tensor:
        changed = torch.empty(count, device=device).uniform_(-strength, strength)
        return changed.view(-1, 1, 1, 1)

    chosen = (torch.rand(count, device=device) < how.jitter_share).view(-1, 1, 1, 1)
    x = (x_BCHW * (1 + factor(how.jitter))).clamp(0, 1)
    mean = _luminance(x).mean(dim=(2, 3), keepdim=True)
    x = (mean + (x - mean) * (1 + factor(how.jitter))).clamp(0, 1)
    grey = _luminance(x)
    x = (grey + (x - grey) * (1 + factor(how.jitter))).clamp(0, 1)
    x = torch.einsum("bij,bjhw->bihw", _turned_hue(factor(how.jitter / 4).flatten() * 2 * math.pi), x).clamp(0, 1)
    x = torch.where(chosen, x, x_BCHW)
    if how.grey_share > 0:
        drained = (torch.rand(count, device=device) < how.grey_share).view(-1, 1, 1, 1)
        x = torch.where(drained, _luminance(x).expand_as(x), x)
    return x


def _luminance(x_BCHW: Tensor) -> Tensor:
    """[B, 1, H, W]."""
    return 0.299 * x_BCHW[:, :1] + 0.587 * x_BCHW[:, 1:2] + 0.114 * x_BCHW[:, 2:]


def _turned_hue(angle_B: Tensor) -> Tensor:
    """[B, 3, 3] on RGB: YIQ's chroma turned by the angle."""
    to = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], device=angle_B.device)
    turn = torch.zeros(len(angle_B), 3, 3, device=angle_B.device)
    turn[:, 0, 0] = 1.0
    turn[:, 1, 1] = turn[:, 2, 2] = angle_B.cos()
    turn[:, 1, 2], turn[:, 2, 1] = -angle_B.sin(), angle_B.sin()
    turned: Tensor = torch.linalg.inv(to) @ turn @ to
    return turned
