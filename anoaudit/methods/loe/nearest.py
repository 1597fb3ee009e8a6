"""Distance to the nearest of a few sampled rows, as LOE's detector; the M-step draws the samples anew.

Sugiyama & Borgwardt (NeurIPS 2013) score by the nearest of one small sample; Ting et al. (Machine Learning 2017, aNNE) by
the mean over many samples. A small sample holds hardly any anomaly, and LOE's flags keep it freer of them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from anoaudit.methods.loe.alternate import Head
from anoaudit.training.loop import Batches

POOL = 1024  # rows that the samples are drawn from, so that a model stays small and one product gives all distances
SAMPLES = 64
SAMPLE, SHARE = 64, 16  # rows of a sample; it is at most a sixteenth of the rows
LEFT_OUT = (
    SAMPLES // 8
)  # the smallest distances do not count: in about a sixteenth of the samples a row of the pool finds itself
SMALLEST = 2


class NearestSamples(Head):
    """Score: mean of the Euclidean distances to the nearest of each sample's rows, without the LEFT_OUT smallest."""

    pool: Tensor
    member: Tensor
    batch = 2048

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.register_buffer("pool", torch.zeros(POOL, width))
        self.register_buffer("member", torch.zeros(SAMPLES * SAMPLE, dtype=torch.int64))

    def score(self, x_BD: Tensor) -> Tensor:
        """score_B."""
        x_BD = x_BD.to(self.pool.dtype)
        square_BP = x_BD.square().sum(1, keepdim=True) + self.pool.square().sum(1) - 2 * x_BD @ self.pool.T
        # Single precision from here on: the difference is taken, and there are six times as many numbers.
        square_BSM = square_BP.clamp_min(0).float().index_select(1, self.member)
        nearest_BS = square_BSM.reshape(-1, SAMPLES, self.member.numel() // SAMPLES).amin(2).sqrt()
        score_B: Tensor = nearest_BS.topk(SAMPLES - LEFT_OUT, dim=1).values.double().mean(1)
        return score_B

    def m_step(self, data: Batches, weights_N: Tensor, device: torch.device) -> None:
        """Rows enter the pool with their weights' odds, without replacement."""
        rng = np.random.default_rng(self.seed)
        odds_N = weights_N.double().numpy()
        able = int((odds_N > 0).sum())
        pool = rng.choice(len(odds_N), min(POOL, able), replace=False, p=odds_N / odds_N.sum())
        size = min(SAMPLE, max(SMALLEST, able // SHARE), len(pool))
        members = np.stack([rng.choice(len(pool), size, replace=False) for _ in range(SAMPLES)])
        self.pool = data.batch(torch.from_numpy(pool), device)[0].to(self.pool.dtype)
        self.member = torch.from_numpy(members.ravel()).to(device)
