"""ICL as LOE's detector: internal contrastive learning (Shenkar & Wolf, ICLR 2022), METHODS §1.

A row's window of adjacent columns and the columns around it belong together; another window of the same row does not belong to
them. Where the columns of a row no longer tell which window is missing, the row is odd.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anoaudit.errors import UsageError

SCORED, MOST_BYTES = 4096, 2 << 30  # rows scored at a time; bytes that one of its activations may have then
HIDDEN = 200  # of the complement's encoder; a quarter and a half of it in the window's (our choice)


def window_width(features: int) -> int:
    """The authors' rule for the number of columns of a window [code]."""
    for most, width in ((40, 2), (160, 10), (240, features - 150), (480, features - 200)):
        if features <= most:
            return width
    return features - 400


class ICL(nn.Module):
    """m = D − k + 1 windows a_j of k columns with complements b_j; p_j = softmax over i of F(b_j)·G(a_i)/τ, at i = j.

    L_n = −Σ_j ln p_j / m, L_a = −Σ_j ln(1 − p_j) / m: the mean instead of the sum, which ranks alike. (L_a is the complement
    form of NTL's; the authors' code has none for ICL.) Raises UsageError where there are not two windows.
    """

    windows: Tensor
    complements: Tensor

    def __init__(
        self,
        features: int,
        window: int | None = None,
        hidden: int | None = None,
        out: int | None = None,
        temperature: float = 0.01,
    ) -> None:
        super().__init__()
        k = window or window_width(features)
        count = features - k + 1
        if count < 2 or k >= features:
            raise UsageError(
                f"--set detector=icl compares windows of {k} columns, but the data has {features} features",
                "use another detector" if features < 3 else f"use --set window= below {features}",
            )
        largest = SCORED * count * max(features - k, 2 * (hidden or HIDDEN)) * 4
        if largest > MOST_BYTES:
            raise UsageError(
                f"--set detector=icl on {features} features would take {largest / 2**30:.1f} GiB a batch when scoring",
                "use another detector, or a larger --set window=",
            )
        columns = torch.arange(features)
        windows = columns[:count, None] + torch.arange(k)
        self.register_buffer("windows", windows)
        self.register_buffer(
            "complements", torch.stack([columns[(columns < w[0]) | (columns > w[-1])] for w in windows])
        )
        hidden = hidden or HIDDEN
        out = out or hidden
        self.complement_encoder = _encoder([features - k, hidden, 2 * hidden, out], count)
        self.window_encoder = _encoder([k, max(2, hidden // 4), max(2, hidden // 2), out], count)
        self.temperature = temperature
        self.register_buffer("eye", torch.eye(count, dtype=torch.bool))

    def start(self, x_BD: Tensor) -> None:
        """Nothing depends on the data."""

    def losses(self, x_BD: Tensor) -> tuple[Tensor, Tensor]:
        """(normal_B, anomaly_B) of float32[B, D]."""
        f_BME = F.normalize(self.complement_encoder(x_BD[:, self.complements]).float(), dim=-1)
        g_BME = F.normalize(self.window_encoder(x_BD[:, self.windows]).float(), dim=-1)
        with torch.autocast(x_BD.device.type, enabled=False):  # bfloat16 would blur F·G/τ
            logits_BMM = f_BME @ g_BME.transpose(1, 2) / self.temperature
        own_BM = torch.diagonal(logits_BMM, dim1=1, dim2=2)
        others_BM = torch.logsumexp(logits_BMM.masked_fill(self.get_buffer("eye"), -1e4), dim=-1)
        # log(eᵃ + eᵇ) − a as softplus(b − a): scores near 0 are no difference of large numbers.
        return F.softplus(others_BM - own_BM).mean(1), F.softplus(own_BM - others_BM).mean(1)

    def score(self, x_BD: Tensor) -> Tensor:
        """L_n."""
        return self.losses(x_BD)[0]


class _PerWindow(nn.Module):
    """Batch normalisation of [B, M, H], each window by its own statistics."""

    def __init__(self, windows: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(windows)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = self.norm(h)
        return out


def _encoder(sizes: list[int], windows: int) -> nn.Sequential:
    first, second, third, last = sizes
    return nn.Sequential(
        nn.Linear(first, second), nn.Tanh(), _PerWindow(windows),
        nn.Linear(second, third), nn.LeakyReLU(0.2), _PerWindow(windows),
        nn.Linear(third, last), nn.LeakyReLU(0.2),
    )  # fmt: skip
