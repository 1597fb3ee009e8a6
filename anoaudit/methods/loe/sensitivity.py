"""How much the ranking depends on α: short fits at α/2, α and 2α, compared."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from anoaudit.methods.loe.alternate import Head
from anoaudit.methods.loe.detectors import Spatial
from anoaudit.methods.loe.options import LoeOptions
from anoaudit.model.alpha import spearman, top_overlap
from anoaudit.training.loop import Batches, Part
from anoaudit.training.trainer import Trainer

SHORT = 4  # a short run has a quarter of the epochs
MOST_ALPHA = 0.49
ROWS, IMAGES = 20_000, 1_000  # that are ranked
BATCH = 32


def sensitivity(
    fit_one: Callable[[LoeOptions, Trainer, str], nn.Module],
    data: Batches,
    options: LoeOptions,
    trainer: Trainer,
    maps: bool,
) -> dict[str, Any]:
    """`fit_one(options, trainer, stage)` gives a loss pair. The manifest's `alpha_sensitivity`: for half and double α the rank
    correlation with the short run at α (Spearman) and the share of its top k that both have, k the assumed anomalies.

    All three runs are equally short, so that α is all that differs; a closed form is as long as ever.
    """
    alpha, epochs = trainer.contamination, trainer.facts.get("epochs")
    if epochs is not None:
        options = replace(options, epochs=max(options.warmup + 1, math.ceil(epochs / SHORT)))
    size = min(len(data), IMAGES if maps else ROWS)
    some = torch.from_numpy(np.sort(np.random.default_rng(trainer.seed).permutation(len(data))[:size]))
    rankings = {}
    for name, other in (("same", alpha), ("half", alpha / 2), ("double", min(2 * alpha, MOST_ALPHA))):
        with trainer.reporter.phase(f"α = {other:g}", None):
            pair = fit_one(options, replace(trainer, contamination=other, facts={}, warnings=[]), f"alpha-{name}")
            rankings[name] = (other, _scores(pair, data, some, trainer.device))
    k = max(1, round(alpha * size))
    base = rankings.pop("same")[1]
    runs = [
        {"alpha": other, "spearman": spearman(base, scores), "top_overlap": top_overlap(base, scores, k)}
        for other, scores in rankings.values()
    ]
    return {
        "alpha": alpha,
        "items": size,
        "k": k,
        "epochs": options.epochs if epochs is not None else None,
        "runs": runs,
    }


@torch.no_grad()
def _scores(pair: nn.Module, data: Batches, some: torch.Tensor, device: torch.device) -> npt.NDArray[np.float64]:
    """float64[n] of the items `some`; of maps that are trained on in part, over the places that are."""
    pair.to(device).eval()
    if isinstance(pair, Head):
        return np.asarray(pair.scores(Part(data, some), device).double().numpy(), dtype=np.float64)
    parts = []
    for rows in torch.split(some, BATCH):
        x = data.batch(rows, device)[0]
        parts.append(pair.score_places(x) if isinstance(pair, Spatial) else pair.score(x))  # type: ignore[operator]
    return np.asarray(torch.cat(parts).double().cpu().numpy(), dtype=np.float64)
