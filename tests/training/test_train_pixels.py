"""Decoded images for networks that are trained from pixels."""

from __future__ import annotations

import numpy as np
import torch
from tiny_items import CPU, Notes, items_of

from anoaudit.training import features as room
from anoaudit.training.pixels import cache_pixels

IMAGES = np.random.default_rng(0).integers(0, 256, (9, 8, 6, 3)).astype(np.uint8)


def test_they_are_the_images_in_memory_or_on_disk(tmp_path, monkeypatch):
    labels = np.arange(9).astype(np.int8)
    for size in (room.MEMORY_BYTES, 100):
        monkeypatch.setattr(room, "MEMORY_BYTES", size)
        _, data = cache_pixels(items_of(IMAGES, labels), tmp_path, 0, Notes())
        x, y = data.batch(torch.tensor([7, 0]), CPU)
        assert x.dtype == torch.uint8
        assert np.array_equal(x.numpy(), IMAGES[[7, 0]])
        assert y.tolist() == [7, 0]
    assert (tmp_path / "pixels.u8").stat().st_size == IMAGES.size


def test_too_many_are_cut_to_some_and_known_anomalies_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "CACHE_BYTES", 4 * 8 * 6 * 3)
    labels = np.array([-1] * 7 + [1, 1], dtype=np.int8)
    items, data = cache_pixels(items_of(IMAGES, labels), tmp_path, 0, Notes())
    assert len(items) == len(data) == 4
    assert data.labels.tolist()[2:] == [1, 1]
    assert np.array_equal(data.images, IMAGES[items.mask])
