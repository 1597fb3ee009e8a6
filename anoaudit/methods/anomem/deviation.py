"""Stage 2: distance networks on the deviation maps of a frozen stage 1, one a scale, and the detector that they make.

Source: METHODS §4. One-class: the distance of a bias-free network's output to zero; known anomalies: its inverse. How collapse is
ruled out (rotations), how places make a score, and the robust standardisation are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from anoaudit.methods.anomem.scales import MemoryScales, place_vectors, pooled_vector
from anoaudit.nets.pixels import unit_pixels

SLOPE = 0.1
FLOOR = 0.5  # of the median: a scale that fits few training images closely would drown the others by a tiny spread
EPSILON = 1e-2  # in 1/distance, where the mean distance before training is 1


class DistanceNet(nn.Module):
    """Deviations [N, d] → squared distances to zero [N], about 1 on average before training.

    Deviations are centred and whitened first, by the training normals' moments (`measure`), which are fixed before training.
    Then rotations with leaky rectifiers between them: no bias, no affine normalisation, and no weights that could shrink to zero,
    so ‖g(Δ)‖ stays between SLOPE^layers·‖Δ‖ and ‖Δ‖ and no training makes it constant. What it learns is which directions of
    deviation are usual, by turning them to where the rectifier shrinks them. `layers` 0 is the plain distance.
    """

    mean: Tensor
    whitening: Tensor
    reference: Tensor

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("whitening", torch.eye(width))
        self.layers = nn.ModuleList(orthogonal(nn.Linear(width, width, bias=False)) for _ in range(layers))
        self.register_buffer("reference", torch.ones(()))

    def forward(self, deviation_ND: Tensor) -> Tensor:
        """See above."""
        with torch.autocast(deviation_ND.device.type, enabled=False):  # in bfloat16 a rotation is none
            h = self.whitened(deviation_ND)
            for layer in self.layers:
                h = F.leaky_relu(layer(h), SLOPE)
            return h.square().sum(1) / self.reference

    def whitened(self, deviation_ND: Tensor) -> Tensor:
        """[N, d] of mean 0 and, but for the shrinkage, covariance 1 on training normals."""
        return (deviation_ND.float() - self.mean) @ self.whitening

    def measure(self, images: int, count: int, total_D: Tensor, products_DD: Tensor) -> None:
        """From Σ Δ and Σ ΔΔᵀ in float64 over `count` places of so many images.

        The covariance is shrunk towards its mean variance with the weight of d images (ours): places of one image are no
        independent samples, and of few images a whitening would fit every quirk.
        """
        width = len(total_D)
        mean = total_D / count
        covariance = products_DD / count - torch.outer(mean, mean)
        level = covariance.diagonal().mean().clamp_min(1e-12)
        rho = width / (width + images)
        eye = torch.eye(width, dtype=covariance.dtype, device=covariance.device)
        values, vectors = torch.linalg.eigh((1 - rho) * covariance + rho * level * eye)
        self.mean.copy_(mean)
        self.whitening.copy_(vectors * values.clamp_min(1e-6 * float(level)).rsqrt())

    def settle(self) -> None:
        """Weights in place of their parametrisation, which no exporter knows."""
        for layer in self.layers:
            if is_parametrized(layer):
                remove_parametrizations(layer, "weight", leave_parametrized=True)


class AnoMemDetector(nn.Module):
    """uint8[B, H, W, 3] → score float32[B], map float32[B, h, w] at the finest scale.

    A scale's score is the mean distance of the `top` share of its places with the largest, or the distance of what was
    contrasted where that is the mean over places; it is standardised by the training
    normals' median and spread. Score: the weighted sum over scales; map: the same sum at each place.
    """

    center: Tensor
    spread: Tensor
    weights: Tensor

    def __init__(self, scales: MemoryScales, layers: int, top: float, weights: Iterable[float]) -> None:
        super().__init__()
        self.scales, self.top = scales, top
        self.grids = scales.grids
        self.nets = nn.ModuleList(DistanceNet(d, layers) for d in scales.widths)
        count = len(self.nets)
        self.register_buffer("weights", torch.tensor([float(weight) for weight in weights]))
        self.register_buffer("center", torch.zeros(count))
        self.register_buffer("spread", torch.ones(count))

    def distances(self, items: Tensor) -> list[Tensor]:
        """[B, places] of each scale, or [B, 1] of vectors of whole images."""
        return self._distances(self.scales.vectors(unit_pixels(items)))

    def _distances(self, vectors: list[Tensor]) -> list[Tensor]:
        return [
            net(deviation_BLD.flatten(0, 1)).reshape(deviation_BLD.shape[:2])
            for net, deviation_BLD in zip(self.nets, self.scales.deviations(vectors), strict=True)
        ]

    def scale_scores(self, distances: list[Tensor]) -> Tensor:
        """[B, scales], not standardised."""
        return torch.stack([self._top(d_BL).mean(1) for d_BL in distances], dim=1)

    def forward(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """See above."""
        maps = self.scales.maps(unit_pixels(items))
        distances = self._distances([place_vectors(m) for m in maps])
        seen = self._distances([pooled_vector(m)[:, None] for m in maps]) if self.scales.pooled else distances
        standard_BS = (self.scale_scores(seen) - self.center) / self.spread
        heat = torch.zeros(1, device=items.device)
        for s, (d_BL, grid) in enumerate(zip(distances, self.grids, strict=True)):
            d_B1hw = ((d_BL - self.center[s]) / self.spread[s] * self.weights[s]).reshape(-1, 1, *grid)
            if grid != self.grids[0]:
                d_B1hw = F.interpolate(d_B1hw, size=self.grids[0], mode="bilinear", align_corners=False)
            heat = heat + d_B1hw[:, 0]
        return standard_BS @ self.weights, heat

    def losses(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """(normal_B, anomaly_B): distances over all places; an anomaly pays 1/distance at its `top` places alone (ours)."""
        normal_B = anomaly_B = torch.zeros(1, device=items.device)
        for weight, d_BL in zip(self.weights, self.distances(items), strict=True):
            top_BT = self._top(d_BL)
            mean_B = d_BL.mean(1)
            normal_B = normal_B + weight * mean_B
            changed_B = (1 / (top_BT + EPSILON) - top_BT).sum(1) / d_BL.shape[1]
            anomaly_B = anomaly_B + weight * (mean_B + changed_B)
        return normal_B, anomaly_B

    def _top(self, d_BL: Tensor) -> Tensor:
        return d_BL.topk(max(1, round(self.top * d_BL.shape[1])), dim=1).values

    @torch.no_grad()
    def refer(self, batches: Callable[[], Iterable[Tensor]]) -> None:
        """Measure the deviations of these items, and make their mean distance 1 at every scale."""
        self.scales.measure(unit_pixels(items) for items in batches())
        images, counts = 0, [0] * len(self.nets)
        totals = [torch.zeros(d, dtype=torch.float64, device=self.center.device) for d in self.scales.widths]
        products = [torch.outer(total, total) for total in totals]
        for items in batches():
            images += len(items)
            for s, deviation_BLD in enumerate(self.scales.deviations(self.scales.vectors(unit_pixels(items)))):
                flat = deviation_BLD.flatten(0, 1).double()
                counts[s] += len(flat)
                totals[s] += flat.sum(0)
                products[s] += flat.T @ flat
        for net, count, total, product in zip(self.nets, counts, totals, products, strict=True):
            assert isinstance(net, DistanceNet)
            net.measure(images, count, total, product)
        sums = torch.stack([torch.stack([d_BL.mean(1).sum() for d_BL in self.distances(items)]) for items in batches()])
        for net, mean in zip(self.nets, sums.sum(0) / images, strict=True):
            assert isinstance(net, DistanceNet)
            net.reference.mul_(mean.clamp_min(1e-12))

    @torch.no_grad()
    def standardise(self, batches: Iterable[Tensor]) -> Tensor:
        """By median and MAD of training items, among which anomalies may hide. Returns their parts of the score, [N, scales]."""
        found_NS = torch.cat([self.scale_scores(self.distances(items)) for items in batches])
        center = found_NS.median(0).values
        mad = (found_NS - center).abs().median(0).values * 1.4826
        self.center.copy_(center)
        self.spread.copy_(torch.maximum(mad, (FLOOR * center).clamp_min(1e-12)))
        return (found_NS - self.center) / self.spread * self.weights

    def settle(self) -> None:
        """After training: ready for export."""
        for net in self.nets:
            assert isinstance(net, DistanceNet)
            net.settle()
