"""What there is to mix: normal items and a pool of anomalies, as positions in the sources they come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anoaudit.contamination import tables
from anoaudit.contamination.draw import Positions
from anoaudit.data.image_table import ImageTable
from anoaudit.data.images import ImageFolder
from anoaudit.data.items import UNLABELLED, Chunk, TableSpec
from anoaudit.data.labels import Labels, open_labels
from anoaudit.data.rows import ARROW
from anoaudit.data.source import open_dataset
from anoaudit.data.tables import SCAN_ROWS, ColumnOptions, TableFiles
from anoaudit.errors import AuditError, UsageError

Source = ImageFolder | TableFiles


@dataclass(frozen=True)
class Pools:
    """Normals and anomalies as positions in their sources; the sources are one and the same under --truth."""

    data: Source
    other: Source | None
    normals: Positions
    anomalies: Positions
    anomaly_ids: list[str]  # of `anomalies`, one each
    unlabelled: int = 0
    truth: Labels | None = None


def two_sources(data: str, anomalies: str) -> Pools:
    """Mode --with: all of DATA is normal, all of ANOMALIES the pool."""
    first, second = open_source(data), open_source(anomalies)
    if isinstance(first, ImageFolder) != isinstance(second, ImageFolder):
        kinds = {True: "images", False: "a table"}
        mine, theirs = (kinds[isinstance(source, ImageFolder)] for source in (first, second))
        raise UsageError(
            f"{data} holds {mine} and {anomalies} {theirs}", "mix images with images and tables with tables"
        )
    if isinstance(first, TableFiles) and isinstance(second, TableFiles):
        _check_columns(first, second)
    normal_files = {path.resolve() for path in files_of(first)}
    both = next((path for path in files_of(second) if path.resolve() in normal_files), None)
    if both is not None:
        raise UsageError(f"{both} is in DATA and in ANOMALIES", "keep them apart, or tell them apart with --truth")
    ids = second.ids if isinstance(second, ImageFolder) else [item for chunk in _walk(second) for item in chunk.ids]
    if len(first) == 0:
        raise AuditError(f"{data} has no rows", "give normal data to mix the anomalies into")
    return Pools(first, second, np.arange(len(first)), np.arange(len(ids)), ids)


def separate(data: str, truth: str, id_column: str | None = None) -> Pools:
    """Mode --truth: DATA is taken apart by what is known about its items."""
    source = open_source(data, truth, ColumnOptions(id_column=id_column))
    if isinstance(source, ImageFolder):
        labels = open_labels(truth)
        labels.translate(source.root, set(source.ids))
        values = labels.of(source.ids)
        anomaly_ids = [item for item, value in zip(source.ids, values, strict=True) if value == 1]
    else:
        assert source.truth is not None
        labels, seen, anomaly_ids = source.truth, [np.empty(0, dtype=np.int8)], []
        for chunk in _walk(source):
            seen.append(chunk.truth)
            anomaly_ids += [item for item, value in zip(chunk.ids, chunk.truth, strict=True) if value == 1]
        values = np.concatenate(seen)
    labels.require_match()
    normals = np.flatnonzero(values == 0)
    if not len(normals):
        raise UsageError(f"{truth} marks no item of {data} as normal (0)", "label the normal items, too")
    return Pools(
        source, None, normals, np.flatnonzero(values == 1), anomaly_ids, int((values == UNLABELLED).sum()), labels
    )


def open_source(data: str, truth: str | None = None, options: ColumnOptions | None = None) -> Source:
    """Images or a table. Raises UsageError for videos, AuditError for a table in which a name is given twice."""
    source = open_dataset(data, options or ColumnOptions(), truth=truth)
    if not isinstance(source, ImageFolder | TableFiles):
        what = "a table of images" if isinstance(source, ImageTable) else "videos"
        raise UsageError(f"{data} holds {what}; contaminate takes folders of images, or tables", "give such a folder")
    if isinstance(source, TableFiles) and source.files[0].suffix.lower() in ARROW:
        raise UsageError(f"{data} is an Arrow file; contaminate takes Parquet and CSV", "convert it")
    if isinstance(source, TableFiles) and len(set(source.columns)) < len(source.columns):
        twice = next(name for name in source.columns if source.columns.count(name) > 1)
        raise AuditError(f"{data} has two columns named {twice!r}", "rename one of them")
    return source


def _check_columns(first: TableFiles, second: TableFiles) -> None:
    for mine, theirs in ((first, second), (second, first)):
        odd = next((name for name in mine.columns if name not in theirs.columns), None)
        if odd is not None:
            raise UsageError(
                f"{mine.source} has a column {odd!r} and {theirs.source} has not", "mix tables of the same columns"
            )
    if tables.form_of(first.files) != tables.form_of(second.files):
        raise UsageError(f"{first.source} and {second.source} are not both Parquet or both CSV", "convert one of them")


def _walk(source: TableFiles) -> Iterator[Chunk]:
    """Ids and truth only: a specification without columns reads no features."""
    return source.chunks(TableSpec(columns=()), SCAN_ROWS)


def files_of(source: Source) -> list[Path]:
    """The files that a source was read from."""
    return source.paths if isinstance(source, ImageFolder) else source.files


def truth_file(truth: str) -> tuple[Path, str | None]:
    """The file and the column of `FILE[:COLUMN]`, as `anoaudit.data.labels` finds them."""
    if Path(truth).is_file():
        return Path(truth), None
    file, _, column = truth.rpartition(":")
    return Path(file), column
