"""LOE end to end: items in, detector out. Read `assignment` (the strategy) and `detectors` (the loss pairs) first."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from anoaudit.data.items import TableSpec
from anoaudit.errors import UsageError
from anoaudit.methods.loe.assignment import Assignment
from anoaudit.methods.loe.detectors import NTL, DeepSVDD, Spatial
from anoaudit.methods.loe.gaussian import GaussianMap, GaussianVector, alternate
from anoaudit.methods.loe.options import LoeOptions
from anoaudit.training.export import export
from anoaudit.training.features import LocationScaler, RowBatches, bounded, extract
from anoaudit.training.items import TrainingItems
from anoaudit.training.loop import Batches, Part, Schedule
from anoaudit.training.trainer import Trainer

EPOCHS, MIN_STEPS = 30, 600  # auto epochs: 30, or as many as make 600 steps, at most 300
MAX_EPOCHS = 300
LR, LR_DEEP_SVDD = 1e-3, 3e-4
SVDD_WIDTHS = (
    128,
    64,
)  # wider than NTL's rule: on a narrow one the centre swallows the anomalies (our choice, by development tables)
BATCH, MAP_BATCH = 128, 16
START_ITEMS, START_MAPS = 2048, 64  # Deep SVDD's centre comes from so many items


class TableDetector(nn.Module):
    """float64[B, D] → score float32[B]."""

    def __init__(self, inlet: nn.Module, pair: nn.Module) -> None:
        super().__init__()
        self.inlet, self.pair = inlet, pair

    def forward(self, items: Tensor) -> Tensor:
        """See DESIGN, contract 1."""
        score: Tensor = self.pair.score(self.inlet(items))  # type: ignore[operator]
        return score


class PooledDetector(nn.Module):
    """uint8[B, H, W, 3] → score float32[B]."""

    def __init__(self, backbone: nn.Module, scaler: nn.Module, pair: nn.Module) -> None:
        super().__init__()
        self.backbone, self.scaler, self.pair = backbone, scaler, pair

    def forward(self, items: Tensor) -> Tensor:
        """See DESIGN, contract 1."""
        score: Tensor = self.pair.score(self.scaler(self.backbone(items)))  # type: ignore[operator]
        return score


class SpatialDetector(PooledDetector):
    """uint8[B, H, W, 3] → score float32[B], map float32[B, h, w]."""

    def forward(self, items: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """See DESIGN, contract 1."""
        result: tuple[Tensor, Tensor] = self.pair.score_and_map(self.scaler(self.backbone(items)))  # type: ignore[operator]
        return result


Detector = TableDetector | PooledDetector


def fit(items: TrainingItems, options: LoeOptions, trainer: Trainer) -> nn.Module:
    """Train LOE on the items; returns the detector that is exported.

    Raises UsageError for options that do not fit the data or the labels.
    """
    if options.assignment == "gt" and (items.labels < 0).any():
        missing = int((items.labels < 0).sum())
        raise UsageError(
            f"--set assignment=gt needs a label for every item; {missing} have none",
            "give --labels, or use assignment=soft",
        )
    if options.assignment == "gt" and (items.labels == 1).all():
        raise UsageError("--set assignment=gt: every item is labelled 1 (anomaly)", "label the normal items 0")
    if options.assignment != "gt" and (items.labels == 1).any():
        trainer.reporter.note("loe trains without labels; to train on them use --set assignment=gt")
    if isinstance(items.spec, TableSpec):
        return _fit_table(items, options, trainer)
    return _fit_images(items, options, trainer)


def _fit_table(items: TrainingItems, options: LoeOptions, trainer: Trainer) -> nn.Module:
    from anoaudit.nets.table_input import TableInput

    assert isinstance(items.spec, TableSpec)
    scaling = options.scaling or "standard"
    if scaling == "location":
        raise UsageError("--set scaling=location is for images", "use standard, robust, minmax or none")
    rows = items.values()
    inlet = TableInput(items.spec, rows, scaling)

    def make() -> TableDetector:
        width, name = inlet.width, options.detector
        return TableDetector(inlet, GaussianVector(width) if name == "gaussian" else loss_pair(name, width, options))

    export(make(), torch.from_numpy(rows[:2]), ("score",))  # pre-flight: fail in seconds, not after training
    with torch.no_grad():
        features = torch.cat([inlet(part) for part in torch.split(torch.from_numpy(rows), 50_000)])
    return _fit_both(make, RowBatches(features, items.labels), items, options, trainer)


def _fit_images(items: TrainingItems, options: LoeOptions, trainer: Trainer) -> nn.Module:
    backbone: Any = trainer.backbone
    grid = backbone.grid
    name = options.detector
    scaling = options.scaling or ("location" if grid is not None and name == "deep-svdd" else "standard")
    if scaling not in ("location", "standard", "none"):
        raise UsageError(f"--set scaling={scaling} is for tables", "use location, standard or none")
    scaler = LocationScaler(backbone.channels, grid, per_location=scaling == "location", off=scaling == "none")
    chosen = np.random.default_rng(trainer.seed).permutation(backbone.channels)[: options.channels]
    kept = torch.from_numpy(np.sort(chosen)) if name == "gaussian" and grid is not None else None

    def make() -> PooledDetector:
        pair = _image_pair(backbone.channels, kept, grid, options)
        return (SpatialDetector if grid is not None else PooledDetector)(backbone, scaler, pair)

    example = torch.zeros(2, backbone.height, backbone.width, 3, dtype=torch.uint8)
    export(make(), example, ("score", "map") if grid is not None else ("score",))
    if kept is not None:
        items = bounded(items, len(kept) * grid[0] * grid[1], trainer.seed, trainer.reporter)
    data = extract(
        items, backbone, scaler, None if name == "gaussian" else options.locations, channels=kept,
        device=trainer.device, seed=trainer.seed, folder=trainer.checkpoints.folder, reporter=trainer.reporter,
    )  # fmt: skip
    return _fit_both(make, data, items, options, trainer)


def _image_pair(width: int, kept: Tensor | None, grid: tuple[int, int] | None, options: LoeOptions) -> nn.Module:
    """The loss pair for feature maps (of a grid) or vectors; a map of Gaussians uses the channels `kept`."""
    if options.detector == "gaussian":
        return GaussianVector(width) if grid is None or kept is None else GaussianMap(kept, grid, options.top)
    pair = loss_pair(options.detector, width, options)
    return pair if grid is None else Spatial(pair, options.top)


def _fit_both(
    make: Callable[[], Detector], data: Batches, items: TrainingItems, options: LoeOptions, trainer: Trainer
) -> nn.Module:
    """The first fit, whose scores of the kept-out items make the null, then the final one on all items."""
    kept_out = torch.from_numpy(items.kept_out)
    if kept_out.any():
        first = _fit_one(make, Part(data, torch.nonzero(~kept_out)[:, 0]), options, trainer, "calibration")
        trainer.calibrate(first, items)
    return _fit_one(make, data, options, trainer, "train")


def _fit_one(
    make: Callable[[], Detector], data: Batches, options: LoeOptions, trainer: Trainer, stage: str
) -> nn.Module:
    torch.manual_seed(trainer.seed)
    detector = make()
    if isinstance(detector.pair, GaussianMap | GaussianVector):
        _alternate(detector.pair, data, options, trainer)
    else:
        train_pair(detector.pair, data, options, trainer, stage)
    trainer.facts["items"] = len(data)
    return detector


def _alternate(head: GaussianVector | GaussianMap, data: Batches, options: LoeOptions, trainer: Trainer) -> None:
    kind = options.assignment or "refine"
    assignment = Assignment(kind, trainer.contamination, warmup=0)
    distances = alternate(head, data, assignment, options.rounds, trainer.device, trainer.reporter)
    trainer.facts |= {"assignment": kind, "rounds": len(distances), "mean_distances": distances, "precision": "float64"}


def train_pair(pair: nn.Module, data: Batches, options: LoeOptions, trainer: Trainer, stage: str) -> None:
    """The M- and E-steps in one loop: each batch's loss under the assignment."""
    maps = isinstance(pair, Spatial)
    batch_size = min(options.batch_size or (MAP_BATCH if maps else BATCH), len(data))
    steps = math.ceil(len(data) / batch_size)
    epochs = options.epochs or min(MAX_EPOCHS, max(EPOCHS, math.ceil(MIN_STEPS / steps)))
    warmup = min(options.warmup, epochs - 1)
    kind = options.assignment or "soft"
    assignment = Assignment(kind, trainer.contamination, warmup)
    some = np.random.default_rng(trainer.seed).permutation(len(data))[: START_MAPS if maps else START_ITEMS]
    pair.to(trainer.device)
    pair.start(data.batch(torch.from_numpy(some), trainer.device)[0])  # type: ignore[operator]

    def objective(x: Tensor, labels: Tensor, epoch: int) -> Tensor:
        normal_B, anomaly_B = pair.losses(x)  # type: ignore[operator]
        return assignment.loss(normal_B, anomaly_B, labels, epoch)

    lr = options.lr or (LR_DEEP_SVDD if options.detector == "deep-svdd" else LR)
    schedule = Schedule(epochs, batch_size, lr, options.weight_decay, assignment.warmup, patience=options.patience)
    trainer.run(pair, objective, data, schedule, assignment.pool, stage)
    trainer.facts |= {"assignment": kind, "batch_size": batch_size, "epochs": epochs, "lr": lr}


def loss_pair(name: str, width: int, options: LoeOptions) -> nn.Module:
    """NTL's widths are the authors' fallback rule for tables [code]: under 32 features 2D, up to 300 64/32, above 256/64."""
    if name == "deep-svdd":
        return DeepSVDD([width, options.hidden or SVDD_WIDTHS[0], options.out or SVDD_WIDTHS[1]])
    hidden, out = (2 * width, 2 * width) if width < 32 else (64, 32) if width <= 300 else (256, 64)
    hidden, out = options.hidden or hidden, options.out or out
    encoder = [width, hidden, hidden, hidden, out]
    transform = [width, options.transform_hidden or width, width]
    return NTL(options.transforms, transform, encoder, options.transform == "residual", options.temperature)
