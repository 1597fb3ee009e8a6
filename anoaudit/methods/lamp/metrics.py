"""Reconstruction errors per element, each in [0, 1] for inputs in [0, 1]: L1, L2, DSSIM, MSGMS and their combinations.

They are computed in float32 even under autocast: an error near 1 must not round to 1 before the amplifier's logarithm.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PLAIN, SPATIAL = ("l1", "l2"), ("dssim", "msgms")
NAMES = PLAIN + SPATIAL
WINDOW, SIGMA, C1, C2 = 11, 1.5, 0.01**2, 0.03**2  # SSIM's own (Wang et al., IEEE TIP 2004), for a range of 1
SCALES, GMS_C = 4, 0.0026  # Zavrtanik et al., RIAD, Pattern Recognition 2021 (after Xue et al., IEEE TIP 2014)
TINY = 1e-8  # under the root of a gradient's magnitude, whose derivative is infinite at 0


class Metric(nn.Module):
    """The mean of the named errors: inputs and reconstructions [B, C, H, W] (or [B, F]) → error [B, C, H, W] (or [B, F]).

    `name` is one of l1, l2, dssim, msgms or several with `+`. Of vectors there are l1 and l2 only.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.parts = tuple(name.split("+"))
        unknown = [part for part in self.parts if part not in NAMES]
        if unknown:
            raise ValueError(f"there is no metric {unknown[0]!r}")
        axis = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
        weights = torch.exp(-(axis**2) / (2 * SIGMA**2))
        self.register_buffer("window", (weights / weights.sum()).float())
        prewitt = torch.tensor([[1.0, 0.0, -1.0]] * 3) / 3
        self.register_buffer("gradients", torch.stack([prewitt, prewitt.T])[:, None])

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The error, float32."""
        with torch.autocast(x.device.type, enabled=False):
            x, y = x.float(), y.float()
            total = self._error(self.parts[0], x, y)
            for part in self.parts[1:]:
                total = total + self._error(part, x, y)
            return total / len(self.parts)

    def _error(self, part: str, x: Tensor, y: Tensor) -> Tensor:
        if part == "l1":
            return (x - y).abs()
        if part == "l2":
            return (x - y).square()
        return self._dssim(x, y) if part == "dssim" else self._msgms(x, y)

    def _dssim(self, x: Tensor, y: Tensor) -> Tensor:
        """(1 − SSIM)/2 at every place and channel, [B, C, H, W]; a Gaussian window, reflected at the border."""
        channels = x.shape[1]
        both = torch.cat([x, y, x * x, y * y, x * y], dim=1)
        half = WINDOW // 2
        window = self.get_buffer("window").expand(5 * channels, 1, 1, WINDOW)
        both = F.conv2d(F.pad(both, (half, half, half, half), mode="reflect"), window, groups=5 * channels)
        both = F.conv2d(both, window.transpose(2, 3), groups=5 * channels)
        mean_x, mean_y, xx, yy, xy = torch.split(both, channels, dim=1)
        var_x, var_y = (xx - mean_x.square()).clamp_min(0), (yy - mean_y.square()).clamp_min(0)
        covariance = xy - mean_x * mean_y
        ssim = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
        ssim = ssim / ((mean_x.square() + mean_y.square() + C1) * (var_x + var_y + C2))
        return (0.5 - 0.5 * ssim).clamp(0, 1)

    def _msgms(self, x: Tensor, y: Tensor) -> Tensor:
        """1 − gradient magnitude similarity of the greys, the mean over scales 1 to 1/8, [B, 1, H, W]."""
        size = x.shape[-2:]
        x, y = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
        total = torch.zeros_like(x)
        scales = [k for k in range(SCALES) if min(size) >> k >= 4]
        for k in scales:
            if k:
                x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
            a, b = self._magnitude(x), self._magnitude(y)
            error = 1 - (2 * a * b + GMS_C) / (a * a + b * b + GMS_C)
            total = total + (error if k == 0 else F.interpolate(error, size=size, mode="bilinear", align_corners=False))
        return (total / len(scales)).clamp(0, 1)

    def _magnitude(self, x: Tensor) -> Tensor:
        both = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), self.get_buffer("gradients"))
        return torch.sqrt(both.square().sum(1, keepdim=True) + TINY)
