"""AnoMem end to end. Read `contrast` (stage 1), `scales` and `deviation` (stage 2) first."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anoaudit.errors import UsageError
from anoaudit.methods.anomem.contrast import memory_contrast
from anoaudit.methods.anomem.deviation import AnoMemDetector
from anoaudit.methods.anomem.options import AnoMemOptions
from anoaudit.methods.anomem.scales import MemoryScales, pooled_vector
from anoaudit.methods.loe.assignment import Assignment
from anoaudit.nets.memory import Memory
from anoaudit.nets.pixels import unit_pixels
from anoaudit.training.augment import MILD, SIMCLR, View, common_points, view
from anoaudit.training.export import export
from anoaudit.training.items import TrainingItems
from anoaudit.training.loop import Batches, Schedule
from anoaudit.training.pixels import cache_pixels
from anoaudit.training.trainer import Trainer

STEPS, EPOCHS = (
    40,
    20,
)  # of stage 1: so many steps, but no fewer epochs; longer makes small folders worse (by development sets)
DISTANCE_STEPS, DISTANCE_EPOCHS = 100, 5
START = 256  # images whose places the memories begin with
READ = 64


def fit(items: TrainingItems, options: AnoMemOptions, trainer: Trainer) -> nn.Module:
    """Train AnoMem on the images; returns the detector that is exported. Raises UsageError for options that do not fit."""
    encoder: Any = trainer.backbone
    if options.freeze and not encoder.pretrained:
        raise UsageError(
            "--set freeze=true: an untrained encoder must learn", "name pretrained weights with --backbone or --weights"
        )
    example = torch.zeros(2, encoder.height, encoder.width, 3, dtype=torch.uint8)
    trial = make_detector(encoder, options)
    trial.settle()
    export(trial, example, ("score", "map"))  # pre-flight: fail in seconds, not after training
    items, data = cache_pixels(items, trainer.checkpoints.folder, trainer.seed, trainer.reporter)
    _foretell(make_detector(encoder, options), data, items, options, trainer)
    return trainer.fit_twice(lambda part, stage: fit_one(encoder, part, options, trainer, stage), data, items)


def make_detector(encoder: nn.Module, options: AnoMemOptions) -> AnoMemDetector:
    """Untrained, with an encoder of its own."""
    own: Any = copy.deepcopy(encoder)
    if options.freeze:
        own.freeze()
    scales = MemoryScales(
        own, options.slots or 256, options.projection or 0, options.beta, bool(options.whole), options.match == "pooled"
    )
    layers = options.layers if options.distance == "network" else 0
    return AnoMemDetector(scales, layers, options.top or 1.0, options.weights or [1.0] * len(scales.widths))


def fit_one(encoder: nn.Module, data: Batches, options: AnoMemOptions, trainer: Trainer, stage: str) -> AnoMemDetector:
    """Both stages on these images, the standardisation, and the diagnostics."""
    torch.manual_seed(trainer.seed)
    detector = make_detector(encoder, options).to(trainer.device)
    learn_memories(detector.scales, data, options, trainer, f"{stage} 1")
    detector.scales.freeze()
    detector.refer(lambda: chunks(data, trainer.device))
    if options.distance == "network":
        learn_distances(detector, data, options, trainer, f"{stage} 2")
    detector.eval()
    detector.settle()
    parts_NS = detector.standardise(chunks(data, trainer.device))
    diagnose(detector, parts_NS, data, trainer)
    return detector


def learn_memories(
    scales: MemoryScales,
    data: Batches,
    options: AnoMemOptions,
    trainer: Trainer,
    stage: str,
    watch: Callable[[int], None] = lambda epoch: None,
) -> None:
    """Stage 1. `watch` is called before each batch, with the epoch: benchmarks look at what has been learned so far."""
    epochs, batch_size = _length(data, options)
    how = replace(SIMCLR if options.augment == "simclr" else MILD, flip=options.flip)
    _start_memories(scales.to(trainer.device).train(), data, trainer)

    def objective(items: Tensor, labels: Tensor, epoch: int) -> Tensor:
        watch(epoch)
        pixels = unit_pixels(items)
        return contrast_of(scales, view(pixels, how), view(pixels, how), labels == 1, options)

    schedule = Schedule(
        epochs, batch_size, options.lr or 0.03, options.weight_decay, keep_best=False, optimizer="sgd", final_lr=0.0
    )
    trainer.run(scales, objective, data, schedule, stage=stage)
    if not options.memory:
        torch.manual_seed(trainer.seed)
        _start_memories(scales.eval(), data, trainer)
    assert trainer.history is not None
    losses = trainer.history.losses
    trainer.facts["stage1"] = {
        "epochs": epochs, "batch_size": batch_size, "lr": options.lr, "first_loss": losses[0], "last_loss": losses[-1],
    }  # fmt: skip


def _length(data: Batches, options: AnoMemOptions) -> tuple[int, int]:
    """Epochs and batch size of stage 1."""
    batch_size = min(options.batch_size or 32, len(data))
    return options.epochs or max(EPOCHS, math.ceil(STEPS / math.ceil(len(data) / batch_size))), batch_size


def contrast_of(scales: MemoryScales, a: View, b: View, anomalous_B: Tensor, options: AnoMemOptions) -> Tensor:
    """Stage 1's loss of two views of a batch: the sum over scales."""
    count = len(a.pixels)
    maps = scales.maps(torch.cat([a.pixels, b.pixels]))  # one pass: both views in one batch normalisation
    image_B = torch.arange(count, device=a.pixels.device)
    per = 1 if options.match == "pooled" else options.points
    points_BP2 = None if options.match == "pooled" else common_points(a, b, per)
    total = torch.zeros((), device=a.pixels.device)
    for m_BDhw, memory, head in zip(maps, scales.memories, scales.heads, strict=True):
        if points_BP2 is None:
            z1_ND, z2_ND = (F.normalize(pooled_vector(m), dim=1) for m in torch.split(m_BDhw, count))
        else:
            z1_ND, z2_ND = (
                _at(m, seen.locate(points_BP2)) for m, seen in zip(torch.split(m_BDhw, count), (a, b), strict=True)
            )
        loss, variance = memory_contrast(
            z1_ND, z2_ND, anomalous_B.repeat_interleave(per), image_B.repeat_interleave(per),
            memory if options.memory else None, options.temperature, head,  # type: ignore[arg-type]
        )  # fmt: skip
        total = total + loss + options.variance * variance
    return total


