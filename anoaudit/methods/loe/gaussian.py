"""A Gaussian as LOE's detector (our choice): L_n is the squared Mahalanobis distance, and the M-step is closed.

On a table, refitted without what it flags, it is close to MCD; on feature maps, with one Gaussian a place, to PaDiM (Defard
et al. 2021) on contaminated data.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anoaudit.methods.loe.alternate import Head
from anoaudit.training.loop import Batches

BATCH = 32  # of images
ROW_BATCH = 8192
RIDGE = 1e-2  # of the mean variance, added to every channel
PRIOR_PER_CHANNEL = (
    4.0  # items' weight of the pooled covariance, a channel: few items must not overfit their own places
)


class Gaussian(nn.Module):
    """One Gaussian at each of P places: z = W(x − μ) with WᵀW = Σ⁻¹, distance ‖z‖². Vectors are P = 1.

    Σ at a place is shrunk towards the mean of the places' covariances with the weight of `PRIOR_PER_CHANNEL`·C items; for a
    single place towards its own diagonal with the weight of C items. It narrows the gap between
    items that were trained on and items that were not; it does not close it, which is why the final fit takes all items.
    """

    mean: Tensor
    whiten: Tensor

    def __init__(self, channels: int, places: int = 1) -> None:
        super().__init__()
        self.channels, self.places = channels, places
        self.register_buffer("mean", torch.zeros(places, channels))
        self.register_buffer("whiten", torch.eye(channels).repeat(places, 1, 1))

    def distance(self, x_BPC: Tensor) -> Tensor:
        """[B, P]: squared Mahalanobis distance at each place, a C-th of it, so that 1 is what a normal item has."""
        z_BPC = torch.einsum("bpc,pdc->bpd", x_BPC - self.mean, self.whiten)
        return z_BPC.square().sum(-1) / self.channels

    def m_step(self, data: Batches, weights_N: Tensor, device: torch.device) -> None:
        """Weighted mean and covariance over all items, in double precision, a batch at a time."""
        shape = (self.places, self.channels)
        total = torch.zeros(shape, dtype=torch.float64, device=device)
        squares = torch.zeros((*shape, self.channels), dtype=torch.float64, device=device)
        # Deviations from a first item-mean keep Σxxᵀ − μμᵀ from cancelling.
        origin = None
        for indices in _batches(data, self):
            x_BPC = _places(data.batch(indices, device)[0]).double()
            origin = x_BPC.mean(0) if origin is None else origin
            d_BPC = x_BPC - origin
            w_B = weights_N[indices].double().to(device)
            total += torch.einsum("b,bpc->pc", w_B, d_BPC)
            squares += torch.einsum("b,bpc,bpd->pcd", w_B, d_BPC, d_BPC)
        assert origin is not None
        count = weights_N.double().sum().clamp_min(1.0).to(device)
        mean = total / count
        cov_PCC = squares / count - torch.einsum("pc,pd->pcd", mean, mean)
        if self.places > 1:
            pooled, prior = cov_PCC.mean(0, keepdim=True), PRIOR_PER_CHANNEL * self.channels
        else:
            pooled, prior = torch.diag_embed(torch.diagonal(cov_PCC, dim1=1, dim2=2)), float(self.channels)
        cov_PCC = (count * cov_PCC + prior * pooled) / (count + prior)
        ridge = RIDGE * torch.diagonal(pooled, dim1=1, dim2=2).mean().clamp_min(1e-12)
        eye = torch.eye(self.channels, dtype=torch.float64, device=device)
        factor = torch.linalg.cholesky(cov_PCC + ridge * eye)
        self.whiten.copy_(torch.linalg.solve_triangular(factor, eye.expand_as(factor), upper=False).float())
        self.mean.copy_((origin + mean).float())


class GaussianVector(Head):
    """A Gaussian over vectors: rows, or pooled features; with a `limit` features beyond it count as the limit (Winsorised)."""

    batch = ROW_BATCH

    def __init__(self, channels: int, limit: float | None = None) -> None:
        super().__init__()
        self.gaussian, self.limit = Gaussian(channels), limit

    def score(self, x_BD: Tensor) -> Tensor:
        """score_B."""
        if self.limit is not None:
            x_BD = x_BD.clamp(-self.limit, self.limit)
        return self.gaussian.distance(x_BD[:, None])[:, 0]

    def m_step(self, data: Batches, weights_N: Tensor, device: torch.device) -> None:
        """See Head."""
        self.gaussian.m_step(data if self.limit is None else _Clamped(data, self.limit), weights_N, device)


class _Clamped:
    def __init__(self, data: Batches, limit: float) -> None:
        self._data, self._limit, self.labels = data, limit, data.labels

    def __len__(self) -> int:
        return len(self._data)

    def batch(self, indices: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        x, labels = self._data.batch(indices, device)
        return x.clamp(-self._limit, self._limit), labels


class GaussianMap(Head):
    """A Gaussian at every place of a feature map, over a fixed random choice of its channels (as PaDiM does).

    Score: mean over the `top` share of places; map: the distance at every place.
    """

    batch = BATCH

    def __init__(self, channels: Tensor, grid: tuple[int, int], top: float) -> None:
        super().__init__()
        self.register_buffer("kept", channels)
        self.gaussian = Gaussian(len(channels), grid[0] * grid[1])
        self.grid, self.count = grid, max(1, round(top * grid[0] * grid[1]))

    def score(self, x_BPC: Tensor) -> Tensor:
        """score_B of float32[B, P, C] with the kept channels."""
        return self.gaussian.distance(x_BPC).topk(self.count, dim=1).values.mean(1)

    def score_and_map(self, features_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """score_B and map_Bhw of all channels."""
        x_BPC = features_BCHW[:, self.get_buffer("kept")].flatten(2).transpose(1, 2)
        map_BP = self.gaussian.distance(x_BPC)
        score_B = map_BP.topk(self.count, dim=1).values.mean(1)
        return score_B, map_BP.reshape(-1, *self.grid)

    def m_step(self, data: Batches, weights_N: Tensor, device: torch.device) -> None:
        """See Head."""
        self.gaussian.m_step(data, weights_N, device)


def _places(x: Tensor) -> Tensor:
    """[B, C] → [B, 1, C]; [B, P, C] stays."""
    return x[:, None] if x.dim() == 2 else x


def _batches(data: Batches, gaussian: Gaussian) -> tuple[Tensor, ...]:
    return torch.split(torch.arange(len(data)), BATCH if gaussian.places > 1 else ROW_BATCH)
