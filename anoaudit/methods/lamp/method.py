"""LAMP end to end: items in, detector out. The loss is in `amplifier`, the errors in `metrics`, what is trained in `heads`."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from anoaudit.data.items import TableSpec
from anoaudit.errors import UsageError
from anoaudit.methods.lamp.amplifier import training_loss
from anoaudit.methods.lamp.heads import Reconstruction, RowReconstruction, image_head
from anoaudit.methods.lamp.options import LampOptions
from anoaudit.nets.pixels import UnitPixels
from anoaudit.nets.table_input import TableInput
from anoaudit.training.detectors import ColumnDetector, SpatialDetector
from anoaudit.training.export import export
from anoaudit.training.features import RowBatches
from anoaudit.training.items import TrainingItems
from anoaudit.training.loop import Batches, Part, Schedule
from anoaudit.training.pixels import Through, cache_pixels
from anoaudit.training.trainer import Trainer

FEWEST = 10  # items to learn from
STEPS, EPOCHS = 1500, (20, 300)  # auto epochs: as many as make so many steps, between those two


def fit(items: TrainingItems, options: LampOptions, trainer: Trainer) -> nn.Module:
    """Train a reconstruction on the items, those labelled anomalous left out; returns the detector that is exported.

    Raises UsageError where hardly any item is left to train on.
    """
    count = int((items.labels != 1).sum())
    if count < FEWEST:
        raise UsageError(
            f"lamp learns from what is not labelled 1 (anomaly): {count} of {len(items)} items are too few",
            f"give at least {FEWEST}",
        )
    if trainer.sensitivity:
        raise UsageError("--alpha-sensitivity: lamp does not train with the contamination", "leave it out, or use loe")
    if items.split.labels[items.mask].min(initial=0) < 0:
        trainer.reporter.note(
            "lamp is made for normal training data (--labels, --train-on normal); what is frequent it reconstructs, odd or not"
        )
    if isinstance(items.spec, TableSpec):
        return _fit_table(items, items.spec, options, trainer)
    return _fit_images(items, options, trainer)


def _fit_table(items: TrainingItems, spec: TableSpec, options: LampOptions, trainer: Trainer) -> nn.Module:
    rows = items.values()
    inlet = TableInput(spec, rows[items.labels != 1], "interval")  # a known anomaly must not set the columns' scales

    def make() -> ColumnDetector:
        return ColumnDetector(inlet, RowReconstruction(spec, inlet, options))

    export(make(), torch.from_numpy(rows[:2]), ("score", "errors"))  # pre-flight: fail in seconds, not after training
    with torch.no_grad():
        features = torch.cat([inlet(part) for part in torch.split(torch.from_numpy(rows), 50_000)])

    def fit_one(data: Batches, stage: str) -> ColumnDetector:
        torch.manual_seed(trainer.seed)
        detector = make()
        train_head(detector.head, data, options, trainer, stage)  # type: ignore[arg-type]
        return detector

    return trainer.fit_twice(fit_one, RowBatches(features, items.labels), items)


def _fit_images(items: TrainingItems, options: LampOptions, trainer: Trainer) -> nn.Module:
    pixels = trainer.backbone
    assert pixels is not None
    if options.encoder == "trained" and pixels.encoder is None:
        raise UsageError(
            "--set encoder=trained: there is no backbone to train", "name one with --backbone, or leave it out"
        )

    def make() -> SpatialDetector:
        return SpatialDetector(UnitPixels(), nn.Identity(), image_head(pixels, options))

    side = int(pixels.height)  # type: ignore[arg-type]
    export(make(), torch.zeros(2, side, side, 3, dtype=torch.uint8), ("score", "map"))
    items, images = cache_pixels(items, trainer.checkpoints.folder, trainer.seed, trainer.reporter)

    def fit_one(data: Batches, stage: str) -> SpatialDetector:
        torch.manual_seed(trainer.seed)
        detector = make()
        train_head(detector.head, data, options, trainer, stage)  # type: ignore[arg-type]
        return detector

    return trainer.fit_twice(fit_one, Through(images, UnitPixels()), items)


def train_head(
    head: Reconstruction,
    data: Batches,
    options: LampOptions,
    trainer: Trainer,
    stage: str = "train",
) -> None:
    """Minimise the amplified error of the items that are not labelled anomalous."""
    normal = data.labels != 1
    if not normal.all():
        data = Part(data, torch.nonzero(normal)[:, 0])
    batch_size = min(options.batch_size or 16, len(data))
    steps = math.ceil(len(data) / batch_size)
    fewest, most = EPOCHS
    epochs = options.epochs or min(most, max(fewest, math.ceil(STEPS / steps)))

    def objective(x: Tensor, labels: Tensor, epoch: int) -> Tensor:
        return training_loss(head.training_errors(x), options.amplifier, options.level)

    schedule = Schedule(epochs, batch_size, options.lr, options.weight_decay, optimizer=options.optimizer)
    trainer.run(head, objective, data, schedule, stage=stage)
    trainer.facts |= {"items": len(data), "batch_size": batch_size, "epochs": epochs}
