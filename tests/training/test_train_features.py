"""The feature cache and the scaler against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_items import CPU, Notes, items_of
from torch import nn

from anoaudit.errors import AuditError
from anoaudit.training import features as room
from anoaudit.training.features import LocationScaler, RowBatches, extract
from anoaudit.training.loop import Part

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (23, 8, 8, 3), dtype=np.uint8)


class Spatial(nn.Module):
    """4 channels on a grid of 4×4: the colours' block means, and their sum."""

    channels, grid, height, width = 4, (4, 4), 8, 8

    def forward(self, images):
        x = torch.nn.functional.avg_pool2d(images.permute(0, 3, 1, 2).float(), 2)
        return torch.cat([x, x.sum(1, keepdim=True)], dim=1)


class Pooled(Spatial):
    grid = None

    def forward(self, images):
        return super().forward(images).mean((2, 3))


def scaler_for(backbone, per_location=False, off=False):
    return LocationScaler(backbone.channels, backbone.grid, per_location, off)


def run(backbone, scaler, locations, folder, images=IMAGES, channels=None, notes=None, seed=0):
    return extract(
        items_of(images), backbone, scaler, locations, channels=channels, device=CPU, seed=seed, folder=folder,
        reporter=notes or Notes(),
    )  # fmt: skip


def all_of(data):
    return data.batch(torch.arange(len(data)), CPU)[0]


