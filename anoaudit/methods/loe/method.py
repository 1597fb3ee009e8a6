"""LOE end to end: items in, detector out. Read `assignment` (the strategy) and `detectors` (the loss pairs) first."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from anoaudit.data.items import TableSpec
from anoaudit.errors import UsageError
from anoaudit.methods.lamp.heads import ImageReconstruction
from anoaudit.methods.loe.alternate import Head, alternate
from anoaudit.methods.loe.assignment import Assignment
from anoaudit.methods.loe.autoencoder import image_detector, row_detector
from anoaudit.methods.loe.detectors import Spatial
from anoaudit.methods.loe.ensemble import Ensemble
from anoaudit.methods.loe.mhrot import MHRot
from anoaudit.methods.loe.options import REFITTED, LoeOptions, Member
from anoaudit.methods.loe.pairs import image_pair, loss_pair
from anoaudit.methods.loe.sensitivity import sensitivity
from anoaudit.methods.loe.whole import GaussianImage
from anoaudit.nets.pixels import UnitPixels
from anoaudit.training.detectors import Detector, PooledDetector, SpatialDetector, TableDetector
from anoaudit.training.export import export
from anoaudit.training.features import ImageBatches, LocationScaler, RowBatches, bounded, extract
from anoaudit.training.items import MIN_HELD_OUT, TrainingItems
from anoaudit.training.loop import Batches, Part, Schedule
from anoaudit.training.pixels import Through, cache_pixels
from anoaudit.training.trainer import Trainer

LR = 1e-3
EPOCHS, MIN_STEPS = 30, 600  # auto epochs: 30, or as many as make 600 steps, at most 300
MAX_EPOCHS = 300
BATCH, MAP_BATCH = 128, 16
FOLDS = 5
MOST_ALIKE = 0.8  # r² of most features with most others; from there on simulated clean tables were flagged (our choice)
AS_ONE = (
    "nearly all columns move as one: up to a tenth of the rows may be flagged though nothing is wrong with them; if they lie "
    "along one straight line, --set detector=gaussian flags less"
)
START_ITEMS, START_MAPS = 2048, 64  # Deep SVDD's centre comes from so many items


class WholeDetector(SpatialDetector):
    """uint8[B, H, W, 3] → score float32[B], map float32[B, h, w], from the places and the whole image."""

    def forward(self, items: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """See DESIGN, contract 1."""
        maps, vector = self.backbone.maps_and_vector(items)  # type: ignore[operator]
        result: tuple[Tensor, Tensor] = self.head.score_and_map_of(self.scaler(maps), vector)  # type: ignore[operator]
        return result


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
    if trainer.sensitivity and options.assignment in ("gt", "blind"):
        raise UsageError(
            f"--alpha-sensitivity: assignment={options.assignment} does not heed α",
            "leave it out, or use assignment=soft",
        )
    if options.assignment != "gt" and (items.labels == 1).any():
        trainer.reporter.note(
            "loe trains without labels; to learn from known anomalies use --method anoonly, or assignment=gt with all labelled"
        )
    if isinstance(items.spec, TableSpec):
        return _fit_table(items, options, trainer)
    return _fit_images(items, options, trainer)


def _fit_table(items: TrainingItems, options: LoeOptions, trainer: Trainer) -> nn.Module:
    from anoaudit.nets.table_input import TableInput, is_embedding

    assert isinstance(items.spec, TableSpec)
    rows = items.values()
    spec = items.spec
    scaling: Any = "interval" if options.detector == "autoencoder" else options.scaling
    if scaling is None:
        scaling = "unit" if is_embedding(items.spec, rows) else "robust"
        if scaling == "unit":
            trainer.reporter.note(
                "the columns look like an embedding: rows are compared by direction (--set scaling=unit)"
            )
    if options.detector != "autoencoder":
        options = replace(options, scaling=scaling)
    trainer.facts["scaling"] = scaling
    inlet = TableInput(items.spec, rows, scaling)
    with torch.no_grad():
        features = torch.cat([inlet(part) for part in torch.split(torch.from_numpy(rows), 50_000)])
    if options.detector == "ensemble":
        members = options.members or (("gaussian", "nearest") if scaling == "unit" else get_args(Member))
        options = replace(options, members=members)
        if scaling != "unit" and members != ("gaussian",):
            _warn_of_one_direction(features, trainer)

    def make() -> TableDetector:
        if options.detector == "autoencoder":
            return row_detector(spec, inlet, options)
        return TableDetector(inlet, loss_pair(inlet.width, options, trainer.seed))

    if options.detector not in REFITTED:  # those are fitted in less time than this takes
        outputs = ("score", "errors") if options.detector == "autoencoder" else ("score",)
        export(make(), torch.from_numpy(rows[:2]), outputs)  # pre-flight: fail in seconds, not after training
    return _fit_both(make, RowBatches(features, items.labels), items, options, trainer)


def _warn_of_one_direction(features: Tensor, trainer: Trainer) -> None:
    """Along one line distances within the bulk are next to nothing, and all that is left out is far off beside them."""
    from anoaudit.nets.table_input import alikeness

    found = alikeness(features)
    trainer.facts["alikeness"] = round(found, 3)
    trainer.warnings[:] = [warning for warning in trainer.warnings if warning != AS_ONE]
    if found >= MOST_ALIKE:
        trainer.warnings.append(AS_ONE)
        trainer.reporter.note(AS_ONE)


def _fit_images(items: TrainingItems, options: LoeOptions, trainer: Trainer) -> nn.Module:
    backbone: Any = trainer.backbone
    if options.detector == "autoencoder":
        return _fit_pixels(items, options, trainer)
    grid = backbone.grid
    name = options.detector
    off = options.scaling == "none" or name == "mhrot"
    scaler = LocationScaler(backbone.channels, grid, per_location=options.scaling == "location", off=off)
    chosen = np.random.default_rng(trainer.seed).permutation(backbone.channels)[: options.channels]
    kept = torch.from_numpy(np.sort(chosen)) if name == "gaussian" and grid is not None else None

    def make() -> PooledDetector:
        pair = image_pair(backbone, kept, options, trainer.seed)
        mapped = grid is not None and name != "mhrot"
        kind = WholeDetector if isinstance(pair, GaussianImage) else SpatialDetector if mapped else PooledDetector
        return kind(backbone, scaler, pair)

    example = torch.zeros(2, backbone.height, backbone.width, 3, dtype=torch.uint8)
    detector = make()
    export(detector, example, ("score", "map") if isinstance(detector, SpatialDetector) else ("score",))
    every = name == "mhrot" or kept is not None  # place of the maps
    if every:
        held = backbone.channels if kept is None else len(kept)
        items = bounded(items, 2 * held * grid[0] * grid[1], trainer.seed, trainer.reporter)
    data = extract(
        items, backbone, scaler, None if every else options.locations, channels=kept,
        device=trainer.device, seed=trainer.seed, folder=trainer.checkpoints.folder, reporter=trainer.reporter,
        vectors=isinstance(detector, WholeDetector),
    )  # fmt: skip
    if isinstance(detector, WholeDetector):
        trainer.facts["alignment"] = round(data.alignment, 4)
    return _fit_both(make, data, items, options, trainer)


def _fit_pixels(items: TrainingItems, options: LoeOptions, trainer: Trainer) -> nn.Module:
    pixels: Any = trainer.backbone
    example = torch.zeros(2, pixels.height, pixels.width, 3, dtype=torch.uint8)
    export(image_detector(pixels, options), example, ("score", "map"))
    items, images = cache_pixels(items, trainer.checkpoints.folder, trainer.seed, trainer.reporter)
    data = Through(images, UnitPixels())
    return _fit_both(lambda: image_detector(pixels, options), data, items, options, trainer)


def _fit_both(
    make: Callable[[], Detector], data: Batches, items: TrainingItems, options: LoeOptions, trainer: Trainer
) -> nn.Module:
    """The first fit, whose scores of the kept-out items make the null, then the final one on all items."""
    kept_out = torch.from_numpy(items.kept_out)
    few = bool(kept_out.any()) and len(data) < FOLDS * MIN_HELD_OUT  # a fifth of them is too few for p-values
    if few and isinstance(data, ImageBatches) and options.detector == "gaussian":
        _cross_fit(make, data, options, trainer)
        detector = _fit_one(make, data, options, trainer, "train")
    else:
        detector = trainer.fit_twice(lambda part, stage: _fit_one(make, part, options, trainer, stage), data, items)
    if trainer.sensitivity and trainer.contamination > 0:  # an estimate may be 0

        def short(options: LoeOptions, trainer: Trainer, stage: str) -> nn.Module:
            return _fit_one(make, data, options, trainer, stage).head

        maps = items.dataset.kind == "images"
        trainer.facts["alpha_sensitivity"] = sensitivity(short, data, options, trainer, maps)
    return detector


def _cross_fit(make: Callable[[], Detector], data: Batches, options: LoeOptions, trainer: Trainer) -> None:
    """Instead of one fit on as few as half of the images: each scored by a fit on four fifths of them (our choice).

    A Gaussian a place of half of 50 images sees the other half so far out that nothing would ever be flagged.
    """
    trainer.reporter.note(
        "images are few: instead of that first fit five, each without a fifth of them; all are kept out once"
    )
    fold_N = torch.from_numpy(np.random.default_rng(trainer.seed).permutation(len(data)) % FOLDS)
    scores_N = torch.empty(len(data))
    for k in range(FOLDS):
        rest, own = torch.nonzero(fold_N != k)[:, 0], torch.nonzero(fold_N == k)[:, 0]
        head = _fit_one(make, Part(data, rest), options, trainer, "calibration").head
        assert isinstance(head, Head)
        scores_N[own] = head.scores(Part(data, own), trainer.device)
    trainer.held_out_scores = scores_N.double().numpy()
    trainer.facts["held_out"] = len(data)


def _fit_one(
    make: Callable[[], Detector], data: Batches, options: LoeOptions, trainer: Trainer, stage: str
) -> Detector:
    torch.manual_seed(trainer.seed)
    detector = make()
    pair = detector.head
    if isinstance(pair, Ensemble):
        pair.to(trainer.device)
        rounds: dict[str, int] = {}  # a member each, lest the last one's stand for all

        def fit_member(member: Head, name: str) -> Tensor:
            score_N = _alternate(member, data, options, trainer, f"fitting {name}")
            rounds[name] = trainer.facts.pop("rounds")
            del trainer.facts["mean_scores"]
            return score_N

        pair.fit(fit_member)
        trainer.facts |= {"members": list(pair.members), "rounds": rounds}
    elif isinstance(pair, Head):
        _alternate(pair, data, options, trainer, "fitting")
    else:
        train_pair(pair, data, options, trainer, stage)
    trainer.facts["items"] = len(data)
    return detector


def _alternate(head: Head, data: Batches, options: LoeOptions, trainer: Trainer, name: str) -> Tensor:
    """The items' scores."""
    kind = options.assignment or "refine"
    assignment = Assignment(kind, trainer.contamination, warmup=0)
    means, score_N = alternate(head, data, assignment, options.rounds or 1, trainer.device, trainer.reporter, name)
    trainer.facts |= {"assignment": kind, "rounds": len(means), "mean_scores": means, "precision": "float64"}
    return score_N


