"""The loss pairs: L_n small for normal samples, L_a its opposite, from shared parameters. The test score is L_n alone [paper].

A detector is an nn.Module with `losses(x) -> (normal_B, anomaly_B)`, `score(x) -> score_B` and `start(x)`, which sees one
batch of training features before training.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anoaudit.nets.mlp import ParallelMLP, bias_free_mlp


class LossPair(Protocol):
    """What LOE trains. `x` is float32[B, D]."""

    def losses(self, x_BD: Tensor) -> tuple[Tensor, Tensor]:
        """(normal_B, anomaly_B)."""
        ...

    def score(self, x_BD: Tensor) -> Tensor:
        """score_B, higher is more anomalous."""
        ...

    def start(self, x_BD: Tensor) -> None:
        """Set what depends on the data before training."""
        ...


class NTL(nn.Module):
    """Neural transformation learning (Qiu et al., ICML 2021) as LOE's detector: METHODS §1.

    K learned views x_k = T_k(x); z = encoder, on the unit sphere; h(a, b) = exp(a·b/τ);
    p_k = h(z_k, z_0) / [h(z_k, z_0) + Σ_{l≠k, l≥1} h(z_k, z_l)];
    L_n = −Σ_k ln p_k / (K ln K), L_a = −Σ_k ln(1 − p_k) / (K ln K). All layers without bias [code].
    """

    def __init__(
        self,
        views: int,
        transform_sizes: list[int],
        encoder_sizes: list[int],
        residual: bool,
        temperature: float = 0.1,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.transforms = ParallelMLP(views, transform_sizes, norm)
        self.encoder = bias_free_mlp(encoder_sizes)
        self.residual, self.temperature, self.views = residual, temperature, views
        self.register_buffer("eye", torch.eye(views, dtype=torch.bool))

    def start(self, x_BD: Tensor) -> None:
        """Nothing depends on the data."""

    def _log_p(self, x_BD: Tensor) -> tuple[Tensor, Tensor]:
        """ln p_k and ln(1 − p_k), both [B, K], by log-sum-exp: p → 1 needs no clamp."""
        views_BKD = self.transforms(x_BD)
        if self.residual:
            views_BKD = views_BKD + x_BD[:, None]
        all_BLD = torch.cat([x_BD[:, None], views_BKD], dim=1)  # L = 1 + K: the original and its views, one encoder
        z_BLE = F.normalize(self.encoder(all_BLD).float(), dim=-1)
        z0_B1E, z_BKE = z_BLE[:, :1], z_BLE[:, 1:]
        original_BK1 = (z_BKE * z0_B1E).sum(-1, keepdim=True) / self.temperature
        with torch.autocast(z_BKE.device.type, enabled=False):  # bfloat16 would blur a·b/τ by 0.02
            others_BKK = (z_BKE @ z_BKE.transpose(1, 2)) / self.temperature
        # −inf would give NaN gradients through logsumexp's max; this is as good as nothing at |a·b|/τ ≤ 1000.
        others_BK = torch.logsumexp(others_BKK.masked_fill(self.get_buffer("eye"), -1e4), dim=-1)
        original_BK = original_BK1[..., 0]
        total_BK = torch.logaddexp(original_BK, others_BK)
        return original_BK - total_BK, others_BK - total_BK

    def losses(self, x_BD: Tensor) -> tuple[Tensor, Tensor]:
        """See LossPair."""
        log_p_BK, log_not_p_BK = self._log_p(x_BD)
        scale = self.views * math.log(self.views)
        return -log_p_BK.sum(1) / scale, -log_not_p_BK.sum(1) / scale

    def score(self, x_BD: Tensor) -> Tensor:
        """L_n."""
        return self.losses(x_BD)[0]


class DeepSVDD(nn.Module):
    """Deep SVDD (Ruff et al., ICML 2018): L_n = ‖f(x) − c‖², L_a = 1/‖f(x) − c‖²; no bias, c fixed before training.

    c is the mean of the initial outputs, coordinates near zero pushed to ±0.1 (as in the Deep SVDD paper's code).
    """

    EPSILON = 1e-6  # guards 1/0 when a sample sits on the centre
    center: Tensor

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.encoder = bias_free_mlp(sizes, nn.LeakyReLU)
        self.register_buffer("center", torch.zeros(sizes[-1]))

    @torch.no_grad()
    def start(self, x_BD: Tensor) -> None:
        """Fix c."""
        center = self.encoder(x_BD).mean(0)
        sign = torch.where(center < 0, -1.0, 1.0)
        self.center.copy_(torch.where(center.abs() < 0.1, 0.1 * sign, center))

    def score(self, x_BD: Tensor) -> Tensor:
        """L_n, the squared distance to c."""
        distance_B: Tensor = (self.encoder(x_BD).float() - self.center).square().sum(-1)
        return distance_B

    def losses(self, x_BD: Tensor) -> tuple[Tensor, Tensor]:
        """See LossPair."""
        distance_B = self.score(x_BD)
        return distance_B, 1.0 / (distance_B + self.EPSILON)


class Spatial(nn.Module):
    """A loss pair at every place of a feature map, brought to one pair an image (our choice).

    With L places, of which the share `top` with the largest L_n − L_a would be the defect if the image is anomalous:
    normal = mean of L_n over all places; anomaly = (Σ_top L_a + Σ_rest L_n)/L. So a flagged image pays the anomaly loss only
    where it looks anomalous, its intact places stay normal, and normal − anomaly ranks images by those same places.
    Score: mean of L_n over the `top` share of places; map: L_n at every place.
    """

    def __init__(self, pair: nn.Module, top: float) -> None:
        super().__init__()
        self.pair, self.top = pair, top

    def start(self, x_BLC: Tensor) -> None:
        """See LossPair."""
        self.pair.start(x_BLC.flatten(0, 1))  # type: ignore[operator]

    def losses(self, x_BLC: Tensor) -> tuple[Tensor, Tensor]:
        """(normal_B, anomaly_B) of float32[B, L, C]."""
        images, places = x_BLC.shape[:2]
        normal_N, anomaly_N = self.pair.losses(x_BLC.flatten(0, 1))  # type: ignore[operator]
        normal_BL, anomaly_BL = normal_N.view(images, places), anomaly_N.view(images, places)
        difference_BL = normal_BL - anomaly_BL
        count = self._count(places)
        top_BT = difference_BL.detach().topk(count, dim=1).indices
        normal_B = normal_BL.mean(1)
        return normal_B, normal_B - difference_BL.gather(1, top_BT).sum(1) / places

    def score_and_map(self, features_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """score_B and map_Bhw of float32[B, C, h, w]."""
        channels, height, width = features_BCHW.shape[1:]
        flat = features_BCHW.permute(0, 2, 3, 1).reshape(-1, channels)
        map_BL = self.pair.score(flat).reshape(-1, height * width)  # type: ignore[operator]
        score_B = map_BL.topk(self._count(height * width), dim=1).values.mean(1)
        return score_B, map_BL.reshape(-1, height, width)

    def score_places(self, x_BLC: Tensor) -> Tensor:
        """score_B of float32[B, L, C]: of the places at hand, in training of some of them."""
        images, places = x_BLC.shape[:2]
        score_BL = self.pair.score(x_BLC.flatten(0, 1)).view(images, places)  # type: ignore[operator]
        score_B: Tensor = score_BL.topk(self._count(places), dim=1).values.mean(1)
        return score_B

    def _count(self, places: int) -> int:
        return max(1, round(self.top * places))
