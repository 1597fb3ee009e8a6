"""Images for the eye: their own proportions, upright, with the size of the original."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anoaudit.data.decoding import UnreadableImageError, read_image, read_picture
from anoaudit.data.images import PICTURES_AHEAD, ImageFolder
from anoaudit.data.items import ImageSpec


def scene(width: int, height: int) -> Image.Image:
    """Red grows to the right, green to the bottom."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 60)], axis=-1).astype(np.uint8))


@pytest.mark.parametrize("form", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("turn", [1, 3, 6, 8])
@pytest.mark.parametrize("longest", [50, 100_000])  # a JPEG decodes at a reduced scale, or whole
def test_upright_in_its_proportions_with_the_originals_size(tmp_path: Path, form: str, turn: int, longest: int) -> None:
    path = tmp_path / f"a.{form}"
    exif = Image.Exif()
    exif[0x0112] = turn
    scene(801, 403).save(path, exif=exif)
    found = read_picture(path, longest)
    lying = turn in (6, 8)
    assert (found.width, found.height) == ((403, 801) if lying else (801, 403))
    height, width = found.pixels.shape[:2]
    assert max(height, width) == min(longest, 801)
    assert width / height == pytest.approx(found.width / found.height, rel=0.02)
    model = read_image(path, ImageSpec(height, width)).pixels  # the very pixels that a model of this size would see
    assert np.abs(found.pixels.astype(int) - model).max() <= 2


def test_what_cannot_be_read_has_its_reason(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UnreadableImageError, match="empty file"):
        read_picture(tmp_path / "a.png", 100)


def test_a_thread_of_paper_is_still_a_picture(tmp_path: Path) -> None:
    scene(5000, 2).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png", 100).pixels.shape == (1, 100, 3)


def test_a_folder_shows_what_is_asked_for(tmp_path: Path) -> None:
    count = 3 * PICTURES_AHEAD
    for i in range(count):
        scene(20 + i, 20).save(tmp_path / f"{i:03d}.png")
    (tmp_path / "000.png").write_text("no image")
    dataset = ImageFolder(tmp_path, sorted(tmp_path.iterdir()))
    only = np.arange(count) % 2 == 0
    found = list(dataset.pictures(10, only))
    assert [item for item, _ in found] == [f"{i:03d}.png" for i in range(0, count, 2)]
    assert found[0][1] == "not an image, or a format that is not supported"
    assert [picture.width for _, picture in found[1:] if not isinstance(picture, str)] == list(range(22, 20 + count, 2))
    assert list(dataset.pictures(10, np.zeros(count, dtype=bool))) == []
