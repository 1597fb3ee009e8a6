"""The worst items' pictures for the HTML report: small JPEGs as data URIs, their heat maps beside them, within a budget."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image

from anoaudit.reports.heatmap import Scale, overlay, scale_of
from anoaudit.scoring.maps import Picture

DEFAULT, MOST = (24, 60), 500  # items: at least and at most without --top, and at most in any case
BUDGET = 3_400_000  # characters of all data URIs together: the whole file stays under 5 MB
STEPS = ((320, 82), (256, 80), (192, 76), (160, 72), (128, 66), (96, 55), (64, 45))  # longest side and JPEG quality

Pictures = Iterable[tuple[str, Picture | str]]


@dataclass(frozen=True)
class Card:
    """What is seen of one item: data URIs, or the reason why there is no picture."""

    picture: str | None = None
    heat: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Gallery:
    """The items to show, the worst first, with what was found of them. `note` says why there are no pictures at all."""

    rows: pl.DataFrame
    pictures: Pictures = ()
    maps: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    note: str = ""

    @property
    def scale(self) -> Scale | None:
        """The maps' common scale."""
        return scale_of(self.maps.values()) if self.maps else None


def shown(flagged: int, top: int | None) -> int:
    """How many items the gallery holds: `top`, or all flagged ones within `DEFAULT`."""
    return min(MOST, max(0, top)) if top is not None else min(max(flagged, DEFAULT[0]), DEFAULT[1])


def longest_side(items: int) -> int:
    """The side that pictures are decoded at: those of many items end up smaller anyway."""
    return STEPS[0][0] if items <= DEFAULT[1] else STEPS[3][0]


def cards(gallery: Gallery) -> dict[str, Card]:
    """By id; one picture at a time is held."""
    scale = gallery.scale
    per_item = BUDGET // max(1, gallery.rows.height)
    return {item: _card(picture, gallery.maps.get(item), scale, per_item) for item, picture in gallery.pictures}


def _card(picture: Picture | str, values: npt.NDArray[np.float32] | None, scale: Scale | None, budget: int) -> Card:
    if isinstance(picture, str):
        return Card(reason=picture)
    if values is None or scale is None:
        return Card(_within(lambda side: _sized(picture.pixels, side), budget))
    heat = _within(lambda side: overlay(_sized(picture.pixels, side), values, scale), budget // 2)
    return Card(_within(lambda side: _sized(picture.pixels, side), budget // 2), heat)


def _within(draw: Callable[[int], npt.NDArray[np.uint8]], budget: int) -> str:
    """The first of `STEPS` that fits into so many characters, else the last."""
    uri = ""
    for side, quality in STEPS:
        out = io.BytesIO()
        Image.fromarray(draw(side)).save(out, "JPEG", quality=quality, optimize=True)
        uri = "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
        if len(uri) <= budget:
            break
    return uri


def _sized(pixels: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """No side longer than `side`; never enlarged."""
    height, width = pixels.shape[:2]
    scale = side / max(width, height)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS), dtype=np.uint8)
