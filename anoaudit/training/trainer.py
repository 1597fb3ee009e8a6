"""What a method is given besides its items: device, seed, checkpoints, the loop, the pre-flight export."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from anoaudit.errors import AuditError
from anoaudit.model.session import batch_of
from anoaudit.progress import Reporter
from anoaudit.training.checkpoint import Checkpoints
from anoaudit.training.items import TrainingItems
from anoaudit.training.loop import Accept, Batches, History, Objective, Part, Sampler, Schedule, train

Array = npt.NDArray[np.float64]
M = TypeVar("M", bound=nn.Module)


@dataclass
class Trainer:
    """Everything around a method. `facts` is what the method wants to see in the manifest, `warnings` what in every report."""

    device: torch.device
    seed: int
    contamination: float
    checkpoints: Checkpoints
    reporter: Reporter
    sensitivity: bool = False  # the method shall say how its ranking depends on the contamination
    backbone: nn.Module | None = None  # frozen feature extractor, images only
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    history: History | None = None
    held_out_scores: Array | None = None  # of the first fit, on the items that it did not see
    instead: str = ""  # what there is where nothing could be kept out: goes on from "… for p-values"

    def run(
        self,
        module: nn.Module,
        objective: Objective,
        data: Batches,
        schedule: Schedule,
        memory: deque[float] | None = None,
        stage: str = "train",
        sampler: Sampler | None = None,
        accept: Accept | None = None,
    ) -> None:
        """Train, and keep the history for the self-check. `memory` is what the objective carries from batch to batch."""
        self.history = train(
            module, objective, data, schedule,
            device=self.device, seed=self.seed, checkpoints=self.checkpoints, reporter=self.reporter,
            memory=memory, stage=stage, sampler=sampler, accept=accept,
        )  # fmt: skip

    def fit_twice(self, fit_one: Callable[[Batches, str], M], data: Batches, items: TrainingItems) -> M:
        """A first fit without the kept-out items, if there are any, whose scores of them make the null; then the one on all.

        `fit_one(data, stage)` gives a detector of items as they enter the model.
        """
        kept_out = torch.from_numpy(items.kept_out)
        if kept_out.any():
            self.calibrate(fit_one(Part(data, torch.nonzero(~kept_out)[:, 0]), "calibration"), items)
        return fit_one(data, "train")

    @torch.no_grad()
    def calibrate(self, first: nn.Module, items: TrainingItems) -> None:
        """Score the kept-out items with a detector that never saw them: the null of `score` rests on these scores."""
        first.to(self.device).eval()
        scores = []
        with self.reporter.phase("scoring kept-out items", None) as task:
            for chunk in items.dataset.chunks(items.spec, batch_of(items.spec), items.split.held_out):
                out = first(torch.from_numpy(chunk.values).to(self.device))
                scores.append((out[0] if isinstance(out, tuple) else out).double().cpu().numpy())
                task.update(len(scores))
        self.held_out_scores = np.concatenate(scores)

    def self_check(self, scores: Array) -> dict[str, Any]:
        """Did training do anything? Scores of readable items must be finite and spread, the loss and the weights must have moved.

        (A detector without a loss, a closed-form Gaussian say, leaves `history` None.) Raises AuditError.
        """
        hint = "the data may be constant or duplicated; look at it, or change --set detector, lr or epochs"
        if not np.isfinite(scores).all():
            raise AuditError("training failed its self-check: a score is not finite", hint)
        distinct = len(np.unique(scores))
        if distinct < 3 or float(np.ptp(scores)) == 0.0:
            raise AuditError(
                f"training failed its self-check: {distinct} different scores for {len(scores)} items", hint
            )
        facts: dict[str, Any] = {"distinct_scores": distinct, "items": len(scores)}
        if self.history is not None:
            losses = self.history.losses
            moved = max(losses) - min(losses) if len(losses) > 1 else float("inf")
            if self.history.weight_change == 0.0 or moved <= 1e-9 * max(abs(losses[0]), 1e-12):
                raise AuditError("training failed its self-check: the loss did not move", hint)
            facts |= {
                "first_loss": losses[0], "last_loss": losses[-1], "best_epoch": self.history.best_epoch + 1,
                "epochs": len(losses), "batch_size": self.history.batch_size, "weight_change": self.history.weight_change,
            }  # fmt: skip
        return facts
