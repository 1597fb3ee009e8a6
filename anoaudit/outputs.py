"""What no output may replace: what a command reads, the data that its scores and models were made of, a model's inside.

A path that is recorded may be relative to a folder that is no longer the current one. So a data file is kept in any case,
unless it is empty or a score table: nothing else of the kinds that are read is ever written here.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from anoaudit.data.labels import split_spec
from anoaudit.data.rows import SUFFIXES as TABLES
from anoaudit.data.rows import columns_of
from anoaudit.data.source import KNOWN
from anoaudit.errors import AnoauditError, UsageError
from anoaudit.model.artefact import is_model, strangers
from anoaudit.scoring.table import COLUMNS

Given = Iterable[str | Path | None]


def keep_inputs(path: Path, option: str, inputs: Given, files: Iterable[Path] = (), *, table: bool = True) -> None:
    """Raise UsageError when writing the file `path`, as `option` asks, would replace what must be kept.

    `inputs` are what the command was given to read, as it was given: data (a pattern, too), scores, models, `FILE[:COLUMN]`;
    `files` are those that the data turned out to be. `table`: it is a score table that is written, which may replace one.
    """
    another = f"choose another name with {option}"
    if is_model(path.resolve().parent):
        raise UsageError(f"{path} lies inside a model, which holds its own files only", another)
    if not path.is_file():
        return
    given = [str(item) for item in inputs if item is not None]
    if _among(path, files) or any(_among(path, _files(item)) for item in given):
        raise UsageError(f"{path} is what is being read; it would be overwritten", another)
    for item in given:
        if _among(path, _files(_recorded(item))):
            raise UsageError(f"{path} is the data that {item} was made of; it would be overwritten", another)
    if path.suffix.lower() in KNOWN and path.stat().st_size and not (table and _is_score_table(path)):
        what = "a table" if path.suffix.lower() in TABLES else "an image or video"
        raise UsageError(f"{path} is {what} that anoaudit has not written; it would be overwritten", another)


def keep_inputs_out_of(folder: Path, option: str, inputs: Given) -> None:
    """Raise UsageError when one of the inputs lies in the folder that `option` is about to replace."""
    place = folder.resolve()
    for item in (str(item) for item in inputs if item is not None):
        if any(file.resolve().is_relative_to(place) for file in (Path(item), *_files(item))):
            raise UsageError(f"{item}, which is read, lies in {folder}", f"choose another name with {option}")


def require_replaceable(path: Path) -> None:
    """Raise UsageError unless it is a model and nothing else: --force replaces no folder of other things."""
    if not is_model(path):
        raise UsageError(f"{path} is not a model; --force will not replace it", "choose another name with -o")
    foreign = strangers(path)
    if foreign:
        raise UsageError(
            f"{path} holds {foreign[0]!r}, which no fit has written; --force will not replace it",
            "move it, or choose another name with -o",
        )


def _files(item: str) -> Iterator[Path]:
    """The files that something given names itself; those in a folder are not looked up."""
    yield split_spec(item)[0]
    if glob.has_magic(item):
        yield from map(Path, glob.iglob(item, recursive=True))


def _among(path: Path, files: Iterable[Path]) -> bool:
    """Whether it is one of these files, by whatever name."""
    own = path.stat()
    for file in files:
        try:
            if os.path.samestat(file.stat(), own):
                return True
        except (OSError, ValueError):  # what was given need not be a file's name
            continue
    return False


def _recorded(item: str) -> str:
    """The data that a score table or a model's audit says it was made of; empty where it says nothing."""
    from anoaudit.reports.reader import read

    if Path(item).suffix.lower() in TABLES and not _is_score_table(Path(item)):
        return ""
    try:
        return read(Path(item)).summary.source
    except AnoauditError:
        return ""


def _is_score_table(path: Path) -> bool:
    try:
        return path.suffix.lower() in TABLES and COLUMNS.keys() <= set(columns_of(path))
    except AnoauditError:
        return False
