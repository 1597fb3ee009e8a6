"""COFT-AD (METHODS §3) at 128 px on few normals, against the same network un-tuned: AUROC, ablation, time.

A draw takes 16 normals of a family at random; K of them, the first, are the support, the same ones for every way; the normals
that were not among the 16 and all anomalies are the test, whose labels nothing but the AUROC sees. Ways: `coft`: fine-tuned
with all three terms, negatives=cutpaste for defects and rotate for objects; `untuned`: the same Gaussian on the network as it
is (epochs=0); `nearest`: cosine distance to the nearest of the K un-tuned embeddings; at K = 4 parts of `coft`, see TERMS.
Families: paper types of `piped`, `cubes`, classes of CIFAR-10 (120 images of the class, 12 of each other one). `--budget
quick`: five families that the defaults were developed on.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from harness import Results, print_table, settings
from image_sets import DEV, WEIGHTS, families, other_classes, root_of
from loe_tables import auroc
from PIL import Image
from torch import Tensor

from anoaudit.methods.coft.gaussian import ShrunkGaussian
from anoaudit.methods.coft.options import CoftOptions
from anoaudit.methods.coft.tuning import embed_copies, learns, tune
from anoaudit.nets.backbones import BackboneOptions, make_backbone
from anoaudit.progress import Reporter
from anoaudit.training.checkpoint import Checkpoints
from anoaudit.training.pixels import PixelBatches
from anoaudit.training.trainer import Trainer

SIDE, POOL, DRAWS = 128, 16, 5
QUICK = ("cubes", "PA_BDP01_TL", "PA_BRG01_RL", "PA_ZPB01_RL", "cifar10_0")
CLASSES = ("cifar10_0", "cifar10_4", "cifar10_7")
SHOTS = {"quick": (1, 4, 16), "full": (1, 2, 4, 8, 16)}
ABLATED = 4
#: Options of the ways that are ablations, at K = ABLATED: one term after another, the losses on the embedding itself.
TERMS: dict[str, dict[str, Any]] = {
    "con": {"positives": 0.0, "push": 0.0},
    "con+pp": {"push": 0.0},
    "np": {"contrast": 0.0, "positives": 0.0},
    "no projector": {"projector": False},
}
CPU = torch.device("cpu")
Images = npt.NDArray[np.uint8]


def all_families() -> list[str]:
    return [family for family in families() if (root_of(family) / "defect").is_dir() or family == "cubes"] + list(
        CLASSES
    )


def read(paths: list[Path]) -> Images:
    size = (SIDE, SIDE)
    return np.stack([np.asarray(Image.open(p).convert("RGB").resize(size, Image.Resampling.BILINEAR)) for p in paths])


@cache
def images(family: str) -> tuple[Images, Images]:
    """Normals and anomalies."""
    root = root_of(family)
    if family in CLASSES:
        return read(sorted(root.iterdir())), read(sorted(other_classes(family).rglob("*.png")))
    good, bad = ("normal", "abnormal") if family == "cubes" else ("good", "defect")
    return read(sorted((root / good).iterdir())), read(sorted((root / bad).iterdir()))


def network() -> Any:
    made = make_backbone(BackboneOptions("mobilenetv2_100", WEIGHTS, {"mean": 0.5, "std": 0.5, "size": SIDE}), None)
    assert made is not None
    return made[0].eval()


@torch.no_grad()
def embed(net: Any, pictures: Images) -> Tensor:
    parts = torch.split(torch.from_numpy(pictures), 32)
    return torch.cat([F.normalize(net(part), dim=-1) for part in parts])


@cache
def untuned_embeddings(family: str) -> tuple[Tensor, Tensor]:
    net = network()
    good, bad = images(family)
    return embed(net, good), embed(net, bad)


def order_of(family: str, draw: int) -> npt.NDArray[np.int64]:
    """Of the normals: the first POOL are for supports, the others for the test."""
    return np.random.default_rng(draw).permutation(len(images(family)[0]))


def options_of(family: str, way: str) -> CoftOptions:
    negatives = "rotate" if kind_of(family) == "objects" else "cutpaste"
    changed: dict[str, Any] = (
        {"epochs": 0} if way == "untuned" else {"epochs": 20, "negatives": negatives} | TERMS.get(way, {})
    )
    return CoftOptions(**changed)


def measure(cell: str) -> dict[str, Any]:
    family, shots, way, draw = cell.split("/")
    good, bad = images(family)
    order = order_of(family, int(draw))
    support, rest = order[: int(shots)], np.sort(order[POOL:])
    truth = np.repeat(np.array([0, 1], dtype=np.int8), [len(rest), len(bad)])
    plain_good, plain_bad = untuned_embeddings(family)
    test = torch.cat([plain_good[rest], plain_bad])
    if way == "nearest":
        scores = (1 - test @ plain_good[support].T).amin(1)
        return {"auroc": round(100 * auroc(scores.double().numpy(), truth), 2)}
    options = options_of(family, way)
    data = PixelBatches(good[support], np.zeros(len(support), dtype=np.int8))
    net, facts, began, cpu = network(), dict[str, Any](), time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(CPU, int(draw), 0.0, Checkpoints(Path(folder), {}, False), Reporter())
        if learns(options, len(data)):
            net.unfreeze(statistics=False)
            watch = tune(net, data, options, trainer, "train")
            assert trainer.history is not None
            losses = trainer.history.losses
            facts = {"rank": watch.columns()["effective_rank"], "losses": [round(loss, 4) for loss in losses],
                     "collapsed_in": watch.fallen_in}  # fmt: skip
        views_NVC, _ = embed_copies(net, data, options, options.copies, trainer)
    head = ShrunkGaussian(views_NVC.shape[2]).fit(views_NVC.flatten(0, 1))
    spent = {
        "fit_seconds": round(time.perf_counter() - began, 1),
        "fit_cpu_seconds": round(time.process_time() - cpu, 1),
    }
    if learns(options, len(data)):
        test = torch.cat([embed(net, good[rest]), embed(net, bad)])
    with torch.no_grad():
        scores = head.score(test)
    return {"auroc": round(100 * auroc(scores.double().numpy(), truth), 2), **spent, **facts}


def cells_of(budget: str, draws: int) -> list[str]:
    chosen = QUICK if budget == "quick" else all_families()
    cells = []
    for draw in range(draws):
        for shots in SHOTS[budget]:
            ways = ["untuned", "nearest", "coft", *(TERMS if shots == ABLATED else ())]
            cells += [f"{family}/{shots}/{way}/{draw}" for family in chosen for way in ways]
    return cells


def kind_of(family: str) -> str:
    return "objects" if family in CLASSES else "defects"


def summary(results: Results, shots: tuple[int, ...]) -> None:
    """Mean ± sd over draws of each family, then the paired difference to the un-tuned network over families and draws."""

    def found(family: str, k: int, way: str) -> dict[int, float]:
        start = f"{family}/{k}/{way}/"
        return {int(n.rsplit("/", 1)[1]): c["auroc"] for n, c in results.cells.items() if n.startswith(start)}

    def shown(values: list[float]) -> str:
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.1f}{spread}" if values else "–"

    chosen = sorted({name.split("/")[0] for name in results.cells})
    rows, differences = [], dict[str, Any]()
    for k in shots:
        ways = ["nearest", "untuned", "coft", *(TERMS if k == ABLATED else ())]
        for family in chosen:
            rows.append(
                [
                    family + ("" if family in DEV else " *"),
                    str(k),
                    *(shown([*found(family, k, w).values()]) for w in ways),
                ]
            )
        for way in ways:
            for kind in ("defects", "objects"):
                paired = {
                    family: [value - base[d] for d, value in found(family, k, way).items() if d in base]
                    for family in chosen if kind_of(family) == kind and (base := found(family, k, "untuned"))
                }  # fmt: skip
                means = [statistics.mean(values) for values in paired.values() if values]
                if means and way != "untuned":
                    differences[f"{way}/{k}/{kind}"] = {
                        "mean": round(statistics.mean(means), 2), "families": len(means), "worse": sum(m < 0 for m in means),
                        "draws": sum(len(v) for v in paired.values()),
                    }  # fmt: skip
    results.extra["minus_untuned"] = differences
    print_table(
        ["family (* confirms)", "K", "nearest", "untuned", "coft", *TERMS],
        [row + [""] * (5 + len(TERMS) - len(row)) for row in rows],
    )
    print()
    heads = ["way/K/kind, difference to untuned", "mean", "families", "of them worse", "draws"]
    print_table(heads, [[name, *map(str, d.values())] for name, d in differences.items()])
    for k in shots:
        seconds = [c["fit_cpu_seconds"] for n, c in results.cells.items() if f"/{k}/coft/" in n]
        if seconds:
            print(f"fit at K = {k}: {statistics.median(seconds):.0f} s of one core in the median of {len(seconds)}")


def main() -> None:
    given = settings("COFT-AD on few normals", seeds=DRAWS)
    torch.set_num_threads(1)
    cells = cells_of(given.budget, given.seeds)
    results = Results("coft" if given.budget == "quick" else "coft_full", given)
    results.run([cell for cell in cells if given.wants(cell)], measure, cells)
    summary(results, SHOTS[given.budget])
    results.write(cells)


if __name__ == "__main__":
    main()
