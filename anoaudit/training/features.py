"""Frozen features of the training images, computed once and kept in half precision; and table rows, which fit in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from anoaudit.errors import AuditError
from anoaudit.progress import Reporter
from anoaudit.training.items import TrainingItems, some_of

CACHE_BYTES = 2 << 30  # on disk; beyond it fewer locations of each image are kept
MEMORY_BYTES = 256 << 20  # below it the cache stays in memory
MIN_LOCATIONS = 16
HALF_MAX = 65504.0
IMAGE_BATCH = 16


class RowBatches:
    """Rows in memory: float32[N, F] and int8[N]."""

    def __init__(self, rows: Tensor, labels: npt.NDArray[np.int8]) -> None:
        self.rows, self.labels = rows, torch.from_numpy(np.ascontiguousarray(labels))

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """See Batches."""
        return self.rows[indices].to(device), self.labels[indices].to(device)


class LocationScaler(nn.Module):
    """Features [B, C, h, w] (or [B, C]) → standardised, per channel and place.

    The variance at a place is shrunk towards the channel's over all places with the weight of `PRIOR` images, so that a small
    folder gives no wild scales (our choice, after PaDiM's per-position Gaussians).
    """

    PRIOR = 20.0
    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, grid: tuple[int, int] | None, per_location: bool, off: bool = False) -> None:
        super().__init__()
        places = grid if grid is not None and per_location else (1, 1)
        shape = (channels, *places) if grid is not None else (channels,)
        self.per_location, self.off = per_location, off
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))

    def fit(self, count: int, total: Tensor, squares: Tensor) -> None:
        """From Σx and Σx² over images, each [C, h, w] (or [C]) in float64."""
        if self.off:
            return
        mean = total / count
        variance = (squares / count - mean**2).clamp_min(0)
        if mean.dim() == 3:
            overall_mean = mean.mean(dim=(1, 2), keepdim=True)
            overall = (variance + (mean - overall_mean) ** 2).mean(dim=(1, 2), keepdim=True)
            if self.per_location:
                within = variance.mean(dim=(1, 2), keepdim=True)
                variance = (count * variance + self.PRIOR * within) / (count + self.PRIOR)
            else:
                mean, variance = overall_mean, overall
        floor = 1e-6 + 1e-3 * variance.mean().sqrt()
        self.mean.copy_(mean.float())
        self.std.copy_(variance.sqrt().clamp_min(floor).float())

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return (x - self.mean) / self.std


class ImageBatches:
    """Cached features: float32[B, L, C] of L sampled locations of each image, or [B, C] pooled, standardised on the way out.

    The cache holds differences from `origin` ([C, h, w] or [C]): half precision has three digits, which a bright and steady
    place would spend on its brightness.
    """

    def __init__(
        self,
        features: npt.NDArray[np.float16],
        places: npt.NDArray[np.int32] | None,
        scaler: LocationScaler,
        origin: Tensor,
        channels: Tensor,
        labels: npt.NDArray[np.int8],
        vectors: Tensor | None = None,
        alignment: float = 0.0,
    ) -> None:
        self.vectors = vectors  # float32[N, G] of the whole images, where `extract` was asked for them
        self.alignment = alignment  # see `alignment_of`
        self._features, self._places = features, places
        mean = scaler.mean - origin
        std = scaler.std.expand_as(mean)
        # [C] of pooled features, [hw, C] of maps.
        self._mean, self._std = (t[channels] if t.dim() == 1 else t[channels].flatten(1).T for t in (mean, std))
        self.labels = torch.from_numpy(np.ascontiguousarray(labels))

    def __len__(self) -> int:
        return len(self._features)

    def batch(self, indices: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """See Batches."""
        x = torch.from_numpy(np.asarray(self._features[indices.numpy()])).to(device).float()
        if self._places is None:
            x = (x - self._mean) / self._std
        else:
            places = torch.from_numpy(self._places[indices.numpy()]).long().to(device)
            x = (x - self._mean[places]) / self._std[places]
        return x, self.labels[indices].to(device)


def extract(
    items: TrainingItems,
    backbone: nn.Module,
    scaler: LocationScaler,
    locations: int | None,
    *,
    channels: Tensor | None = None,
    device: torch.device,
    seed: int,
    folder: Path,
    reporter: Reporter,
    vectors: bool = False,
) -> ImageBatches:
    """Run the frozen backbone once over the training images, fit the scaler, cache the features.

    Of spatial maps, `locations` random places of each image are kept, fewer when the cache would exceed its bound; None keeps
    all, in order (see `bounded`). `channels` (int64[c]) keeps only those channels. With `vectors` the backbone's
    `maps_and_vector` gives each image's vector, too.
    """
    backbone.to(device).eval()
    width, grid = int(backbone.channels), backbone.grid  # type: ignore[arg-type]
    channels = torch.arange(width) if channels is None else channels
    places_all = grid[0] * grid[1] if isinstance(grid, tuple) else 1
    kept = min(locations or places_all, places_all)
    if locations is not None:
        kept = max(min(kept, CACHE_BYTES // (2 * len(channels) * len(items))), min(MIN_LOCATIONS, kept))
    shape = (len(items), kept, len(channels)) if isinstance(grid, tuple) else (len(items), len(channels))
    cache: npt.NDArray[np.float16] = allocate(shape, np.float16, folder / "features.f16")
    places = np.empty((len(items), kept), dtype=np.int32) if isinstance(grid, tuple) else None
    rng = np.random.default_rng(seed)
    total = squares = torch.zeros(1, dtype=torch.float64)
    origin: Tensor | None = None
    wholes: list[Tensor] = []
    done = 0
    with reporter.phase("extracting features", len(items)) as task, torch.inference_mode():
        for chunk in items.chunks(IMAGE_BATCH):
            features, *whole = _features(backbone, torch.from_numpy(chunk.values), device, vectors)
            wholes += [vector.cpu() for vector in whole]
            double = features.double()
            total = total.to(device) + double.sum(0)
            squares = squares.to(device) + double.square().sum(0)
            origin = features.mean(0) if origin is None else origin
            differences = features - origin
            if places is None:
                picked = differences[:, channels]
            else:
                order = np.arange(places_all) if locations is None else None
                chosen = np.stack([rng.permutation(places_all)[:kept] if order is None else order for _ in features])
                places[done : done + len(features)] = chosen
                index = torch.from_numpy(chosen).to(device)[:, None, :].expand(-1, len(channels), -1)
                picked = differences[:, channels].flatten(2).gather(2, index).transpose(1, 2)  # [B, L, C]
            cache[done : done + len(features)] = picked.clamp(-HALF_MAX, HALF_MAX).half().cpu().numpy()
            done += len(features)
            task.update(done)
    scaler.cpu().fit(done, total.cpu(), squares.cpu())
    assert origin is not None
    kept_vectors = torch.cat(wholes).clone() if vectors else None
    return ImageBatches(
        cache, places, scaler.to(device), origin.clone(), channels.to(device), items.labels, kept_vectors,
        alignment_of(done, total.cpu(), squares.cpu()),
    )  # fmt: skip


def alignment_of(count: int, total: Tensor, squares: Tensor) -> float:
    """How much of the features' variance over images and places the place explains, 0 to 1; mean over channels.

    Near 1 where images show the same parts at the same places, near 0 where anything may lie anywhere. From Σx and Σx² over
    `count` images, each [C, h, w] in float64; 0 of pooled features (our choice).
    """
    if total.dim() != 3:
        return 0.0
    mean = total / count
    within = (squares / count - mean**2).clamp_min(0).mean((1, 2))
    between = mean.var((1, 2), unbiased=False)
    return float((between / (between + within).clamp_min(1e-12)).mean())


def bounded(items: TrainingItems, size: int, seed: int, reporter: Reporter) -> TrainingItems:
    """So many of the items, chosen at random, that the cache holds them at `size` bytes each."""
    most = CACHE_BYTES // size
    if len(items) <= most:
        return items
    reporter.note(f"training on {most} of {len(items)} images: they fill the cache of {CACHE_BYTES >> 30} GiB")
    return replace(items, mask=some_of(items.mask, items.split.labels, most, np.random.default_rng(seed)))


def _features(backbone: nn.Module, images: Tensor, device: torch.device, vectors: bool) -> tuple[Tensor, ...]:
    """Features of a batch, and vectors if asked for; in halves when memory runs out."""
    try:
        if vectors:
            both: tuple[Tensor, Tensor] = backbone.maps_and_vector(images.to(device))  # type: ignore[operator]
            return both
        return (backbone(images.to(device)),)
    except torch.OutOfMemoryError:
        if len(images) == 1:
            raise AuditError(
                "out of memory even for one image", "use a smaller backbone or --backbone-arg size="
            ) from None
        torch.cuda.empty_cache()
        half = len(images) // 2
        halves = (_features(backbone, part, device, vectors) for part in (images[:half], images[half:]))
        return tuple(torch.cat(pair) for pair in zip(*halves, strict=True))


def allocate(shape: tuple[int, ...], dtype: type[Any], file: Path) -> npt.NDArray[Any]:
    """An array in memory where it is small, else mapped from the file."""
    if np.dtype(dtype).itemsize * int(np.prod(shape)) <= MEMORY_BYTES:
        return np.empty(shape, dtype=dtype)
    try:
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)
    except OSError as error:
        raise AuditError(
            f"{file.parent} cannot hold the cache of the images: {error.strerror or error}", "free some space"
        ) from error
