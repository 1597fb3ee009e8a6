"""AnoOnly end to end: items and labels in, detector out. Read `supervision` first."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from anoaudit.data.items import TableSpec
from anoaudit.errors import UsageError
from anoaudit.methods.anoonly.deepsad import DeepSAD
from anoaudit.methods.anoonly.devnet import DevNet
from anoaudit.methods.anoonly.feawad import Feawad
from anoaudit.methods.anoonly.options import AnoOnlyOptions
from anoaudit.methods.anoonly.prenet import PReNet
from anoaudit.methods.anoonly.sampling import Halves, Pairs, Unlabelled, in_turn, pools
from anoaudit.methods.anoonly.supervision import supervised_loss
from anoaudit.reports.metrics import auroc
from anoaudit.training.detectors import Detector, PooledDetector, TableDetector
from anoaudit.training.export import export
from anoaudit.training.features import LocationScaler, RowBatches, extract
from anoaudit.training.items import MIN_ITEMS, TrainingItems
from anoaudit.training.loop import Batches, Sampler, Schedule
from anoaudit.training.trainer import Trainer

MIN_KNOWN = 2
SHOWN_GROUPS = 5
START_ITEMS = 2048  # DeepSAD's centre comes from so many
AT_ONCE = 64
BN_BACKBONES = "resnet18, mobilenetv2_100 or efficientnet_b0"
OPTIMIZERS: dict[str, Literal["adam", "rmsprop"]] = {"devnet": "rmsprop", "prenet": "rmsprop"}
DEAD = 1e-2  # of the root mean square range of pooled features (ours)
LOST = "after training the known anomalies themselves do not rank"  # how the warning of `_look_back` begins
SEEN = 0.8  # AUROC of known anomalies against unlabelled items, both trained on, below which it is given (ours)
FINAL_LR = 1e-5  # prenet's step falls to it along half a cosine

#: A batch as it is cached (features, or pixels with fine_tune) → features float32[B, F].
Embed = Callable[[Tensor], Tensor]


def fit(items: TrainingItems, options: AnoOnlyOptions, trainer: Trainer) -> nn.Module:
    """Train on known anomalies (labels 1) and unlabelled items (all others); returns the detector that is exported.

    Raises UsageError for labels and options that do not do.
    """
    count_known(items, trainer)
    # The other bases meet unlabelled items elsewhere, too, and so does a backbone that follows the batches.
    follows = options.fine_tune and options.statistics == "batch"
    deaf = options.base in ("devnet", "deepsad") and not follows
    if options.supervision == "anomaly-only" and options.norm is False and deaf:
        warning = "norm=false with supervision=anomaly-only: nothing in training knows of normal items; expect a ranking by chance"
        trainer.reporter.note(warning)
        trainer.warnings.append(warning)
    if isinstance(items.spec, TableSpec):
        return _fit_table(items, options, trainer)
    return _fine_tune(items, options, trainer) if options.fine_tune else _fit_pooled(items, options, trainer)


def count_known(items: TrainingItems, trainer: Trainer) -> None:
    """How many known anomalies there are, and in which groups: said, and put on record. Raises UsageError for too few."""
    known = int((items.labels == 1).sum())
    rest = len(items) - known
    if known < MIN_KNOWN:
        raise UsageError(
            f"anoonly learns from known anomalies: it needs at least {MIN_KNOWN} items labelled 1, and found {known}",
            "mark some with --labels COLUMN or FILE; without any, use --method loe",
        )
    if rest < MIN_ITEMS:
        raise UsageError(
            f"{known} of {len(items)} items are labelled 1 (anomaly): {rest} unlabelled ones are too few to tell them from",
            f"give at least {MIN_ITEMS} items that are labelled 0 or not at all",
        )
    marked = items.mask & (items.split.labels == 1)
    groups = Counter(
        group
        for chunk in items.dataset.chunks(items.spec, AT_ONCE, marked)
        for group in chunk.groups
        if group is not None
    )
    where = ", ".join(f"{count} in {group}" for group, count in groups.most_common(SHOWN_GROUPS))
    more = f" and {len(groups) - SHOWN_GROUPS} groups more" if len(groups) > SHOWN_GROUPS else ""
    trainer.reporter.note(
        f"{known} known anomalies{f' ({where}{more})' if groups else ''}, {rest} items taken as unlabelled"
    )
    trainer.facts |= {"known_anomalies": known, "unlabelled": rest, "known_by_group": dict(groups.most_common())}


def make_base(features: int, options: AnoOnlyOptions) -> nn.Module:
    """The base method's network for so many features."""
    norm = bool(options.norm)
    if options.base == "devnet":
        linear: Literal["linear", "absolute"] = "absolute" if options.supervision == "full" else "linear"
        return DevNet(features, norm, linear if options.loss == "linear" else "hinge")
    if options.base == "prenet":
        return PReNet(features, norm, options.partners or 30)
    return DeepSAD(features, norm) if options.base == "deepsad" else Feawad(features, norm)


