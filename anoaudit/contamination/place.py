"""Where a mixture goes: what may be overwritten, and all of it put in place at once or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from anoaudit.errors import AuditError, UsageError

LABELS, MANIFEST = "labels.csv", "contaminate.json"
FORMS = (".parquet", ".csv")  # of tables


@dataclass(frozen=True)
class Target:
    """The places of a mixture. For images the labels and the manifest lie in the folder, for tables beside the file."""

    out: Path
    labels: Path
    manifest: Path

    @classmethod
    def folder(cls, out: Path) -> Target:
        """A folder of images."""
        return cls(out, out / LABELS, out / MANIFEST)

    @classmethod
    def file(cls, out: Path) -> Target:
        """A table."""
        return cls(out, out.with_name(f"{out.stem}.{LABELS}"), out.with_name(f"{out.stem}.{MANIFEST}"))

    @property
    def pieces(self) -> tuple[Path, ...]:
        """What has to be moved into place: the folder, or the three files."""
        return (self.out,) if self.labels.parent == self.out else (self.out, self.labels, self.manifest)

    def below(self, folder: Path) -> Target:
        """The same names in another folder."""
        old = self.out.parent
        moved = [folder / path.relative_to(old) for path in (self.out, self.labels, self.manifest)]
        return Target(*moved)


def target_for(out: Path, form: str | None) -> Target:
    """Where a mixture of images goes (`form` is None), or of tables, of that suffix if need be. Raises UsageError."""
    place = Path(os.path.abspath(out))  # so that "." and "x/.." have a name and a parent
    if form is None:
        return Target.folder(place)
    if out.suffix.lower() not in FORMS:
        raise UsageError(
            f"{out} cannot hold a table: its name has to end in {' or '.join(FORMS)}",
            f"write to {out.stem.lstrip('.') or 'mixed'}{form}",
        )
    return Target.file(place)


@dataclass(frozen=True)
class Input:
    """What the user gave (a folder, a file or a pattern) and the files it stands for. `option` is how users call it."""

    option: str
    given: str
    files: Sequence[Path]


def check(target: Target, inputs: Sequence[Input], force: bool) -> None:
    """Raise UsageError when writing there would touch an input, or anything that `contaminate` did not make."""
    out = target.out.resolve()
    pieces = [piece.resolve() for piece in target.pieces]
    for source in inputs:
        folder = Path(source.given).resolve() if Path(source.given).is_dir() else None
        if folder is not None and out.is_relative_to(folder):
            place = "the same as" if out == folder else "inside"
            raise UsageError(
                f"{target.out} is {place} {source.option}, {source.given}", "write to a place outside of it"
            )
        for path in (file.resolve() for file in source.files):
            if path in pieces or path.is_relative_to(out):
                raise UsageError(
                    f"{target.out} would replace {path}, which is read as {source.option}", "write to another place"
                )
        if folder is not None and folder.is_relative_to(out):
            raise UsageError(f"{source.option}, {source.given}, is inside of {target.out}", "write to another place")
    present = [piece for piece in target.pieces if os.path.lexists(piece)]
    if not present:
        return
    if not force:
        raise UsageError(f"{present[0]} exists", "write to another place, or replace it with --force")
    empty = target.out.is_dir() and not any(target.out.iterdir())
    if not (target.manifest.is_file() or (empty and present == [target.out])):
        raise UsageError(
            f"{present[0]} was not made by contaminate: {target.manifest} is missing",
            "--force replaces former mixtures only",
        )


@contextlib.contextmanager
def staged(target: Target, force: bool) -> Iterator[Target]:
    """A hidden place beside the target to write to; moved into place at the end, removed on any failure.

    Raises AuditError, in one line, for what the file system refuses.
    """
    parent = target.out.parent
    made: list[Path] = []
    try:
        for folder in reversed([parent, *parent.parents]):
            if not folder.exists():
                folder.mkdir()
                made.append(folder)
        with tempfile.TemporaryDirectory(
            prefix=".anoaudit-", suffix=".part", dir=parent, ignore_cleanup_errors=True
        ) as staging:
            new, old = Path(staging, "new"), Path(staging, "old")
            new.mkdir()
            old.mkdir()
            yield target.below(new)
            _place(target, target.below(new), target.below(old), force)
    except BaseException as error:
        for folder in reversed(made):
            with contextlib.suppress(OSError):  # not empty: somebody else uses it by now
                folder.rmdir()
        if isinstance(error, OSError):
            reason = error.strerror or (str(error).splitlines() or [type(error).__name__])[0]
            raise AuditError(
                f"{target.out} cannot be written: {reason}", "check the space and the permissions there"
            ) from error
        raise


def _place(target: Target, new: Target, old: Target, force: bool) -> None:
    """Move the former pieces aside and the new ones in; undo everything when one of the moves fails."""
    done: list[tuple[Path, Path]] = []
    try:
        for final, fresh, aside in zip(target.pieces, new.pieces, old.pieces, strict=True):
            if os.path.lexists(final):
                if not force:  # it was not there when we looked
                    raise AuditError(f"{final} appeared while the mixture was made", "write to another place")
                os.rename(final, aside)
                done.append((final, aside))
            os.rename(fresh, final)
            done.append((fresh, final))
    except BaseException:
        for source, moved in reversed(done):
            with contextlib.suppress(OSError):
                os.rename(moved, source)
        raise
