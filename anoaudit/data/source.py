"""The door: a path becomes a dataset. Decides between images, videos and tables by what is there."""

from __future__ import annotations

import glob
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from anoaudit.data import clips, decoding, rows
from anoaudit.data.image_table import ImageTable, image_column
from anoaudit.data.images import ImageFolder, scan
from anoaudit.data.items import Dataset
from anoaudit.data.labels import open_labels, split_spec
from anoaudit.data.tables import ColumnOptions, TableFiles
from anoaudit.data.video import VideoFiles
from anoaudit.errors import AuditError, UsageError

FORMS = ({".parquet"}, rows.ARROW, {".csv", ".tsv"})
KNOWN = decoding.SUFFIXES | clips.SUFFIXES | rows.SUFFIXES


def open_dataset(
    data: str,
    options: ColumnOptions | None = None,
    truth: str | None = None,
    labels: str | None = None,
    fps: float | None = None,
    usual: Mapping[str, str] | None = None,
) -> Dataset:
    """A folder of images, a video, a Parquet or CSV file, a folder of them, or a glob pattern.

    A folder with any image in it is a folder of images, else one with any video is videos (other files in it are ignored
    and counted); a folder with tables of several formats is read as those of the first, Parquet before Arrow before CSV. A
    table with a column of pictures is images. `fps` samples so many frames a second of a video, and makes a folder of images
    a sequence of frames. `usual` names columns (`id`, `image`) that count where nothing else is asked for and the table has
    them. Raises AuditError when there is nothing to audit and UsageError when the options do not fit.
    """
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise UsageError(f"--fps {fps:g} is no rate", "give frames a second, for example 2 or 0.5")
    options = options or ColumnOptions()
    root, paths, ignored = _find(data)
    given = {split_spec(spec)[0].resolve() for spec in (truth, labels) if spec}
    if len(paths) > 1:  # labels beside the data are no data
        paths = [path for path in paths if path.resolve() not in given]
    images = [path for path in paths if path.suffix.lower() in decoding.SUFFIXES]
    videos = [path for path in paths if path.suffix.lower() in clips.SUFFIXES]
    seen = images or videos
    if seen:
        if options != ColumnOptions():
            what = "images" if images else "videos"
            raise UsageError(
                f"{data} holds {what}; --columns, --exclude, --id-column and --image-column are for tables",
                "leave them out",
            )
        ignored += len(paths) - len(seen)
        known = (open_labels(truth) if truth else None, open_labels(labels) if labels else None)
        return (
            ImageFolder(root, seen, ignored, *known, fps)
            if images
            else VideoFiles(data, root, seen, ignored, *known, fps)
        )
    if fps is not None and paths:
        raise UsageError(f"{data} is a table; --fps is for videos and folders of frames", "leave it out")
    by_form = ([path for path in paths if path.suffix.lower() in form] for form in FORMS)
    tables = next((some for some in by_form if some), [])
    if not tables:
        raise AuditError(
            f"{data} holds nothing to audit ({ignored} other {'file' if ignored == 1 else 'files'})",
            f"readable are {', '.join(sorted(KNOWN))}",
        )
    known_columns = {role: name for role, name in (usual or {}).items() if name in rows.columns_of(tables[0])}
    options = replace(
        options,
        id_column=options.id_column or known_columns.get("id"),
        image_column=options.image_column or known_columns.get("image"),
    )
    table = TableFiles(data, root, tables, options, truth, labels, ignored + len(paths) - len(tables))
    if options.columns or options.exclude:  # then its rows are meant, whatever else is in it
        if options.image_column is not None:
            raise UsageError("--image-column leaves no use for --columns and --exclude", "leave them out")
        return table
    column = image_column(table, options.image_column)
    return table if column is None else ImageTable(table, column)


def _find(data: str) -> tuple[Path, list[Path], int]:
    """The root that ids are relative to, the files of known kinds, and the number of others."""
    path = Path(data)
    if path.is_dir():
        try:
            found, ignored = scan(path, KNOWN)
        except OSError as error:
            raise AuditError(f"{data} cannot be read: {error.strerror}", "check the folder's permissions") from error
        return path, found, ignored
    if path.exists():
        if path.suffix.lower() not in KNOWN:
            raise AuditError(f"{data} is neither image, video nor table", f"readable are {', '.join(sorted(KNOWN))}")
        return (path if path.suffix.lower() in rows.SUFFIXES else path.parent), [path], 0
    matches = sorted(Path(match) for match in glob.glob(data, recursive=True))
    files = [match for match in matches if match.is_file()]
    if not files:
        raise AuditError(
            f"{data} does not exist", "give a folder, a file, or a quoted pattern such as 'logs/*.parquet'"
        )
    found = [file for file in files if file.suffix.lower() in KNOWN]
    return _common_root(data), found, len(files) - len(found)


def _common_root(pattern: str) -> Path:
    """The fixed folders at the head of a pattern."""
    fixed = []
    for part in Path(pattern).parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return Path(*fixed) if fixed else Path()
