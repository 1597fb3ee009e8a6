"""Is the network still telling things apart? Effective rank, and variance between and within images, epoch by epoch.

L_PP alone is least where every image has the same embedding. Then the effective rank is 1, and training is ended before it.
"""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

FALLEN = 0.5  # of what the rank had above 1 in the first epoch (our choice)


def effective_rank(x_NC: Tensor) -> float:
    """e^H of the singular values' shares (Roy and Vetterli, EUSIPCO 2007); not centred, so that one point has rank 1."""
    values = torch.linalg.svdvals(x_NC.double())
    shares = values / values.sum().clamp_min(1e-300)
    return float(torch.exp(-(shares * shares.clamp_min(1e-300).log()).sum()))


def variances(x_NC: Tensor, owner_N: Tensor) -> tuple[float, float]:
    """(between, within): mean squared distance of the images' means from the overall mean, and of views from their image's."""
    x_NC = x_NC.double()
    _, place_N = torch.unique(owner_N, return_inverse=True)
    count_K = torch.bincount(place_N).double()
    sums_KC = torch.zeros(len(count_K), x_NC.shape[1], dtype=torch.float64, device=x_NC.device)
    means_KC = sums_KC.index_add(0, place_N, x_NC) / count_K[:, None]
    within = (x_NC - means_KC[place_N]).square().sum(1).mean()
    between = (means_KC - means_KC.mean(0)).square().sum(1).mean()
    return float(between), float(within)


class Watch:
    """Judges each epoch by its batches' means. `log` is kept with the checkpoints: rank, between, within of each epoch."""

    def __init__(self) -> None:
        self.log: deque[float] = deque()
        self.fallen_in: int | None = None
        self._batches: list[tuple[float, float, float]] = []

    def see(self, x_NC: Tensor, owner_N: Tensor) -> None:
        """Embeddings of a batch's views, unit vectors."""
        x_NC = x_NC.detach()
        self._batches.append((effective_rank(x_NC), *variances(x_NC, owner_N)))

    def accept(self, epoch: int) -> bool:
        """After an epoch: False if the rank has fallen, so that the epoch has to be taken back."""
        if not self._batches:
            return True
        means = torch.tensor(self._batches, dtype=torch.float64).mean(0).tolist()
        self._batches = []
        self.log.extend(means)
        if means[0] - 1 < FALLEN * (self.log[0] - 1):
            self.fallen_in = epoch + 1
            return False
        return True

    def columns(self) -> dict[str, list[float]]:
        """For the manifest: a figure an epoch."""
        rows = list(self.log)
        names = ("effective_rank", "variance_between", "variance_within")
        return {name: [float(f"{value:.4g}") for value in rows[k :: len(names)]] for k, name in enumerate(names)}
