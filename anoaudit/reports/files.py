"""Output files that are whole or not there: written under a temporary name beside the destination, then renamed."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anoaudit.errors import AuditError

_ADVICE = {
    errno.ENOENT: ("the folder {folder} does not exist", "create the folder first"),
    errno.ENOTDIR: ("{folder} is not a folder", "choose a file in a folder"),
    errno.EISDIR: ("it is a folder", "give a file name"),
    errno.EACCES: ("permission denied", "choose a place you may write to"),
    errno.EPERM: ("permission denied", "choose a place you may write to"),
    errno.EROFS: ("the file system is read-only", "choose a place you may write to"),
    errno.ENOSPC: ("no space is left on the device", "free some space or choose another place"),
    errno.EDQUOT: ("the disk quota is used up", "free some space or choose another place"),
    errno.ENAMETOOLONG: ("the file name is too long", "choose a shorter name"),
}


def cannot_write(path: Path | str, error: OSError) -> AuditError:
    """The one line that says why a place cannot be written to."""
    what, hint = _ADVICE.get(
        error.errno or 0, (error.strerror or str(error) or type(error).__name__, "choose another place")
    )
    return AuditError(f"cannot write {path}: {what.format(folder=Path(path).parent)}", hint)


@contextmanager
def replacing(destination: Path) -> Iterator[Path]:
    """The path to write to. It takes the destination's place when the block ends well, and vanishes when it does not.

    OSError becomes AuditError, except BrokenPipeError. A device or a pipe is written to directly: renaming over
    `/dev/null` would destroy it.
    """
    try:
        mode = _mode(destination)
        if mode is not None and stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if mode is not None and not stat.S_ISREG(mode):
            yield destination
            return
        target = Path(os.path.realpath(destination))  # through a link: the file it names is replaced, not the link
        # The name is short and not made from the destination's, which may already be as long as names can be.
        part = target.with_name(f".anoaudit-{secrets.token_hex(6)}.tmp")
        try:
            yield part
            if mode is not None:
                os.chmod(part, stat.S_IMODE(mode))
            os.replace(part, target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except BrokenPipeError:
        raise
    except OSError as error:
        raise cannot_write(destination, error) from error


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None
