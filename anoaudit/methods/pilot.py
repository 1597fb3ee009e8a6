"""Scores from which α is estimated: a trimmed Gaussian's, each item's by a fit that did not see it, whatever the method.

The estimate must not rest on the method's own flags, nor on scores that tell trained items from others: a fit that leaves out
its worst quarter scores that quarter as unseen, clean or not, and a gap opens where the trimming was. So the items are cut in
three, and each third is scored by a fit on the other two (our choice).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from anoaudit.data.items import ImageSpec, TableSpec
from anoaudit.methods.loe.alternate import alternate
from anoaudit.methods.loe.assignment import Assignment
from anoaudit.methods.loe.gaussian import GaussianMap, GaussianVector
from anoaudit.nets.filter_bank import FilterBank
from anoaudit.nets.pixels import Pixels
from anoaudit.nets.table_input import TableInput
from anoaudit.training.features import LocationScaler, RowBatches, bounded, extract
from anoaudit.training.items import TrainingItems
from anoaudit.training.loop import Batches, Part
from anoaudit.training.trainer import Trainer

FOLDS, TRIM, ROUNDS = 3, 0.25, 5  # trimmed by more than α is expected to be
MOST = {"table": 20_000, "images": 1_000}  # items at random: a share is known well enough from them
CHANNELS, TOP = 64, 0.01  # of feature maps: as the default detector's


def pilot_scores(items: TrainingItems, trainer: Trainer) -> npt.NDArray[np.float64]:
    """float64[n] of at most MOST of the items; higher is more anomalous."""
    marked = np.flatnonzero(items.mask)
    chosen = np.random.default_rng(trainer.seed).choice(
        marked, min(len(marked), MOST[items.dataset.kind]), replace=False
    )
    mask = np.zeros_like(items.mask)
    mask[chosen] = True
    items = replace(items, mask=mask)
    if isinstance(items.spec, TableSpec):
        rows = items.values()
        inlet = TableInput(items.spec, rows, "standard")
        with torch.no_grad():
            data: Batches = RowBatches(inlet(torch.from_numpy(rows)), items.labels)
        return _cross_fitted(GaussianVector(inlet.width), data, trainer)
    return _image_scores(items, trainer)


def _image_scores(items: TrainingItems, trainer: Trainer) -> npt.NDArray[np.float64]:
    assert isinstance(items.spec, ImageSpec)
    assert trainer.backbone is not None
    # A network that is still to be trained sees nothing yet: the filter bank looks in its place.
    backbone = FilterBank(items.spec.height) if isinstance(trainer.backbone, Pixels) else trainer.backbone
    width, grid = int(backbone.channels), backbone.grid  # type: ignore[arg-type]
    head: GaussianMap | GaussianVector = GaussianVector(width)
    kept: Tensor | None = None
    if isinstance(grid, tuple):
        kept = torch.from_numpy(np.sort(np.random.default_rng(trainer.seed).permutation(width)[:CHANNELS]))
        head = GaussianMap(torch.arange(len(kept)), grid, TOP)
        items = bounded(items, 2 * len(kept) * grid[0] * grid[1], trainer.seed, trainer.reporter)
    data = extract(
        items, backbone, LocationScaler(width, grid if isinstance(grid, tuple) else None, per_location=False), None,
        channels=kept, device=trainer.device, seed=trainer.seed, folder=trainer.checkpoints.folder, reporter=trainer.reporter,
    )  # fmt: skip
    return _cross_fitted(head, data, trainer)


def _cross_fitted(head: GaussianVector | GaussianMap, data: Batches, trainer: Trainer) -> npt.NDArray[np.float64]:
    fold_N = torch.from_numpy(np.random.default_rng(trainer.seed).permutation(len(data)) % FOLDS)
    scores = np.empty(len(data))
    for k in range(FOLDS):
        assignment = Assignment("refine", TRIM, warmup=0)
        rest, own = torch.nonzero(fold_N != k)[:, 0], torch.nonzero(fold_N == k)[:, 0]
        alternate(head, Part(data, rest), assignment, ROUNDS, trainer.device, trainer.reporter)
        scores[own.numpy()] = scores_of(head, Part(data, own), trainer.device)
    return scores


@torch.no_grad()
def scores_of(head: nn.Module, data: Batches, device: torch.device, size: int = 32) -> npt.NDArray[np.float64]:
    """float64[N]: a head's scores of training batches."""
    parts = [head.score(data.batch(rows, device)[0]) for rows in torch.split(torch.arange(len(data)), size)]  # type: ignore[operator]
    return np.asarray(torch.cat(parts).double().cpu().numpy(), dtype=np.float64)
