"""COFT-AD end to end: a few normals in, detector out. Read `losses` and `tuning` first."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from anoaudit.methods.coft.gaussian import ShrunkGaussian, left_out
from anoaudit.methods.coft.negatives import cutpaste
from anoaudit.methods.coft.options import CoftOptions
from anoaudit.methods.coft.tuning import UnitLength, embed_copies, learns, tune
from anoaudit.training.detectors import PooledDetector
from anoaudit.training.export import export
from anoaudit.training.items import TrainingItems
from anoaudit.training.loop import Batches
from anoaudit.training.pixels import cache_pixels
from anoaudit.training.trainer import Trainer

FEW = 50  # normals that the method is made for
MOST_COPIES, FEWEST = 4_000, 4  # of all images together; of each
ODD = 2.0  # so many times the others' median distance (our choice)


def fit(items: TrainingItems, options: CoftOptions, trainer: Trainer) -> nn.Module:
    """Fine-tune the pretrained backbone on the normals; returns the detector that is exported."""
    untuned: Any = trainer.backbone
    note = trainer.reporter.note
    if len(items) > FEW:
        note(f"coft is made for 1 to {FEW} images: of {len(items)} another method makes more, --method loe say")
    known = int((items.labels == 0).sum())
    if 0 < known < len(items):
        note(f"all {len(items)} are taken as normal; --train-on normal learns from the {known} labelled 0 alone")
    width = int(untuned.channels)
    example = torch.zeros(2, untuned.height, untuned.width, 3, dtype=torch.uint8)
    export(PooledDetector(untuned, UnitLength(), ShrunkGaussian(width)), example, ("score",))  # pre-flight
    items, images = cache_pixels(items, trainer.checkpoints.folder, trainer.seed, trainer.reporter)
    trainer.facts["items"] = len(items)

    def fit_one(data: Batches, stage: str) -> PooledDetector:
        backbone = copy.deepcopy(untuned).to(trainer.device)
        copies = max(FEWEST, min(options.copies, MOST_COPIES // len(data)))
        if learns(options, len(data)):
            _tuned(backbone, data, options, trainer, stage)
        elif stage == "train":
            note(f"the network stays as it is: {_why_not(options)}")
        note(f"embedding {copies} augmented copies of each of {len(data)} images")
        views_NVC, plain_NC = embed_copies(backbone, data, options, copies, trainer)
        head = ShrunkGaussian(width).to(trainer.device).fit(views_NVC.flatten(0, 1))
        if stage == "train":
            trainer.facts |= {"copies": copies, "shrinkage": round(head.shrinkage, 4)}
            _compare(untuned, backbone, data, options, trainer)
            before = embed_copies(untuned, data, options, copies, trainer)
            _tell_normals(_ids(items), (views_NVC, plain_NC), before, trainer)
        return PooledDetector(backbone, UnitLength(), head)

    return trainer.fit_twice(fit_one, images, items)


def _why_not(options: CoftOptions) -> str:
    if options.epochs:
        return "of one image there is nothing to learn without negatives"
    return "--set negatives=cutpaste or rotate fine-tunes it" if options.negatives == "none" else "epochs=0"


def _tuned(backbone: Any, data: Batches, options: CoftOptions, trainer: Trainer, stage: str) -> None:
    """Fine-tune in place; the guard's figures go on record."""
    backbone.unfreeze(statistics=False)
    watch = tune(backbone, data, options, trainer, stage)
    if stage != "train":
        return
    trainer.facts |= watch.columns() | {"collapsed_in": watch.fallen_in}
    if watch.fallen_in is not None:
        line = f"fine-tuning ended before epoch {watch.fallen_in}: the embeddings were collapsing (their effective rank fell)"
        trainer.reporter.note(line)
        trainer.warnings.append(line)


def _compare(untuned: Any, backbone: Any, data: Batches, options: CoftOptions, trainer: Trainer) -> None:
    """Does the tuned network tell pasted pieces from fresh views at least as well as it did before? On record, with a warning."""
    shares = {
        name: _separation(net, data, options, trainer) for name, net in (("untuned", untuned), ("tuned", backbone))
    }
    trainer.facts["separation"] = {name: round(share, 4) for name, share in shares.items()}
    if shares["tuned"] < shares["untuned"] - 0.05:
        line = (
            f"self-check: after fine-tuning, pasted pieces are told from normal views in {shares['tuned']:.0%} of the pairs, "
            f"before in {shares['untuned']:.0%}: try --set epochs=0"
        )
        trainer.reporter.note(line)
        trainer.warnings.append(line)


def _separation(net: Any, data: Batches, options: CoftOptions, trainer: Trainer) -> float:
    """Of all pairs of a fresh view and a view with a piece pasted, in which share the latter is farther out."""
    copies = max(FEWEST, 64 // len(data))
    views_NVC, _ = embed_copies(net, data, options, copies, trainer, 1)
    fresh_NVC, _ = embed_copies(net, data, options, copies, trainer, 2)
    pasted_NVC, _ = embed_copies(net, data, options, copies, trainer, 2, cutpaste)
    head = ShrunkGaussian(views_NVC.shape[2]).to(trainer.device).fit(views_NVC.flatten(0, 1))
    fresh_N, pasted_N = (head.score(x.flatten(0, 1)) for x in (fresh_NVC, pasted_NVC))
    return float((pasted_N[:, None] > fresh_N).double().mean())


def _ids(items: TrainingItems) -> list[str]:
    return [item for chunk in items.chunks(64) for item in chunk.ids]


def _tell_normals(
    ids: list[str], after: tuple[Tensor, Tensor], before: tuple[Tensor, Tensor], trainer: Trainer
) -> None:
    """Each normal's distance from the others: on record, in one line, and as a warning where one stands out.

    The detector's own distances tell what a new normal may score. Which one is odd is asked of the embeddings from before
    fine-tuning, which has learned them all.
    """
    if len(ids) == 1:
        trainer.facts["normals"] = {ids[0]: None}
        trainer.instead = "; what another one scores is not to be known from it: use --top-k, or a --threshold"
        return
    if len(ids) > FEW:
        chosen = np.sort(np.random.default_rng(trainer.seed).choice(len(ids), FEW, replace=False))
        ids = [ids[i] for i in chosen]
        after, before = (after[0][chosen], after[1][chosen]), (before[0][chosen], before[1][chosen])
    distances, untuned = (left_out(*embedded).cpu().tolist() for embedded in (after, before))
    trainer.facts["normals"] = {name: float(f"{d:.4g}") for name, d in zip(ids, distances, strict=True)}
    trainer.facts["normals_untuned"] = [float(f"{d:.4g}") for d in untuned]
    line = (
        f"left out in turn, the normals score {min(distances):.3g} to {max(distances):.3g} (median {np.median(distances):.3g}), "
        f"the farthest is {ids[int(np.argmax(distances))]}"
    )
    trainer.reporter.note(line)
    trainer.instead = (
        f"; {line}. The network has seen them, new normals score more: use --top-k, or a --threshold above that"
    )
    far = int(np.argmax(untuned))
    others = float(np.median(np.delete(untuned, far)))
    if len(ids) > 2 and untuned[far] > ODD * others:
        warning = (
            f"{ids[far]}, trained on, is unlike the other normals ({untuned[far] / others:.1f} times as far from them as they are "
            "from each other): is it an anomaly? Look at it, and fit again without it"
        )
        trainer.reporter.note(warning)
        trainer.warnings.append(warning)
