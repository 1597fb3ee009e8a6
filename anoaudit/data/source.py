"""The door: a path becomes a dataset. Decides between images and tables by what is there."""

from __future__ import annotations

import glob
from pathlib import Path

from anoaudit.data import decoding, rows
from anoaudit.data.images import ImageFolder, scan
from anoaudit.data.items import Dataset
from anoaudit.data.labels import open_labels, split_spec
from anoaudit.data.tables import ColumnOptions, TableFiles
from anoaudit.errors import AuditError, UsageError


def open_dataset(
    data: str, options: ColumnOptions | None = None, truth: str | None = None, labels: str | None = None
) -> Dataset:
    """A folder of images, a Parquet or CSV file, a folder of them, or a glob pattern.

    A folder with any image in it is a folder of images (tables beside them are ignored and counted); a folder with both
    Parquet and CSV files is read as its Parquet files. Raises AuditError when there is nothing to audit and UsageError
    when the options do not fit.
    """
    options = options or ColumnOptions()
    root, paths, ignored = _find(data)
    given = {split_spec(spec)[0].resolve() for spec in (truth, labels) if spec}
    if len(paths) > 1:  # labels beside the data are no data
        paths = [path for path in paths if path.resolve() not in given]
    images = [path for path in paths if path.suffix.lower() in decoding.SUFFIXES]
    if images:
        if options.columns or options.exclude or options.id_column:
            raise UsageError(
                f"{data} holds images; --columns, --exclude and --id-column are for tables", "leave them out"
            )
        return ImageFolder(
            root,
            images,
            ignored + len(paths) - len(images),
            open_labels(truth) if truth else None,
            open_labels(labels) if labels else None,
        )
    tables = [path for path in paths if path.suffix.lower() == ".parquet"] or paths
    if not tables:
        kinds = ", ".join(sorted(decoding.SUFFIXES | rows.SUFFIXES))
        raise AuditError(f"{data} holds nothing to audit ({ignored} other files)", f"readable are {kinds}")
    return TableFiles(data, root, tables, options, truth, labels, ignored + len(paths) - len(tables))


def _find(data: str) -> tuple[Path, list[Path], int]:
    """The root that ids are relative to, the files of known kinds, and the number of others."""
    suffixes = decoding.SUFFIXES | rows.SUFFIXES
    path = Path(data)
    if path.is_dir():
        try:
            found, ignored = scan(path, suffixes)
        except OSError as error:
            raise AuditError(f"{data} cannot be read: {error.strerror}", "check the folder's permissions") from error
        return path, found, ignored
    if path.exists():
        if path.suffix.lower() not in suffixes:
            raise AuditError(f"{data} is neither an image nor a table", f"readable are {', '.join(sorted(suffixes))}")
        return (path if path.suffix.lower() in rows.SUFFIXES else path.parent), [path], 0
    matches = sorted(Path(match) for match in glob.glob(data, recursive=True))
    files = [match for match in matches if match.is_file()]
    if not files:
        raise AuditError(
            f"{data} does not exist", "give a folder, a file, or a quoted pattern such as 'logs/*.parquet'"
        )
    found = [file for file in files if file.suffix.lower() in suffixes]
    return _common_root(data), found, len(files) - len(found)


def _common_root(pattern: str) -> Path:
    """The fixed folders at the head of a pattern."""
    fixed = []
    for part in Path(pattern).parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return Path(*fixed) if fixed else Path()
