"""The model directory: written whole or not at all, and believed only after every byte has been checked.

`manifest.json`, `model.onnx`, `calibration.parquet` are required; `scores.parquet` and `README.md` may be deleted (they hold
ids of the training data). Nothing else is allowed in, no links either; the directory itself may be reached by one, and a new
model then takes the place of the directory, not of the link. A hash shows damage, not who wrote it: see the README on signing.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from anoaudit.errors import AuditError
from anoaudit.model.calibration import Calibration
from anoaudit.model.graph import HINT, check_graph, check_input
from anoaudit.model.manifest import MAX_BYTES, Manifest, parse_manifest

MANIFEST, GRAPH, CALIBRATION, SCORES, CARD = (
    "manifest.json",
    "model.onnx",
    "calibration.parquet",
    "scores.parquet",
    "README.md",
)
REQUIRED, OPTIONAL = (MANIFEST, GRAPH, CALIBRATION), (SCORES, CARD)
MAX_REFERENCE = 1_000_000  # scores in calibration.parquet; compressed, a small file could hold 10⁹ of them
CAPS = {MANIFEST: MAX_BYTES, GRAPH: 2 << 30, CALIBRATION: 64 << 20, SCORES: 16 << 30, CARD: 1 << 20}


@dataclass(frozen=True)
class Model:
    """A checked model: the manifest, the hashed bytes of the graph, the calibration."""

    path: Path
    manifest: Manifest
    graph: bytes
    calibration: Calibration

    @property
    def hash(self) -> str:
        """SHA-256 of the graph: the detector's identity, the same for the same seed on the same machine."""
        return self.manifest.files[GRAPH]

    def identity(self) -> dict[str, str]:
        """The `model` of a report's summary."""
        return {"name": self.path.name, "method": self.manifest.method, "hash": self.hash}


def is_model(path: Path) -> bool:
    """Whether this is a model's directory, sound or not: its main files are there."""
    return (path / MANIFEST).is_file() and (path / GRAPH).is_file()


def strangers(path: Path) -> list[str]:
    """What lies in a model's directory and is no part of a model: it must not vanish with it."""
    return sorted(set(os.listdir(path)) - {*REQUIRED, *OPTIONAL})


def load_model(path: Path) -> Model:
    """Read and check a model directory. Raises AuditError with one line on anything wrong."""
    try:
        if not path.exists():
            raise AuditError(f"{path} does not exist", "give the directory that `anoaudit fit` wrote")
        if not path.is_dir():
            raise AuditError(f"{path} is not a model directory", "give the directory that `anoaudit fit` wrote")
        _check_entries(path)
        manifest = parse_manifest((path / MANIFEST).read_bytes(), str(path / MANIFEST))
        listed = set(manifest.files)
        if not {GRAPH, CALIBRATION} <= listed <= {GRAPH, CALIBRATION, *OPTIONAL}:
            raise AuditError(f"{path / MANIFEST} lists the wrong files", HINT)
        for name in OPTIONAL:
            if (path / name).exists():
                _check_hash(_digest(path / name), name, manifest)
        graph = (path / GRAPH).read_bytes()
        _check_hash(hashlib.sha256(graph).hexdigest(), GRAPH, manifest)
        calibration_bytes = (path / CALIBRATION).read_bytes()
        _check_hash(hashlib.sha256(calibration_bytes).hexdigest(), CALIBRATION, manifest)
    except OSError as error:
        raise AuditError(
            f"{path} cannot be read: {error.strerror or error}", "check the directory's permissions"
        ) from error
    check_input(check_graph(graph, manifest.outputs), manifest.input)
    return Model(path=path, manifest=manifest, graph=graph, calibration=_read_calibration(calibration_bytes, manifest))


def _check_entries(path: Path) -> None:
    present = {entry.name: entry for entry in os.scandir(path)}
    if MANIFEST not in present:
        raise AuditError(
            f"{path} is not a model: {MANIFEST} is missing", "give the directory that `anoaudit fit` wrote"
        )
    for name, entry in sorted(present.items()):
        if entry.is_symlink():
            raise AuditError(f"{path}: {name!r} is a link; a model holds plain files only", HINT)
        if name not in REQUIRED and name not in OPTIONAL:
            raise AuditError(
                f"{path}: {name!r} does not belong in a model directory",
                "remove it, or check where the model came from",
            )
        if not entry.is_file(follow_symlinks=False):
            raise AuditError(f"{path}: {name} is not a file", HINT)
        if entry.stat().st_size > CAPS[name]:
            raise AuditError(f"{path}: {name} is larger than a model's may be ({CAPS[name] >> 20} MiB)", HINT)
    for name in REQUIRED:
        if name not in present:
            raise AuditError(
                f"{path} is not a model: {name} is missing", "give the directory that `anoaudit fit` wrote"
            )


