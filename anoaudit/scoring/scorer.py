"""Items through a model to a score table, in memory that grows with the data by some tens of bytes a row only.

Two passes: scores spool to a Parquet file, then all are ranked and decided and the final table is written. A fixed threshold
could stream; it takes the same road, for a list without ranks cannot be sorted (our choice).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from anoaudit.data.items import UNLABELLED, Chunk, Dataset, InputSpec, TableSpec
from anoaudit.errors import AuditError
from anoaudit.model.calibration import Calibration
from anoaudit.model.session import Session, batch_of
from anoaudit.scoring.decisions import Rule, decide, parse_count, ranks, remarks
from anoaudit.scoring.maps import on_pictures
from anoaudit.scoring.table import READABLE, UNREADABLE, ScoreTable, ScoreTableWriter, Summary
from anoaudit.scoring.why import explain_maps, explain_rows

Progress = Callable[[int], None]  # called with the number of items done so far


@dataclass(frozen=True)
class Limit:
    """`--max-unreadable N|P%`."""

    count: int | None = None
    share: float | None = 5.0

    def exceeded(self, unreadable: int, rows: int) -> bool:
        """Whether so many unreadable items of so many are too many."""
        if self.count is not None:
            return unreadable > self.count
        return 100.0 * unreadable > (self.share or 0.0) * rows

    def __str__(self) -> str:
        return str(self.count) if self.count is not None else f"{self.share:g}%"


def parse_limit(text: str) -> Limit:
    """`--max-unreadable N|P%`. Raises UsageError."""
    return Limit(*parse_count("--max-unreadable", text))


def score_dataset(
    dataset: Dataset,
    session: Session,
    spec: InputSpec,
    out: Path,
    calibrate: Callable[[npt.NDArray[np.float64]], Calibration],
    rule: Rule,
    given: Collection[str],
    model: dict[str, str],
    notes: tuple[str, ...] = (),
    progress: Progress | None = None,
    contamination: dict[str, Any] | None = None,
    command: dict[str, Any] | None = None,
) -> ScoreTable:
    """Score every item and write the score table to `out` (Parquet).

    `calibrate` gets all scores and returns the normal reference: the model's own for `score`, a null fitted to these scores
    for the audit. `given` names what else the table shall carry of what the data was opened with: `truth`, `label`. `model`,
    `notes`, `contamination` and `command` go into the summary. Raises AuditError when there is no item or no room to write.
    """
    with _temporary_folder() as folder:
        scores: list[npt.NDArray[np.float64]] = []
        ids: list[npt.NDArray[np.uint64]] = []  # hashed
        done = unreadable = 0
        optional = {*given, *(["time"] if dataset.timed else [])}
        with finished_table(folder / "spool.parquet", optional) as spool:
            for chunk in _chunks(dataset, spec):
                frame, found = _score_chunk(chunk, session, spec)
                spool.write(frame)
                scores.append(found)
                ids.append(frame["id"].hash().to_numpy())
                done += len(chunk)
                unreadable += len(chunk) - len(found)
                if progress is not None:
                    progress(done)
            if done == 0:
                raise AuditError(f"{dataset.source} has no items", "give data with at least one row or image")
            spool.close(Summary())
        spooled = ScoreTable.open(folder / "spool.parquet")
        summary = Summary(
            source=dataset.source,
            kind=dataset.kind,
            rows=done,
            readable=done - unreadable,
            unreadable=unreadable,
            ignored=dataset.ignored,
            columns=getattr(dataset, "named", {}),
            provider=session.provider,
            fingerprint=_fingerprint(dataset),
            model=model,
            contamination=contamination or {},
            command=command or {},
            notes=(
                *notes,
                *dataset.label_notes(),
                *_of_repeated(spooled, np.concatenate(ids)),
                *filter(None, [session.note]),
            ),
        )
        return _decide(spooled, np.concatenate(scores), out, calibrate, rule, summary)


def _of_repeated(spooled: ScoreTable, hashes: npt.NDArray[np.uint64]) -> list[str]:
    """A note on ids that several items have: what is joined on them reaches all of these."""
    distinct, counts = np.unique(hashes, return_counts=True)
    repeated = pl.Series(distinct[counts > 1])
    if not len(repeated):
        return []
    found = (frame["id"].filter(frame["id"].hash().is_in(repeated.implode())) for frame in spooled.batches())
    example = next(ids[0] for ids in found if len(ids))
    several = f"{len(repeated):,} ids are each those of" if len(repeated) > 1 else "one id is that of"
    return [f"{several} more than one item (the first is {example!r}): truth and labels cannot tell these apart"]


def _score_chunk(chunk: Chunk, session: Session, spec: InputSpec) -> tuple[pl.DataFrame, npt.NDArray[np.float64]]:
    """Undecided rows of a chunk, and the scores of the readable ones."""
    readable = chunk.readable
    reasons = list(chunk.reasons)
    values, why = np.full(len(chunk), np.nan), np.full(len(chunk), None, dtype=object)
    if readable.any():
        raw, more = session.run(chunk.values)
        values[readable] = raw.astype(np.float64)
        if isinstance(spec, TableSpec):
            why[readable] = explain_rows(chunk.values, spec, more)
        elif more is not None:
            why[readable] = explain_maps(on_pictures(more, chunk, spec))
        for i in np.flatnonzero(readable & ~np.isfinite(values)):
            reasons[i], values[i], why[i] = "the model gives no finite score", np.nan, None
    ok = np.array([reason is None for reason in reasons], dtype=bool)
    frame = pl.DataFrame(
        {
            "id": chunk.ids,
            "status": [READABLE if fine else UNREADABLE for fine in ok],
            "reason": pl.Series(reasons, dtype=pl.String),
            "score": pl.Series(values).fill_nan(None),
            "p_value": pl.Series([None] * len(chunk), dtype=pl.Float64),
            "flagged": pl.Series([False] * len(chunk)),
            "rank": pl.Series([None] * len(chunk), dtype=pl.UInt32),
            "group": pl.Series(chunk.groups, dtype=pl.String),
            "why": pl.Series(why.tolist(), dtype=pl.String),
            "label": pl.Series(chunk.labels).replace(UNLABELLED, None),
            "truth": pl.Series(chunk.truth).replace(UNLABELLED, None),
        }
    )
    if chunk.times is not None:
        frame = frame.with_columns(time=pl.Series(chunk.times).fill_nan(None))
    return frame, values[ok]


def _decide(
    spooled: ScoreTable,
    scores: npt.NDArray[np.float64],
    out: Path,
    calibrate: Callable[[npt.NDArray[np.float64]], Calibration],
    rule: Rule,
    summary: Summary,
) -> ScoreTable:
    """The second pass: p-values, ranks and flags over all rows."""
    calibration = calibrate(scores)
    p_values = calibration.p_values(scores)
    flags = decide(rule, scores, p_values)
    places = ranks(scores)
    threshold = rule.threshold if rule.threshold is not None else (float(scores[flags].min()) if flags.any() else None)
    notes = summary.notes + ((calibration.note,) if calibration.note else ())
    notes += tuple(remarks(rule, calibration, p_values, flags))
    summary = replace(
        summary,
        flagged=int(flags.sum()),
        rule=rule.describe(calibration),
        threshold=threshold,
        calibration=calibration.to_json(),
        notes=notes,
    )
    with finished_table(out, spooled.optional) as writer:
        position = 0
        for frame in spooled.batches():
            ok = frame["status"].to_numpy() == READABLE
            part = slice(position, position + int(ok.sum()))
            position = part.stop
            writer.write(
                frame.with_columns(
                    p_value=_spread(ok, None if p_values is None else p_values[part], pl.Float64),
                    flagged=_spread(ok, flags[part], pl.Boolean).fill_null(False),
                    rank=_spread(ok, places[part], pl.UInt32),
                )
            )
        writer.close(summary)
    return replace(spooled, path=out, summary=summary)


@contextlib.contextmanager
def finished_table(out: Path, optional: Collection[str] = ()) -> Iterator[ScoreTableWriter]:
    """A writer to be closed within the block. Its file takes the place of `out` when the block ends well, and vanishes
    when it does not: then `out` is as it was. Raises AuditError when the disk is full or not writable.
    """
    target = Path(os.path.realpath(out))  # through a link: the file it names is replaced, not the link
    part = target.with_name(f".anoaudit-{secrets.token_hex(6)}.tmp")
    try:
        writer = ScoreTableWriter(part, optional)
    except OSError as error:
        raise AuditError(f"{out} cannot be written: {_reason(error)}", "choose another place with -o") from error
    try:
        yield writer
        os.replace(part, target)
    except BaseException as error:
        writer.abandon()
        if isinstance(error, OSError):
            hint = "free some space, or choose another place"
            raise AuditError(f"{out} cannot be written: {_reason(error)}", hint) from error
        raise


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    try:
        folder = tempfile.mkdtemp(prefix="anoaudit-")
    except OSError as error:
        raise AuditError(f"no temporary folder: {_reason(error)}", "set TMPDIR to a place with room") from error
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _chunks(dataset: Dataset, spec: InputSpec) -> Iterator[Chunk]:
    try:
        yield from dataset.chunks(spec, batch_of(spec))
    except OSError as error:
        raise AuditError(
            f"{dataset.source} cannot be read: {_reason(error)}", "check the files and the disk"
        ) from error


def _fingerprint(dataset: Dataset) -> str:
    try:
        return dataset.fingerprint()
    except OSError as error:
        hint = "leave the data as it is while it is audited"
        raise AuditError(f"{dataset.source} cannot be read again: {_reason(error)}", hint) from error


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


def _spread(ok: npt.NDArray[np.bool_], values: npt.NDArray[np.generic] | None, dtype: type[pl.DataType]) -> pl.Series:
    """Values of the readable rows at their places, null elsewhere."""
    if values is None:
        return pl.Series([None] * len(ok), dtype=dtype)
    places = np.full(len(ok), -1, dtype=np.int64)
    places[ok] = np.arange(int(ok.sum()))
    taken = (
        pl.Series(values, dtype=dtype).gather(pl.Series(np.maximum(places, 0), dtype=pl.UInt32))
        if len(values)
        else None
    )
    if taken is None:
        return pl.Series([None] * len(ok), dtype=dtype)
    return pl.select(pl.when(pl.Series(ok)).then(taken).otherwise(None)).to_series().cast(dtype)
