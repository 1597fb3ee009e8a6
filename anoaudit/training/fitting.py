"""From a dataset to a checked ONNX detector with its calibration: the steps every method goes through, in order."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from anoaudit.data.items import UNLABELLED, Dataset, ImageSpec, InputSpec, TableSpec
from anoaudit.data.tables import TableFiles
from anoaudit.errors import AuditError, UsageError, among
from anoaudit.model.alpha import estimate_alpha, estimate_line
from anoaudit.model.calibration import MIN_ROWS, Calibration, conformal, fit_null
from anoaudit.model.session import IMAGES, Session, batch_of
from anoaudit.options import ImageInput
from anoaudit.progress import Reporter
from anoaudit.training.checkpoint import Checkpoints
from anoaudit.training.device import choose_device, seed_everything
from anoaudit.training.export import export, opset_of, outputs_of
from anoaudit.training.image_network import image_network
from anoaudit.training.items import Split, TrainingItems, split_items, survey, training_items
from anoaudit.training.parity import ITEMS, check_parity, median_absolute_deviation
from anoaudit.training.trainer import Trainer

if TYPE_CHECKING:  # methods import training, not the other way round
    from anoaudit.methods.registry import Method

Array = npt.NDArray[np.float64]
CHECKED = {"table": 2048, "images": 64}  # items whose scores the self-check looks at
FEW = 8  # images; the checks have at least so many


@dataclass(frozen=True)
class FitSettings:
    """What `fit` was asked for, apart from the data."""

    method: Method
    options: Any
    contamination: float = 0.1
    device: str = "auto"
    seed: int = 0
    only_normal: bool = False
    backbone: str | None = None
    weights: Path | None = None
    id_column: str | None = None  # recorded for `score`
    backbone_arguments: dict[str, Any] = field(default_factory=dict)
    estimate: bool = False  # the contamination from the data; then `contamination` is what is assumed where that fails
    sensitivity: bool = False  # of the ranking to the contamination


@dataclass(frozen=True)
class Fitted:
    """All that the model directory needs but the audit's scores."""

    graph: bytes
    spec: InputSpec
    outputs: tuple[str, ...]
    calibration: Calibration
    training: dict[str, Any]
    parity: dict[str, Any]
    backbone: dict[str, Any] | None
    opset: int
    versions: dict[str, str]
    warnings: tuple[str, ...]
    options: dict[str, Any]


def fit_detector(
    dataset: Dataset,
    settings: FitSettings,
    part: Path,
    resume: bool,
    too_many: Callable[[int, int], bool],
    reporter: Reporter,
) -> Fitted:
    """Train, check, export, compare, calibrate. `too_many(unreadable, rows)` says when the input is not worth training on.

    Raises UsageError and AuditError; the checkpoints in `part` stay until the caller has written the model.
    """
    device = choose_device(settings.device)
    seed_everything(settings.seed, device)
    backbone, backbone_facts, warnings = image_network(dataset, settings, reporter)
    spec: InputSpec
    if isinstance(dataset, TableFiles):
        reporter.note(f"reading {dataset.source}")
        spec = dataset.infer(settings.seed)
        _note_columns(spec, reporter)
    else:
        assert backbone is not None
        seen: ImageInput = settings.options.images
        spec = ImageSpec(int(backbone.height), int(backbone.width), seen.fit)  # type: ignore[arg-type]
    split = _split(dataset, spec, settings, too_many, reporter)
    checkpoints = Checkpoints(part, _identity(dataset, spec, split, settings, backbone_facts), resume)
    if resume and not checkpoints.found:
        reporter.note("there is no checkpoint to go on from: starting anew")
    if checkpoints.earlier:
        reporter.note(checkpoints.earlier)
    trainer = Trainer(
        device,
        settings.seed,
        settings.contamination,
        checkpoints,
        reporter,
        settings.sensitivity,
        backbone,
        warnings=warnings,
    )
    items = training_items(dataset, spec, split)
    if settings.estimate:
        settings = replace(settings, contamination=_estimated(items, trainer))
    kept_out = int(split.held_out.sum())
    kept = (
        f"{kept_out} kept out" + ("" if split.clean else " of a first fit, for p-values")
        if kept_out
        else "none kept out"
    )
    reporter.note(
        f"fitting {settings.method.name} on {len(items)} {_noun(dataset)} of {dataset.source} ({kept}), "
        f"{device.type}, seed {settings.seed}"
    )
    detector = settings.method.load()(items, settings.options, trainer)
    return _finish(detector, items, settings, trainer, backbone_facts)


