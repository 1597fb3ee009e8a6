"""The head of every table detector: raw columns in, standardised features out, inside the exported graph."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from anoaudit.data.items import TableSpec

Scaling = Literal["standard", "robust", "minmax", "interval", "unit", "none"]
OVERFLOW = 1e300  # beyond it a double overflows in the arithmetic below: such values count as this large
LARGEST = 1000.0  # standardised values beyond it are cut: a thousand deviations say all that more could, and squares stay finite
ROBUST_CUT = 0.005  # scaling=robust: the lowest and highest share of values that counts as the next ones
ROBUST_FLOOR = 4.0  # and the spread is at least their standard deviation over this (our choice, by development tables)
LARGEST_RAW = 1e15  # without scaling nothing is known of a value's size; squares stay finite in single precision


class TableInput(nn.Module):
    """float64[B, D] → float32[B, F]: finite check, imputation and scaling in double (float32 cannot hold epoch seconds).

    A missing or infinite number becomes the training median. A categorical column of C values becomes C + 2 features (one for
    values never seen, one for missing), (1[k] − p_k)/√(p_k (C + 1)), so that a column weighs about as much as a numeric one
    and a rare value weighs more (our choice). With scaling=interval, which is minmax else, they are 0 and 1: all training rows'
    features lie in [0, 1].
    """

    impute: Tensor
    center: Tensor
    scale: Tensor

    def __init__(self, spec: TableSpec, rows: npt.NDArray[np.float64], scaling: Scaling) -> None:
        """`rows` is float64[N, D] of the training rows; statistics are taken from it."""
        super().__init__()
        self.largest = LARGEST_RAW if scaling in ("none", "unit") else LARGEST
        self.unit, self.plain = scaling == "unit", scaling == "interval"
        self.numeric = [j for j, rule in enumerate(spec.columns) if rule.kind != "categorical"]
        self.categorical = [j for j, rule in enumerate(spec.columns) if rule.kind == "categorical"]
        stats = [_statistics(rows[:, j], scaling) for j in self.numeric]
        table = torch.tensor(stats, dtype=torch.float64).reshape(-1, 3)
        self.register_buffer("impute", table[:, 0])
        self.register_buffer("center", table[:, 1])
        self.register_buffer("scale", table[:, 2])
        self.register_buffer("columns", torch.tensor(self.numeric, dtype=torch.int64))
        # Buffers, not literals: the exporter would write a literal as float32, where 1e300 is infinite.
        self.register_buffer("overflow", torch.tensor(OVERFLOW, dtype=torch.float64))
        self.register_buffer("largest_double", torch.tensor(np.finfo(np.float64).max, dtype=torch.float64))
        for j in self.categorical:
            self.register_buffer(f"shares_{j}", _shares(rows[:, j], len(spec.columns[j].categories)))
        if self.unit:  # one feature more: what differs in size alone is not lost
            length = self._log_length(torch.from_numpy(rows)).numpy()[:, 0]
            low, middle, high = np.quantile(length, [0.25, 0.5, 0.75])
            self.register_buffer("length_center", torch.tensor(middle, dtype=torch.float64))
            self.register_buffer("length_scale", torch.tensor((high - low) / 1.349 or 1.0, dtype=torch.float64))
        self.width = (
            int(self.unit) + len(self.numeric) + sum(self.get_buffer(f"shares_{j}").numel() for j in self.categorical)
        )

    def forward(self, x: Tensor) -> Tensor:
        """float64[B, D] → float32[B, F]."""
        features = self._features(x)
        if not self.unit:
            return features.float()
        # Of length √F, so that a feature is about 1 as with the other scalings.
        log_length = self._log_length(x)
        size = (log_length - self.get_buffer("length_center")) / self.get_buffer("length_scale")
        return torch.cat([features * torch.exp(-log_length), size.clamp(-LARGEST, LARGEST)], dim=1).float()

    def _log_length(self, x: Tensor) -> Tensor:
        """[B, 1]: the logarithm of the root of the mean square over features."""
        return 0.5 * torch.log(self._features(x).square().mean(1, keepdim=True).clamp_min(1e-60))

    def _features(self, x: Tensor) -> Tensor:
        """float64[B, F], cut at `largest`."""
        parts = []
        if self.numeric:
            raw = x.index_select(1, self.get_buffer("columns"))
            # No torch.isinf: exported it is of single precision.
            missing = torch.isnan(raw) | (raw.abs() > self.get_buffer("largest_double"))
            known, overflow = torch.where(missing, self.impute, raw), self.get_buffer("overflow")
            parts.append((torch.maximum(torch.minimum(known, overflow), -overflow) - self.center) / self.scale)
        for j in self.categorical:
            shares = self.get_buffer(f"shares_{j}")
            levels = shares.numel()
            code = torch.where(torch.isnan(x[:, j]), float(levels - 1), x[:, j])
            hot = (code[:, None] == torch.arange(levels, dtype=torch.float64, device=x.device)).double()
            parts.append(hot if self.plain else (hot - shares) / torch.sqrt(shares * (levels - 1)))
        return torch.cat(parts, dim=1).clamp(-self.largest, self.largest)


def is_embedding(spec: TableSpec, rows: npt.NDArray[np.float64]) -> bool:
    """Do the columns look like a network's embedding, where directions and not single columns mean something? (Our rule.)

    At least 128 numeric columns and no others, of continuous values (hardly one comes twice but zero, which rectifiers give)
    and of one unit (the spreads of most columns within a factor of a hundred). `rows` is float64[N, D].
    """
    if len(spec.columns) < 128 or any(rule.kind != "numeric" for rule in spec.columns):
        return False
    some = rows[:: len(rows) // 2000 + 1]
    finite = np.where(np.isfinite(some), some, 0.0)
    repeated = [1 - len(np.unique(values)) / max(len(values), 1) for values in (c[c != 0] for c in finite.T)]
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = np.quantile(np.nan_to_num(finite.std(0), nan=np.inf), [0.1, 0.9])
    return bool(np.mean(np.array(repeated) <= 0.1) >= 0.8 and high <= 100 * low)


def alikeness(features: Tensor) -> float:
    """A feature's squared correlation with most others, for over three quarters of the features: 1 where they move as one.

    The lower quartile of their medians, so that a column of its own beside many copies does not hide these; 1 where
    there is one feature only. `features` is float32[N, F] of any scale; what lies beyond three robust deviations counts as
    three, what does not vary is left out.
    """
    some = features[:: len(features) // 2000 + 1].double()
    some = some - some.median(0).values
    spread = some.abs().median(0).values * 1.4826
    spread = torch.where(spread > 0, spread, some.std(0))
    some = (some / spread.clamp_min(1e-300)).clamp(-3, 3)
    some = some[:, some.std(0) > 1e-9]
    count = some.shape[1]
    if count < 2:
        return float(count)
    squares = torch.corrcoef(some.T).square()[~torch.eye(count, dtype=torch.bool)].reshape(count, count - 1)
    return float(torch.quantile(squares.median(1).values, 0.25, interpolation="lower"))


def _statistics(column: npt.NDArray[np.float64], scaling: Scaling) -> tuple[float, float, float]:
    """(imputed value, centre, scale) of a numeric column."""
    finite = column[np.isfinite(column) & (np.abs(column) <= OVERFLOW)]
    if len(finite) == 0:
        return 0.0, 0.0, 1.0
    median = float(np.median(finite))
    # Around the median, in units of the largest deviation: the squares of 1e200 are not finite.
    unit = float(np.abs(finite - median).max()) or 1.0
    relative = (finite - median) / unit
    center, scale = float(relative.mean()), float(relative.std())
    if scaling == "robust":
        low, high = np.quantile(relative, [0.25, 0.75])
        # A column that is nearly always one value has quartiles next to each other: it must not outweigh all others. Nor may
        # a few wild values hide a column: they are cut before the standard deviation is taken.
        cut = np.clip(relative, *np.quantile(relative, [ROBUST_CUT, 1 - ROBUST_CUT]))
        largest = float(np.abs(cut).max()) or 1.0  # divided out: beside 1e300 the squares of the others would be 0
        spread = float((cut / largest).std()) * largest or scale
        center, scale = 0.0, max(float(high - low) / 1.349, spread / ROBUST_FLOOR)
    elif scaling in ("minmax", "interval"):
        center, scale = float(relative.min()), float(np.ptp(relative))
    elif scaling in ("none", "unit"):
        return median, 0.0, 1.0
    return median, median + center * unit, scale * unit or 1.0


def _shares(codes: npt.NDArray[np.float64], categories: int) -> Tensor:
    """Share of each category, of unseen values and of missing ones; floors keep the features finite."""
    filled = np.where(np.isnan(codes), categories + 1, codes).astype(int)
    counts = np.bincount(filled, minlength=categories + 2).astype(np.float64)
    return torch.tensor(
        np.maximum(counts / max(len(codes), 1), max(1.0 / max(len(codes), 1), 1e-3)), dtype=torch.float64
    )
