"""A user's pictures: whatever the file, pixels as a viewer shows them, or one line that says why not."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from anoaudit.data import decoding
from anoaudit.data.decoding import UnreadableImageError, read_image
from anoaudit.data.items import ImageSpec

SIDE = 32
pytestmark = pytest.mark.filterwarnings("ignore")  # pytest shows what anoaudit silences


def decode(data: bytes, height: int, width: int) -> np.ndarray:
    return decoding.decode(data, ImageSpec(height, width)).pixels


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def scene(width: int = SIDE, height: int = SIDE) -> Image.Image:
    """A smooth picture without any symmetry: red grows to the right, green to the bottom."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 60)], axis=-1).astype(np.uint8))


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(b"\0" * 100_000)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def reason(data: bytes) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        decode(data, SIDE, SIDE)
    text = str(caught.value)
    assert text
    assert "\n" not in text
    return text


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "WEBP", "GIF", "JPEG"])
def test_every_format_gives_the_same_picture(form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {"quality": 98, "subsampling": 0} if form == "JPEG" else {}
    pixels = decode(encoded(scene(), form, **options), SIDE, SIDE).astype(int)
    assert pixels.shape == (SIDE, SIDE, 3)
    assert np.abs(pixels - np.asarray(scene()).astype(int)).max() <= (40 if form == "GIF" else 6)


def test_output_has_the_asked_shape_and_nothing_is_cropped() -> None:
    framed = Image.new("RGB", (100, 60), "white")
    framed.paste(Image.new("RGB", (10, 60), "red"), (0, 0))
    framed.paste(Image.new("RGB", (10, 60), "blue"), (90, 0))
    pixels = decode(encoded(framed, "PNG"), 24, 48)
    assert pixels.shape == (24, 48, 3)
    assert pixels.dtype == np.uint8
    assert pixels[12, 0].tolist() == [255, 0, 0]
    assert pixels[12, -1].tolist() == [0, 0, 255]


@pytest.mark.parametrize(("width", "height", "left", "top"), [(40, 20, 0, 8), (20, 40, 8, 0), (33, 33, 0, 0)])
def test_padding_keeps_the_proportions(width: int, height: int, left: int, top: int) -> None:
    spec = ImageSpec(SIDE, SIDE, "pad")
    found = decoding.decode(encoded(Image.new("RGB", (width, height), (255, 0, 0)), "PNG"), spec)
    red = np.full((SIDE, SIDE), False)
    red[top : SIDE - top, left : SIDE - left] = True
    assert ((found.pixels == [255, 0, 0]).all(2) == red).all()
    assert (found.pixels[~red] == decoding.MARGIN).all()
    assert (found.width, found.height) == (width, height)
    for scale in (1, 2, 4):  # of the input, and of coarser maps
        values = red[::scale, ::scale].astype(np.float32)
        inner = spec.without_margin(values, width, height)
        assert inner.all()
        assert inner.sum() == values.sum()
        assert ImageSpec(SIDE, SIDE).without_margin(values, width, height) is not inner


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"])
def test_truncated_files_have_a_reason(form: str) -> None:
    data = encoded(Image.effect_noise((64, 64), 80).convert("RGB"), form)
    for share in (0.2, 0.5, 0.9):
        reason(data[: int(len(data) * share)])
    if form in ("JPEG", "PNG"):
        assert reason(data[: len(data) // 2]) == "truncated image"


def test_not_an_image() -> None:
    assert reason(b"") == "empty file (0 bytes)"
    assert "not an image" in reason(b"hello, this is a text file\n" * 20)
    assert "not an image" in reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "self.jpg").symlink_to(tmp_path / "self.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    for name, words in {
        "empty.png": "empty file",
        "folder.jpg": "not a regular file",
        "link.jpg": "broken link",
        "self.jpg": "cannot be read",
        "pipe.jpg": "not a regular file",
        "device.jpg": "not a regular file",
    }.items():
        with pytest.raises(UnreadableImageError, match=words):
            read_image(tmp_path / name, ImageSpec(SIDE, SIDE))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(scene(), "PNG"))
    path.chmod(0)
    with pytest.raises(UnreadableImageError, match="permission denied"):
        read_image(path, ImageSpec(SIDE, SIDE))


@pytest.mark.parametrize("size", [(40_000, 40_000), (12_000, 9_000), (2_000_000_000, 2)])
def test_decompression_bomb(size: tuple[int, int]) -> None:
    data = huge_png(*size)
    assert len(data) < 1_000
    assert "too many pixels" in reason(data)


def test_file_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(encoded(scene(), "PNG"))
    monkeypatch.setattr(decoding, "MAX_BYTES", 10)
    with pytest.raises(UnreadableImageError, match="too large"):
        read_image(tmp_path / "a.png", ImageSpec(SIDE, SIDE))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize(("value", "expected"), [(0, 0), (32768, 128), (65535, 255), (12850, 50)])
def test_16_bit_grey(form: str, value: int, expected: int) -> None:
    image = Image.fromarray(np.full((8, 8), value, dtype=np.uint16))
    assert (decode(encoded(image, form), 8, 8) == expected).all()


def test_32_bit_grey_tiff_saturates() -> None:
    image = Image.fromarray(np.array([[0, 32768], [65535, 2_000_000_000]], dtype=np.int32))
    assert decode(encoded(image, "TIFF"), 2, 2)[..., 0].tolist() == [[0, 128], [255, 255]]


def test_float_tiff() -> None:
    unit = np.array([[0.0, 0.5], [1.0, np.nan]], dtype=np.float32)
    assert decode(encoded(Image.fromarray(unit), "TIFF"), 2, 2)[..., 0].tolist() == [[0, 128], [255, 0]]
    bytes_ = np.array([[0.0, 100.0], [255.0, np.nan]], dtype=np.float32)
    assert decode(encoded(Image.fromarray(bytes_), "TIFF"), 2, 2)[..., 0].tolist() == [[0, 100], [255, 0]]


def test_one_infinite_pixel_does_not_darken_a_float_image() -> None:
    unit = np.array([[0.0, 0.5], [np.inf, -np.inf]], dtype=np.float32)
    assert decode(encoded(Image.fromarray(unit), "TIFF"), 2, 2)[..., 0].tolist() == [[0, 128], [255, 0]]
    nothing = np.full((4, 4), np.nan, dtype=np.float32)
    assert (decode(encoded(Image.fromarray(nothing), "TIFF"), 4, 4) == 0).all()


@pytest.mark.parametrize("mode", ["I;16", "F", "RGBA", "LA", "P"])
def test_parts_of_a_picture_are_converted_as_the_whole(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 41, 4), dtype=np.uint8)
    deep = {"I;16": noise[..., 0].astype(np.uint16) * 250, "F": noise[..., 0].astype(np.float32) - 9.5}
    image = Image.fromarray(deep[mode]) if mode in deep else Image.fromarray(noise).convert(mode)
    data = encoded(image, "TIFF" if mode == "F" else "PNG", **({"transparency": 3} if mode == "P" else {}))
    whole = decode(data, 50, 41)
    monkeypatch.setattr(decoding, "TILE", 16)
    assert (decode(data, 50, 41) == whole).all()


