"""Image files into one folder: byte for byte, never decoded, under their own relative paths."""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Iterable
from pathlib import Path


def free_names(wanted: Iterable[Path]) -> list[Path]:
    """A path of its own for every wanted one: the second of a name gets `-2` before the extension, the third `-3`.

    Names that differ in case or Unicode form only count as equal, so that the result is the same on every file system.
    """
    taken: set[str] = set()
    last: dict[Path, int] = {}
    names = []
    for path in wanted:
        name, n = path, last.get(path, 1)
        if n > 1:
            name = path.with_name(f"{path.stem}-{n}{path.suffix}")
        while (key := unicodedata.normalize("NFC", name.as_posix().casefold())) in taken:
            n += 1
            name = path.with_name(f"{path.stem}-{n}{path.suffix}")
        taken.add(key)
        last[path] = n
        names.append(name)
    return names


def copy(source: Path, target: Path) -> str | None:
    """Copy the bytes, not the dates: when a file was made may tell its label.

    A source that cannot be read (a broken link, say) is an unreadable item to `fit`, and is one here, too: an empty file. The
    reason is returned then. Raises OSError for a target that cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if source.is_file() or not source.exists():  # reading a pipe or a device would never end
            shutil.copyfile(source, target)
            return None
        reason = "not a regular file"
    except OSError as error:
        # A failed open names the source alone; a failed write (no space) names both, and is the target's.
        if error.filename != os.fspath(source) or error.filename2 is not None:
            raise
        gone = isinstance(error, FileNotFoundError)
        reason = "file is gone, or a broken link" if gone else (error.strerror or "cannot be read").lower()
    target.touch()
    return reason
