"""An example of a loss pair of one's own: `--set detector=own_pair:Reconstruction`."""

from __future__ import annotations

from torch import Tensor, nn


class Reconstruction(nn.Module):
    """A linear autoencoder: L_n the mean squared error, L_a its inverse."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.down = nn.Linear(features, max(1, features // 2))
        self.up = nn.Linear(max(1, features // 2), features)

    def start(self, x_BD: Tensor) -> None:
        """Nothing depends on the data."""

    def score(self, x_BD: Tensor) -> Tensor:
        """L_n."""
        error: Tensor = (self.up(self.down(x_BD)) - x_BD).square().mean(1)
        return error

    def losses(self, x_BD: Tensor) -> tuple[Tensor, Tensor]:
        """(normal_B, anomaly_B)."""
        normal_B = self.score(x_BD)
        return normal_B, 1.0 / (normal_B + 0.1)