def test_deep_and_transparent_pictures_need_little_more_memory_than_their_pixels() -> None:
    """numpy's share: Pillow's own memory is not traced. Whole, 16 bits took 32 bytes a pixel."""
    data = encoded(Image.fromarray(np.zeros((3000, 3000), dtype=np.uint16)), "PNG")
    decode(data, 8, 8)
    tracemalloc.start()
    decode(data, 8, 8)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 3000 * 3000 + 40 * decoding.TILE**2


def test_one_bit() -> None:
    image = Image.new("1", (16, 16), 1)
    image.paste(0, (0, 0, 8, 16))
    pixels = decode(encoded(image, "PNG"), 16, 16)
    assert (pixels[:, :8] == 0).all()
    assert (pixels[:, 8:] == 255).all()


def test_alpha_lies_over_white() -> None:
    rgba = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    rgba.paste((255, 0, 0, 255), (0, 0, 4, 8))
    rgba.paste((0, 0, 0, 128), (0, 0, 4, 4))
    for form in ("PNG", "WEBP", "TIFF"):
        pixels = decode(encoded(rgba, form, **({"lossless": True} if form == "WEBP" else {})), 8, 8)
        assert pixels[7, 0].tolist() == [255, 0, 0]
        assert pixels[0, 7].tolist() == [255, 255, 255]
        assert abs(int(pixels[0, 0, 1]) - 127) <= 1
    grey = Image.new("LA", (8, 8), (0, 0))
    grey.paste((0, 255), (0, 0, 4, 8))
    pixels = decode(encoded(grey, "PNG"), 8, 8)
    assert pixels[0, 0].tolist() == [0, 0, 0]
    assert pixels[0, 7].tolist() == [255, 255, 255]


