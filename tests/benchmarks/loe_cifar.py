"""LOE's protocol on CIFAR-10, one class against the rest (METHODS §1): AUROC at 10 % contamination, five assignments.

usage: python tests/benchmarks/loe_cifar.py [--only features/3] [--seeds 1] [--budget quick|full] [--minutes N]
Needs CIFAR-10 and mobilenetv2_100's weights beside the checkout. Cells are features/CLASS/ASSIGNMENT/SEED (NTL as published,
on pooled features at 96 px), features128/… (at 128 px), mhrot/… (MHRot from raw pixels). The assignment `nearest` is a
baseline without training: the mean cosine distance to the five nearest of the same contaminated training features.

Training: the 5,000 images of the class and ⌊α/(1 − α)·5000⌋ from the other nine; test: the whole test set. The quick budget is
for a CPU: NTL with transforms 256 wide instead of 2048, the first 2,500 images of the class in batches of 256 instead of 512
(as many steps); MHRot with a Wide ResNet 16-1 instead of 16-4, the first 400 images, 5 epochs instead of 16, tested on 1,000
images of the class and 50 of each other one.
"""

from __future__ import annotations

import io
import math
import os
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from harness import SHARED, Results, print_table, settings
from loe_tables import ALPHA, ASSIGNMENTS, FIRST_SEED, Protocol, auroc, scores_of, shown, trained
from PIL import Image
from torch import nn

from anoaudit.methods.loe.mhrot import MHRot
from anoaudit.methods.loe.options import LoeOptions
from anoaudit.nets.backbones import BackboneOptions, make_backbone
from anoaudit.nets.wide_resnet import WideResNet

CACHE = Path(__file__).parent / "cache"
WIDTH, BATCH = 1280, 128
#: Pixels a side that the images are enlarged to for the backbone.
PIXELS = {"features": 96, "features128": 128}
QUICK_CLASSES = (1, 3)
NEAREST = "nearest"
#: AUROC in % of the paper: ResNet-152 features with NTL, raw pixels with MHRot; mean over the ten classes.
PAPER = {
    "features": {"blind": 91.3, "refine": 93.5, "hard": 94.9, "soft": 94.9},
    "features128": {"blind": 91.3, "refine": 93.5, "hard": 94.9, "soft": 94.9},
    "mhrot": {"blind": 84.0, "refine": 84.4, "hard": 86.4, "soft": 86.3},
}
Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Sizes:
    """How many images of the class are trained on and of each other class tested (None: all), options, network's width."""

    train: int | None = None
    test_others: int | None = None
    options: tuple[tuple[str, Any], ...] = ()
    width: int = 4


SIZES = {
    **{(kind, "full"): Sizes() for kind in PIXELS},
    **{(kind, "quick"): Sizes(2500, options=(("transform_hidden", 256), ("batch_size", 256))) for kind in PIXELS},
    ("mhrot", "full"): Sizes(options=(("detector", "mhrot"),)),
    ("mhrot", "quick"): Sizes(400, 50, (("detector", "mhrot"), ("epochs", 5)), width=1),
}


@cache
def images(part: str) -> tuple[list[bytes], npt.NDArray[np.int64]]:
    frame = pl.read_parquet(SHARED / "data" / f"cifar10_{part}.parquet")
    column = next(name for name, kind in frame.schema.items() if kind == pl.Binary)
    names = sorted(set(frame["label"].to_list()))  # airplane, automobile, … as CIFAR-10 numbers them
    return frame[column].to_list(), np.array([names.index(name) for name in frame["label"]])


def pixels(data: list[bytes], size: int) -> npt.NDArray[np.uint8]:
    read = [Image.open(io.BytesIO(one)).convert("RGB") for one in data]
    return np.stack(
        [np.asarray(image.resize((size, size), Image.Resampling.BICUBIC) if size != 32 else image) for image in read]
    )


@cache
def backbone(size: int) -> nn.Module:
    made = make_backbone(
        BackboneOptions(
            "mobilenetv2_100",
            SHARED / "weights" / "mobilenetv2_100.safetensors",
            {"mean": 0.5, "std": 0.5, "size": size},
        ),
        None,
    )
    assert made is not None
    return made[0].eval()