def _fit_table(items: TrainingItems, options: AnoOnlyOptions, trainer: Trainer) -> nn.Module:
    from anoaudit.nets.table_input import TableInput

    assert isinstance(items.spec, TableSpec)
    rows = items.values()
    scaling = options.scaling or "minmax"
    inlet = TableInput(items.spec, rows, "interval" if scaling == "minmax" else scaling)  # categories are 0 and 1, too

    def make() -> TableDetector:
        return TableDetector(inlet, make_base(inlet.width, options))

    export(make(), torch.from_numpy(rows[:2]), ("score",))  # pre-flight: fail in seconds, not after training
    with torch.no_grad():
        features = torch.cat([inlet(part) for part in torch.split(torch.from_numpy(rows), 50_000)])
    return _fit_frozen(make, RowBatches(features, items.labels), items, options, trainer)


def _fit_pooled(items: TrainingItems, options: AnoOnlyOptions, trainer: Trainer) -> nn.Module:
    backbone: Any = trainer.backbone
    scaler = LocationScaler(backbone.channels, None, per_location=False, off=options.scaling != "standard")

    def make() -> PooledDetector:
        return PooledDetector(backbone, scaler, make_base(backbone.channels, options))

    example = torch.zeros(2, backbone.height, backbone.width, 3, dtype=torch.uint8)
    export(make(), example, ("score",))
    return _fit_frozen(make, _pooled(items, backbone, scaler, options, trainer), items, options, trainer)


def _pooled(
    items: TrainingItems, backbone: nn.Module, scaler: LocationScaler, options: AnoOnlyOptions, trainer: Trainer
) -> RowBatches:
    """Scaled features of all images; fits the scaler."""
    cached = extract(
        items, backbone, scaler, None, device=trainer.device, seed=trainer.seed, folder=trainer.checkpoints.folder,
        reporter=trainer.reporter,
    )  # fmt: skip
    rows = cached.batch(torch.arange(len(cached)), trainer.device)[0]
    if options.scaling == "minmax":
        low, width = rows.amin(0), rows.amax(0) - rows.amin(0)
        scaler.mean.copy_(low)
        # What hardly moves counts as if it moved a hundredth of what they all do: blown up to [0, 1] it would be rounding.
        scaler.std.copy_(width.clamp_min(1e-6 + DEAD * width.square().mean().sqrt()))
        rows = scaler(rows)
    return RowBatches(rows.cpu(), items.labels)


def _fit_frozen(
    make: Callable[[], Detector], data: Batches, items: TrainingItems, options: AnoOnlyOptions, trainer: Trainer
) -> nn.Module:
    def fit_one(part: Batches, stage: str) -> Detector:
        torch.manual_seed(trainer.seed)
        detector = make()
        train_base(detector.head, detector.head, lambda x: x, part, options, trainer, stage)
        return detector

    return trainer.fit_twice(fit_one, data, items)


def _fine_tune(items: TrainingItems, options: AnoOnlyOptions, trainer: Trainer) -> nn.Module:
    from anoaudit.nets.backbones import TimmBackbone
    from anoaudit.training.pixels import cache_pixels

    pretrained = trainer.backbone
    if not isinstance(pretrained, TimmBackbone):
        raise UsageError(
            "--set fine_tune=true needs a backbone that can be trained", f"name one with --backbone, {BN_BACKBONES} say"
        )
    if options.supervision == "anomaly-only" and not has_batch_norm(pretrained):
        raise UsageError(
            "this backbone has no batch normalisation, which training it with supervision=anomaly-only is made for",
            f"take one that has, {BN_BACKBONES} say, or leave fine_tune out, or use --set supervision=full",
        )
    scaler = LocationScaler(pretrained.channels, None, per_location=False, off=options.scaling != "standard")

    def make() -> PooledDetector:
        backbone = copy.deepcopy(pretrained)
        backbone.unfreeze(statistics=options.statistics == "batch")
        return PooledDetector(backbone, scaler, make_base(backbone.channels, options))

    example = torch.zeros(2, pretrained.height, pretrained.width, 3, dtype=torch.uint8)
    export(make(), example, ("score",))
    items, data = cache_pixels(items, trainer.checkpoints.folder, trainer.seed, trainer.reporter)
    _pooled(items, pretrained, scaler, options, trainer)  # where the features start from: their scale

    def fit_one(part: Batches, stage: str) -> Detector:
        torch.manual_seed(trainer.seed)
        detector = make().to(trainer.device)
        train_base(
            detector, detector.head, lambda x: detector.scaler(detector.backbone(x)), part, options, trainer, stage
        )
        return detector

    return trainer.fit_twice(fit_one, data, items)


