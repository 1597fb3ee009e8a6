"""What `report` shows beside the score table: opens the data and the model again, and hands pictures and maps to the reports.

A part of `api.report`; like all of scoring it never imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anoaudit.errors import AnoauditError, AuditError, UsageError
from anoaudit.progress import Reporter

if TYPE_CHECKING:
    from anoaudit.data.items import Dataset
    from anoaudit.model.artefact import Model
    from anoaudit.scoring.maps import Mapped, Mask
    from anoaudit.scoring.table import ScoreTable


@dataclass(frozen=True)
class Scored:
    """A score table, where it was read, the model that scored it (None when it is not given), `--data` and `--truth`."""

    table: ScoreTable
    path: Path
    model: Model | None
    data: str | None
    truth: str | None = None

    @property
    def audit(self) -> bool:
        """Whether it is the audit that `fit` wrote into the model."""
        return self.path.is_dir()


def scored(
    table: ScoreTable, path: Path, model: str | Path | None, data: str | Path | None, truth: str | None = None
) -> Scored:
    """The table with its model: the one given, or the one whose audit the table is. Raises UsageError on another model."""
    from anoaudit.model.artefact import load_model

    place = Path(model) if model is not None else path if path.is_dir() else None
    if place is None:
        return Scored(table, path, None, None if data is None else str(data), truth)
    loaded = load_model(place)
    known = str(table.summary.model.get("hash") or loaded.hash)
    if known != loaded.hash:
        raise UsageError(
            f"{path} was not scored by {place} but by another model (its graph is {known[:12]}, not {loaded.hash[:12]})",
            "give the model that scored it with --model",
        )
    return Scored(table, path, loaded, None if data is None else str(data), truth)


def write_maps(given: Scored, out: Path, top: int | None, force: bool, reporter: Reporter) -> None:
    """Heat maps of the worst images into the folder `out`. Raises UsageError and AuditError."""
    from anoaudit.model.artefact import writing_directory
    from anoaudit.outputs import keep_inputs_out_of
    from anoaudit.reports import mapfiles, words
    from anoaudit.scoring.maps import changed, marked, pictures, worst

    model = _with_maps(given)
    rows = worst(given.table, top)
    if not rows.height:
        raise AuditError("no item is left to draw", "no item is readable, or --top is 0")
    dataset = _open(given)
    keep_inputs_out_of(out, "--maps", (given.path, model.path, given.data, given.truth))
    _check_folder(out, dataset, force)
    only = marked(dataset, given.table, rows["id"])
    scores: dict[str, float] = {}
    with writing_directory(out, "--maps") as folder:
        found = _run(dataset, model, only, set(rows["id"]), scores, reporter)
        written, scale = mapfiles.write_maps(folder, rows, found, pictures(dataset, only, mapfiles.LONGEST))
        if not written:
            raise AuditError(
                f"none of the {rows.height} worst images can be read in {dataset.source}",
                "give the data that was scored with --data: ids are paths relative to it",
            )
    reporter.note(f"{written} heat maps written to {out}: {mapfiles.legend(scale)}")
    if written < rows.height:
        missing = words.plural(rows.height - written, "image")
        reporter.note(f"{missing} could not be read; {mapfiles.INDEX} says why")
    _say_changed(changed(scores, rows), reporter)


def write_html(given: Scored, out: Path, top: int | None, reporter: Reporter) -> None:
    """The report as one HTML file. Raises UsageError and AuditError; a source that is gone is only said."""
    from anoaudit.provenance import provenance
    from anoaudit.reports import gallery as pictured
    from anoaudit.reports import html
    from anoaudit.scoring.maps import changed, marked, pictures

    table = given.table
    gallery = None
    maps_there = given.model is not None and "map" in given.model.manifest.outputs
    if table.summary.kind == "images" or maps_there or (not table.summary.kind and given.data is not None):
        rows = table.top(pictured.shown(table.summary.flagged, top))
        try:
            dataset = _open(given)
            only = marked(dataset, table, rows["id"])
        except AuditError as error:
            if given.data is not None:
                raise
            gallery = pictured.Gallery(rows, note=f"No pictures: {error.message}.")
            reporter.note(f"no pictures: {error.message} ({error.hint})")
        else:
            scores: dict[str, float] = {}
            maps = {}
            if given.model is not None and maps_there:
                for item in _run(dataset, given.model, only, set(rows["id"]), scores, reporter):
                    if item.map is not None:
                        maps[item.id] = item.map
            side = pictured.longest_side(rows.height)
            gallery = pictured.Gallery(rows, pictures(dataset, only, side), maps)
            _say_changed(changed(scores, rows), reporter)
    html.write_html(table, out, gallery, provenance(given, out, top))
    reporter.note(f"report written to {out}")


def _with_maps(given: Scored) -> Model:
    if given.model is None:
        raise UsageError("--maps runs the model again", "give the model that scored the data with --model")
    if "map" not in given.model.manifest.outputs:
        raise UsageError(
            f"{given.model.path} gives scores only, no maps", "maps come from models of images with spatial features"
        )
    return given.model


def _open(given: Scored) -> Dataset:
    """The data that was scored: from `--data`, else from where it was then. Raises AuditError naming --data."""
    from anoaudit.data.source import open_dataset

    data = given.model.manifest.data if given.model is not None else {}
    roles = {role: str(data[f"{role}_column"]) for role in ("id", "image") if data.get(f"{role}_column")}
    usual = roles | given.table.summary.columns
    if given.data is not None:
        dataset = open_dataset(given.data, usual=usual)
        if dataset.kind != "images":
            raise AuditError(f"--data {given.data} holds no images", "give the folder that was scored")
        return dataset
    source = given.table.summary.source
    if not source:
        raise AuditError(f"{given.path} does not say where the images are", "give them with --data DATA")
    hint = "give the place where it is now with --data DATA"
    if not Path(source).exists():
        raise AuditError(f"{source}, which was scored, is not there any more", hint)
    try:
        dataset = open_dataset(source, usual=usual)
    except AnoauditError as error:
        raise AuditError(error.message, hint) from error
    if dataset.kind != "images":
        raise AuditError(f"{source} holds no images any more", hint)
    return dataset


def _run(
    dataset: Dataset, model: Model, only: Mask, ids: set[str], scores: dict[str, float], reporter: Reporter
) -> Iterator[Mapped]:
    """The marked items' maps; their scores are put into `scores` on the way. Raises AuditError for an item not among `ids`."""
    from anoaudit.data.items import ImageSpec
    from anoaudit.model.session import Session
    from anoaudit.scoring.maps import run_maps

    spec = model.manifest.input
    assert isinstance(spec, ImageSpec)  # only such a model has maps
    session = Session(model.graph)
    if session.note:
        reporter.note(session.note)
    with reporter.phase("drawing maps", int(only.sum())) as task:
        for done, item in enumerate(run_maps(dataset, session, spec, only), 1):
            if item.id not in ids:
                raise AuditError(
                    f"{dataset.source} names its items otherwise than the scores do ({item.id!r})",
                    "give the model that scored it with --model, or score it again",
                )
            if item.score is not None:
                scores[item.id] = item.score
            task.update(done)
            yield item


