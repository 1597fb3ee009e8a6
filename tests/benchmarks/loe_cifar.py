"""LOE's protocol on CIFAR-10, one class against the rest (METHODS §1): AUROC at 10 % contamination, five assignments.

usage: python tests/benchmarks/loe_cifar.py [--only features/3] [--seeds 1] [--budget quick|full]
Needs CIFAR-10 and mobilenetv2_100's weights beside the checkout. Cells are features/CLASS/ASSIGNMENT/SEED (NTL in the published
configuration on pooled features at 96 px; transforms 256 wide in the quick budget, 2048 in the full one) and
mhrot/CLASS/ASSIGNMENT/SEED (from raw pixels; quick: 300 training images, 2 epochs; full: all, 16 epochs).

Training: all 5,000 images of the class and ⌊α/(1 − α)·5000⌋ from the other nine; test: the whole test set.
"""

from __future__ import annotations

import io
import math
import time
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

from anoaudit.methods.loe.options import LoeOptions
from anoaudit.nets.backbones import BackboneOptions, make_backbone

CACHE = Path(__file__).parent / "cache"
SIZE, BATCH = 96, 128
QUICK_CLASSES = (1, 3)
#: AUROC in % of the paper: ResNet-152 features with NTL, raw pixels with MHRot; mean over the ten classes.
PAPER = {
    "features": {"blind": 91.3, "refine": 93.5, "hard": 94.9, "soft": 94.9},
    "mhrot": {"blind": 84.0, "refine": 84.4, "hard": 86.4, "soft": 86.3},
}
Features = npt.NDArray[np.float32]


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
def backbone() -> nn.Module:
    made = make_backbone(
        BackboneOptions(
            "mobilenetv2_100",
            SHARED / "weights" / "mobilenetv2_100.safetensors",
            {"mean": 0.5, "std": 0.5, "size": SIZE},
        ),
        None,
    )
    assert made is not None
    return made[0].eval()


@cache
def features(part: str, label: int) -> Features:
    """Pooled features of one class, computed once and kept in an ignored folder."""
    path = CACHE / f"cifar10-{part}-{label}.npy"
    if not path.exists():
        data, labels = images(part)
        mine = [one for one, y in zip(data, labels, strict=True) if y == label]
        found = []
        with torch.inference_mode():
            for start in range(0, len(mine), BATCH):
                found.append(backbone()(torch.from_numpy(pixels(mine[start : start + BATCH], SIZE))).half().numpy())
        CACHE.mkdir(exist_ok=True)
        np.save(path, np.concatenate(found))
    return np.load(path).astype(np.float32)


def sets_of(kind: str, label: int, seed: int, most: int | None) -> Protocol:
    """Rows are features, or pixels as the feature cache holds them ([N, H·W, 3] in [−1, 1])."""
    rng = np.random.default_rng(seed)

    def of(part: str, which: int, rows: npt.NDArray[np.int64] | None = None) -> Features:
        if kind == "features":
            found = features(part, which)
            return found if rows is None else found[rows]
        data, labels = images(part)
        at = np.flatnonzero(labels == which)
        chosen = at if rows is None else at[rows]
        raw = pixels([data[i] for i in chosen], 32).astype(np.float32) / 127.5 - 1.0
        return raw.reshape(len(raw), -1, 3)

    normals = of("train", label, None if most is None else np.arange(most))
    count = math.floor(ALPHA / (1 - ALPHA) * len(normals))
    others = [k for k in range(10) if k != label]
    drawn = np.bincount(rng.integers(0, 9, count), minlength=9)
    anomalies = [
        of("train", k, rng.choice(5000, int(n), replace=False)) for k, n in zip(others, drawn, strict=True) if n
    ]
    few = None if most is None else np.arange(100)
    test = [of("test", k, None if few is None or k == label else few[:12]) for k in range(10)]
    if most is not None:
        test[label] = test[label][:100]
    return Protocol(
        np.concatenate([normals, *anomalies]),
        np.repeat(np.array([0, 1], dtype=np.int8), [len(normals), count]),
        np.concatenate(test),
        np.concatenate([np.full(len(part), k != label, dtype=np.int8) for k, part in enumerate(test)]),
    )


def measure(cell: str, budget: str) -> dict[str, Any]:
    kind, label, assignment, seed = cell.split("/")
    quick = budget == "quick"
    sets = sets_of(kind, int(label), int(seed), 300 if quick and kind == "mhrot" else None)
    extra: dict[str, Any] = {"detector": "mhrot", "epochs": 2 if quick else None} if kind == "mhrot" else {}
    if kind == "features" and quick:
        extra = {"transform_hidden": 256}
    options = LoeOptions(recipe="paper", assignment=assignment, **extra).for_data("images")  # type: ignore[arg-type]
    began = time.perf_counter()
    pair, trainer = trained(sets, options, int(seed), ALPHA)
    seconds = time.perf_counter() - began
    assert trainer.history is not None
    return {
        "auroc": 100 * auroc(scores_of(pair, sets.test), sets.test_labels), "budget": budget, "seconds": round(seconds, 1),
        "training_items": len(sets.train), "best_epoch": trainer.history.best_epoch + 1, "epochs": len(trainer.history.losses),
    }  # fmt: skip


def main() -> None:
    given = settings("LOE's protocol on CIFAR-10", seeds=1)
    quick = given.budget == "quick"
    classes = QUICK_CLASSES if quick else range(10)
    cells = [
        f"{kind}/{label}/{assignment}/{FIRST_SEED + k}"
        for k in range(given.seeds) for kind in PAPER for label in classes for assignment in ASSIGNMENTS
        if not (quick and kind == "mhrot" and (label != QUICK_CLASSES[0] or assignment not in ("blind", "soft")))
    ]  # fmt: skip
    wanted = [cell for cell in cells if not given.only or cell.startswith(given.only)]
    results = Results("loe_cifar" if quick else "loe_cifar_full", given)
    results.run(wanted, lambda cell: measure(cell, given.budget), len(cells))
    rows = []
    for kind, paper in PAPER.items():
        for label in classes:
            row = [kind, str(label)]
            for assignment in ASSIGNMENTS:
                ours = [
                    c["auroc"] for name, c in results.cells.items() if name.startswith(f"{kind}/{label}/{assignment}/")
                ]
                row.append(shown(ours) if ours else "–")
            rows.append(row)
        rows.append([f"{kind}, paper, ten classes", "mean", *(f"{paper.get(a, math.nan):.1f}" for a in ASSIGNMENTS)])
    print_table(["", "class", *ASSIGNMENTS], rows)


if __name__ == "__main__":
    main()
