"""The one way an image file becomes pixels, for fit and for score alike.

EXIF orientation is applied, alpha is laid over white, 16-bit is scaled to 8, palette, grey and CMYK become RGB, and of
an animation the first frame counts. Nothing is cropped: defects sit at borders too.
"""

from __future__ import annotations

import io
import logging
import stat
import warnings
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from anoaudit.data.items import ImageSpec, Picture

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"})
#: Restricting the formats keeps Pillow's rarely-used parsers (and Ghostscript) away from hostile files.
#: MPO opens as JPEG: named here, where Pillow knows no such entry, it would make every other format unreadable.
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF")
MAX_PIXELS = 100_000_000
MAX_BYTES = 512 * 1024 * 1024
TILE = 1024  # pixels a side
MARGIN = 127  # grey, around a picture that keeps its proportions

# What is wrong with a file is said in its reason, once; Pillow's own remarks on stderr would come between the results.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImageError(Exception):
    """The file gives no pixels; the message is the reason shown in the score table."""


def read_image(path: Path, spec: ImageSpec) -> Picture:
    """An image file as it enters a model, uint8[height, width, 3], and its own size. Raises UnreadableImageError with a reason."""
    return decode(_read(path), spec)


def read_picture(path: Path, longest: int) -> Picture:
    """An image file for the eye: in its own proportions, no side longer than `longest` pixels, never enlarged.

    Raises UnreadableImageError with a reason, for the very files that `read_image` refuses.
    """
    return decode_picture(_read(path), longest)


def decode_picture(data: bytes, longest: int) -> Picture:
    """An encoded image for the eye, as `read_picture` gives it. Raises UnreadableImageError with a reason."""
    return _decode(data, longest, lambda image, *size: resized(image, *within(longest, *size)))


def within(longest: int, width: int, height: int) -> tuple[int, int]:
    """Width and height in the same proportions with no side longer than `longest`, never more than they were."""
    scale = min(1.0, longest / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def decode(data: bytes, spec: ImageSpec) -> Picture:
    """An encoded image as `read_image` gives it. Raises UnreadableImageError with a reason."""
    return _decode(data, max(spec.width, spec.height), lambda image, *size: entering(image, spec, *size))


def _read(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device would never end
            raise UnreadableImageError("not a regular file")
        size = status.st_size
        if size == 0:
            raise UnreadableImageError("empty file (0 bytes)")
        if size > MAX_BYTES:
            raise UnreadableImageError(f"file too large ({size >> 20} MiB, limit {MAX_BYTES >> 20})")
        return path.read_bytes()
    except PermissionError:
        raise UnreadableImageError("permission denied") from None
    except FileNotFoundError:
        raise UnreadableImageError("file is gone, or a broken link") from None
    except OSError as error:
        raise UnreadableImageError(f"cannot be read: {error.strerror or error}") from None


def _decode(data: bytes, longest: int, draw: Callable[[Image.Image, int, int], npt.NDArray[np.uint8]]) -> Picture:
    """What `draw(image, width, height)` makes of the upright picture, which may come in a smaller scale than the original whose
    size is told; `longest` is the result's longest side.
    """
    if not data:
        raise UnreadableImageError("empty file (0 bytes)")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnreadableImageError(
                    f"too many pixels: {image.width}×{image.height} (limit {MAX_PIXELS // 1_000_000} megapixels)"
                )
            # A JPEG decodes several times faster at a reduced scale; twice the target keeps the resize smooth.
            whole = image.size
            image.draft("RGB", (2 * longest, 2 * longest))  # of either side, as the picture may lie on its side
            reduced = image.size
            upright = _upright(image)
            width, height = upright.size
            if reduced != whole:
                width, height = whole if upright.size == reduced else (whole[1], whole[0])
            return Picture(draw(upright, width, height), width, height)
    except UnreadableImageError:
        raise
    except UnidentifiedImageError:
        raise UnreadableImageError("not an image, or a format that is not supported") from None
    except Image.DecompressionBombError:
        raise UnreadableImageError(f"too many pixels (limit {MAX_PIXELS // 1_000_000} megapixels)") from None
    except MemoryError:
        raise UnreadableImageError("too large for the memory") from None
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
        text = str(error) or type(error).__name__
        if "truncated" in text.lower() or isinstance(error, EOFError):
            raise UnreadableImageError("truncated image") from None
        raise UnreadableImageError(f"damaged image: {' '.join(text.split())[:120]}") from None


def entering(image: Image.Image, spec: ImageSpec, width: int, height: int) -> npt.NDArray[np.uint8]:
    """uint8[spec.height, spec.width, 3] of a picture that was `width` × `height` pixels, of files and video frames alike."""
    left, top, w, h = spec.place(width, height)
    pixels = resized(image, w, h)
    if (w, h) == (spec.width, spec.height):
        return pixels
    whole = np.full((spec.height, spec.width, 3), MARGIN, dtype=np.uint8)
    whole[top : top + h, left : left + w] = pixels
    return whole


def resized(image: Image.Image, width: int, height: int) -> npt.NDArray[np.uint8]:
    """uint8[height, width, 3] of a whole picture in any of Pillow's modes: the one resize, of files and video frames."""
    return np.asarray(
        _to_rgb(image).resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3.0), dtype=np.uint8
    )


def _upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF orientation says; damaged EXIF data says nothing, the pixels are fine."""
    image.load()  # first: in PNG the EXIF data may stand behind the pixels, and TIFF turns the picture itself
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # any of Pillow's parsers' errors
        return image
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB by a fixed rule (never by the picture's own range, so that scores stay comparable)."""
    deep = image.mode.startswith("I") or image.mode == "F"
    clear = "transparency" in image.info and image.mode in ("1", "L", "P", "RGB")
    if not deep and not clear and image.mode not in ("RGBA", "LA", "PA", "La", "RGBa"):
        return image.convert("RGB")
    rgb, unit = Image.new("RGB", image.size), image.mode == "F" and _highest(image) <= 1.0
    for left, top, tile in _tiles(image):
        rgb.paste(_deep_to_rgb(tile, unit) if deep else _over_white(tile), (left, top))
    return rgb


def _tiles(image: Image.Image) -> Iterator[tuple[int, int, Image.Image]]:
    """The picture in parts: what is computed on the way takes many times the pixels' own memory."""
    for top, left in product(range(0, image.height, TILE), range(0, image.width, TILE)):
        yield left, top, image.crop((left, top, min(left + TILE, image.width), min(top + TILE, image.height)))


def _over_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def _highest(image: Image.Image) -> float:
    """The highest finite value, at least 0."""
    parts = (np.asarray(tile) for _, _, tile in _tiles(image))
    return max(float(np.max(pixels, initial=0.0, where=np.isfinite(pixels))) for pixels in parts)


def _deep_to_rgb(image: Image.Image, unit: bool) -> Image.Image:
    """16- and 32-bit greys: integers are taken as 16 bits deep, floats as 0..1 (or 0..255 where any exceeds 1)."""
    pixels = np.asarray(image, dtype=np.float64)
    if image.mode == "F":
        scaled = np.nan_to_num(pixels * 255.0 if unit else pixels, nan=0.0, posinf=255.0, neginf=0.0)
    else:
        scaled = pixels / 257.0
    grey = Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))
    return grey.convert("RGB")
