"""Views: each image its own draw, repeatable by the loop's seed, and points that mean the same place in both."""

from __future__ import annotations

import torch

from anoaudit.training.augment import MILD, SIMCLR, Augmentation, common_points, view
from anoaudit.training.device import seed_noise

CPU = torch.device("cpu")
SHAPE_ONLY = Augmentation(crop=0.35, jitter=0.0, grey_share=0.0)


def ramps(count: int, size: int = 64) -> torch.Tensor:
    """Red is x, green is y, each from 0 to 1 at the borders."""
    axis = (torch.arange(size) + 0.5) / size
    image = torch.stack([axis.expand(size, size), axis[:, None].expand(size, size), torch.full((size, size), 0.5)])
    return image.expand(count, 3, size, size)


def test_images_are_drawn_one_by_one_and_by_the_seed():
    x = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for how in (MILD, SIMCLR):
        seed_noise(3, CPU)
        first, second = view(x, how), view(x, how)
        seed_noise(3, CPU)
        again = view(x, how)
        assert torch.equal(first.pixels, again.pixels)
        assert not torch.equal(first.pixels, second.pixels)
        assert len(torch.unique(first.scale[:, 0])) == 6
        assert 0 <= first.pixels.min() <= first.pixels.max() <= 1
        same = view(x[:1].expand(6, -1, -1, -1), how).pixels
        assert not torch.equal(same[0], same[1])


def test_common_points_are_the_same_place_in_both_views():
    seed_noise(0, CPU)
    x = ramps(16)
    a, b = view(x, SHAPE_ONLY), view(x, SHAPE_ONLY)
    assert bool((a.scale < 0).any())  # some are mirrored
    points = common_points(a, b, 5)
    wanted = (points + 1) / 2
    for seen in (a, b):
        located = seen.locate(points)
        assert located.abs().max() <= 1 + 1e-5
        colours = torch.nn.functional.grid_sample(seen.pixels, located[:, :, None], align_corners=False)[..., 0]
        inside = located.abs().max(-1).values < 0.95
        assert ((colours[:, :2].transpose(1, 2) - wanted).abs().max(-1).values[inside] < 0.02).all()


def test_grey_and_hue():
    seed_noise(1, CPU)
    x = torch.rand(64, 3, 8, 8)
    grey = view(x, Augmentation(grey_share=1.0)).pixels
    assert torch.allclose(grey[:, 0], grey[:, 1])
    assert torch.allclose(grey[:, 0], grey[:, 2])
    # A turned hue keeps the brightness of what is not clipped, and leaves grey grey.
    flat = torch.full((8, 3, 8, 8), 0.5)
    coloured = view(flat, Augmentation(jitter=0.4, jitter_share=1.0, grey_share=0.0)).pixels
    assert torch.allclose(coloured[:, 0], coloured[:, 1], atol=1e-2)
    unflipped = view(ramps(32), Augmentation(crop=0.35, flip=False))
    assert bool((unflipped.scale > 0).all())
