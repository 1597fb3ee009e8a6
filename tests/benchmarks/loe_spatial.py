"""Audit of small image folders: spatial loss pairs × assignments at 5, 10, 20 % contamination, beside baselines.

usage: python tests/benchmarks/loe_spatial.py [--only cubes,PA_BDP01_TL] [--seeds 1] [--budget quick|full]
quick: cubes and two paper types, two assignments; full: all of `piped`. The data and mobilenetv2_100's weights lie beside the
checkout. Each folder is mixed by the program's own `contaminate`, fitted with the true share as --contamination, as the paper
does, and its own ranking measured.

Baselines on the very same spatial features (strides 8 and 16, 3×3 average): the distance to the nearest of 2,000 random
patches of other images (the most anomalous 1 % of places make the score), and a trimmed Gaussian a place, the program's
default detector.
"""

from __future__ import annotations

import csv
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from harness import SHARED, Results, print_table, settings

from anoaudit import api
from anoaudit.data.items import ImageSpec
from anoaudit.data.source import open_dataset
from anoaudit.data.tables import ColumnOptions
from anoaudit.nets.backbones import BackboneOptions, make_backbone
from anoaudit.reports.metrics import auroc, average_precision

DATA, WEIGHTS = SHARED / "data", SHARED / "weights" / "mobilenetv2_100.safetensors"
RATIOS = ("0.05", "0.1", "0.2")
ARGUMENTS = {"mean": 0.5, "std": 0.5}
COLUMNS = {
    "ntl blind": ["detector=ntl", "assignment=blind"], "ntl refine": ["detector=ntl", "assignment=refine"],
    "ntl hard": ["detector=ntl", "assignment=hard"], "ntl soft": ["detector=ntl", "assignment=soft"],
    "gaussian refine": [], "nearest patch": None,
}  # fmt: skip
QUICK = ("cubes", "PA_BDP01_TL", "PA_BRG01_RL")
PATCHES, TOP = 2000, 0.01


def families() -> list[str]:
    return ["cubes", *sorted(path.name for path in (DATA / "piped").iterdir() if path.is_dir())]


@cache
def mixed(family: str, ratio: str, seed: int) -> tuple[Path, dict[str, int]]:
    """A folder with that share of anomalies, and id → 0 or 1."""
    holder = tempfile.TemporaryDirectory()
    HOLDERS.append(holder)
    out = Path(holder.name, family)
    root = DATA / "cubes" if family == "cubes" else DATA / "piped" / family
    labels = (DATA / ("cubes" if family == "cubes" else "piped")) / "labels.csv"
    with labels.open() as file:
        prefix = "" if family == "cubes" else f"{family}/"
        rows = [
            (row["path"].removeprefix(prefix), row["anomaly"])
            for row in csv.DictReader(file)
            if row["path"].startswith(prefix)
        ]
    truth = Path(holder.name, "truth.csv")
    truth.write_text("path,anomaly\n" + "".join(f"{path},{label}\n" for path, label in rows))
    api.contaminate(root, out, ratio=float(ratio), truth=str(truth), seed=seed)
    with (out / "labels.csv").open() as file:
        return out, {row["path"]: int(row["anomaly"]) for row in csv.DictReader(file)}


HOLDERS: list[tempfile.TemporaryDirectory[str]] = []


@cache
def backbone() -> Any:
    made = make_backbone(BackboneOptions("mobilenetv2_100", WEIGHTS, ARGUMENTS), [8, 16])
    assert made is not None
    return made[0].eval()


def nearest_patch(folder: Path, ids: list[str]) -> np.ndarray:
    net = backbone()
    dataset = open_dataset(str(folder), ColumnOptions(), None, None)
    spec = ImageSpec(net.height, net.width)
    with torch.inference_mode():
        maps = torch.cat([net(torch.from_numpy(chunk.values)) for chunk in dataset.chunks(spec, 16)])
    places = maps.flatten(2).transpose(1, 2)  # [N, P, C]
    places = (places - places.mean((0, 1))) / places.std((0, 1)).clamp_min(1e-6)
    generator = torch.Generator().manual_seed(0)
    scores = []
    for i in range(len(places)):
        others = torch.cat([places[:i], places[i + 1 :]]).flatten(0, 1)
        bank = others[torch.randperm(len(others), generator=generator)[:PATCHES]]
        nearest = torch.cdist(places[i], bank).min(1).values
        scores.append(float(nearest.topk(max(1, round(TOP * len(nearest)))).values.mean()))
    order = [item for chunk in dataset.chunks(spec, 16) for item in chunk.ids]
    by_id = dict(zip(order, scores, strict=True))
    return np.array([by_id[item] for item in ids])


def measure(cell: str) -> dict[str, Any]:
    family, ratio, column, seed = cell.split("/")
    folder, truth = mixed(family, ratio, int(seed))
    ids = sorted(truth)
    options = COLUMNS[column]
    if options is None:
        scores = nearest_patch(folder, ids)
    else:
        with tempfile.TemporaryDirectory() as name:
            api.fit(
                folder, out=Path(name, "m"), device="cpu", seed=int(seed), backbone="mobilenetv2_100", weights=WEIGHTS,
                backbone_args=[f"{k}={v}" for k, v in ARGUMENTS.items()], options=options, contamination=float(ratio),
            )  # fmt: skip
            table = pl.read_parquet(Path(name, "m", "scores.parquet"))
        by_id = dict(zip(table["id"], table["score"], strict=True))
        scores = np.array([by_id[item] for item in ids])
    y = np.array([truth[item] for item in ids])
    return {"auroc": auroc(y, scores), "ap": average_precision(y, scores), "items": len(ids), "anomalies": int(y.sum())}


def main() -> None:
    given = settings("spatial loss pairs on small folders", seeds=1)
    every = [
        f"{family}/{ratio}/{column}/{seed}"
        for seed in range(given.seeds) for family in families() for ratio in RATIOS for column in COLUMNS
    ]  # fmt: skip
    quick = [
        c
        for c in every
        if c.split("/")[0] in QUICK and c.split("/")[2] not in ("ntl refine", "ntl hard") and "/0.1/" in c
    ]
    cells = every if given.budget == "full" else quick
    wanted = [cell for cell in cells if not given.only or cell.split("/")[0] in given.only]
    results = Results("loe_spatial", given)
    results.run(wanted, measure, len(every))
    rows = []
    for family in families():
        for ratio in RATIOS:
            row = [family, ratio]
            for column in COLUMNS:
                cells_here = [c for name, c in results.cells.items() if name.startswith(f"{family}/{ratio}/{column}/")]
                row.append(
                    f"{np.mean([c['auroc'] for c in cells_here]):.3f} / {np.mean([c['ap'] for c in cells_here]):.3f}"
                    if cells_here
                    else "–"
                )
            if any(value != "–" for value in row[2:]):
                rows.append(row)
    print("AUROC / average precision of the audit\n")
    print_table(["folder", "contamination", *COLUMNS], rows)


if __name__ == "__main__":
    main()
