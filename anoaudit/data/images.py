"""Image folders: every file with an image suffix, in sub-folders too, is one item; a sub-folder is its group.

With a rate they are frames: in natural order within their sub-folder, each with its time.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from anoaudit.data.decoding import SUFFIXES, UnreadableImageError, read_image, read_picture
from anoaudit.data.items import UNLABELLED, Chunk, ImageSpec, InputSpec, Kind, Picture
from anoaudit.data.labels import Labels, notes_of

Decoded = Picture | str  # as it enters the model, or the reason why it does not
PICTURES_AHEAD = 8


def scan(root: Path, suffixes: frozenset[str]) -> tuple[list[Path], int]:
    """Files below `root` with one of the suffixes, sorted, and how many other visible files there are.

    Hidden files and folders are passed over, so are models that `fit` wrote. Links are followed; a folder reached again
    (a loop, or two links
    to it) is not entered again. Raises OSError for a folder that cannot be listed: its items would be missing unseen.
    """
    found: list[Path] = []
    ignored = 0
    entered: set[tuple[int, int]] = set()
    for folder, names, files in os.walk(root, followlinks=True, onerror=_raise):
        info = os.stat(folder)
        if (info.st_dev, info.st_ino) in entered:
            names.clear()
            continue
        entered.add((info.st_dev, info.st_ino))
        if folder != str(root) and ({"manifest.json", "model.onnx"} <= set(files) or folder.endswith(".anoaudit.part")):
            names.clear()  # a model (or one in the making) lies beside the data: its Parquet files are none of it
            continue
        names[:] = sorted(name for name in names if not name.startswith("."))
        for file in files:
            if file.startswith("."):
                continue
            if os.path.splitext(file)[1].lower() in suffixes:
                found.append(Path(folder, file))
            else:
                ignored += 1
    return sorted(found, key=lambda path: item_id(path, root)), ignored


def _raise(error: OSError) -> None:
    raise error


def item_id(path: Path, root: Path) -> str:
    """POSIX path relative to the root; bytes that are not UTF-8 are shown as escapes."""
    relative = path.relative_to(root).as_posix() if path != root else path.name
    return os.fsencode(relative).decode("utf-8", "backslashreplace")


class ImageFolder:
    """A list of image files as items; with `fps` (frames a second) as the frames of one sequence a sub-folder."""

    kind: Kind = "images"

    def __init__(
        self,
        root: Path,
        paths: Sequence[Path],
        ignored: int = 0,
        truth: Labels | None = None,
        labels: Labels | None = None,
        fps: float | None = None,
    ) -> None:
        self.root = root
        order: Callable[[str], Any] = str if fps is None else natural
        self.paths = sorted(paths, key=lambda path: order(item_id(path, root)))
        self.source = str(root)
        self.name = root.resolve().name
        self.ignored = ignored
        self.ids = [item_id(path, root) for path in self.paths]
        self.timed = fps is not None
        self._times = times_of(self.ids, fps) if fps is not None else None
        self._truth, self._labels = truth, labels
        for given in (truth, labels):
            if given is not None:
                given.attach(root, self.ids)

    def __len__(self) -> int:
        return len(self.paths)

    def chunks(self, spec: InputSpec, size: int, only: npt.NDArray[np.bool_] | None = None) -> Iterator[Chunk]:
        """See Dataset. Threads decode up to two chunks ahead while the caller works on the last one."""
        assert isinstance(spec, ImageSpec)
        wanted = np.arange(len(self)) if only is None else np.flatnonzero(only)
        starts = range(0, len(wanted), size)
        with ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 2), thread_name_prefix="decode") as pool:
            ahead: deque[tuple[npt.NDArray[np.intp], list[Future[Decoded]]]] = deque()
            try:
                for start in starts:
                    indices = wanted[start : start + size]
                    ahead.append((indices, [pool.submit(_decode, self.paths[i], spec) for i in indices]))
                    if len(ahead) > 2:
                        yield self._collect(*ahead.popleft(), spec)
                while ahead:
                    yield self._collect(*ahead.popleft(), spec)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def pictures(self, longest: int, only: npt.NDArray[np.bool_]) -> Iterator[tuple[str, Picture | str]]:
        """Ids of the items that `only` (bool[N]) marks, each with its image for the eye (see `read_picture`) or the reason
        why there is none. Threads decode a few ahead.
        """
        with ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 2), thread_name_prefix="decode") as pool:
            ahead: deque[tuple[str, Future[Picture | str]]] = deque()
            try:
                for i in np.flatnonzero(only):
                    ahead.append((self.ids[i], pool.submit(_picture, self.paths[i], longest)))
                    if len(ahead) > PICTURES_AHEAD:
                        item, future = ahead.popleft()
                        yield item, future.result()
                while ahead:
                    item, future = ahead.popleft()
                    yield item, future.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _collect(self, indices: npt.NDArray[np.intp], futures: list[Future[Decoded]], spec: ImageSpec) -> Chunk:
        results = [future.result() for future in futures]
        found = [result for result in results if not isinstance(result, str)]
        ids = [self.ids[i] for i in indices]
        nothing = np.full(len(ids), UNLABELLED, dtype=np.int8)
        return Chunk(
            start=int(indices[0]),
            ids=ids,
            groups=[group_of(item) for item in ids],
            reasons=[result if isinstance(result, str) else None for result in results],
            values=pixels_of(found, spec),
            truth=self._truth.of(ids) if self._truth else nothing,
            labels=self._labels.of(ids) if self._labels else nothing,
            times=None if self._times is None else self._times[indices],
            sizes=sizes_of(found),
        )

    def label_notes(self) -> tuple[str, ...]:
        """See Dataset."""
        return notes_of(self._truth, self._labels)

    def outline(self) -> str:
        """See Dataset."""
        return outline_of(self.ids, self.paths)

    def fingerprint(self) -> str:
        """See Dataset."""
        return fingerprint_of(self.ids, self.paths)


def pixels_of(pictures: Sequence[Picture], spec: ImageSpec) -> npt.NDArray[np.uint8]:
    """uint8[R, H, W, 3]."""
    if not pictures:
        return np.empty((0, spec.height, spec.width, 3), dtype=np.uint8)
    return np.stack([picture.pixels for picture in pictures])


def sizes_of(pictures: Sequence[Picture]) -> npt.NDArray[np.int64]:
    """int64[R, 2], width and height of the originals."""
    return np.array([(picture.width, picture.height) for picture in pictures], dtype=np.int64).reshape(-1, 2)


def outline_of(names: Sequence[str], paths: Sequence[Path]) -> str:
    """A hash of the files' names and sizes."""
    digest = hashlib.sha256()
    for name, path in zip(names, paths, strict=True):
        try:
            size = path.stat().st_size
        except OSError:
            size = -1
        digest.update(f"{name}\0{size}\0".encode())
    return digest.hexdigest()


