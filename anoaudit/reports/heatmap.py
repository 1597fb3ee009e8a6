"""Heat maps: a detector's map laid over the picture it belongs to, in colours that grow lighter with the value."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

#: Dark violet over red to yellow, in even steps of lightness (OKLCH 0.22 to 0.96), so that it reads in grey as well.
COLOURS: tuple[tuple[int, int, int], ...] = (
    (22, 2, 83), (45, 3, 101), (71, 5, 113), (98, 6, 120), (126, 10, 121), (156, 11, 117), (184, 16, 107), (214, 18, 91),
    (243, 25, 63), (252, 77, 37), (252, 117, 33), (253, 148, 45), (253, 176, 64), (253, 201, 82), (254, 226, 91), (251, 252, 43),
)  # fmt: skip
STRONGEST = 0.85  # opacity of the hottest place: something of the picture shines through
SMALLEST = 256  # pixels: smaller pictures are enlarged, else their heat could not be seen
SAMPLES = 1024  # values of each map that the scale is taken from, so that memory stays small

Map = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Scale:
    """One scale for many maps: `low` (their median) and below is 0, `high` (their highest value) is 1.

    In between it is logarithmic in units of `unit`, by which the upper tenth exceeds the median: of maps whose highest value
    is hundreds of times the others', a linear scale would show one place and nothing else.
    """

    low: float
    high: float
    unit: float

    @property
    def kind(self) -> str:
        """`logarithmic`, or `linear` where the maps give no unit."""
        return "logarithmic" if self.unit > 0 else "linear"

    def place(self, values: Map) -> npt.NDArray[np.float64]:
        """Values between 0 and 1, in the shape given."""
        if self.high <= self.low:
            return np.zeros(values.shape)
        above = np.clip(values.astype(np.float64), self.low, self.high) - self.low
        if self.unit <= 0:
            return np.asarray(above / (self.high - self.low))
        return np.asarray(np.log1p(above / self.unit) / math.log1p((self.high - self.low) / self.unit))


class ScaleBuilder:
    """Gathers a scale from maps that come one by one and are not kept."""

    def __init__(self) -> None:
        self._samples: list[Map] = []
        self._high = -math.inf

    def add(self, values: Map) -> None:
        """Take one map in; of a large one an even choice of its values."""
        flat = values.ravel()
        self._high = max(self._high, float(flat.max()))
        self._samples.append(flat[:: -(-len(flat) // SAMPLES)].copy())

    def scale(self) -> Scale:
        """The scale of all maps so far."""
        if not self._samples:
            return Scale(0.0, 0.0, 0.0)
        values = np.concatenate(self._samples)
        low, tenth = (float(q) for q in np.quantile(values, (0.5, 0.9)))
        return Scale(low, self._high, tenth - low)


def scale_of(maps: Iterable[Map]) -> Scale:
    """The common scale of some maps."""
    builder = ScaleBuilder()
    for values in maps:
        builder.add(values)
    return builder.scale()


def colours(places: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Colours of values between 0 and 1, the shape given and 3 channels of 0 to 255."""
    table = np.array(COLOURS, dtype=np.float64)
    at = np.clip(places, 0.0, 1.0) * (len(table) - 1)
    return np.stack([np.interp(at, np.arange(len(table)), table[:, channel]) for channel in range(3)], axis=-1)


def overlay(picture: Pixels, values: Map, scale: Scale) -> Pixels:
    """The picture (uint8[h, w, 3]) with the map laid over it, uint8[h, w, 3]; places up to the scale's low end stay as they are.

    The map is resized smoothly to the picture: both show the whole item.
    """
    height, width = picture.shape[:2]
    places = scale.place(values).astype(np.float32)
    resized = Image.fromarray(places).resize((width, height), Image.Resampling.BILINEAR)
    heat = np.clip(np.asarray(resized, dtype=np.float64), 0.0, 1.0)
    opacity = STRONGEST * heat[..., None] ** 0.8
    return np.rint(picture * (1.0 - opacity) + colours(heat) * opacity).astype(np.uint8)


def visible(picture: Pixels) -> Pixels:
    """A small picture enlarged by a whole number, pixel by pixel, to at least `SMALLEST` on its longer side."""
    times = -(-SMALLEST // max(picture.shape[:2]))
    return picture if times <= 1 else picture.repeat(times, axis=0).repeat(times, axis=1)


def peak(values: Map, width: int, height: int) -> tuple[int, int]:
    """x and y of the map's highest place, in pixels of a picture of that size, from its left upper corner."""
    rows, columns = values.shape
    row, column = divmod(int(values.argmax()), columns)
    return int((column + 0.5) * width / columns), int((row + 0.5) * height / rows)
