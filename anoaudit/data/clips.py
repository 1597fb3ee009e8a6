"""The one way a video file becomes frames, for fit and for score alike. PyAV, an optional extra, is imported here only.

A frame has its number in the file (from 0) and its time on the player's clock. What cannot be decoded is told; what a damaged
container skips without a word shows as a gap in time only.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Generator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from anoaudit.data.decoding import MAX_PIXELS, entering, resized, within
from anoaudit.data.items import ImageSpec, Picture
from anoaudit.errors import AuditError

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream

#: `.ts` is left out: in most folders it is source code.
SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv", ".mts", ".m2ts"}
    | {".mxf"}
)
#: libav goes by the content, and some of its formats are playlists that name other files and addresses.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,asf,flv,ogg,mxf"
#: Formats whose header tells the length; elsewhere libav estimates it from the very bytes that may be missing.
TOLD_LENGTH = frozenset({"mov", "matroska", "avi", "flv", "asf"})
SHORTFALL = 0.5  # seconds that the header may promise too much: streams end raggedly
USUAL_RATE = 25.0  # where a file tells neither times nor a rate
MISSED = 0.002  # seconds: some containers round times to milliseconds

_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


class UnreadableVideoError(Exception):
    """The file gives no frames; the message is the reason shown in the score table."""


@dataclass(frozen=True)
class Clip:
    """What one decoding found: the frames that are items, and what is wrong with the file ("" when nothing is)."""

    numbers: npt.NDArray[np.int64]
    times: npt.NDArray[np.float64]  # seconds
    damage: str

    def __len__(self) -> int:
        return len(self.numbers) + bool(self.damage)


@dataclass
class _Damage:
    """What could not be decoded: how many pieces, the first one's place and the words for it; where a cut file ends."""

    pieces: int = 0
    first: str = ""
    cut: str = ""

    def add(self, seconds: float | None, error: object) -> None:
        self.pieces += 1
        text = getattr(error, "strerror", None) or str(error)
        self.first = (
            self.first or f"after {seconds or 0.0:.2f} s ({text.removesuffix(' found when processing input').lower()})"
        )

    def __str__(self) -> str:
        found = f"{self.pieces} {'piece' if self.pieces == 1 else 'pieces'} cannot be decoded, the first {self.first}"
        return "; ".join(part for part in (self.cut, found if self.pieces else "") if part)


@dataclass
class _Clock:
    """Seconds from the start of the file, also of frames that tell none."""

    start: float
    step: float  # seconds a frame
    unit: Fraction | None  # seconds, of the stream's timestamps
    ordered: bool  # AVI tells when frames are to be decoded, not when to be shown: their pts are in the wrong order
    now: float | None = None

    def of(self, frame: av.VideoFrame) -> float:
        stamp = frame.dts if frame.pts is None or not self.ordered else frame.pts
        if stamp is not None and self.unit is not None:
            told = float(stamp * self.unit)
            if self.now is None and not self.ordered:
                self.start = told
            self.now = max(0.0, told - self.start)
        else:
            self.now = 0.0 if self.now is None else self.now + self.step
        return self.now

    @staticmethod
    def end_of(packet: Packet[Stream]) -> float:
        """Seconds on the file's own clock."""
        return 0.0 if packet.pts is None else float((packet.pts + (packet.duration or 0)) * packet.time_base)


def require_av() -> None:
    """Raises AuditError with the install line when PyAV is not there."""
    try:
        import av  # noqa: F401
    except ImportError:
        raise AuditError("reading videos needs PyAV, which is not installed", "pip install av") from None


def examine(path: Path, fps: float | None) -> Clip:
    """Decode a file once: its frames, or with `fps` about that many a second, the first in each slot of 1/fps seconds."""
    numbers, times, damage = array("q"), array("d"), _Damage()
    slot: int | None = None
    try:
        for number, seconds, _ in frames(path, damage):
            if fps is not None:
                here = math.floor((seconds + MISSED) * fps)
                if here == slot:
                    continue
                slot = here
            numbers.append(number)
            times.append(seconds)
    except UnreadableVideoError as error:
        return Clip(np.empty(0, dtype=np.int64), np.empty(0), str(error))
    reason = str(damage) or ("" if numbers else "holds no frames")
    return Clip(np.array(numbers, dtype=np.int64), np.array(times, dtype=np.float64), reason)


