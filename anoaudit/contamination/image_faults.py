"""What can be wrong with a picture, made to measure: `--corrupt` for images. Our choice of kinds and severities.

Every fault is a function of uint8[H, W, 3], a severity from 1 to 5 and random numbers; it gives a new array of that shape.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

Pixels = npt.NDArray[np.uint8]
Fault = Callable[[Pixels, int, np.random.Generator], Pixels]

QUALITY = 95  # of what is written as JPEG again, so that the writing itself is no fault


def blur(pixels: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Gaussian, its deviation 0.4 to 6 % of the shorter side."""
    radius = (0.004, 0.008, 0.015, 0.03, 0.06)[severity - 1] * min(pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(max(radius, 0.5))))


def noise(pixels: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """White noise of 8 to 96 grey levels, each channel for itself."""
    return _bytes(pixels + rng.normal(0.0, (8, 16, 32, 64, 96)[severity - 1], pixels.shape))


def occlusion(pixels: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """A plain rectangle over 2 to 40 % of the picture."""
    top, left, height, width = _rectangle(pixels, (0.02, 0.05, 0.1, 0.2, 0.4)[severity - 1], rng)
    result = pixels.copy()
    result[top : top + height, left : left + width] = rng.integers(0, 256, 3, dtype=np.uint8)
    return result


def cutpaste(pixels: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """A piece of 1 to 25 % of the picture, copied to another place (Li et al., CutPaste, CVPR 2021)."""
    top, left, height, width = _rectangle(pixels, (0.01, 0.03, 0.06, 0.12, 0.25)[severity - 1], rng)
    to_top = int(rng.integers(0, pixels.shape[0] - height + 1))
    to_left = int(rng.integers(0, pixels.shape[1] - width + 1))
    result = pixels.copy()
    result[to_top : to_top + height, to_left : to_left + width] = pixels[top : top + height, left : left + width]
    return result


def colour(pixels: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Every channel shifted by 12 to 96 grey levels, up or down, not all alike: a cast, not a change of brightness."""
    signs = rng.permutation([1.0, -1.0, rng.choice([-1.0, 1.0])])
    return _bytes(pixels + signs * (12, 24, 40, 64, 96)[severity - 1])


def jpeg(pixels: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Through a JPEG of quality 30 down to 2."""
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "JPEG", quality=(30, 18, 10, 5, 2)[severity - 1])
    with Image.open(held, formats=("JPEG",)) as image:
        return np.asarray(image.convert("RGB"))


def rotation(pixels: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Turned about its middle by 10, 20, 45, 90 or 180 degrees, either way; what comes into view is mirrored."""
    angle = (10, 20, 45, 90, 180)[severity - 1] * int(rng.choice([-1, 1]))
    height, width = pixels.shape[:2]
    margin = int(np.ceil(np.hypot(height, width) / 2))
    around = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    turned = Image.fromarray(around).rotate(angle, Image.Resampling.BILINEAR)
    return np.asarray(turned)[margin : margin + height, margin : margin + width]


def foreign(pixels: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Another picture altogether, discs and bars on a shaded ground, shining through by 30 % or all that is seen."""
    height, width = pixels.shape[:2]
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    ends = rng.uniform(0, 255, (2, 3))
    turn = rng.uniform(0, 2 * np.pi)
    ramp = (np.cos(turn) * x + np.sin(turn) * y - min(0.0, np.cos(turn)) - min(0.0, np.sin(turn)))[..., None] / 1.5
    scene = ends[0] + (ends[1] - ends[0]) * ramp
    for _ in range(int(rng.integers(3, 8))):
        cy, cx, size = rng.uniform(0, height / max(height, width)), rng.uniform(0, 1), rng.uniform(0.05, 0.25)
        disc = (y - cy) ** 2 + (x - cx) ** 2 < size**2
        bar = (np.abs(y - cy) < size / 3) & (np.abs(x - cx) < size)
        scene[disc if rng.random() < 0.5 else bar] = rng.uniform(0, 255, 3)
    share = (0.3, 0.5, 0.7, 0.85, 1.0)[severity - 1]
    return _bytes((1 - share) * pixels + share * scene)


FAULTS: dict[str, Fault] = {
    "blur": blur, "noise": noise, "occlusion": occlusion, "cutpaste": cutpaste,
    "colour": colour, "jpeg": jpeg, "rotation": rotation, "foreign": foreign,
}  # fmt: skip


def save(pixels: Pixels, path: Path) -> None:
    """In the format of the path's suffix: as good as it gets, and the same bytes each time."""
    suffix = path.suffix.lower()
    more: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    if suffix in (".jpg", ".jpeg"):
        more = {"quality": QUALITY}
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **more)


def _rectangle(pixels: Pixels, share: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a rectangle with that share of the area, up to three times as long as wide."""
    height, width = pixels.shape[:2]
    aspect = float(np.exp(rng.uniform(-np.log(3), np.log(3))))
    tall = min(height, max(1, round(np.sqrt(share * height * width * aspect))))
    wide = min(width, max(1, round(share * height * width / tall)))
    return int(rng.integers(0, height - tall + 1)), int(rng.integers(0, width - wide + 1)), tall, wide


def _bytes(values: npt.NDArray[np.floating]) -> Pixels:
    result: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return result