def _say_changed(count: int, reporter: Reporter) -> None:
    if count:
        which = "1 image scores" if count == 1 else f"{count:,} images score"
        reporter.note(f"note: {which} otherwise than in the table: the data has changed since, or is another")


def _check_folder(out: Path, dataset: Dataset, force: bool) -> None:
    """Refuse what must not be replaced or filled: other people's folders, the data itself, a model."""
    from anoaudit.model.artefact import is_model
    from anoaudit.reports.mapfiles import is_map_folder

    place, source = out.resolve(), Path(dataset.source).resolve()
    folder = source if source.is_dir() else source.parent
    if place.is_relative_to(folder) and source.is_dir():
        raise UsageError(f"{out} lies in {dataset.source}: its maps would be taken for data", "choose a place outside")
    if folder.is_relative_to(place):
        raise UsageError(f"{dataset.source} lies in {out}", "choose another folder with --maps")
    if is_model(place.parent):
        raise UsageError(f"{out} lies inside a model, which holds its own files only", "choose a place outside")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not force:
        raise UsageError(f"{out} exists", "choose another folder with --maps, or replace it with --force")
    if not is_map_folder(out):
        raise UsageError(
            f"{out} is no folder of maps; --force will not replace it", "choose another folder with --maps"
        )


__all__ = ["Scored", "scored", "write_html", "write_maps"]
