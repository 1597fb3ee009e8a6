"""A Gaussian as LOE's detector (our choice): L_n is the squared Mahalanobis distance, and the M-step is closed.

Of the anomaly loss nothing has a minimiser in closed form, so a flagged item simply weighs 1 − y in the next fit: 1 under
blind, ½ under soft, nothing under hard, refine and gt. On a table that is close to MCD; on feature maps, with one Gaussian a
place, to PaDiM (Defard et al. 2021) on contaminated data.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anoaudit.methods.loe.assignment import Assignment
from anoaudit.progress import Reporter
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


class GaussianVector(nn.Module):
    """A Gaussian over vectors: rows, or pooled features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gaussian = Gaussian(channels)

    def score(self, x_BD: Tensor) -> Tensor:
        """score_B."""
        return self.gaussian.distance(x_BD[:, None])[:, 0]


class GaussianMap(nn.Module):
    """A Gaussian at every place of a feature map, over a fixed random choice of its channels (as PaDiM does).

    Score: mean over the `top` share of places; map: the distance at every place.
    """

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


def alternate(
    head: GaussianVector | GaussianMap,
    data: Batches,
    assignment: Assignment,
    rounds: int,
    device: torch.device,
    reporter: Reporter,
) -> list[float]:
    """LOE's two steps in turn over all items: fit with weights 1 − y, then flag the ⌊αN⌋ largest. The mean L_n of each round."""
    head.to(device)
    labels_N = torch.cat([data.batch(indices, device)[1] for indices in _batches(data, head.gaussian)])
    y_N = torch.zeros(len(data))
    history = []
    with reporter.phase("fitting", rounds) as task, torch.no_grad():
        for k in range(rounds):
            if assignment.kind == "gt":
                y_N = assignment.targets(y_N, y_N, labels_N.cpu(), k)
            head.gaussian.m_step(data, 1 - y_N, device)
            score_N = torch.cat([head.score(data.batch(i, device)[0]).cpu() for i in _batches(data, head.gaussian)])
            history.append(float(score_N.mean()))
            task.update(k + 1, f"mean distance {history[-1]:.4g}")
            assignment.pool.clear()  # the batch is the data: no item counts twice
            new_N = assignment.targets(score_N, torch.zeros_like(score_N), labels_N.cpu(), k)
            if k > 0 and torch.equal(new_N, y_N):
                break
            y_N = new_N
    return history


def _places(x: Tensor) -> Tensor:
    """[B, C] → [B, 1, C]; [B, P, C] stays."""
    return x[:, None] if x.dim() == 2 else x


def _batches(data: Batches, gaussian: Gaussian) -> tuple[Tensor, ...]:
    return torch.split(torch.arange(len(data)), BATCH if gaussian.places > 1 else ROW_BATCH)
