"""Data in, the same data with a known share of anomalies out and the truth beside it: what `anoaudit contaminate` does.

All normal items are kept, anomalies are drawn until they make up the ratio, everything is shuffled. Images keep their
names, so names and sub-folders may tell the label: harmless, since paths are never features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from anoaudit.contamination import images, tables
from anoaudit.contamination.convert import in_form
from anoaudit.contamination.corrupt import corrupt_dataset
from anoaudit.contamination.draw import Draw, draw
from anoaudit.contamination.place import Input, Target, check, staged, target_for
from anoaudit.contamination.pools import Pools, files_of, separate, truth_file, two_sources
from anoaudit.contamination.result import Mixture, source_json, write_manifest
from anoaudit.data.images import ImageFolder, item_id
from anoaudit.data.labels import notes_of
from anoaudit.data.tables import TableFiles
from anoaudit.errors import AuditError, UsageError


def contaminate(
    data: str,
    out: Path,
    *,
    ratio: float,
    anomalies: str | None = None,
    truth: str | None = None,
    seed: int = 0,
    with_replacement: bool = False,
    force: bool = False,
    id_column: str | None = None,
    corrupt: Sequence[str] = (),
    severity: int = 3,
    columns: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> Mixture:
    """Mix anomalies into normal data so that they make up `ratio` of the result, as near as whole items allow.

    Either `anomalies` is given (a second source; all of `data` is normal) or `truth` (`COLUMN|FILE[:COLUMN]`; the
    items of `data` with 0 are normal, those with 1 the pool, others are left out), or `corrupt`: kinds of faults, with which
    items of `data` are damaged at a `severity` of 1 to 5 (see `anoaudit.contamination.corrupt`; `columns` and `exclude` say
    which ones of a table may be touched). `out` is a folder for images and a
    `.parquet` or `.csv` file, whichever `data` is, for tables; a truth column is taken out of the table. The same seed and
    inputs give the same bytes. Raises UsageError (options that cannot be meant) or AuditError (unreadable data,
    nowhere to write).
    """
    if (anomalies is not None) + (truth is not None) + bool(corrupt) != 1:
        raise UsageError(
            "contaminate takes one of --with, --truth and --corrupt",
            "--with ANOMALIES, --truth COLUMN|FILE[:COLUMN], or --corrupt KIND",
        )
    if not 0 <= ratio < 1:
        raise UsageError(f"a ratio of {ratio:g} is not possible", "give a share of at least 0 and below 1, such as 0.1")
    if seed < 0:
        raise UsageError(f"a seed of {seed} is not possible", "give 0 or more")
    out = Path(out)
    if corrupt:
        if id_column is not None:
            raise UsageError(
                "--corrupt has no use for --id-column",
                f"leave it out: the labels go by row number; --exclude {id_column} keeps that column as it is",
            )
        if with_replacement:
            raise UsageError("--corrupt has no use for --with-replacement", "leave it out")
        return corrupt_dataset(data, out, corrupt, ratio, severity, seed, force, columns, exclude)
    if columns or exclude:
        raise UsageError("--columns and --exclude are for --corrupt", "leave them out")
    try:
        pools = separate(data, truth, id_column) if truth is not None else two_sources(data, anomalies or "")
        inputs = [Input("DATA", data, files_of(pools.data))]
        if pools.other is not None:
            inputs.append(Input("ANOMALIES", anomalies or "", files_of(pools.other)))
        if pools.truth is not None and pools.truth.column is None:
            inputs.append(Input("--truth", truth or "", [truth_file(truth or "")[0]]))
        target = _target(out, pools)
        check(target, inputs, force)
        drawn = draw(len(pools.normals), len(pools.anomalies), ratio, seed, with_replacement)
        given = _inputs_json(pools)
    except OSError as error:
        where = error.filename or data
        raise AuditError(f"{where} cannot be read: {error.strerror or error}", "check its permissions") from error
    normals, k = len(pools.normals), len(drawn.anomalies)
    shown = Target.folder(out) if pools.data.kind == "images" else Target.file(out)
    mixture = Mixture(
        path=shown.out,
        labels=shown.labels,
        manifest=shown.manifest,
        kind=pools.data.kind,
        normals=normals,
        anomalies=k,
        ratio=k / (normals + k),
        asked=float(ratio),
        pool=len(pools.anomalies),
        unlabelled=pools.unlabelled,
        replacement=with_replacement,
        notes=_notes(pools),
    )
    with staged(target, force) as fresh:
        if mixture.kind == "images":
            ids, emptied = _write_images(pools, drawn, fresh)
            mixture = replace(mixture, emptied=emptied)
        else:
            ids = _write_table(pools, drawn, fresh)
        _write_labels(fresh, "path" if mixture.kind == "images" else "id", ids, drawn, normals)
        chosen = [
            {"source": pools.anomaly_ids[drawn.anomalies[entry - normals]], "id": item}
            for entry, item in zip(drawn.order.tolist(), ids, strict=True)
            if entry >= normals
        ]
        write_manifest(fresh, mixture, seed, given, chosen)
    return mixture


def _notes(pools: Pools) -> tuple[str, ...]:
    """What of the truth and the data did not meet."""
    notes = notes_of(pools.truth)
    if pools.unlabelled:
        notes += (f"left out, as the truth says nothing of them: {pools.unlabelled:,} of {len(pools.data):,} items",)
    return notes


def _target(out: Path, pools: Pools) -> Target:
    if isinstance(pools.data, TableFiles) and not _columns(pools):
        raise UsageError(f"{pools.data.source} has no column but the truth", "give data with features")
    return target_for(out, None if isinstance(pools.data, ImageFolder) else tables.form_of(pools.data.files))


def _columns(pools: Pools) -> list[str]:
    assert isinstance(pools.data, TableFiles)
    truth = pools.truth.column if pools.truth is not None else None
    return [name for name in pools.data.columns if name != truth]


def _write_images(pools: Pools, drawn: Draw, target: Target) -> tuple[list[str], tuple[tuple[str, str], ...]]:
    """Copy the files; returns the ids in the mixture's order, and those of unreadable files with their reasons."""
    pool = pools.data if pools.other is None else pools.other
    assert isinstance(pools.data, ImageFolder)
    assert isinstance(pool, ImageFolder)
    # Normals come first here, so that of two equal names it is theirs that stays.
    sources = [(pools.data.root, pools.data.paths[i]) for i in pools.normals]
    sources += [(pool.root, pool.paths[i]) for i in pools.anomalies[drawn.anomalies]]
    names = images.free_names(path.relative_to(root) for root, path in sources)
    target.out.mkdir()
    ids = [item_id(target.out / names[entry], target.out) for entry in drawn.order]
    reasons = [images.copy(sources[entry][1], target.out / names[entry]) for entry in drawn.order]
    return ids, tuple((item, reason) for item, reason in zip(ids, reasons, strict=True) if reason is not None)


