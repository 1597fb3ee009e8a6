"""The fixed filter bank: what it sees and what it does not."""

from __future__ import annotations

import pytest
import torch

from anoaudit.nets.filter_bank import SIGMAS, FilterBank

PER_SCALE = 17  # 3 colours, 7 positive parts, 7 negative parts


def split(features):
    """(smooth, edges and blobs) of all scales."""
    scales = features.unflatten(1, (len(SIGMAS), PER_SCALE))
    return scales[:, :, :3], scales[:, :, 3:]


@pytest.mark.parametrize("size", [32, 64])
def test_shape(size):
    bank = FilterBank(size)
    out = bank(torch.zeros(3, size, size, 3, dtype=torch.uint8))
    assert out.shape == (3, bank.channels, *bank.grid) == (3, 51, size // 4, size // 4)
    assert out.dtype == torch.float32


@pytest.mark.parametrize("value", [(0, 0, 0), (255, 255, 255), (200, 30, 90)])
def test_a_constant_image_has_colour_only(value):
    images = torch.tensor(value, dtype=torch.uint8).expand(1, 32, 32, 3)
    smooth, rest = split(FilterBank(32)(images))
    assert rest.abs().max() < 1e-5
    r, g, b = (v / 255 for v in value)
    wanted = [0.299 * r + 0.587 * g + 0.114 * b, 0.5 * r - 0.5 * g, 0.25 * r + 0.25 * g - 0.5 * b]
    assert smooth.amax(dim=(0, 1, 3, 4)).tolist() == pytest.approx(wanted, abs=1e-5)
    assert smooth.amin(dim=(0, 1, 3, 4)).tolist() == pytest.approx(wanted, abs=1e-5)


def test_brightness_moves_luminance_alone():
    images = torch.randint(20, 100, (2, 32, 32, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    bank = FilterBank(32)
    dark, light = bank(images), bank(images + 100)
    (smooth, rest), (smooth_light, rest_light) = split(dark), split(light)
    assert torch.allclose(rest, rest_light, atol=1e-5)
    assert torch.allclose(smooth_light[:, :, 0] - smooth[:, :, 0], torch.tensor(100 / 255), atol=1e-5)
    assert torch.allclose(smooth[:, :, 1:], smooth_light[:, :, 1:], atol=1e-5)


def test_contrast_scales_edges():
    images = torch.randint(0, 60, (1, 32, 32, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    bank = FilterBank(32)
    assert torch.allclose(bank(images * 3), 3 * bank(images), atol=1e-4)


def test_edges_have_a_direction_and_a_sign():
    images = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    images[:, :, 16:] = 255  # bright on the right: the derivative along x
    _, rest = split(FilterBank(32)(images))
    strength = rest[0].amax(dim=(2, 3))[1]  # second scale: 4 edges +, 3 blobs +, 4 edges −, 3 blobs −
    along, across = strength[[0, 7]], strength[[2, 9]]
    assert along.max() > 0.05
    assert along.min() < 1e-5
    assert across.max() < 1e-5


def test_it_is_the_same_every_time_and_alone_in_a_batch():
    images = torch.randint(0, 256, (4, 32, 32, 3), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    first, second = FilterBank(32), FilterBank(32)
    assert torch.equal(first(images), second(images))
    assert torch.allclose(first(images)[1:2], second(images[1:2]), atol=1e-6)
    assert not list(first.parameters())


def test_pooled_is_mean_spread_and_maximum_of_the_map():
    images = torch.randint(0, 255, (2, 32, 32, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    bank, plain = FilterBank(32, pooled=True), FilterBank(32)
    maps = plain(images).flatten(2)
    assert bank.grid is None
    assert bank(images).shape == (2, bank.channels) == (2, 153)
    assert torch.equal(bank(images), torch.cat([maps.mean(2), maps.std(2), maps.amax(2)], dim=1))
