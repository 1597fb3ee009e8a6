"""What is exported: the way from an item to a head's input, and the head that a method trains on it (DESIGN, contract 1)."""

from __future__ import annotations

from torch import Tensor, nn


class TableDetector(nn.Module):
    """float64[B, D] → score float32[B]. The head offers `score(x_BF)`."""

    def __init__(self, inlet: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.inlet, self.head = inlet, head

    def forward(self, items: Tensor) -> Tensor:
        """Scores of a batch of rows."""
        score: Tensor = self.head.score(self.inlet(items))  # type: ignore[operator]
        return score


class ColumnDetector(TableDetector):
    """float64[B, D] → score float32[B], errors float32[B, D], one a column. The head offers `score_and_errors(x_BF)`."""

    def forward(self, items: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Scores and columns' errors of a batch of rows."""
        result: tuple[Tensor, Tensor] = self.head.score_and_errors(self.inlet(items))  # type: ignore[operator]
        return result


class PooledDetector(nn.Module):
    """uint8[B, H, W, 3] → score float32[B]. The head offers `score(x_BC)` of pooled features."""

    def __init__(self, backbone: nn.Module, scaler: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.scaler, self.head = backbone, scaler, head

    def forward(self, items: Tensor) -> Tensor:
        """Scores of a batch of images."""
        score: Tensor = self.head.score(self.scaler(self.backbone(items)))  # type: ignore[operator]
        return score


class SpatialDetector(PooledDetector):
    """uint8[B, H, W, 3] → score float32[B], map float32[B, h, w]. The head offers `score_and_map(x_BChw)`."""

    def forward(self, items: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Scores and maps of a batch of images."""
        result: tuple[Tensor, Tensor] = self.head.score_and_map(self.scaler(self.backbone(items)))  # type: ignore[operator]
        return result


Detector = TableDetector | PooledDetector