def test_palette_with_transparency() -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([0, 0, 0, 10, 200, 30])
    image.paste(1, (0, 0, 4, 8))
    for form in ("PNG", "GIF"):
        pixels = decode(encoded(image, form, transparency=0), 8, 8)
        assert pixels[0, 0].tolist() == [10, 200, 30]
        assert pixels[0, 7].tolist() == [255, 255, 255]
    assert decode(encoded(image, "PNG", transparency=bytes([0, 255])), 8, 8)[0, 7].tolist() == [255, 255, 255]
    assert decode(encoded(image, "PNG"), 8, 8)[0, 7].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("mode", "clear", "solid"), [("RGB", (0, 0, 0), (9, 9, 9)), ("L", 0, 9)])
def test_a_transparent_colour_without_alpha_channel(mode: str, clear: object, solid: object) -> None:
    image = Image.new(mode, (8, 8), clear)  # type: ignore[arg-type]
    image.paste(solid, (0, 0, 4, 8))  # type: ignore[arg-type]
    pixels = decode(encoded(image, "PNG", transparency=clear), 8, 8)
    assert pixels[0, 0].tolist() == [9, 9, 9]
    assert pixels[0, 7].tolist() == [255, 255, 255]


def test_cmyk_jpeg_is_not_inverted() -> None:
    pixels = decode(encoded(scene().convert("CMYK"), "JPEG", quality=95, subsampling=0), SIDE, SIDE).astype(int)
    assert np.abs(pixels - np.asarray(scene()).astype(int)).mean() < 8


def test_grey_lab_and_ycc() -> None:
    grey = decode(encoded(Image.new("L", (8, 8), 77), "JPEG", quality=100), 8, 8)
    assert (grey == 77).all()
    lab = ImageCms.profileToProfile(
        scene(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert decode(encoded(lab, "TIFF"), 8, 8).shape == (8, 8, 3)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "TIFF", "PNG"])