def _estimated(items: TrainingItems, trainer: Trainer) -> float:
    """α from the data, told and put on record; the assumed one where no estimate is to be had, with a warning."""
    from anoaudit.methods.pilot import pilot_scores

    estimate = estimate_alpha(items.labels, lambda: pilot_scores(items, trainer), trainer.contamination)
    trainer.contamination = estimate.share
    trainer.facts["contamination_estimate"] = estimate.to_json()
    line = estimate_line(estimate.share, estimate.to_json())
    trainer.reporter.note(f"--contamination auto: α = {line}")
    if not estimate.usable:
        trainer.warnings.append(f"--contamination auto: {line}")
    return estimate.share


def _finish(
    detector: nn.Module,
    items: TrainingItems,
    settings: FitSettings,
    trainer: Trainer,
    backbone_facts: dict[str, Any] | None,
) -> Fitted:
    """Export, self-check, calibration and parity of a trained detector."""
    trainer.reporter.note("exporting and checking")
    size = CHECKED[items.dataset.kind]
    some = _sample(items, items.mask, size, settings.seed)
    batch = batch_of(items.spec)
    most = (
        ITEMS if batch >= IMAGES else max(2, batch)
    )  # large images at once fill the memory: no more than are scored at once
    sample = some[np.linspace(0, len(some) - 1, min(most, len(some))).astype(int)]
    example = torch.from_numpy(sample[:2])
    with torch.no_grad():
        result = detector.cpu().eval()(example)
    outputs = outputs_of(result)
    graph = export(detector, example, outputs)
    session = Session(graph, device="cpu")
    parts = [session.run(some[at : at + batch])[0] for at in range(0, len(some), batch)]
    seen = np.concatenate(parts).astype(np.float64)  # of this detector alone: the first fit's scores are another's
    check = trainer.self_check(seen)
    calibration = _calibration(items, session, settings, trainer)
    mad = median_absolute_deviation(seen)
    bar = _between(seen, float(np.quantile(seen, 1 - min(max(settings.contamination, 0.01), 0.5))))
    parity = check_parity(detector, session, sample, mad, lambda scores: scores >= bar, settings.seed)
    training = {
        "items": len(items), "held_out": int(items.split.held_out.sum()), "contamination": settings.contamination,
        "train_on": "normal" if settings.only_normal else "all", "seed": settings.seed, "device": trainer.device.type,
        "precision": "bf16" if trainer.device.type == "cuda" else "float32", "self_check": check, **trainer.facts,
    }  # fmt: skip
    labels = items.split.labels
    if (labels != UNLABELLED).any():
        training["labelled"] = {"anomaly": int((labels == 1).sum()), "normal": int((labels == 0).sum())}
    return Fitted(
        graph, items.spec, outputs, calibration, training, parity, backbone_facts, opset_of(graph), _versions(),
        tuple(trainer.warnings), _plain(vars(settings.options)),
    )  # fmt: skip


