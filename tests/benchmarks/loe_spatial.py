"""Audit of small image folders: spatial NTL × assignments at 5, 10, 20 % contamination, beside baselines on the same features.

usage: python tests/benchmarks/loe_spatial.py [--only cubes,PA_BDP01_TL] [--seeds 1] [--budget quick|full]
quick: the five folders that were developed on; full: all 14 (see image_sets.py). Each is mixed by the program's own
`contaminate`, fitted with the true share as --contamination, as the paper does, and the very same images are ranked.

The backbone's maps (strides 8 and 16, 3×3 average) are computed once; the program's own feature cache, scaler, training and
score run on them. That is what `fit` does for its ranking, without the first fit for p-values, the export and its checks. NTL
has the paper's views of image features (x_k = MLP(x)), scores an image by the mean over its places, sees 32 random places
of each and trains for 200 steps, which two cores can afford. Views, score and places were chosen on the five, and views and
score became the program's defaults by that; `check/…` cells measure those at 10 % (128 places, 600 steps), `residual/…` what
the defaults were before, views x + MLP(x) and the worst 1 % of the places.

Baselines: the distance to the nearest patch of other images, a Gaussian a place (`blind`), and the trimmed one (`refine`), which
is the program's default detector but for the latter's second Gaussian, of the whole image (`audit_images.py` measures that one).
"""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from harness import Results, print_table, settings
from image_sets import DEV, RATIOS, Cached, Through, families, features_of, mixed, nearest_patch

from anoaudit.methods.loe.alternate import alternate
from anoaudit.methods.loe.assignment import Assignment
from anoaudit.methods.loe.gaussian import GaussianMap
from anoaudit.methods.loe.method import train_pair
from anoaudit.methods.loe.options import LoeOptions
from anoaudit.methods.loe.pairs import image_pair
from anoaudit.progress import Reporter
from anoaudit.reports.metrics import auroc, average_precision
from anoaudit.training.checkpoint import Checkpoints
from anoaudit.training.device import seed_everything
from anoaudit.training.features import LocationScaler, extract
from anoaudit.training.trainer import Trainer

ASSIGNMENTS = ("blind", "refine", "hard", "soft", "gt")
COLUMNS = (*(f"ntl {a}" for a in ASSIGNMENTS), "gaussian blind", "gaussian refine", "nearest patch")
STEPS, BATCH = 200, 16
NTL: dict[str, Any] = {"locations": 32, "transform": "plain", "top": 1.0}
CHECKED = tuple(family for family in DEV if not family.startswith("cifar10"))
WAYS: dict[str, dict[str, Any]] = {"check": {}, "residual": {"transform": "residual", "top": 0.01}}


def scores_of(
    maps: npt.NDArray[np.float32], labels: npt.NDArray[np.int8], options: LoeOptions, alpha: float, seed: int
) -> npt.NDArray[np.float64]:
    """The ranking of `fit` with these options of images with these maps float32[N, C, h, w]."""
    device = torch.device("cpu")
    seed_everything(seed, device)
    through, gaussian = Through(maps.shape), options.detector == "gaussian"
    kept = torch.from_numpy(np.sort(np.random.default_rng(seed).permutation(maps.shape[1])[: options.channels]))
    scaler = LocationScaler(maps.shape[1], through.grid, per_location=options.scaling == "location")
    with tempfile.TemporaryDirectory() as name:
        trainer = Trainer(device, seed, alpha, Checkpoints(Path(name), {}, resume=False), Reporter())
        data = extract(
            Cached(maps, labels), through, scaler, None if gaussian else options.locations,  # type: ignore[arg-type]
            channels=kept if gaussian else None, device=device, seed=seed, folder=Path(name), reporter=Reporter(),
        )  # fmt: skip
        pair: Any = image_pair(through, kept if gaussian else None, options)
        if isinstance(pair, GaussianMap):
            assignment = Assignment(options.assignment or "refine", alpha, warmup=0)
            alternate(pair, data, assignment, options.rounds or 10, device, Reporter())
        else:
            train_pair(pair, data, options, trainer, "train")
    with torch.inference_mode():
        parts = [pair.score_and_map(scaler(part))[0] for part in torch.split(torch.from_numpy(maps), 4)]
    return torch.cat(parts).double().numpy()


def measure(cell: str) -> dict[str, Any]:
    way, rest = cell.split("/", 1) if cell.startswith(tuple(WAYS)) else ("", cell)
    family, ratio, column, seed = rest.split("/")
    _, truth = mixed(family, ratio, int(seed))
    ids = sorted(truth)
    y = np.array([truth[item] for item in ids], dtype=np.int8)
    maps = features_of(family, ids)
    began = time.perf_counter()
    if column == "nearest patch":
        scores = nearest_patch(maps)
    else:
        detector, assignment = column.split()
        extra: dict[str, Any] = {}
        if detector == "ntl":
            extra = WAYS[way] if way else NTL | {"epochs": math.ceil(STEPS / math.ceil(len(ids) / BATCH))}
        options = LoeOptions(detector=detector, assignment=assignment, **extra).for_data("images")  # type: ignore[arg-type]
        scores = scores_of(maps, y, options, float(ratio), int(seed))
    return {
        "auroc": auroc(y, scores), "ap": average_precision(y, scores), "items": len(ids),
        "anomalies": int(y.sum()), "seconds": round(time.perf_counter() - began, 1),
    }  # fmt: skip


def summary(cells: dict[str, Any]) -> list[dict[str, Any]]:
    """Means over the families (of each, over its seeds) that have every column at that ratio."""
    found = []
    for ratio in RATIOS:
        means = {
            (family, column): [
                np.mean([c[key] for name, c in cells.items() if name.startswith(f"{family}/{ratio}/{column}/")] or [np.nan])
                for key in ("auroc", "ap")
            ]
            for family in families() for column in COLUMNS
        }  # fmt: skip
        whole = [f for f in families() if all(np.isfinite(means[f, column][0]) for column in COLUMNS)]
        for column in COLUMNS if whole else ():
            both = np.mean([means[family, column] for family in whole], axis=0)
            found.append(
                {"ratio": float(ratio), "column": column, "families": len(whole)}
                | {"mean_auroc": float(both[0]), "mean_ap": float(both[1])}
            )  # fmt: skip
    return found


def main() -> None:
    given = settings("spatial loss pairs on small folders", seeds=1)
    checks = [f"{way}/{family}/0.1/ntl soft/0" for family in CHECKED for way in WAYS]
    every = [
        f"{family}/{ratio}/{column}/{seed}"
        for seed in range(given.seeds) for ratio in RATIOS for family in families() if given.budget == "full" or family in DEV
        for column in COLUMNS
    ]  # fmt: skip
    every += checks
    wanted = [cell for cell in every if not given.only or any(part in given.only for part in cell.split("/"))]
    results = Results("loe_spatial", given)
    results.extra["protocol"] = {"ntl": NTL | {"steps": STEPS, "batch_size": BATCH}}
    results.run(wanted, measure, every)
    results.extra["summary"] = summary(results.cells)
    results.write(every)
    rows = [
        [f"{ratio}, {entries[0]['families']} families", *(f"{e['mean_auroc']:.3f} / {e['mean_ap']:.3f}" for e in entries)]
        for ratio in RATIOS
        if (entries := [e for e in results.extra["summary"] if e["ratio"] == float(ratio)])
    ]  # fmt: skip
    print("AUROC / average precision of the audit, means\n")
    print_table(["contamination", *COLUMNS], rows)


if __name__ == "__main__":
    main()
