"""Image files into one folder: byte for byte, never decoded, under their own relative paths."""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from anoaudit.errors import AuditError


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


def copy(source: Path, target: Path) -> None:
    """Copy the bytes, not the dates: when a file was made may tell its label.

    Raises AuditError for a source that cannot be read, OSError for a target that cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(source, target)
    except shutil.SpecialFileError as error:
        raise AuditError(f"{source} is not a file that can be copied", "remove it from the data") from error
    except OSError as error:
        # A failed open names the source alone; a failed write (no space) names both, and is the target's.
        if error.filename == os.fspath(source) and error.filename2 is None:
            raise AuditError(f"{source} cannot be copied: {error.strerror}", "make it readable or remove it") from error
        raise