def has_batch_norm(net: nn.Module) -> bool:
    """Whether any layer normalises by the batch."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net.modules())


def train_base(
    module: nn.Module,
    base: Any,
    embed: Embed,
    data: Batches,
    options: AnoOnlyOptions,
    trainer: Trainer,
    stage: str,
) -> None:
    """Train `module`, the base and what is trained with it, on batches composed as the base wants them."""
    module.to(trainer.device)
    epochs, size, lr = options.epochs or 50, options.batch_size or 128, options.lr or 1e-4
    labels = data.labels.cpu()
    if isinstance(base, DeepSAD):
        some = np.random.default_rng(trainer.seed).permutation(len(data))[:START_ITEMS]
        base.start(_embedded(module, embed, data, torch.from_numpy(some), trainer))
    _start_norm(module, base, embed, data, size, trainer)
    if isinstance(base, Feawad) and options.pretrain:
        _pretrain(module, base, embed, data, options, trainer, stage)

    def objective(x: Tensor, labels: Tensor, epoch: int) -> Tensor | None:
        return supervised_loss(base, embed(x), labels == 1, options.supervision)

    sampler: Sampler | None = None
    if options.steps is not None:
        sampler = (Pairs if isinstance(base, PReNet) else Halves)(labels, options.steps, size)
    schedule = Schedule(
        epochs, size, lr, options.weight_decay or 0.0, keep_best=False,  # as published: the last state
        optimizer="adam" if options.fine_tune else OPTIMIZERS.get(str(options.base), "adam"),
        final_lr=min(FINAL_LR, lr) if isinstance(base, PReNet) else None,
    )  # fmt: skip
    trainer.run(module, objective, data, schedule, stage=stage, sampler=sampler)
    if isinstance(base, PReNet):
        generator = torch.Generator().manual_seed(trainer.seed)
        chosen = (in_turn(pool, base.partners, generator) for pool in pools(labels))
        base.finish(*(_embedded(module, embed, data, rows, trainer) for rows in chosen))
    _look_back(module, base, embed, data, trainer)


@torch.no_grad()
def _look_back(module: nn.Module, base: Any, embed: Embed, data: Batches, trainer: Trainer) -> None:
    """Warn when the known anomalies, which were trained on, do not rank above the unlabelled: then nothing was learned of them."""
    labels = data.labels.cpu()
    order = torch.from_numpy(np.random.default_rng(trainer.seed).permutation(len(labels)))
    rows = torch.cat([(labels == 1).nonzero()[:, 0], order[labels[order] != 1][:START_ITEMS]])
    x = _embedded(module, embed, data, rows, trainer)
    found = auroc((labels[rows] == 1).numpy(), base.score(x).float().cpu().numpy())
    trainer.facts["known_above_unlabelled"] = None if found is None else round(found, 4)
    trainer.warnings[:] = [warning for warning in trainer.warnings if not warning.startswith(LOST)]  # of the first fit
    if found is not None and found < SEEN:
        warning = f"{LOST} above the unlabelled (AUROC {found:.2f} where 1 is expected): do not trust this ranking"
        trainer.warnings.append(warning)
        trainer.reporter.note(f"warning: {warning}")


@torch.no_grad()
def _start_norm(module: nn.Module, base: nn.Module, embed: Embed, data: Batches, size: int, trainer: Trainer) -> None:
    """Running statistics begin with a batch's own, not with 0 and 1 (our choice): in few steps they would not leave these."""
    norms = [layer for layer in base.modules() if isinstance(layer, nn.BatchNorm1d)]
    if not norms:
        return
    some = np.random.default_rng(trainer.seed).permutation(len(data))[: max(size, AT_ONCE)]
    x = _embedded(module, embed, data, torch.from_numpy(some), trainer)
    usual = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 1.0
    base.train()
    base.score(x)  # type: ignore[operator]
    for layer, momentum in zip(norms, usual, strict=True):
        layer.momentum = momentum


def _pretrain(
    module: nn.Module, base: Feawad, embed: Embed, data: Batches, options: AnoOnlyOptions, trainer: Trainer, stage: str
) -> None:
    """FEAWAD's autoencoder alone, on the unlabelled (batches of as many as meet the anomalies later). The rest stays."""
    size = (options.batch_size or 512) // 2
    sampler = Unlabelled(data.labels.cpu(), options.steps or 20, size)
    schedule = Schedule(options.pretrain or 0, size, options.lr or 1e-4, keep_best=False)

    def objective(x: Tensor, labels: Tensor, epoch: int) -> Tensor:
        return base.reconstruction(embed(x))

    if module is base:
        trainer.run(base, objective, data, schedule, stage=f"{stage}-autoencoder", sampler=sampler)
        return
    # The backbone waits: it would learn features that are easily reconstructed.
    rows = _embedded(module, embed, data, torch.arange(len(data)), trainer).cpu()
    frozen = RowBatches(rows, data.labels.cpu().numpy().astype(np.int8))
    trainer.run(
        base, lambda x, labels, epoch: base.reconstruction(x), frozen, schedule, stage=f"{stage}-autoencoder",
        sampler=sampler,
    )  # fmt: skip


@torch.no_grad()
def _embedded(module: nn.Module, embed: Embed, data: Batches, rows: Tensor, trainer: Trainer) -> Tensor:
    """float32[len(rows), F]: features as the module in eval mode sees them."""
    module.eval()
    return torch.cat([embed(data.batch(part, trainer.device)[0]) for part in torch.split(rows, AT_ONCE)])