def _at(map_BDhw: Tensor, points_BP2: Tensor) -> Tensor:
    """Unit vectors [B·P, d] of a map at these points, between places linearly."""
    found = F.grid_sample(map_BDhw, points_BP2[:, :, None].clamp(-1, 1), padding_mode="border", align_corners=False)
    return F.normalize(found[..., 0].transpose(1, 2).flatten(0, 1), dim=1)


def learn_distances(
    detector: AnoMemDetector, data: Batches, options: AnoMemOptions, trainer: Trainer, stage: str
) -> None:
    """Stage 2: known anomalies (label 1) cost L_a, known normals L_n, the others what the assignment says."""
    epochs, batch_size = _distance_length(data, options)
    assignment = Assignment(options.assignment, trainer.contamination, min(options.warmup, epochs - 1))

    def objective(items: Tensor, labels: Tensor, epoch: int) -> Tensor | None:
        return distance_loss(*detector.losses(items), labels, assignment, epoch)

    schedule = Schedule(epochs, batch_size, options.distance_lr, keep_best=False)
    trainer.run(detector, objective, data, schedule, assignment.pool, stage)
    trainer.facts["stage2"] = {"epochs": epochs, "assignment": options.assignment}


def _distance_length(data: Batches, options: AnoMemOptions) -> tuple[int, int]:
    """Epochs and batch size of stage 2."""
    batch_size = min(options.batch_size or 32, len(data))
    steps = math.ceil(len(data) / batch_size)
    return options.distance_epochs or max(DISTANCE_EPOCHS, math.ceil(DISTANCE_STEPS / steps)), batch_size


def distance_loss(
    normal_B: Tensor, anomaly_B: Tensor, labels_B: Tensor, assignment: Assignment, epoch: int
) -> Tensor | None:
    """Mean over the batch of (1 − y)·L_n + y·L_a, y known or assigned; what `refine` drops is left out. None: nothing is left."""
    y_B = (labels_B == 1).to(normal_B.dtype)
    unknown_B = labels_B < 0
    if bool(unknown_B.any()):
        y_B[unknown_B] = assignment.targets(
            normal_B.detach()[unknown_B], anomaly_B.detach()[unknown_B], labels_B[unknown_B], epoch
        )
    kept_B = ~(unknown_B & (y_B == 1)) if assignment.kind == "refine" else torch.ones_like(unknown_B)
    if not bool(kept_B.any()):
        return None
    return ((1 - y_B) * normal_B + y_B * anomaly_B)[kept_B].mean()


