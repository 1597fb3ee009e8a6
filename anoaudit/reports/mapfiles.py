"""A folder of heat maps: for each item a PNG to look at and the raw map to compute with, and an index of them all."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image, PngImagePlugin

from anoaudit.reports import words
from anoaudit.reports.heatmap import Scale, ScaleBuilder, overlay, peak, visible
from anoaudit.scoring.maps import Mapped, Picture

INDEX = "index.csv"
HEAD = ("rank", "id", "score", "file", "map", "peak_x", "peak_y", "width", "height", "reason")
LONGEST = 1024  # pixels of a picture's longer side
NAME, NAME_BYTES = (
    80,
    200,
)  # characters and UTF-8 bytes of an id in a file's name; file systems take 255 bytes for all of it


def write_maps(
    folder: Path, rows: pl.DataFrame, maps: Iterable[Mapped], pictures: Iterable[tuple[str, Picture | str]]
) -> tuple[int, Scale]:
    """Fill an empty folder with `0001_name.png`, `0001_name.npy` and the index; return how many maps, and their scale.

    `rows` are the items of the score table, the worst first. The raw maps are written while they come, so that the scale is
    known before the first picture is drawn; neither maps nor pictures are kept in memory. Raises OSError.
    """
    digits = max(4, len(str(rows.height)))
    ranks = [rank or place for place, rank in enumerate(rows["rank"], 1)]
    if len(set(ranks)) < len(ranks):  # of a table that another tool has written again: the names must differ
        ranks = list(range(1, rows.height + 1))
    entries: dict[str, dict[str, Any]] = {}
    for rank, item, score in zip(ranks, rows["id"], rows["score"], strict=True):
        entries[item] = {"rank": rank, "id": item, "score": score, "reason": "not in the data any more"}
    builder = ScaleBuilder()
    for found in maps:
        entry = entries[found.id]
        entry["reason"] = found.reason
        if found.map is not None:
            entry["map"] = f"{entry['rank']:0{digits}d}_{safe_name(found.id)}.npy"
            np.save(folder / entry["map"], found.map, allow_pickle=False)
            builder.add(found.map)
    scale = builder.scale()
    written = 0
    for item, picture in pictures:
        entry = entries[item]
        if "map" not in entry:
            continue
        if isinstance(picture, str):  # it could be read a moment ago
            (folder / entry.pop("map")).unlink()
            entry["reason"] = picture
            continue
        values = np.load(folder / entry["map"], allow_pickle=False)
        entry["peak_x"], entry["peak_y"] = peak(values, picture.width, picture.height)
        entry["width"], entry["height"] = picture.width, picture.height
        entry["file"] = entry["map"].removesuffix(".npy") + ".png"
        facts = PngImagePlugin.PngInfo()
        facts.add_itxt(
            "anoaudit", f"rank {entry['rank']}, score {entry['score']:.6g}, {legend(scale)}, {printable(item)}"
        )
        drawn = Image.fromarray(overlay(visible(picture.pixels), values, scale))
        drawn.save(folder / entry["file"], "PNG", pnginfo=facts)
        written += 1
    with (folder / INDEX).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, HEAD, lineterminator="\n")
        writer.writeheader()
        writer.writerows(entries.values())
    return written, scale


def is_map_folder(folder: Path) -> bool:
    """Whether `write_maps` made this folder: only such a one may be replaced."""
    try:
        with (folder / INDEX).open(encoding="utf-8", newline="") as file:
            return file.readline(200).strip() == ",".join(HEAD)
    except (OSError, UnicodeDecodeError):
        return False


def safe_name(item: str) -> str:
    """An id as part of a file's name, harmless on every file system: letters and digits of any script, `.`, `_` and `-` only.

    The end is kept, where a path says most. Different ids may give the same text; the number before it tells them apart.
    """
    bare = re.sub(r"\.(jpe?g|png|bmp|tiff?|webp|gif)$", "", item, flags=re.IGNORECASE)
    composed = unicodedata.normalize("NFC", bare)
    name = re.sub("\0+", "_", "".join(c if _is_safe(c) else "\0" for c in composed))
    name = name[-NAME:].encode()[-NAME_BYTES:].decode(errors="ignore")
    cut_off = "".join(
        c for c in name if unicodedata.category(c)[0] == "M"
    )  # they have lost the letter that they are on
    return name.lstrip("._-" + cut_off).rstrip("._-") or "item"


def _is_safe(c: str) -> bool:
    return c in "._-" or unicodedata.category(c)[0] in "LNM"  # vowel signs and accents are marks


def legend(scale: Scale) -> str:
    """The scale in words."""
    return f"one colour scale, {words.number(scale.low)} (median) to {words.number(scale.high)}, {scale.kind}"


def printable(item: str) -> str:
    """An id that any PNG reader can take."""
    return words.printable(item).encode("utf-8", "backslashreplace").decode()