def _check_hash(digest: str, name: str, manifest: Manifest) -> None:
    if manifest.files.get(name) != digest:
        raise AuditError(f"{name} is not the file that the manifest describes (its hash differs)", HINT)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_calibration(data: bytes, manifest: Manifest) -> Calibration:
    try:
        scores = _reference(data)
        if manifest.calibration.get("n") != len(scores):
            raise ValueError(f"it holds {len(scores)} scores")
        return Calibration.from_json(manifest.calibration, scores)
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise AuditError(f"{CALIBRATION} does not fit the manifest: {reason}", HINT) from error


def _reference(data: bytes) -> npt.NDArray[np.float64]:
    """Batch by batch with pyarrow: polars panics on some damaged files, which no `except Exception` sees."""
    parts, held = [np.empty(0)], 0
    with pq.ParquetFile(io.BytesIO(data)) as file:
        if "score" not in file.schema_arrow.names:
            raise ValueError("it has no column 'score'")
        for batch in file.iter_batches(columns=["score"]):
            column = batch.column(0)
            if not pa.types.is_float64(column.type) or column.null_count:
                raise ValueError("a score is not a number")
            parts.append(column.to_numpy(zero_copy_only=False))
            held += len(column)
            if held > MAX_REFERENCE:
                raise ValueError(f"it holds more than {MAX_REFERENCE} scores")
    scores = np.concatenate(parts)
    if not np.isfinite(scores).all():
        raise ValueError("a score is not finite")
    return scores


def write_model(
    path: Path,
    manifest: Manifest,
    graph: bytes,
    calibration: Calibration,
    scores: Path | None = None,
    card: str | None = None,
) -> Model:
    """Write a model under a temporary name, load it back as a stranger would, then rename. Replaces what is at `path`.

    Raises AuditError when the disk is full or not writable; then `path` is as it was.
    """
    path = Path(os.path.realpath(path))
    with writing_directory(path) as folder:
        (folder / GRAPH).write_bytes(graph)
        # Not by polars, whose error on a full disk is no OSError.
        reference = pa.table({"score": pa.array(calibration.reference, pa.float64())})
        pq.write_table(reference, folder / CALIBRATION, compression="zstd")
        if scores is not None:
            shutil.copyfile(scores, folder / SCORES)
        if card is not None:
            (folder / CARD).write_text(card, encoding="utf-8")
        files = {
            name: _digest(folder / name) for name in (GRAPH, CALIBRATION, SCORES, CARD) if (folder / name).exists()
        }
        final = replace(manifest, files=files, calibration=calibration.to_json())
        (folder / MANIFEST).write_text(final.dumps(), encoding="utf-8")
        load_model(folder)
    return load_model(path)


@contextlib.contextmanager
def writing_directory(path: Path, option: str = "-o") -> Iterator[Path]:
    """A new folder beside `path` that takes its place when the block ends well, and vanishes when it does not.

    `option` is the one that names the place. Raises AuditError when the disk is full or not writable.
    """
    path = Path(os.path.realpath(path))  # through a link: what it names is replaced, not the link
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The name is short and not made from the destination's, which may already be as long as names can be.
        folder = Path(tempfile.mkdtemp(prefix=".anoaudit-", dir=path.parent))
    except OSError as error:
        raise AuditError(
            f"{path} cannot be written: {error.strerror or error}", f"choose another place with {option}"
        ) from error
    try:
        yield folder
        folder.chmod(0o755)
        _take_place(folder, path)
    except OSError as error:
        raise AuditError(
            f"{path} cannot be written: {error.strerror or error}",
            f"free some space, or choose another place with {option}",
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _take_place(folder: Path, path: Path) -> None:
    if not path.exists():
        folder.rename(path)
        return
    old = folder.with_name(folder.name + ".old")
    path.rename(old)
    try:
        folder.rename(path)
    except BaseException:
        old.rename(path)
        raise
    if old.is_dir():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.unlink(missing_ok=True)
