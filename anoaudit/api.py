"""The verbs: fit, score, contaminate, report. The command line's and the library's one door; heavy imports wait inside."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from anoaudit.errors import AuditError, UsageError
from anoaudit.progress import Reporter
from anoaudit.provenance import asked
from anoaudit.result import Result, result_of

if TYPE_CHECKING:
    from anoaudit.contamination.result import Mixture
    from anoaudit.data.items import Dataset
    from anoaudit.data.tables import ColumnOptions
    from anoaudit.scoring.table import ScoreTable

DEFAULT_MAX_UNREADABLE = "5%"


def fit(
    data: str | Path,
    *,
    method: str = "loe",
    out: str | Path | None = None,
    contamination: float | str | None = None,
    alpha_sensitivity: bool = False,
    labels: str | None = None,
    train_on: str = "all",
    truth: str | None = None,
    backbone: str | None = None,
    weights: str | Path | None = None,
    backbone_args: Sequence[str] = (),
    device: str = "auto",
    seed: int = 0,
    options: Sequence[str] = (),
    resume: bool = False,
    force: bool = False,
    columns: Sequence[str] = (),
    exclude: Sequence[str] = (),
    id_column: str | None = None,
    image_column: str | None = None,
    fps: float | None = None,
    max_unreadable: str = DEFAULT_MAX_UNREADABLE,
    fdr: float | None = None,
    threshold: float | None = None,
    top_k: str | None = None,
    fail_on: Sequence[str] = (),
    reporter: Reporter | None = None,
) -> Result:
    """Train a detector on contaminated data, audit that same data, write the model directory.

    `contamination` is the assumed share of anomalies, or "auto": estimated from the data. `alpha_sensitivity` also fits at half
    and twice that share and says how the ranking changes. `options` are the method's `k=v`; `fps` is how many frames a second
    of a video or a folder of frames. The score table lies in
    the model directory. Raises UsageError and AuditError; a KeyboardInterrupt has a note on what is kept of the work.
    """
    command = asked("fit", locals())
    from anoaudit import options as parsing
    from anoaudit.data.tables import ColumnOptions
    from anoaudit.methods.registry import find_method
    from anoaudit.model.alpha import DEFAULT, parse_contamination
    from anoaudit.model.artefact import SCORES
    from anoaudit.outputs import keep_inputs_out_of, require_replaceable
    from anoaudit.scoring.decisions import make_rule
    from anoaudit.scoring.fail_on import parse_clauses
    from anoaudit.scoring.scorer import parse_limit
    from anoaudit.scoring.table import ScoreTable

    reporter = reporter or Reporter()
    chosen = find_method(method)
    values = parsing.build(chosen.options, parsing.parse_pairs("--set", options), chosen.name)
    rule, clauses, limit = make_rule(fdr, threshold, top_k), parse_clauses(fail_on), parse_limit(max_unreadable)
    alpha = parse_contamination(contamination, train_on == "normal" or chosen.few_shot)
    if alpha_sensitivity and not chosen.heeds_alpha:
        raise UsageError(
            f"--alpha-sensitivity: {chosen.name} does not train with the contamination",
            "leave it out, or use --method loe",
        )
    if alpha_sensitivity and alpha == 0:
        raise UsageError(
            "--alpha-sensitivity: of an assumed share of 0 there is no half and no double",
            "give --contamination 0.1, say",
        )
    if train_on not in ("all", "normal"):
        raise UsageError(f"--train-on {train_on!r} is neither all nor normal", "use --train-on normal with --labels")
    if train_on == "normal" and labels is None:
        raise UsageError(
            "--train-on normal needs to know the normals", "give --labels COLUMN or FILE, 0 is a known normal"
        )
    if not 0 <= seed < 2**62:
        raise UsageError(f"--seed {seed} is negative or too large", "give a whole number from 0")
    _device(device)
    if device == "cuda":
        from anoaudit.model.session import require_cuda

        require_cuda()
    chosen_columns = ColumnOptions(tuple(columns), tuple(exclude), id_column, image_column)
    dataset = _open(data, chosen_columns, truth, labels, fps, reporter)
    values = values.for_data(dataset.kind)
    path = Path(out) if out is not None else Path(f"{dataset.name}.anoaudit")
    part = path.with_name(path.name + ".part")
    if path.exists() and not force:
        raise UsageError(f"{path} exists", "choose another name with -o, or replace it with --force")
    if path.exists() and force:
        require_replaceable(path)
    for folder in (path, part):
        keep_inputs_out_of(folder, "-o", (data, labels, truth, weights))
    _require_fit_packages()

    from anoaudit.auditing import audit, write
    from anoaudit.training.checkpoint import discard, discard_if_fresh, locked, stamp, what_is_kept
    from anoaudit.training.fitting import FitSettings, fit_detector

    settings = FitSettings(
        chosen, values, DEFAULT if alpha is None else alpha, device, seed, train_on == "normal", backbone,
        Path(weights) if weights else None, id_column,
        {key: parsing.parse_value(value) for key, value in parsing.parse_pairs("--backbone-arg", backbone_args).items()},
        alpha is None, alpha_sensitivity,
    )  # fmt: skip
    with locked(part):
        earlier = stamp(part)
        try:
            fitted = fit_detector(dataset, settings, part, resume, limit.exceeded, reporter)
            given = [name for name, spec in (("label", labels), ("truth", truth)) if spec is not None]
            table = audit(path.name, dataset, settings, fitted, part / SCORES, rule, given, reporter, command)
            write(path, dataset, settings, fitted, table)
        except BaseException as error:
            discard_if_fresh(part)  # before the first checkpoint there is nothing worth resuming
            if isinstance(error, KeyboardInterrupt):
                error.add_note(what_is_kept(part, earlier, resume))
            raise
    discard(part)
    reporter.note(f"model written to {path}")
    return result_of(ScoreTable.open(path / SCORES), clauses, limit)


def score(
    data: str | Path,
    *,
    model: str | Path,
    out: str | Path | None = None,
    truth: str | None = None,
    device: str = "auto",
    id_column: str | None = None,
    image_column: str | None = None,
    fps: float | None = None,
    max_unreadable: str = DEFAULT_MAX_UNREADABLE,
    fdr: float | None = None,
    threshold: float | None = None,
    top_k: str | None = None,
    fail_on: Sequence[str] = (),
    reporter: Reporter | None = None,
) -> Result:
    """Score data with a model, never importing torch. The score table is written to `out` (Parquet; a temporary file if None).

    `fps` is how many frames a second of a video or a folder of frames. Raises UsageError and AuditError.
    """
    command = asked("score", locals())
    from anoaudit.data.tables import ColumnOptions
    from anoaudit.model.artefact import load_model
    from anoaudit.model.session import Session
    from anoaudit.outputs import keep_inputs
    from anoaudit.scoring.decisions import make_rule
    from anoaudit.scoring.fail_on import parse_clauses
    from anoaudit.scoring.scorer import parse_limit, score_dataset

    reporter = reporter or Reporter()
    rule, clauses, limit = make_rule(fdr, threshold, top_k), parse_clauses(fail_on), parse_limit(max_unreadable)
    _device(device)
    loaded = load_model(Path(model))
    usual = {role: name for role in ("id", "image") if (name := loaded.manifest.data.get(f"{role}_column")) is not None}
    options = ColumnOptions(id_column=id_column, image_column=image_column)
    dataset = _open(data, options, truth, None, fps, reporter, usual)
    if dataset.kind != loaded.manifest.input.to_json()["kind"]:
        kind = loaded.manifest.input.to_json()["kind"]
        raise AuditError(
            f"{model} scores {'tables' if kind == 'table' else kind}, but {data} holds {_plural(dataset.kind)}",
            "fit a model on such data",
        )
    session = Session(loaded.graph, device)
    path = Path(out) if out is not None else Path(_session_folder(), "scores.parquet")
    keep_inputs(path, "out", (data, model, truth), _sources(dataset))
    with reporter.phase("scoring", None if dataset.kind == "table" else len(dataset)) as task:
        table = score_dataset(
            dataset, session, loaded.manifest.input, path, lambda _: loaded.calibration, rule,
            () if truth is None else ("truth",),
            loaded.identity(), loaded.manifest.warnings, task.update, command=command,
        )  # fmt: skip
    return result_of(table, clauses, limit, _sources(dataset))


def contaminate(
    data: str | Path,
    out: str | Path,
    *,
    ratio: float,
    anomalies: str | Path | None = None,
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
    """Make a data set with an exact share of anomalies, mixed in or made by damage; see `anoaudit.contamination.mix`."""
    from anoaudit.contamination import mix

    return mix.contaminate(
        str(data), Path(out), ratio=ratio, anomalies=None if anomalies is None else str(anomalies), truth=truth, seed=seed,
        with_replacement=with_replacement, force=force, id_column=id_column, corrupt=corrupt, severity=severity,
        columns=columns, exclude=exclude,
    )  # fmt: skip


def report(
    scores: str | Path,
    *,
    truth: str | None = None,
    model: str | Path | None = None,
    data: str | Path | None = None,
    html: str | Path | None = None,
    maps: str | Path | None = None,
    top: int | None = None,
    force: bool = False,
    reporter: Reporter | None = None,
) -> ScoreTable:
    """Open a score table or a model's audit, with truth joined to it when given; write `html` (a file) and `maps` (a folder).

    `model` is the one that scored the table, `data` where its images are now; `top` is how many items are drawn, by default all
    flagged ones. `force` replaces a folder of maps. Raises UsageError and AuditError.
    """
    from anoaudit.outputs import keep_inputs
    from anoaudit.reports.reader import read

    if html is not None:
        keep_inputs(Path(html), "--html", (scores, truth, model, data), table=False)
    table = read(Path(scores))
    if truth is not None:
        table = _joined(table, truth)
    if html is not None or maps is not None or model is not None:
        from anoaudit import reporting

        given = reporting.scored(table, Path(scores), model, data, truth)
        if maps is not None:
            reporting.write_maps(given, Path(maps), top, force, reporter or Reporter())
        if html is not None:
            reporting.write_html(given, Path(html), top, reporter or Reporter())
    return table


def _joined(table: ScoreTable, truth: str) -> ScoreTable:
    from anoaudit.data.labels import notes_of, open_labels
    from anoaudit.reports.truth import with_truth

    labels = open_labels(truth, id_column=table.summary.columns.get("id"))
    ids = table.lazy().select("id").collect()["id"].to_list()
    labels.attach(Path(table.summary.source or "."), ids)
    notes = dict.fromkeys((*table.summary.notes, *notes_of(labels)))
    table = replace(table, summary=replace(table.summary, notes=tuple(notes)))
    known = {item: value if value >= 0 else None for item, value in labels.by_id.items()}
    return with_truth(table, known, Path(_session_folder(), "with-truth.parquet"))


def _sources(dataset: Dataset) -> tuple[Path, ...]:
    """The files that the data was read from."""
    return tuple(getattr(dataset, "files", ()) or getattr(dataset, "paths", ()))


def _open(
    data: str | Path,
    options: ColumnOptions,
    truth: str | None,
    labels: str | None,
    fps: float | None,
    reporter: Reporter,
    usual: dict[str, str] | None = None,
) -> Dataset:
    from anoaudit.data.source import open_dataset

    dataset = open_dataset(str(data), options, truth, labels, fps, usual)
    if dataset.timed:
        with reporter.phase("counting frames", None):
            count = len(dataset)
        rate = f"--fps {fps:g}" if fps is not None else "all of them; --fps takes fewer"
        reporter.note(f"{count:,} frames in {dataset.source} ({rate})")
    column = getattr(dataset, "column", None)
    if column is not None:
        reporter.note(f"the images are in column {column!r} of {dataset.source}")
    return dataset


def _device(name: str) -> None:
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {name!r} is none of auto, cpu, cuda", "use --device auto")


def _require_fit_packages() -> None:
    import importlib.util

    missing = [name for name in ("torch", "timm", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise AuditError(
            f"fit needs {', '.join(missing)}, which this slim installation lacks",
            "install the package with its dependencies, without --no-deps",
        )


def _plural(kind: str) -> str:
    return "a table" if kind == "table" else kind


_FOLDER: list[tempfile.TemporaryDirectory[str]] = []


def _session_folder() -> str:
    """A temporary folder that lives as long as the process."""
    if not _FOLDER:
        _FOLDER.append(tempfile.TemporaryDirectory(prefix="anoaudit-"))
    return _FOLDER[0].name