def chunks(data: Batches, device: torch.device, most: int | None = None) -> Iterator[Tensor]:
    """The images that are not known anomalies, evenly spaced ones where there are more than `most`."""
    rows = torch.nonzero(data.labels != 1)[:, 0]
    if len(rows) == 0:
        rows = torch.arange(len(data))
    if most is not None and len(rows) > most:
        rows = rows[torch.linspace(0, len(rows) - 1, most).long()]
    for part in torch.split(rows, READ):
        yield data.batch(part, device)[0]


@torch.no_grad()
def _start_memories(scales: MemoryScales, data: Batches, trainer: Trainer) -> None:
    """Prototypes begin as embeddings; before training with the normalisation of batches."""
    found = [scales.vectors(unit_pixels(items)) for items in chunks(data, trainer.device, START)]
    for s, memory in enumerate(scales.memories):
        memory.start(F.normalize(torch.cat([f[s].flatten(0, 1) for f in found]), dim=1))  # type: ignore[operator]


@torch.no_grad()
def diagnose(detector: AnoMemDetector, parts_NS: Tensor, data: Batches, trainer: Trainer) -> None:
    """Facts for the manifest and the card, and a warning where a memory does not do its work."""
    found = [detector.scales.vectors(unit_pixels(items)) for items in chunks(data, trainer.device, START)]
    total_N = parts_NS.sum(1)
    centred_N = total_N - total_N.mean()
    variance = centred_N.square().sum().clamp_min(1e-12)
    facts, bad = [], []
    for s, memory in enumerate(detector.scales.memories):
        assert isinstance(memory, Memory)
        seen = memory.diagnose(F.normalize(torch.cat([f[s].flatten(0, 1) for f in found]), dim=1))
        share = (centred_N * (parts_NS[:, s] - parts_NS[:, s].mean())).sum() / variance
        grid = detector.grids[s]
        facts.append({"grid": list(grid), **{k: round(v, 4) for k, v in seen.items()}, "share": round(float(share), 4)})
        where = f"the memory at {grid[0]}×{grid[1]}"
        if seen["effective_slots"] > 0.5 * seen["slots"]:
            bad.append(
                f"{where} averages {seen['effective_slots']:.0f} of {seen['slots']} slots a query (raise --set beta)"
            )
        elif seen["spread"] < 0.05:
            bad.append(f"{where} gives all queries nearly the same prototype (raise --set variance)")
        elif seen["used"] < 0.05:
            bad.append(f"{where} uses {seen['used']:.0%} of its slots (fewer do: --set slots)")
    trainer.facts |= {"memories": facts, "items": len(data)}
    line = "; ".join(bad)
    trainer.warnings[:] = [w for w in trainer.warnings if not w.startswith("anomem: ")]  # of the first fit
    if bad:
        trainer.warnings.append(f"anomem: {line}")
        trainer.reporter.note(f"warning: {line}")


def _foretell(
    trial: AnoMemDetector, data: Batches, items: TrainingItems, options: AnoMemOptions, trainer: Trainer
) -> None:
    """Say how long both stages will take: from a small step of each, of a copy."""
    trial.to(trainer.device).train()
    (first, batch_size), (second, _) = _length(data, options), _distance_length(data, options)
    if options.distance == "norm":
        second = 0
    size = min(batch_size, 8)
    pixels = data.batch(torch.arange(size), trainer.device)[0]
    views = [view(unit_pixels(pixels), MILD) for _ in range(2)]
    normal = torch.zeros(size, dtype=torch.bool, device=trainer.device)

    def seconds_of(loss: Callable[[], Tensor]) -> float:
        loss().backward()  # type: ignore[no-untyped-call]  # the first step is slow for reasons of its own
        start = time.perf_counter()
        loss().backward()  # type: ignore[no-untyped-call]
        return time.perf_counter() - start

    step = seconds_of(lambda: contrast_of(trial.scales, views[0], views[1], normal, options)) * first
    trial.scales.freeze()
    if second:
        step += seconds_of(lambda: trial.losses(pixels)[0].mean()) * second
    fits = 2 if items.kept_out.any() else 1
    seconds = step / size * len(data) * fits
    shown = f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{max(seconds, 1):.0f} s"
    trainer.reporter.note(
        f"training will take about {shown} ({fits} × {first} and {second} epochs) on this {trainer.device.type.upper()}"
    )
