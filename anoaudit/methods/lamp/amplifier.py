"""The loss amplifier: any reconstruction error in [0, 1) goes in, a steeper loss comes out; no network knows of it.

A(ℓ) = −ln(1 − ℓ) (Park et al. 2024; METHODS §5, where it stands from memory of the paper), gradient gain 1/(1 − ℓ): small where
the error is small (1.003 at ℓ = 0.0025), large where it is large. `odds`, ℓ/(1 − ℓ) with gain 1/(1 − ℓ)², is our addition.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Kind = Literal["log", "odds", "none"]
Level = Literal["element", "sample", "batch"]
LARGEST = 1.0 - 1e-6  # in float32, where 1 − 1e-12 would be 1 and the logarithm infinite


def amplify(error: Tensor, kind: Kind) -> Tensor:
    """A(ℓ) of errors of any shape, float32 even under autocast: bfloat16 knows no number between 0.996 and 1."""
    with torch.autocast(error.device.type, enabled=False):
        ell = error.float()
        if kind == "none":
            return ell
        ell = ell.clamp(max=LARGEST)
        return -torch.log1p(-ell) if kind == "log" else ell / (1.0 - ell)  # not 1 − ℓ first: that loses errors near 0


def training_loss(error: Tensor, kind: Kind = "log", level: Level = "element") -> Tensor:
    """Scalar loss of errors [B, …]: amplified per element, per sample's mean or per batch's mean, then averaged."""
    ell = error.float()
    if level == "sample":
        ell = ell.flatten(1).mean(1)
    elif level == "batch":
        ell = ell.mean()
    return amplify(ell, kind).mean()