def _calibration(items: TrainingItems, session: Session, settings: FitSettings, trainer: Trainer) -> Calibration:
    """The normal reference for new items, from those kept out."""
    if not items.split.held_out.any():
        needed = f"; {MIN_ROWS} are needed" if len(items) < MIN_ROWS else ""
        note = f"fitted on {_counted(items)}, of which none can be kept out for p-values{trainer.instead or needed}"
        return Calibration(kind="none", note=note)
    if items.split.clean:
        return conformal(_scores(items, items.split.held_out, session))
    held_out = trainer.held_out_scores
    assert held_out is not None, "a method must call trainer.calibrate where items are kept out of a first fit"
    # From 50 items on there are p-values (DESIGN, contract 6), though of 50 only 25 can be kept out.
    return fit_null(held_out, settings.contamination, MIN_ROWS if len(items) < MIN_ROWS else MIN_ROWS // 2)


def _counted(items: TrainingItems) -> str:
    return f"{len(items)} {_noun(items.dataset)[: -1 if len(items) == 1 else None]}"


def _between(scores: Array, bar: float) -> float:
    """A decision bar in the middle of a gap between scores, so that rounding does not count as a changed decision."""
    ordered = np.unique(scores)
    at = int(np.searchsorted(ordered, bar))
    near = [(ordered[i] + ordered[i + 1]) / 2 for i in range(max(at - 5, 0), min(at + 5, len(ordered) - 1))]
    gaps = [ordered[i + 1] - ordered[i] for i in range(max(at - 5, 0), min(at + 5, len(ordered) - 1))]
    return float(near[int(np.argmax(gaps))]) if near else bar


def _split(
    dataset: Dataset, spec: InputSpec, settings: FitSettings, too_many: Callable[[int, int], bool], reporter: Reporter
) -> Split:
    if settings.only_normal and not settings.method.known_normals:
        raise UsageError(
            f"--train-on normal: {settings.method.name} takes items labelled 0 as unlabelled",
            "leave it out, or use --method loe",
        )
    readable, labels, unreadable = survey(dataset, spec)
    if len(unreadable) > 0:
        item, reason = unreadable[0]
        line = f"{len(unreadable)} of {len(readable)} {_noun(dataset)} unreadable; the first: {item}: {reason}"
        if too_many(len(unreadable), len(readable)):
            raise AuditError(line, "repair or remove them, or allow more with --max-unreadable")
        reporter.note(line)
    for line in dataset.label_notes():  # told before hours of work with fewer labels than were meant
        reporter.note(line)
    if not settings.method.known_normals:
        labels = np.where(labels == 0, UNLABELLED, labels).astype(np.int8)
    return split_items(readable, labels, dataset.kind, settings.seed, settings.only_normal, settings.method.few_shot)


def _sample(items: TrainingItems, mask: npt.NDArray[np.bool_], size: int, seed: int) -> npt.NDArray[Any]:
    """Random items of those marked, as they enter the model; of a handful of images darker copies, too.

    (An example of one item would be exported as a constant, and the checks want different ones.)
    """
    rng = np.random.default_rng(seed)
    marked = np.flatnonzero(mask)
    only = np.zeros(len(mask), dtype=bool)
    only[rng.choice(marked, min(size, len(marked)), replace=False)] = True
    size = 4096 if items.dataset.kind == "table" else 64
    values = np.concatenate([chunk.values for chunk in items.dataset.chunks(items.spec, size, only)])
    if items.dataset.kind == "table" or len(values) >= FEW:
        return values
    copies = -(-FEW // len(values))
    return np.concatenate([(values * (1 - k / copies)).astype(values.dtype) for k in range(copies)])


def _scores(items: TrainingItems, mask: npt.NDArray[np.bool_], session: Session) -> Array:
    """onnxruntime's scores of the items marked."""
    chunks = items.dataset.chunks(items.spec, batch_of(items.spec), mask)
    return np.concatenate([session.run(chunk.values)[0].astype(np.float64) for chunk in chunks if len(chunk.values)])


def _note_columns(spec: TableSpec, reporter: Reporter) -> None:
    by_reason: dict[str, list[str]] = {}
    for name, why in spec.dropped.items():
        if why != "excluded":
            by_reason.setdefault(why, []).append(name)
    if by_reason:
        reporter.note(
            f"not used as features: {'; '.join(f'{among(names)} ({why})' for why, names in by_reason.items())}"
        )
    commas = [rule.name for rule in spec.columns if rule.format == ","]
    if commas:
        reporter.note(f"read with a decimal comma: {among(commas)}")
    for line in spec.notes:
        reporter.note(line)


def _identity(
    dataset: Dataset, spec: InputSpec, split: Split, settings: FitSettings, backbone_facts: dict[str, Any] | None
) -> dict[str, Any]:
    """What must be equal for `--resume`."""
    items = hashlib.sha256(b"".join(array.tobytes() for array in (split.train, split.held_out, split.labels)))
    return {
        "data": dataset.outline(), "columns": spec.to_json(), "items or labels": items.hexdigest(),
        "versions": _versions(), "method": settings.method.name, "options": _plain(vars(settings.options)),
        "contamination": "auto" if settings.estimate else settings.contamination, "seed": settings.seed,
        "only_normal": settings.only_normal,
        "backbone": settings.backbone, "weights": (backbone_facts or {}).get("weights"),
        "backbone_arguments": settings.backbone_arguments,
        "device": settings.device, "id_column": settings.id_column,
    }  # fmt: skip


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def _noun(dataset: Dataset) -> str:
    return "rows" if dataset.kind == "table" else "frames" if dataset.timed else "images"


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    import onnxruntime

    names = ("torch", "timm", "onnx", "onnxscript", "numpy", "polars", "pillow")
    return {
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        **{name: version(name) for name in names},
    }
