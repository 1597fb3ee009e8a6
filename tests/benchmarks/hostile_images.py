"""Pictures that are broken, or larger than they look. For attacks.py."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

Rng = np.random.Generator
Picture = tuple[str, bytes]  # format, content


def valid(rng: Rng) -> list[Picture]:
    """Small pictures in every format and mode that Pillow writes, in every EXIF orientation."""
    made = []
    for form in ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF"):
        for mode in ("L", "LA", "RGB", "RGBA", "P", "CMYK", "I;16", "1", "F"):
            for turn in (1, int(rng.integers(2, 9))):
                pixels = Image.fromarray(rng.integers(0, 256, (29, 37, 3), dtype=np.uint8))
                deep = Image.fromarray(rng.integers(0, 2**16, (29, 37), dtype=np.uint16))
                shown = deep if mode == "I;16" else pixels.convert(mode)
                exif, file = Image.Exif(), io.BytesIO()
                exif[274] = turn
                try:
                    shown.save(file, form, **({"exif": exif} if form in ("JPEG", "PNG", "TIFF", "WEBP") else {}))
                except (OSError, ValueError, KeyError):
                    continue  # no such mode in this format
                made.append((form.lower(), file.getvalue()))
    return made


def bombs() -> list[Picture]:
    """Small files that really hold as many pixels as are allowed, of one value."""
    kinds: list[tuple[str, str, dict[str, str]]] = [
        ("PNG", "L", {}), ("PNG", "RGBA", {}), ("PNG", "I;16", {}), ("PNG", "1", {}), ("JPEG", "RGB", {}), ("GIF", "P", {}),
        ("TIFF", "F", {"compression": "tiff_lzw"}), ("TIFF", "CMYK", {"compression": "tiff_adobe_deflate"}),
    ]  # fmt: skip
    made = []
    for form, mode, options in kinds:
        file = io.BytesIO()
        Image.new(mode, (12_500, 8_000)).save(file, form, **options)
        made.append((form.lower(), file.getvalue()))
    return made


def damaged(rng: Rng, seeds: list[Picture]) -> Picture:
    suffix, seed = seeds[rng.integers(len(seeds))]
    data = bytearray(seed)
    shares = {"flip": 0.24, "flip head": 0.2, "cut": 0.12, "insert": 0.1, "splice": 0.1, "huge": 0.14, "suffix": 0.06,
              "empty": 0.01, "zeros": 0.01, "valid": 0.02}  # fmt: skip
    how = str(rng.choice(list(shares), p=list(shares.values())))
    at = int(rng.integers(len(data)))
    if how.startswith("flip"):
        for place in rng.integers(len(data) if how == "flip" else min(len(data), 120), size=rng.integers(1, 12)):
            data[place] = rng.integers(256)
    elif how == "cut":
        del data[at:]
    elif how == "insert":
        data[at:at] = rng.bytes(int(rng.integers(1, 200))) if rng.random() < 0.7 else bytes(1000)
    elif how == "splice":
        data[at:] = seeds[rng.integers(len(seeds))][1][rng.integers(500) :]
    elif how == "huge":  # the sides wherever the header keeps them, in whatever order of bytes
        for side in (37, 29):
            for code, most in (("<I", 2**32), (">I", 2**32), ("<H", 2**16), (">H", 2**16)):
                giant = int(rng.choice([9_999, 16_000, 60_000, most - 1])) % most
                data = data.replace(struct.pack(code, side), struct.pack(code, giant), 1)
        if suffix == "png":
            data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif how in ("empty", "zeros"):
        data = bytearray(0 if how == "empty" else int(rng.integers(1, 10_000)))
    if how == "suffix" or rng.random() < 0.1:
        suffix = str(rng.choice(["jpg", "PNG", "bmp", "tif", "webp", "GIF"]))
    return suffix, bytes(data)