def _write_table(pools: Pools, drawn: Draw, target: Target) -> list[str]:
    """Write the rows; returns the ids in the mixture's order."""
    assert isinstance(pools.data, TableFiles)
    chosen = pools.anomalies[drawn.anomalies]
    if isinstance(pools.other, TableFiles):
        parts = [tables.Part(pools.data.files, pools.normals), tables.Part(pools.other.files, chosen)]
    else:
        parts = [tables.Part(pools.data.files, np.concatenate([pools.normals, chosen]))]
    with in_form(tables.form_of(pools.data.files), target.out) as place:
        tables.write(parts, drawn.order, _columns(pools), place)
    return [str(i) for i in range(len(drawn.order))]


def _write_labels(target: Target, key: str, ids: list[str], drawn: Draw, normals: int) -> None:
    with target.labels.open("w", encoding="utf-8", newline="") as file:
        file.write(tables.header_line([key, "anomaly"], ","))
        for entry, item in zip(drawn.order.tolist(), ids, strict=True):
            file.write(tables.csv_line([item, str(int(entry >= normals))]))


def _inputs_json(pools: Pools) -> dict[str, Any]:
    """What was read, by name and hash: no folders, so that the file is the same on every machine."""
    given: dict[str, Any] = {"data": source_json(pools.data), "anomalies": None, "truth": None}
    if pools.other is not None:
        given["anomalies"] = source_json(pools.other)
    if pools.truth is not None and pools.truth.column is not None:
        given["truth"] = {"column": pools.truth.column}
    elif pools.truth is not None:
        path, column = truth_file(pools.truth.spec)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        given["truth"] = {"file": path.name, "column": column, "fingerprint": digest}
    return given