def train_pair(pair: nn.Module, data: Batches, options: LoeOptions, trainer: Trainer, stage: str) -> None:
    """The M- and E-steps in one loop: each batch's loss under the assignment."""
    maps = isinstance(pair, Spatial | MHRot | ImageReconstruction)
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

    lr = options.lr or LR
    if isinstance(pair, MHRot):
        _foretell(pair, data, epochs, batch_size, trainer)
    schedule = Schedule(
        epochs, batch_size, lr, options.weight_decay or 0.0, assignment.warmup, patience=options.patience
    )
    trainer.run(pair, objective, data, schedule, assignment.pool, stage)
    trainer.facts |= {"assignment": kind, "batch_size": batch_size, "epochs": epochs, "lr": lr}


def _foretell(pair: MHRot, data: Batches, epochs: int, batch_size: int, trainer: Trainer) -> None:
    """Say how long training will take, from one batch of a copy."""
    trial = copy.deepcopy(pair).train()
    x = data.batch(torch.arange(batch_size), trainer.device)[0]
    start = time.perf_counter()
    trial.losses(x)[0].mean().backward()  # type: ignore[no-untyped-call]
    seconds = (time.perf_counter() - start) * epochs * math.ceil(len(data) / batch_size)
    shown = f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{max(seconds, 1):.0f} s"
    trainer.reporter.note(
        f"mhrot learns from pixels, 36 views an image: about {shown} for {epochs} epochs on this {trainer.device.type.upper()}"
    )
