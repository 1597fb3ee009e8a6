"""Data in, the same data with some of its items damaged on purpose out: what `anoaudit contaminate --corrupt` does.

All of DATA counts as normal. So many of its readable items as make up the ratio are damaged, by the kinds in even shares;
everything else is as it was, in its place and under its name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from anoaudit.contamination import images, tables
from anoaudit.contamination.convert import in_form
from anoaudit.contamination.image_faults import FAULTS as IMAGE_FAULTS
from anoaudit.contamination.image_faults import save
from anoaudit.contamination.place import Input, check, staged, target_for
from anoaudit.contamination.pools import Source, files_of, open_source
from anoaudit.contamination.result import Mixture, source_json, write_manifest
from anoaudit.contamination.table_faults import DUPLICATE, KINDS, Columns, Edit, copies, duplicate
from anoaudit.contamination.table_faults import FAULTS as TABLE_FAULTS
from anoaudit.data.decoding import UnreadableImageError, read_picture
from anoaudit.data.images import ImageFolder
from anoaudit.data.items import TableSpec
from anoaudit.data.tables import ColumnOptions, TableFiles
from anoaudit.errors import AuditError, UsageError

CHUNK = 50_000
WHOLE = 1 << 20  # pixels a side: as large as the picture is


@dataclass(frozen=True)
class Damage:
    """What was done: the ids of all items in order, and the kind of fault of the damaged ones; None of an unreadable item."""

    ids: list[str]
    kinds: list[str | None]  # "" is untouched
    emptied: tuple[tuple[str, str], ...] = ()  # see Mixture

    @property
    def damaged(self) -> int:
        """How many items have a fault now."""
        return sum(bool(kind) for kind in self.kinds)

    @property
    def unreadable(self) -> int:
        """How many items could not be read in the first place."""
        return sum(kind is None for kind in self.kinds)


def corrupt_dataset(
    data: str, out: Path, kinds: Sequence[str], ratio: float, severity: int, seed: int, force: bool,
    columns: Sequence[str] = (), exclude: Sequence[str] = (),
) -> Mixture:  # fmt: skip
    """Damage `ratio` of the readable items of DATA and write all of it to `out`, the truth beside it.

    The same seed and inputs give the same bytes. Raises UsageError and AuditError as `contaminate` does.
    """
    try:
        source = open_source(data, options=ColumnOptions(tuple(columns), tuple(exclude)))
        pictures = isinstance(source, ImageFolder)
        check_kinds(kinds, severity, pictures)
        target = target_for(out, None if pictures else tables.form_of(files_of(source)))
        check(target, [Input("DATA", data, files_of(source))], force)
        given = {"data": source_json(source), "anomalies": None, "truth": None}
    except OSError as error:
        raise AuditError(
            f"{error.filename or data} cannot be read: {error.strerror or error}", "check its permissions"
        ) from error
    with staged(target, force) as fresh:
        if isinstance(source, ImageFolder):
            damage = damage_images(source, kinds, ratio, severity, seed, fresh.out)
        else:
            damage = damage_table(source, kinds, ratio, severity, seed, fresh.out)
        items = len(damage.ids) - damage.unreadable
        shown = target_for(out, None if pictures else out.suffix.lower())
        mixture = Mixture(
            path=out, labels=out / shown.labels.name if pictures else out.with_name(shown.labels.name),
            manifest=out / shown.manifest.name if pictures else out.with_name(shown.manifest.name),
            kind="images" if pictures else "table", normals=items - damage.damaged, anomalies=damage.damaged,
            ratio=damage.damaged / max(items, 1), asked=float(ratio), pool=items, unlabelled=damage.unreadable, replacement=False,
            emptied=damage.emptied,
        )  # fmt: skip
        with fresh.labels.open("w", encoding="utf-8", newline="") as file:
            file.writelines(_labels("path" if pictures else "id", damage, severity))
        chosen = [{"id": i, "kind": kind} for i, kind in zip(damage.ids, damage.kinds, strict=True) if kind]
        counts = {kind: damage.kinds.count(kind) for kind in kinds}
        write_manifest(fresh, mixture, seed, given, chosen, corrupt={"kinds": counts, "severity": severity})
    return mixture


def check_kinds(kinds: Sequence[str], severity: int, images: bool) -> None:
    """Raises UsageError for a kind that there is not for this data, or given twice, and for a severity out of range."""
    known = tuple(IMAGE_FAULTS) if images else KINDS
    odd = next((kind for kind in kinds if kind not in known), None)
    if odd is not None:
        what = "images" if images else "tables"
        raise UsageError(f"--corrupt {odd}: there is no such fault of {what}", f"there are {', '.join(known)}")
    if len(set(kinds)) < len(kinds):
        raise UsageError("--corrupt names a kind twice", "name each once")
    if not 1 <= severity <= 5:
        raise UsageError(f"a severity of {severity} is not possible", "give 1 (hardly visible) to 5 (drastic)")


def damaged_count(items: int, ratio: float) -> int:
    """So many of the items are nearest to the ratio; of two equally near numbers the smaller. Raises UsageError for none."""
    share = Fraction(repr(float(ratio)))
    low = int(share * items)
    count = min((low, low + 1), key=lambda k: abs(Fraction(k, items) - share)) if items else 0
    if ratio > 0 and count == 0:
        raise UsageError(
            f"a ratio of {ratio:g} of {items} readable items rounds to none at all",
            f"one is a ratio of {1 / items:.6g}" if items else "give data that can be read",
        )
    return count


def shares(count: int, kinds: Sequence[str], rng: np.random.Generator) -> list[str]:
    """The kinds in even shares and random order."""
    return [kinds[i % len(kinds)] for i in rng.permutation(count)]


def damage_images(data: ImageFolder, kinds: Sequence[str], ratio: float, severity: int, seed: int, out: Path) -> Damage:
    """Write the folder to `out`: damaged pictures in the format that they had, the others byte for byte."""
    rng = np.random.default_rng(seed)
    readable = np.array([_readable(path) for path in data.paths], dtype=bool)
    wanted = shares(damaged_count(int(readable.sum()), ratio), kinds, rng)
    candidates = rng.permutation(np.flatnonzero(readable)).tolist()
    names = images.free_names(path.relative_to(data.root) for path in data.paths)
    done: list[str | None] = ["" if fine else None for fine in readable]
    out.mkdir()
    for kind in wanted:
        for place, i in enumerate(candidates):
            before = read_picture(data.paths[i], WHOLE).pixels
            after = IMAGE_FAULTS[kind](before, severity, np.random.default_rng([seed, i]))
            if (after != before).any():  # a blurred plain surface, say, is no anomaly
                save(after, out / names[i])
                done[i] = kind
                del candidates[place]
                break
        else:
            raise _too_few(kind, data)
    ids = [os.fsencode(n.as_posix()).decode("utf-8", "backslashreplace") for n in names]
    reasons = {ids[i]: images.copy(data.paths[i], out / names[i]) for i, fault in enumerate(done) if not fault}
    return Damage(ids, done, tuple((item, reason) for item, reason in reasons.items() if reason is not None))


def _readable(path: Path) -> bool:
    try:
        read_picture(path, 8)
    except UnreadableImageError:
        return False
    return True


def damage_table(data: TableFiles, kinds: Sequence[str], ratio: float, severity: int, seed: int, out: Path) -> Damage:
    """Write the table to `out`: the same rows in the same order, some cells of some of them changed.

    Only the columns that `fit` would take as features are touched.
    """
    rng = np.random.default_rng(seed)
    spec = data.infer(seed)
    if not spec.columns:
        raise UsageError(f"{data.source} has no column to damage", "see --columns and --exclude")
    columns, rows, readable = _columns(data, spec)
    wanted = shares(damaged_count(len(rows), ratio), kinds, rng)
    chosen, faults = _edits(columns, wanted, severity, rng, data)
    places = [data.columns.index(rule.name) for rule in spec.columns]
    edits = [
        Edit(int(rows[e.row]), places[e.column], e.value, None if e.source is None else int(rows[e.source]))
        for e in chosen
    ]
    commas = {place for place, rule in zip(places, spec.columns, strict=True) if rule.format == ","}
    with in_form(tables.form_of(data.files), out) as place:
        tables.rewrite(data.files, data.columns, len(readable), edits, place, commas)
    done: list[str | None] = ["" if fine else None for fine in readable]
    for row, kind in faults.items():
        done[int(rows[row])] = kind
    return Damage([str(i) for i in range(len(readable))], done)


def _columns(data: TableFiles, spec: TableSpec) -> tuple[Columns, npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """The readable rows' features, their positions among all rows, and which of all rows are readable."""
    chunks = list(data.chunks(spec, CHUNK))
    readable = np.concatenate([chunk.readable for chunk in chunks])
    values = np.concatenate([chunk.values for chunk in chunks])
    numeric = np.array([rule.kind == "numeric" for rule in spec.columns])
    return Columns(values, numeric), np.flatnonzero(readable), readable


