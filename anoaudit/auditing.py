"""After a fit: the one final model ranks the data that it was fitted on, and the model directory is written."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from anoaudit import __version__
from anoaudit.data.items import Dataset, TableSpec
from anoaudit.model.alpha import alpha_facts
from anoaudit.model.artefact import write_model
from anoaudit.model.calibration import MIN_ROWS, Calibration, fit_null, wider
from anoaudit.model.card import render_card
from anoaudit.model.manifest import Manifest
from anoaudit.model.session import Session
from anoaudit.progress import Reporter
from anoaudit.scoring.decisions import Rule, nothing_flagged
from anoaudit.scoring.scorer import score_dataset
from anoaudit.scoring.table import ScoreTable
from anoaudit.training.fitting import FitSettings, Fitted


def audit(
    name: str,
    dataset: Dataset,
    settings: FitSettings,
    fitted: Fitted,
    out: Path,
    rule: Rule,
    given: Sequence[str],
    reporter: Reporter,
    command: dict[str, Any] | None = None,
) -> ScoreTable:
    """Rank all of the data with the one final model; the score table lies at `out`.

    `given`: which of label, truth are known; `command`: what was asked for, see `anoaudit.provenance.asked`.
    """
    session = Session(fitted.graph, settings.device)

    def calibrate(scores: Any) -> Calibration:
        if fitted.calibration.kind == "conformal-clean":
            note = "exact for new normal data, an estimate for the items trained on"
            known: Calibration = replace(fitted.calibration, exact=False, note=note)
            return known
        null: Calibration = fitted.calibration
        if fitted.training["held_out"] == 0 and len(scores) - fitted.training["items"] < MIN_ROWS:
            return null  # there are too few items that training has not seen for a null of its own
        return wider(fit_null(scores, fitted.training["contamination"]), null)

    identity = {"name": name, "method": settings.method.name, "hash": hashlib.sha256(fitted.graph).hexdigest()}
    notes = fitted.warnings + (fitted.spec.notes if isinstance(fitted.spec, TableSpec) else ())
    with reporter.phase("scoring", len(dataset)) as task:
        table = score_dataset(
            dataset, session, fitted.spec, out, calibrate, rule, given, identity, notes, task.update,
            alpha_facts(fitted.training), command,
        )  # fmt: skip
    explained = any("--top-k" in note for note in table.summary.notes)  # few known normals, say
    if rule.fdr is not None and not table.summary.flagged and not explained:
        best = table.lazy().select(pl.col("p_value").min()).collect().item()
        if best is not None:
            reporter.note(nothing_flagged(rule.fdr, table.summary.readable, best))
    return table


def write(path: Path, dataset: Dataset, settings: FitSettings, fitted: Fitted, table: ScoreTable) -> None:
    """The model directory: graph, calibration, manifest, card and the audit's score table."""
    manifest = Manifest(
        method=settings.method.name, options=fitted.options, input=fitted.spec, outputs=fitted.outputs,
        calibration=fitted.calibration.to_json(), training=fitted.training,
        data={"name": dataset.name, "fingerprint": table.summary.fingerprint, "rows": table.summary.rows,
              "id_column": settings.id_column, "image_column": getattr(dataset, "column", None)},
        parity=fitted.parity, opset=fitted.opset, versions=fitted.versions, backbone=fitted.backbone,
        warnings=fitted.warnings, anoaudit=__version__,
    )  # fmt: skip
    write_model(path, manifest, fitted.graph, fitted.calibration, table.path, render_card(manifest, path.name))