def features(part: str, label: int, rows: npt.NDArray[np.int64] | slice, size: int) -> Features:
    """Pooled features of some images of one class; each is computed once and kept in an ignored folder."""
    path = CACHE / f"cifar10-{size}-{part}-{label}.npy"
    data, labels = images(part)
    mine = np.flatnonzero(labels == label)
    held = np.load(path) if path.exists() else np.full((len(mine), WIDTH), np.nan, dtype=np.float16)
    wanted = np.arange(len(mine))[rows]
    missing = wanted[np.isnan(held[wanted, 0])]
    with torch.inference_mode():
        for some in np.array_split(missing, math.ceil(len(missing) / BATCH)) if len(missing) else []:
            held[some] = backbone(size)(torch.from_numpy(pixels([data[i] for i in mine[some]], size))).half().numpy()
    if len(missing):
        CACHE.mkdir(exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.npy")
        np.save(temporary, held)
        temporary.rename(path)
    return held[wanted].astype(np.float32)


def sets_of(kind: str, label: int, seed: int, sizes: Sizes) -> Protocol:
    """Rows are features, or pixels as the feature cache holds them ([N, H·W, 3] in [−1, 1])."""
    rng = np.random.default_rng(seed)

    def of(part: str, which: int, rows: npt.NDArray[np.int64] | slice) -> Features:
        if kind in PIXELS:
            return features(part, which, rows, PIXELS[kind])
        data, labels = images(part)
        raw = pixels([data[i] for i in np.flatnonzero(labels == which)[rows]], 32).astype(np.float32) / 127.5 - 1.0
        return raw.reshape(len(raw), -1, 3)

    normals = of("train", label, slice(sizes.train))
    count = math.floor(ALPHA / (1 - ALPHA) * len(normals))
    others = [k for k in range(10) if k != label]
    drawn = np.bincount(rng.integers(0, 9, count), minlength=9)
    anomalies = [
        of("train", k, rng.choice(5000, int(n), replace=False)) for k, n in zip(others, drawn, strict=True) if n
    ]
    test = [of("test", k, slice(None if k == label else sizes.test_others)) for k in range(10)]
    return Protocol(
        np.concatenate([normals, *anomalies]),
        np.repeat(np.array([0, 1], dtype=np.int8), [len(normals), count]),
        np.concatenate(test),
        np.concatenate([np.full(len(part), k != label, dtype=np.int8) for k, part in enumerate(test)]),
    )


def nearest(train: Features, test: Features) -> npt.NDArray[np.float64]:
    """Mean cosine distance to the five nearest."""
    train, test = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (train, test))
    return np.concatenate([1.0 - np.sort(part @ train.T)[:, -5:].mean(1) for part in np.split(test, 20)]).astype(float)


def measure(cell: str, budget: str) -> dict[str, Any]:
    kind, label, assignment, seed = cell.split("/")
    sizes = SIZES[kind, budget]
    sets = sets_of(kind, int(label), int(seed), sizes)
    if assignment == NEAREST:
        return {"auroc": 100 * auroc(nearest(sets.train, sets.test), sets.test_labels), "budget": budget}
    changed: dict[str, Any] = dict(sizes.options)
    options = LoeOptions(recipe="paper", assignment=assignment, **changed).for_data("images")  # type: ignore[arg-type]

    def network() -> nn.Module:
        net = WideResNet(16, sizes.width)
        # Layout alone, for the CPU's convolutions: half the time at width 1.
        return MHRot(net, net.num_features, 32).to(memory_format=torch.channels_last)

    mhrot = kind == "mhrot"
    began = time.perf_counter()
    pair, trainer = trained(sets, options, int(seed), ALPHA, network if mhrot else None)
    seconds = time.perf_counter() - began
    assert trainer.history is not None
    return {
        "auroc": 100 * auroc(scores_of(pair, sets.test, 16 if mhrot else 512), sets.test_labels),
        "budget": budget, "seconds": round(seconds, 1), "training_items": len(sets.train), "test_items": len(sets.test),
        "best_epoch": trainer.history.best_epoch + 1, "epochs": len(trainer.history.losses),
        "losses": [round(loss, 4) for loss in trainer.history.losses],
    }  # fmt: skip


def main() -> None:
    given = settings("LOE's protocol on CIFAR-10", seeds=1)
    quick = given.budget == "quick"
    classes = QUICK_CLASSES if quick else range(10)
    cells = [
        f"{kind}/{label}/{assignment}/{FIRST_SEED + k}"
        for k in range(given.seeds) for kind in PAPER for label in classes for assignment in (*ASSIGNMENTS, NEAREST)
        if kind in PIXELS or not (assignment == NEAREST or (quick and label != QUICK_CLASSES[0]))
    ]  # fmt: skip
    wanted = [cell for cell in cells if given.wants(cell)]
    results = Results("loe_cifar" if quick else "loe_cifar_full", given)
    results.run(wanted, lambda cell: measure(cell, given.budget), cells)
    rows = []
    for kind, paper in PAPER.items():
        for label in classes:
            row = [kind, str(label)]
            for assignment in (*ASSIGNMENTS, NEAREST):
                ours = [
                    c["auroc"] for name, c in results.cells.items() if name.startswith(f"{kind}/{label}/{assignment}/")
                ]
                row.append(shown(ours) if ours else "–")
            rows.append(row)
        rows.append(
            [f"{kind}, paper, ten classes", "mean", *(f"{paper.get(a, math.nan):.1f}" for a in ASSIGNMENTS), ""]
        )
    print_table(["", "class", *ASSIGNMENTS, NEAREST], rows)


if __name__ == "__main__":
    main()
