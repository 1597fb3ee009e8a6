"""The training images themselves, decoded once, for networks that are trained from pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from anoaudit.data.items import ImageSpec
from anoaudit.progress import Reporter
from anoaudit.training.features import allocate, bounded
from anoaudit.training.items import TrainingItems
from anoaudit.training.loop import Batches

READ = 64


class PixelBatches:
    """uint8[B, H, W, 3] and labels int8[B], already on the device: a quarter of what floats would take to get there."""

    def __init__(self, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int8]) -> None:
        self.images, self.labels = images, torch.from_numpy(np.ascontiguousarray(labels))

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """See Batches."""
        return torch.from_numpy(self.images[indices.numpy()]).to(device), self.labels[indices].to(device)


class Through:
    """Other batches through a module without parameters, images as floats say."""

    def __init__(self, data: Batches, module: nn.Module) -> None:
        self._data, self._module, self.labels = data, module, data.labels

    def __len__(self) -> int:
        return len(self._data)

    def batch(self, indices: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """See Batches."""
        x, labels = self._data.batch(indices, device)
        return self._module(x), labels


def cache_pixels(
    items: TrainingItems, folder: Path, seed: int, reporter: Reporter
) -> tuple[TrainingItems, PixelBatches]:
    """The images in memory, or mapped from a file in `folder`; and the items that they are, fewer where there are too many."""
    assert isinstance(items.spec, ImageSpec)
    shape = (items.spec.height, items.spec.width, 3)
    items = bounded(items, int(np.prod(shape)), seed, reporter)
    images = allocate((len(items), *shape), np.uint8, folder / "pixels.u8")
    done = 0
    with reporter.phase("reading images", len(items)) as task:
        for chunk in items.chunks(READ):
            images[done : done + len(chunk.values)] = chunk.values
            done += len(chunk.values)
            task.update(done)
    return items, PixelBatches(images, items.labels)
