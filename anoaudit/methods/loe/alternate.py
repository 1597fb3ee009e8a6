"""LOE's two steps in turn over all items, for detectors whose M-step is one refit and not a gradient."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anoaudit.methods.loe.assignment import Assignment
from anoaudit.progress import Reporter
from anoaudit.training.loop import Batches


class Head(nn.Module):
    """A detector that is fitted anew to weighted items: an M-step over all items, and their scores.

    It has no L_a to minimise, so a flagged item simply weighs 1 − y in the next fit: 1 under blind, ½ under soft, nothing
    under hard, refine and gt.
    """

    batch: int  # items at once

    def m_step(self, data: Batches, weights_N: Tensor, device: torch.device) -> None:
        """Fit to the items with these weights, 0 to 1."""
        raise NotImplementedError

    def score(self, x: Tensor) -> Tensor:
        """score_B."""
        raise NotImplementedError

    def scores(self, data: Batches, device: torch.device) -> Tensor:
        """score_N of all items, on the CPU."""
        parts = torch.split(torch.arange(len(data)), self.batch)
        return torch.cat([self.score(data.batch(indices, device)[0]).cpu() for indices in parts])


def alternate(
    head: Head,
    data: Batches,
    assignment: Assignment,
    rounds: int,
    device: torch.device,
    reporter: Reporter,
    name: str = "fitting",
) -> tuple[list[float], Tensor]:
    """Fit with weights 1 − y, then flag the ⌊αN⌋ largest, at most `rounds` times.

    Returns the mean score of each round and the last fit's scores [N].
    """
    head.to(device)
    labels_N = torch.cat([data.batch(i, device)[1] for i in torch.split(torch.arange(len(data)), head.batch)]).cpu()
    y_N = score_N = torch.zeros(len(data))
    history = []
    with reporter.phase(name, rounds) as task, torch.no_grad():
        for k in range(rounds):
            if assignment.kind == "gt":
                y_N = assignment.targets(y_N, y_N, labels_N, k)
            head.m_step(data, 1 - y_N, device)
            score_N = head.scores(data, device)
            history.append(float(score_N.mean()))
            task.update(k + 1, f"mean score {history[-1]:.4g}")
            assignment.pool.clear()  # the batch is the data: no item counts twice
            new_N = assignment.targets(score_N, torch.zeros_like(score_N), labels_N, k)
            if k > 0 and torch.equal(new_N, y_N):
                break
            y_N = new_N
    return history, score_N