def frames(path: Path, damage: _Damage | None = None) -> Generator[tuple[int, float, av.VideoFrame], None, None]:
    """Number, seconds and picture of every frame that can be decoded, in the order they are shown; the same every time.

    What cannot be decoded is counted in `damage`. Raises UnreadableVideoError when the file cannot be opened at all.
    """
    import av

    damage = _Damage() if damage is None else damage
    with _open(path) as container:
        stream = _video(container)
        rate = float(stream.average_rate or stream.guessed_rate or USUAL_RATE)
        formats, start = set(container.format.name.split(",")), (container.start_time or 0) / 1e6
        clock = _Clock(start, 1.0 / rate, stream.time_base, "avi" not in formats)
        packets, over, number, end = container.demux(), False, 0, 0.0
        while not over:
            decoded: list[av.VideoFrame] = []
            cut = False
            try:
                packet = next(packets, None)
                if packet is None:  # the end, or nothing more can be read; the decoder may hold some frames back
                    over = True
                    decoded = stream.codec_context.decode(None)
                elif packet.size:  # an empty one would tell the decoder that this is the end
                    end = max(end, clock.end_of(packet))
                    if packet.stream_index == stream.index:
                        cut = packet.is_corrupt
                        decoded = stream.codec_context.decode(packet)
            except (av.FFmpegError, ValueError, MemoryError) as error:
                damage.add(clock.now, error)
                cut = False
            if cut:
                damage.add(clock.now, "the data is cut off")
            for frame in decoded:
                yield number, clock.of(frame), frame
                number += 1
        length = (container.duration or 0) / 1e6
        if TOLD_LENGTH & formats and length - (end - start) > max(SHORTFALL, 1.5 * clock.step):
            damage.cut = f"cut off: ends at {end - start:.2f} s of {length:.2f} s"


def pixels(frame: av.VideoFrame, spec: ImageSpec) -> Picture | str:
    """A frame as it enters a model, whole and upright, or the reason why it does not."""
    try:
        image = _upright(frame)
        return Picture(entering(image, spec, *image.size), *image.size)
    except UnreadableVideoError as error:
        return str(error)


def picture(frame: av.VideoFrame, longest: int) -> Picture | str:
    """A frame for the eye, as `decoding.read_picture` gives it, or the reason why there is none."""
    try:
        image = _upright(frame)
        return Picture(resized(image, *within(longest, *image.size)), *image.size)
    except UnreadableVideoError as error:
        return str(error)


def _upright(frame: av.VideoFrame) -> Image.Image:
    if frame.is_corrupt:
        raise UnreadableVideoError("damaged frame: parts of the picture are missing")
    try:
        clear = any(component.is_alpha for component in frame.format.components)
        image = Image.fromarray(frame.to_ndarray(format="rgba" if clear else "rgb24"))
        turn = _TURNS.get(frame.rotation % 360)
        return image if turn is None else image.transpose(turn)
    except MemoryError:
        raise UnreadableVideoError("too large for the memory") from None
    except Exception as error:  # libav has its own for every kind of damage
        raise UnreadableVideoError(f"damaged frame: {' '.join(str(error).split())[:120]}") from None


def _open(path: Path) -> InputContainer:
    import av

    try:
        if path.exists() and not path.is_file():  # a pipe would never end
            raise UnreadableVideoError("not a regular file")
        if path.stat().st_size == 0:
            raise UnreadableVideoError("empty file (0 bytes)")
        options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
        # With the scheme, a name such as `concat:a|b.mp4` stays a name; titles and comments need not be UTF-8. As `options`, which
        # are the streams', too, they crashed PyAV up to 17 on formats that announce streams late (mpg).
        return av.open(f"file:{path}", "r", container_options=options, metadata_errors="replace")
    except PermissionError:
        raise UnreadableVideoError("permission denied") from None
    except FileNotFoundError:
        raise UnreadableVideoError("file is gone, or a broken link") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = "not a video, damaged at its head, or cut off before its index"
        told = isinstance(error, OSError) and not isinstance(error, av.FFmpegError) and error.strerror
        raise UnreadableVideoError(f"cannot be read: {told}" if told else reason) from None


def _video(container: InputContainer) -> av.VideoStream:
    """The video stream, set so that damaged files decode to the same frames every time.

    Decoding in several threads was seen to give other pixels in every run behind a damaged place, and to lose the marks of
    damaged frames.
    """
    import av
    from av.codec.context import Flags
    from av.stream import Disposition

    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream) or stream.disposition & Disposition.attached_pic:  # a cover
        raise UnreadableVideoError("holds no video")
    if stream.codec_context is None:
        raise UnreadableVideoError("its codec is not known")
    if stream.width * stream.height > MAX_PIXELS:
        raise UnreadableVideoError(
            f"too many pixels: {stream.width}×{stream.height} (limit {MAX_PIXELS // 1_000_000} megapixels)"
        )
    context = stream.codec_context
    context.options = {"max_pixels": str(MAX_PIXELS)}  # of frames that grow on the way
    context.thread_type = "NONE"
    context.flags |= Flags.output_corrupt  # they are items, too: unreadable ones, at their places
    return stream
