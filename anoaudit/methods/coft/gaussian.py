"""One Gaussian of the normals' augmented embeddings, shrunk after Ledoit and Wolf, and each normal left out in turn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anoaudit.methods.loe.gaussian import Gaussian

RIDGE = 1e-6  # of the mean variance: views that are all alike still have a Cholesky factor


def ledoit_wolf(x_ND: Tensor) -> tuple[Tensor, Tensor, float]:
    """Mean, covariance and shrinkage ρ in [0, 1] towards the mean variance times I, in double precision.

    Ledoit and Wolf, J. Multivariate Analysis 2004, Lemma 3.2-3.4. The rank of S is below N, mostly far below D; what shrinkage
    adds is the same in all directions that the normals do not show. ρ takes the views for independent samples, which views of
    one image are not: it errs towards trusting S.
    """
    x_ND = x_ND.double()
    n, d = x_ND.shape
    mean_D = x_ND.mean(0)
    x_ND = x_ND - mean_D
    cov_DD = x_ND.T @ x_ND / n
    scale = torch.trace(cov_DD) / d
    squared = cov_DD.square().sum()
    delta = squared / d - scale.square()  # ‖S − μI‖² / D
    # Σ‖x xᵀ − S‖²/N² = (Σ‖x‖⁴/N − ‖S‖²)/N
    beta = (x_ND.square().sum(1).square().mean() - squared) / n / d
    shrinkage = float((beta.clamp_min(0).minimum(delta) / delta).nan_to_num(1.0)) if delta > 0 else 1.0
    eye = torch.eye(d, dtype=torch.float64, device=x_ND.device)
    return mean_D, (1 - shrinkage) * cov_DD + shrinkage * scale * eye, shrinkage


class ShrunkGaussian(nn.Module):
    """score(x) = squared Mahalanobis distance of a unit vector, a C-th of it, through a Cholesky factor."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gaussian = Gaussian(channels)
        self.shrinkage = 0.0

    @torch.no_grad()
    def fit(self, x_ND: Tensor) -> ShrunkGaussian:
        """To embeddings of augmented normals."""
        mean_D, cov_DD, self.shrinkage = ledoit_wolf(x_ND)
        eye = torch.eye(len(mean_D), dtype=torch.float64, device=x_ND.device)
        ridge = RIDGE * torch.trace(cov_DD) / len(mean_D) + 1e-12
        factor = torch.linalg.cholesky(cov_DD + ridge * eye)
        self.gaussian.whiten.copy_(torch.linalg.solve_triangular(factor, eye, upper=False)[None])
        self.gaussian.mean.copy_(mean_D[None])
        return self

    def score(self, x_BC: Tensor) -> Tensor:
        """score_B."""
        distance_B: Tensor = self.gaussian.distance(x_BC[:, None])[:, 0]
        return distance_B


@torch.no_grad()
def left_out(views_NVC: Tensor, plain_NC: Tensor) -> Tensor:
    """distance_N: each normal, as it is, under the Gaussian of the others' views; NaN of a single one.

    The network has seen it, so this is less than what a new normal gets.
    """
    count, channels = len(views_NVC), views_NVC.shape[2]
    if count < 2:
        return torch.full((count,), torch.nan)
    distances = []
    for k in range(count):
        others = torch.cat([views_NVC[:k], views_NVC[k + 1 :]]).flatten(0, 1)
        gaussian = ShrunkGaussian(channels).to(views_NVC.device).fit(others)
        distances.append(gaussian.score(plain_NC[k : k + 1]))
    return torch.cat(distances)