def _edits(
    columns: Columns, wanted: Sequence[str], severity: int, rng: np.random.Generator, data: Source
) -> tuple[list[Edit], dict[int, str]]:
    """What to change, and which row has which kind of fault. Rows that are copied from stay as they are."""
    candidates = rng.permutation(len(columns.values)).tolist()
    sources = [candidates.pop() for _ in range(-(-wanted.count(DUPLICATE) // copies(severity))) if candidates]
    edits: list[Edit] = []
    faults: dict[int, str] = {}
    copied = 0
    for kind in wanted:
        for place, row in enumerate(candidates):
            if kind == DUPLICATE:
                made = duplicate(row, sources[copied // copies(severity)], columns)
            else:
                made = TABLE_FAULTS[kind](row, columns, severity, rng)
            made = [edit for edit in made if columns.changes(edit)]
            if made:
                edits += made
                faults[row] = kind
                copied += kind == DUPLICATE
                del candidates[place]
                break
        else:
            raise _too_few(kind, data)
    return edits, faults


def _too_few(kind: str, data: Source) -> AuditError:
    return AuditError(f"--corrupt {kind} changes too few items of {data.source}", "lower --ratio, or name other kinds")


def _labels(key: str, damage: Damage, severity: int) -> Iterator[str]:
    """The lines of labels.csv: id, 1 or 0 or nothing of what cannot be read, and of damaged ones kind and severity."""
    yield tables.header_line([key, "anomaly", "kind", "severity"], ",")
    for item, kind in zip(damage.ids, damage.kinds, strict=True):
        anomaly = "" if kind is None else str(int(bool(kind)))
        yield tables.csv_line([item, anomaly, kind or "", str(severity) if kind else ""])
