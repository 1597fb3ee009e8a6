"""Videos: every frame is an item with a time, its file is its group. Frames are decoded in order, each time anew.

One decoding tells how many there are; no pass holds more than a few chunks, however long the videos.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from anoaudit.data import clips
from anoaudit.data.images import Decoded, fingerprint_of, item_id, natural, outline_of, pixels_of, sizes_of
from anoaudit.data.items import UNLABELLED, Chunk, ImageSpec, InputSpec, Kind, Picture
from anoaudit.data.labels import Labels, notes_of

if TYPE_CHECKING:
    import av

T = TypeVar("T")
Made = tuple[int, "Future[T | str] | str"]  # an item, and what is made of its frame or the reason why it has none
WORKERS = min(8, max(2, os.cpu_count() or 2))  # each holds a frame in its full size
AHEAD = 2  # chunks that are decoded while the caller works on one


class VideoFiles:
    """The frames of one or more video files, all of them or `fps` a second.

    A frame's id is `<file>#<number in the file, six digits>`, whatever the rate. What a damaged file has lost is one more
    item, unreadable, with the file's own id, after its frames. Raises AuditError where PyAV is missing.
    """

    kind: Kind = "images"
    timed = True

    def __init__(
        self,
        source: str,
        root: Path,
        paths: Sequence[Path],
        ignored: int = 0,
        truth: Labels | None = None,
        labels: Labels | None = None,
        fps: float | None = None,
    ) -> None:
        clips.require_av()
        self.root, self.fps, self.ignored = root, fps, ignored
        self.paths = sorted(paths, key=lambda path: natural(item_id(path, root)))
        self.names = [item_id(path, root) for path in self.paths]
        alone = Path(source).is_file()
        self.source = source if alone else str(root)
        self.name = Path(source).stem if alone else root.resolve().name
        self._truth, self._labels = truth, labels
        for given in (truth, labels):
            if given is not None:
                given.attach(root, self.ids)

    @cached_property
    def clips(self) -> list[clips.Clip]:
        """What is in each file; the first use decodes them all."""
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="examine") as pool:
            return list(pool.map(lambda path: clips.examine(path, self.fps), self.paths))

    @property
    def ids(self) -> list[str]:
        """Of all items, made anew."""
        return [self._id(item) for item in range(len(self))]

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        """int64[files + 1]: each file's first item, and the number of items."""
        return np.cumsum([0, *(len(clip) for clip in self.clips)], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def chunks(self, spec: InputSpec, size: int, only: npt.NDArray[np.bool_] | None = None) -> Iterator[Chunk]:
        """See Dataset."""
        assert isinstance(spec, ImageSpec)
        return _ahead(self._chunks(spec, size, only), AHEAD)

    def pictures(self, longest: int, only: npt.NDArray[np.bool_]) -> Iterator[tuple[str, Picture | str]]:
        """Ids of the items that `only` (bool[N]) marks, each with its picture for the eye or the reason why there is none."""
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="frames") as pool:
            for item, made in self._made(only, pool, lambda frame: clips.picture(frame, longest)):
                yield self._id(item), made if isinstance(made, str) else made.result()

    def _chunks(self, spec: ImageSpec, size: int, only: npt.NDArray[np.bool_] | None) -> Generator[Chunk, None, None]:
        wanted = np.ones(len(self), dtype=bool) if only is None else only
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="frames") as pool:
            batch: list[Made[Picture]] = []
            for made in self._made(wanted, pool, lambda frame: clips.pixels(frame, spec)):
                batch.append(made)
                if len(batch) == size:
                    yield self._chunk(batch, spec)
                    batch = []
            if batch:
                yield self._chunk(batch, spec)

    def _chunk(self, batch: list[Made[Picture]], spec: ImageSpec) -> Chunk:
        results: list[Decoded] = [made if isinstance(made, str) else made.result() for _, made in batch]
        found = [result for result in results if not isinstance(result, str)]
        places = [self._place(item) for item, _ in batch]
        ids = [self._id(item) for item, _ in batch]
        nothing = np.full(len(ids), UNLABELLED, dtype=np.int8)
        times = [self.clips[f].times[i] if i < len(self.clips[f].times) else np.nan for f, i in places]
        return Chunk(
            start=batch[0][0],
            ids=ids,
            groups=[self.names[file] for file, _ in places],
            reasons=[result if isinstance(result, str) else None for result in results],
            values=pixels_of(found, spec),
            truth=self._truth.of(ids) if self._truth else nothing,
            labels=self._labels.of(ids) if self._labels else nothing,
            times=np.array(times, dtype=np.float64),
            sizes=sizes_of(found),
        )

    def _made(
        self, wanted: npt.NDArray[np.bool_], pool: ThreadPoolExecutor, make: Callable[[av.VideoFrame], T | str]
    ) -> Generator[Made[T], None, None]:
        """The wanted items in order, each with what the pool makes of its frame; few frames wait at any time."""
        waiting: deque[Future[T | str]] = deque()
        for file in range(len(self.paths)):
            for item, frame in self._frames(file, wanted):
                if isinstance(frame, str):
                    yield item, frame
                    continue
                made = pool.submit(make, frame)
                waiting.append(made)
                if len(waiting) > WORKERS:
                    waiting.popleft().result()
                yield item, made

    def _frames(
        self, file: int, wanted: npt.NDArray[np.bool_]
    ) -> Generator[tuple[int, av.VideoFrame | str], None, None]:
        """The wanted items of one file, each with its frame or a reason."""
        clip, start = self.clips[file], int(self._starts[file])
        due = np.flatnonzero(wanted[start : start + len(clip.numbers)])
        done, reason = 0, "the file changed while it was being read"
        if len(due):
            with contextlib.closing(clips.frames(self.paths[file])) as decoded:
                try:
                    for number, _, frame in decoded:
                        if number == clip.numbers[due[done]]:
                            yield start + int(due[done]), frame
                            done += 1
                            if done == len(due):
                                break
                except clips.UnreadableVideoError as error:
                    reason = str(error)
        for i in due[done:]:
            yield start + int(i), reason
        if clip.damage and wanted[start + len(clip.numbers)]:
            yield start + len(clip.numbers), clip.damage

    def _place(self, item: int) -> tuple[int, int]:
        """An item's file and its place among that file's items."""
        file = int(np.searchsorted(self._starts, item, side="right")) - 1
        return file, item - int(self._starts[file])

    def _id(self, item: int) -> str:
        file, place = self._place(item)
        numbers = self.clips[file].numbers
        return f"{self.names[file]}#{numbers[place]:06d}" if place < len(numbers) else self.names[file]

    def label_notes(self) -> tuple[str, ...]:
        """See Dataset."""
        return notes_of(self._truth, self._labels)

    def outline(self) -> str:
        """See Dataset."""
        return self._with_rate(outline_of(self.names, self.paths))

    def fingerprint(self) -> str:
        """See Dataset."""
        return self._with_rate(fingerprint_of(self.names, self.paths))

    def _with_rate(self, digest: str) -> str:
        return hashlib.sha256(f"{digest}\0{self.fps}".encode()).hexdigest()


def _ahead(items: Generator[T, None, None], count: int) -> Iterator[T]:
    """The same items, so many of them computed ahead by a thread."""
    with ThreadPoolExecutor(1, thread_name_prefix="decode") as worker:
        waiting = deque(worker.submit(next, items, None) for _ in range(count))
        try:
            while (item := waiting.popleft().result()) is not None:
                waiting.append(worker.submit(next, items, None))
                yield item
        finally:
            worker.shutdown(cancel_futures=True)
            items.close()
