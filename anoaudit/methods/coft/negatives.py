"""Synthesised negatives: what a normal image is pushed from, where the kind of anomaly can be simulated.

float32[B, 3, H, W] in [0, 1] in and out; draws come from torch's default generator, which the loop seeds for each epoch. The
positive views are crops, mirrors and colours (`training/augment.py`), none of these: nothing is both a positive and a negative.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Kind = Literal["cutpaste", "rotate", "none"]

AREA = (0.02, 0.15)  # of the image that is pasted over, as in CutPaste
ASPECT = 3.3
TINT = 0.1  # the pasted piece is so much lighter or darker at most


def synthesise(pixels_BCHW: Tensor, kind: Kind) -> Tensor:
    """One negative of each image, of a kind other than none."""
    return cutpaste(pixels_BCHW) if kind == "cutpaste" else rotate(pixels_BCHW)


def cutpaste(pixels_BCHW: Tensor) -> Tensor:
    """A rectangle of the image pasted elsewhere on it (Li et al., CutPaste, CVPR 2021): a local defect."""
    count, _, height, width = pixels_BCHW.shape
    device = pixels_BCHW.device

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(count, device=device).uniform_(low, high)

    area, aspect = uniform(*AREA), uniform(-math.log(ASPECT), math.log(ASPECT)).exp()
    tall = ((area * aspect).sqrt() * height).clamp(1, height).round().long()
    wide = ((area / aspect).sqrt() * width).clamp(1, width).round().long()
    top, left = _place(tall, height), _place(wide, width)
    from_top, from_left = _place(tall, height), _place(wide, width)
    y_H, x_W = torch.arange(height, device=device), torch.arange(width, device=device)
    inside_BH = (y_H >= top[:, None]) & (y_H < (top + tall)[:, None])
    inside_BW = (x_W >= left[:, None]) & (x_W < (left + wide)[:, None])
    inside_BHW = inside_BH[:, :, None] & inside_BW[:, None, :]
    y_BH = (y_H + (from_top - top)[:, None]) % height
    x_BW = (x_W + (from_left - left)[:, None]) % width
    every_B = torch.arange(count, device=device)
    moved_BHWC = pixels_BCHW[every_B[:, None, None], :, y_BH[:, :, None], x_BW[:, None, :]]
    moved = moved_BHWC.permute(0, 3, 1, 2) * (1 + uniform(-TINT, TINT)).view(-1, 1, 1, 1)
    return torch.where(inside_BHW[:, None], moved.clamp(0, 1), pixels_BCHW)


def _place(size_B: Tensor, room: int) -> Tensor:
    """A random start so that the piece fits."""
    free_B = (room - size_B + 1).float()
    return (torch.rand(len(size_B), device=size_B.device) * free_B).long().minimum(free_B.long() - 1)


def rotate(pixels_BCHW: Tensor) -> Tensor:
    """Turned by one, two or three quarters, at random."""
    quarters_B = torch.randint(1, 4, (len(pixels_BCHW),), device=pixels_BCHW.device)
    cos, sin = torch.cos(quarters_B * math.pi / 2).round(), torch.sin(quarters_B * math.pi / 2).round()
    zero = torch.zeros_like(cos)
    theta = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    grid = F.affine_grid(theta, list(pixels_BCHW.shape), align_corners=False)
    return F.grid_sample(pixels_BCHW, grid, padding_mode="border", align_corners=False)