def fingerprint_of(names: Sequence[str], paths: Sequence[Path]) -> str:
    """SHA-256 over the files' names and bytes."""
    digest = hashlib.sha256()
    for name, path in zip(names, paths, strict=True):
        digest.update(name.encode() + b"\0")
        try:
            if not path.is_file():  # a pipe would never end
                raise OSError
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError:
            digest.update(b"unreadable")
    return digest.hexdigest()


def natural(item: str) -> tuple[Any, ...]:
    """A key that sorts frame2 before frame10, and the items of a folder together, before those of its sub-folders."""
    folder, _, name = item.rpartition("/")
    keys = [[int(p) if p.isdigit() else p for p in re.split(r"([0-9]+)", part)] for part in (folder, name)]
    return (*keys, item)


def times_of(items: Sequence[str], fps: float) -> npt.NDArray[np.float64]:
    """Seconds of every item from the first one of its sub-folder, float64[N]."""
    counts: Counter[str | None] = Counter()
    places = []
    for item in items:
        group = group_of(item)
        places.append(counts[group])
        counts[group] += 1
    return np.array(places, dtype=np.float64) / fps


def group_of(item: str) -> str | None:
    """The sub-folder of an id, null at the top level."""
    parent = PurePosixPath(item).parent.as_posix()
    return None if parent == "." else parent


def image_paths(root: Path) -> tuple[list[Path], int]:
    """Image files below a folder, and how many other files there are."""
    return scan(root, SUFFIXES)


def _decode(path: Path, spec: ImageSpec) -> Decoded:
    try:
        return read_image(path, spec)
    except UnreadableImageError as error:
        return str(error)


def _picture(path: Path, longest: int) -> Picture | str:
    try:
        return read_picture(path, longest)
    except UnreadableImageError as error:
        return str(error)