def test_the_first_frame_of_an_animation_counts(form: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert (decode(data, 8, 8) == [255, 0, 0]).all()


def turned(orientation: int, picture: Image.Image) -> Image.Image:
    """What a camera stores, so that its EXIF orientation turns it back to `picture`."""
    moves = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    move = moves[orientation]
    return picture if move is None else picture.transpose(move)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(form: str, orientation: int) -> None:
    upright = scene(48, 32)
    exif = Image.Exif()
    exif[274] = orientation
    options: dict[str, object] = {"lossless": True} if form == "WEBP" else {"quality": 100, "subsampling": 0}
    pixels = decode(encoded(turned(orientation, upright), form, exif=exif, **options), 32, 48).astype(int)
    assert np.abs(pixels - np.asarray(upright).astype(int)).max() <= 8


def test_a_turned_jpeg_keeps_its_detail_at_any_aspect() -> None:
    stripes = np.tile(np.repeat([0, 255], 8), 100)[None, :, None].repeat(400, 0).repeat(3, 2).astype(np.uint8)
    upright = Image.fromarray(stripes)  # 1600 wide, 400 high
    exif = Image.Exif()
    exif[274] = 6
    plain = decode(encoded(upright, "JPEG", quality=95), 25, 400).astype(int)
    side = decode(encoded(turned(6, upright), "JPEG", quality=95, exif=exif), 25, 400).astype(int)
    assert side.std() > 0.9 * plain.std()


def test_damaged_exif_data_does_not_cost_the_picture() -> None:
    for exif in (
        b"Exif\0\0garbage",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01" * 30,
        b"Exif\0\0MM\0*\xff\xff\xff\xff",
    ):
        data = encoded(scene(), "JPEG", exif=exif)
        assert decode(data, SIDE, SIDE).shape == (SIDE, SIDE, 3)


def test_phone_pictures_with_several_frames_are_read_as_jpeg() -> None:
    data = encoded(scene(), "MPO", save_all=True, append_images=[Image.new("RGB", (32, 32))], quality=98)
    assert np.abs(decode(data, SIDE, SIDE).astype(int) - np.asarray(scene()).astype(int)).mean() < 4


def test_a_fresh_process_reads_every_format_and_is_quiet(tmp_path: Path) -> None:
    """Pillow loads its plugins lazily, and it warns about damaged files on stderr: neither may show."""
    for i, seed in enumerate(SEEDS):
        (tmp_path / f"{i}.bin").write_bytes(seed)
        for cut in range(20, len(seed), 40):
            (tmp_path / f"{i}-{cut}.bin").write_bytes(seed[:cut] + b"\xff" + seed[cut + 1 :])
            (tmp_path / f"{i}-{cut}-short.bin").write_bytes(seed[:cut])
    program = """
import sys
from pathlib import Path
from anoaudit.data.decoding import UnreadableImageError, read_image
from anoaudit.data.items import ImageSpec
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        read_image(path, ImageSpec(8, 8))
    except UnreadableImageError as error:
        if path.stem.isdigit():
            print(path.name, error)
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    remarks = [
        line for line in done.stderr.splitlines() if not line.startswith(("tempfile.tif:", "TIFF"))
    ]  # libtiff's own
    assert (done.returncode, done.stdout, remarks) == (0, "", [])


def test_one_pixel_and_extreme_shapes() -> None:
    assert (decode(encoded(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG"), 224, 224) == [9, 8, 7]).all()
    assert decode(encoded(Image.new("RGB", (1, 5000), "red"), "JPEG"), 16, 16).shape == (16, 16, 3)
    assert decode(encoded(Image.new("RGB", (5000, 1), "red"), "PNG"), 16, 16).shape == (16, 16, 3)


def test_decoding_is_deterministic() -> None:
    data = encoded(Image.effect_noise((300, 200), 90).convert("RGB"), "JPEG")
    assert (decode(data, 64, 64) == decode(data, 64, 64)).all()


SEEDS = [
    encoded(scene(16, 12), "JPEG"),
    encoded(scene(16, 12), "PNG"),
    encoded(scene(16, 12), "GIF"),
    encoded(scene(16, 12), "TIFF"),
    encoded(scene(16, 12), "TIFF", compression="tiff_lzw"),
    encoded(Image.fromarray(np.ones((12, 16), np.float32)), "TIFF"),
    encoded(scene(16, 12), "WEBP"),
    encoded(scene(16, 12), "BMP"),
    encoded(scene(16, 12).convert("P"), "PNG", transparency=3),
]
quick = settings(max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def decodes_or_says_why(data: bytes) -> None:
    try:
        assert decode(data, 8, 8).shape == (8, 8, 3)
    except UnreadableImageError as error:
        if not str(error) or "\n" in str(error):
            raise


@quick
@given(
    st.binary(max_size=400), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"\xff\xd8\xff", b"BM"])
)
def test_random_bytes(data: bytes, head: bytes) -> None:
    decodes_or_says_why(head + data)


@pytest.fixture
def few_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 1_000_000)


@quick
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8),
    st.integers(0, 10_000),
    st.binary(max_size=8),
)
def test_mutated_images(few_pixels: None, seed: bytes, edits: list[tuple[int, int]], cut: int, added: bytes) -> None:
    data = bytearray(seed)
    for place, value in edits:
        data[place % len(data)] = value
    at = cut % (2 * len(data))
    decodes_or_says_why(bytes(data[:at] + added + data[at:]) if cut % 3 else bytes(data[:at]))


@quick
@given(st.sampled_from(SEEDS[3:6]), st.integers(0, 300), st.integers(0, 2**32 - 1))
def test_mutated_tiff_fields(few_pixels: None, seed: bytes, place: int, value: int) -> None:
    at = len(seed) - 1 - place % (len(seed) - 4)
    decodes_or_says_why(seed[:at] + struct.pack("<I", value) + seed[at + 4 :])