@pytest.mark.parametrize("places", [1, 6])
def test_scaler_per_location(places):
    x = RNG.normal(3, 2, (40, 5, 2, places // 2 or 1)) * np.arange(1, 6)[None, :, None, None]
    scaler = LocationScaler(5, x.shape[2:], per_location=True)
    scaler.fit(40, torch.from_numpy(x.sum(0)), torch.from_numpy((x**2).sum(0)))
    variance = x.var(0)
    within = variance.mean(axis=(1, 2), keepdims=True)
    wanted = np.sqrt((40 * variance + 20 * within) / 60)
    assert np.allclose(scaler.mean.numpy(), x.mean(0), atol=1e-5)
    assert np.allclose(scaler.std.numpy(), wanted, rtol=1e-4)
    out = scaler(torch.from_numpy(x).float()).numpy()
    assert np.allclose(out, (x - x.mean(0)) / wanted, atol=1e-4)


def test_scaler_per_channel_and_pooled():
    x = RNG.normal(3, 2, (40, 5, 2, 3)) + RNG.normal(0, 5, (1, 5, 2, 3))
    scaler = LocationScaler(5, (2, 3), per_location=False)
    scaler.fit(40, torch.from_numpy(x.sum(0)), torch.from_numpy((x**2).sum(0)))
    flat = x.transpose(1, 0, 2, 3).reshape(5, -1)
    assert np.allclose(scaler.mean[:, 0, 0].numpy(), flat.mean(1), atol=1e-5)
    assert np.allclose(scaler.std[:, 0, 0].numpy(), flat.std(1), rtol=1e-4)
    pooled = LocationScaler(5, None, per_location=False)
    y = x[..., 0, 0]
    pooled.fit(40, torch.from_numpy(y.sum(0)), torch.from_numpy((y**2).sum(0)))
    assert np.allclose(pooled(torch.from_numpy(y).float()), (y - y.mean(0)) / y.std(0), atol=1e-4)


def test_scaler_of_constant_features_is_finite_and_off_is_off():
    x = torch.ones(10, 2, 2, 2, dtype=torch.float64)
    for per_location in (True, False):
        scaler = LocationScaler(2, (2, 2), per_location)
        scaler.fit(10, x.sum(0), x.square().sum(0))
        assert torch.isfinite(scaler(torch.rand(3, 2, 2, 2))).all()
    off = LocationScaler(2, (2, 2), True, off=True)
    off.fit(10, x.sum(0), x.square().sum(0))
    sample = torch.rand(3, 2, 2, 2)
    assert torch.equal(off(sample), sample)


@pytest.mark.parametrize("per_location", [True, False])
def test_all_places_are_what_the_detector_sees(tmp_path, per_location):
    """Training features, standardised on the way out of the cache, against backbone and scaler in `forward`."""
    backbone, kept = Spatial(), torch.tensor([0, 3])
    scaler = scaler_for(backbone, per_location)
    data = run(backbone, scaler, None, tmp_path, channels=kept)
    whole = scaler(backbone(torch.from_numpy(IMAGES)))
    assert torch.allclose(all_of(data), whole[:, kept].flatten(2).transpose(1, 2), atol=5e-3)
    maps = backbone(torch.from_numpy(IMAGES)).double().numpy()
    mean = maps.mean(0) if per_location else maps.mean((0, 2, 3))[:, None, None]
    assert np.allclose(scaler.mean.numpy(), mean, rtol=1e-4)
    assert np.array_equal(data.batch(torch.tensor([5, 2]), CPU)[0], all_of(data)[[5, 2]])


@pytest.mark.parametrize("per_location", [True, False])
def test_sampled_places_carry_their_own_scale(tmp_path, per_location):
    backbone = Spatial()
    scaler = scaler_for(backbone, per_location)
    data = run(backbone, scaler, 5, tmp_path)
    whole = scaler(backbone(torch.from_numpy(IMAGES))).flatten(2).transpose(1, 2)
    found = all_of(data)
    assert found.shape == (23, 5, 4)
    chosen = []
    for b in range(23):
        near = torch.cdist(found[b], whole[b])
        assert near.min(1).values.max() < 0.02
        chosen.append(near.argmin(1).tolist())
        assert len(set(chosen[-1])) == 5  # without replacement
    assert len({tuple(places) for places in chosen}) > 15
    assert torch.equal(all_of(run(backbone, scaler_for(backbone, per_location), 5, tmp_path)), found)
    assert not torch.equal(all_of(run(backbone, scaler_for(backbone, per_location), 5, tmp_path, seed=1)), found)


def test_pooled(tmp_path):
    scaler = scaler_for(Pooled())
    data = run(Pooled(), scaler, 128, tmp_path)
    assert torch.allclose(all_of(data), scaler(Pooled()(torch.from_numpy(IMAGES))), atol=2e-2)
    assert all_of(data).std(0, correction=0).tolist() == pytest.approx([1] * 4, abs=1e-2)


def test_alignment_is_the_share_of_variance_that_the_place_explains(tmp_path):
    maps = Spatial()(torch.from_numpy(IMAGES)).double().numpy()
    shares = [
        sum((maps[:, c, i, j].mean() - maps[:, c].mean()) ** 2 for i in range(maps.shape[2]) for j in range(maps.shape[3]))
        / maps[0, c].size / maps[:, c].var()
        for c in range(maps.shape[1])
    ]  # fmt: skip
    data = run(Spatial(), scaler_for(Spatial()), None, tmp_path)
    assert data.alignment == pytest.approx(np.mean(shares), rel=1e-3)
    assert Part(data, torch.arange(3)).alignment == data.alignment
    alike = np.repeat(IMAGES[:1], 20, axis=0)
    assert run(Spatial(), scaler_for(Spatial()), None, tmp_path, alike).alignment == pytest.approx(1, abs=1e-6)
    plain = np.full_like(IMAGES, 7)  # nothing varies at all
    assert run(Spatial(), scaler_for(Spatial()), None, tmp_path, plain).alignment == 0
    assert run(Pooled(), scaler_for(Pooled()), None, tmp_path).alignment == 0


def test_vectors_of_whole_images_come_along(tmp_path):
    class Both(Spatial):
        def maps_and_vector(self, images):
            if len(images) > 9:
                raise torch.OutOfMemoryError("no")
            return self(images), self(images).amax((2, 3))

    data = extract(
        items_of(IMAGES), Both(), scaler_for(Both()), None, device=CPU, seed=0, folder=tmp_path, reporter=Notes(), vectors=True
    )  # fmt: skip
    assert torch.equal(data.vectors, Spatial()(torch.from_numpy(IMAGES)).amax((2, 3)))
    plain = run(Spatial(), scaler_for(Spatial()), None, tmp_path)
    assert torch.equal(all_of(data), all_of(plain))
    assert plain.vectors is None


def test_the_cache_is_bounded_by_fewer_places(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "MIN_LOCATIONS", 2)
    monkeypatch.setattr(room, "CACHE_BYTES", 2 * 4 * 23 * 6)
    assert all_of(run(Spatial(), scaler_for(Spatial()), 16, tmp_path)).shape == (23, 6, 4)
    monkeypatch.setattr(room, "CACHE_BYTES", 10)
    assert all_of(run(Spatial(), scaler_for(Spatial()), 16, tmp_path)).shape == (23, 2, 4)  # never fewer than the least


def test_the_cache_is_bounded_by_fewer_images(monkeypatch):
    monkeypatch.setattr(room, "CACHE_BYTES", 2 * 2 * 16 * 9)
    notes, items = Notes(), items_of(IMAGES)
    fewer = room.bounded(items, 2 * 2 * 16, 0, notes)
    assert (len(fewer), len(fewer.labels), len(fewer.kept_out)) == (9, 9, 9)
    assert notes.lines[0].startswith("training on 9 of 23 images")
    assert room.bounded(items, 4, 0, notes) is items


def test_a_large_cache_lies_on_disk(tmp_path, monkeypatch):
    wanted = all_of(run(Spatial(), scaler_for(Spatial()), 16, tmp_path))
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(room, "MEMORY_BYTES", 100)
    data = run(Spatial(), scaler_for(Spatial()), 16, tmp_path)
    assert (tmp_path / "features.f16").stat().st_size == 2 * 23 * 16 * 4
    assert torch.equal(all_of(data), wanted)
    with pytest.raises(AuditError, match="cache of the images"):
        run(Spatial(), scaler_for(Spatial()), 16, tmp_path / "nowhere")


def test_bright_and_steady_places_keep_their_digits(tmp_path):
    """A thousand and a little: half precision alone would round to whole numbers."""

    class Bright(Spatial):
        def forward(self, images):
            return 1000 + super().forward(images) / 255

    for locations in (None, 16):
        scaler = scaler_for(Bright(), per_location=True)
        found = all_of(run(Bright(), scaler, locations, tmp_path))
        wanted = scaler(Bright()(torch.from_numpy(IMAGES))).flatten(2).transpose(1, 2)
        assert torch.allclose(found.sum(1), wanted.sum(1), atol=0.05)
        assert locations or torch.allclose(found, wanted, atol=5e-3)


def test_features_too_large_for_half_precision_are_cut(tmp_path):
    class Huge(Pooled):
        def forward(self, images):
            return super().forward(images) * 1e6

    assert torch.isfinite(all_of(run(Huge(), scaler_for(Huge()), 1, tmp_path))).all()


def test_out_of_memory_halves_the_batch_of_images(tmp_path):
    sizes = []

    class Tight(Pooled):
        def forward(self, images):
            sizes.append(len(images))
            if len(images) > 4:
                raise torch.OutOfMemoryError("no")
            return super().forward(images)

    found = all_of(run(Tight(), scaler_for(Tight()), 1, tmp_path))
    assert torch.allclose(found, all_of(run(Pooled(), scaler_for(Pooled()), 1, tmp_path)))
    assert max(sizes) == 16
    assert sum(s for s in sizes if s <= 4) == 23

    class Never(Pooled):
        def forward(self, images):
            raise torch.OutOfMemoryError("no")

    with pytest.raises(AuditError, match="one image"):
        run(Never(), scaler_for(Never()), 1, tmp_path)


def test_rows_by_index():
    data = RowBatches(torch.arange(12.0).reshape(6, 2), np.array([0, 1, -1, 0, 1, -1], dtype=np.int8))
    x, labels = data.batch(torch.tensor([4, 0]), CPU)
    assert x.tolist() == [[8, 9], [0, 1]]
    assert labels.tolist() == [1, 0]
    assert len(data) == 6
