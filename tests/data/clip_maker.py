"""Small videos, rendered with PyAV: a square goes to and fro over a gradient; once an odd object flies across."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

WIDTH, HEIGHT, RATE = 64, 48, 10
ODD = (4.0, 4.5)  # seconds


def scene(seconds: float, odd: tuple[float, float] | None = ODD) -> npt.NDArray[np.uint8]:
    """uint8[48, 64, 3] at a time."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    grain = np.random.default_rng(round(seconds * 1000)).normal(0, 3, (HEIGHT, WIDTH))
    picture = np.stack([80 + x + grain, 90 + y + grain, 120 - x / 2 + grain], axis=-1)
    left = round(20 + 8 * np.sin(2 * np.pi * seconds / 1.5))
    picture[26:36, left : left + 10] = (200, 190, 60)
    if odd is not None and odd[0] <= seconds < odd[1]:
        at = round(4 + 44 * (seconds - odd[0]) / (odd[1] - odd[0]))
        picture[6:16, at : at + 12] = np.where((x + y)[6:16, at : at + 12, None] % 4 < 2, 255, 0)
    return picture.clip(0, 255).astype(np.uint8)


def times_at(rate: float, seconds: float) -> list[float]:
    return [i / rate for i in range(round(seconds * rate))]


def render(
    path: Path,
    times: Sequence[float] | None = None,
    codec: str = "mpeg4",
    pixels: str = "yuv420p",
    odd: tuple[float, float] | None = ODD,
    rate: int = RATE,
    b_frames: int = 0,
    rotation: int = 0,
    **options: str,
) -> Path:
    """A video with a frame at each of these times (whole milliseconds); 10 a second for 6 seconds by default."""
    times = times_at(rate, 6) if times is None else times
    path.parent.mkdir(parents=True, exist_ok=True)
    regular = path.suffix != ".mkv"
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        stream.bit_rate, stream.codec_context.max_b_frames = 2_000_000, b_frames
        if rotation:
            stream.set_display_rotation(rotation)
        unit = Fraction(1, rate if regular else 1000)
        stream.codec_context.time_base = unit
        for seconds in times:
            frame = av.VideoFrame.from_ndarray(scene(seconds, odd), format="rgb24")
            frame.pts, frame.time_base = round(seconds / unit), unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def save_frames(folder: Path, times: Sequence[float], odd: tuple[float, float] | None = ODD) -> Iterator[Path]:
    """The same pictures as PNG files without leading zeros: frame2 comes after frame10 by name."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, seconds in enumerate(times):
        path = folder / f"frame{i}.png"
        Image.fromarray(scene(seconds, odd)).save(path)
        yield path
