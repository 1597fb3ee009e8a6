"""Does loss amplification help? LAMP beside its base loss, and beside the base loss times a constant (METHODS §5).

A cell is SET/METRIC/OPTIMISER/SEED: the same network, split, order of batches and start is trained three times, on normals only,
and tested on the other normals and all anomalies: `base` (the plain error), `scaled` (the plain error times c, the mean ratio of
the amplified loss's gradient norm to the plain one's along LAMP's own way) and `lamp`. Scores are never amplified. The document's
`differences` are lamp − base and lamp − scaled, paired over seeds, with 95 % intervals (Student's t).

    lamp.py [--only cubes/l2] [--seeds 5] [--budget quick|full] [--minutes N]

quick: 64 px, cubes and two types of piped, L1, L2, DSSIM, Adam, and ten tables (L1, L2); full: 128 px, all types, MSGMS and SGD,
too. All sets of the quick budget are for development.
"""

from __future__ import annotations

import math
import tempfile
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from harness import SHARED, Results, print_table, settings
from image_sets import families, root_of
from torch import Tensor, nn

from anoaudit.data.decoding import read_image
from anoaudit.data.encoding import infer_spec
from anoaudit.data.items import ImageSpec
from anoaudit.methods.lamp.amplifier import training_loss
from anoaudit.methods.lamp.heads import ImageReconstruction, Reconstruction, RowReconstruction
from anoaudit.methods.lamp.method import EPOCHS, STEPS
from anoaudit.methods.lamp.options import LampOptions
from anoaudit.nets.autoencoders import ConvAutoencoder
from anoaudit.nets.pixels import UnitPixels
from anoaudit.nets.table_input import TableInput
from anoaudit.progress import Reporter
from anoaudit.reports.metrics import auroc, average_precision
from anoaudit.training.checkpoint import Checkpoints
from anoaudit.training.device import seed_everything
from anoaudit.training.features import RowBatches
from anoaudit.training.loop import Batches, Schedule
from anoaudit.training.pixels import PixelBatches
from anoaudit.training.trainer import Trainer

TABLES = SHARED / "data" / "tables"
QUICK_IMAGES = ("cubes", "PA_BRG01_RL", "PA_BTN01_RL")
QUICK_TABLES = (
    "annthyroid", "breastw", "cardio", "ionosphere", "letter", "optdigits", "pima", "satellite", "thyroid", "vowels",
)  # fmt: skip
TRAINED = 2 / 3  # of the normals
MOST_ROWS = 5000
ARMS = ("base", "scaled", "lamp")
RATIO_EVERY = 10  # steps
LR = {"adam": 1e-3, "sgd": 5e-2}
T95 = {4: 2.776, 9: 2.262}  # Student's t, two-sided 95 %, by degrees of freedom
CPU = torch.device("cpu")

Labels = npt.NDArray[np.int8]


def image_cells(budget: str) -> list[str]:
    if budget == "quick":
        return [f"{name}/{m}/adam" for name in QUICK_IMAGES for m in ("l2", "l1", "dssim")]
    return [f"{n}/{m}/{o}" for n in families() for m in ("l2", "l1", "dssim", "msgms") for o in ("adam", "sgd")]


def table_cells(budget: str) -> list[str]:
    optimisers = ("adam",) if budget == "quick" else ("adam", "sgd")
    return [f"{name}/{m}/{o}" for name in QUICK_TABLES for m in ("l2", "l1") for o in optimisers]


@cache
def pictures(family: str, size: int) -> tuple[npt.NDArray[np.uint8], Labels]:
    """uint8[N, size, size, 3], stretched, and 1 for anomalies."""
    root = root_of(family)
    normal, odd = ("normal", "abnormal") if family == "cubes" else ("good", "defect")
    paths = [(path, k) for k, name in enumerate((normal, odd)) for path in sorted((root / name).glob("*"))]
    images = [read_image(path, ImageSpec(size, size)).pixels for path, _ in paths]
    return np.stack(images), np.array([k for _, k in paths], dtype=np.int8)


def split(labels: Labels, seed: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows trained on, all normal, and rows tested."""
    rng = np.random.default_rng(seed)
    normal = rng.permutation(np.flatnonzero(labels == 0))
    count = round(TRAINED * len(normal))
    return normal[: min(count, MOST_ROWS)], np.concatenate([normal[count:], np.flatnonzero(labels == 1)])


class Task:
    """What is trained and tested: the batches, a fresh head, the inlet to it."""

    make: Callable[[], Reconstruction]

    def __init__(self, name: str, metric: str, seed: int, budget: str) -> None:
        self.seed, self.inlet, self.batch = seed, UnitPixels() if name not in QUICK_TABLES else None, 16
        if name in QUICK_TABLES:
            frame = pl.read_parquet(TABLES / f"{name}.parquet")
            self.labels = frame["anomaly"].to_numpy().astype(np.int8)
            frame = frame.drop("anomaly")
            spec = infer_spec(frame, None, ())
            rows = frame.select([rule.name for rule in spec.columns]).to_numpy().astype(np.float64)
            train, test = split(self.labels, seed)
            inlet = TableInput(spec, rows[train], "interval")
            with torch.no_grad():
                x = inlet(torch.from_numpy(rows))
            options = LampOptions(metric=metric).for_data("table")
            self.batch = 128
            self.make = lambda: RowReconstruction(spec, inlet, options)
            self.train: Batches = RowBatches(x[torch.from_numpy(train)], self.labels[train])
            self.test = x[torch.from_numpy(test)]
        else:
            size = 64 if budget == "quick" else 128
            images, self.labels = pictures(name, size)
            train, test = split(self.labels, seed)
            self.make = lambda: ImageReconstruction(ConvAutoencoder(size, size), metric, 0.01)
            self.train = PixelBatches(images[train], self.labels[train])
            self.test = torch.from_numpy(images[test])
        self.truth = self.labels[test]

    def trained(self, optimiser: str, amplifier: Literal["log", "none"], factor: float = 1.0) -> tuple[Any, float]:
        """A head trained on one of the losses, and the mean ratio of the gradients' norms where it is amplified."""
        seed_everything(self.seed, CPU)
        head = self.make()
        parameters = list(head.parameters())
        ratios: list[float] = []
        steps = 0

        def objective(x: Tensor, labels: Tensor, epoch: int) -> Tensor:
            nonlocal steps
            errors = head.errors(x if self.inlet is None else self.inlet(x))
            loss = training_loss(errors, amplifier)
            if amplifier != "none" and steps % RATIO_EVERY == 0:
                norms = [norm(objective, parameters) for objective in (loss, training_loss(errors, "none"))]
                ratios.append(norms[0] / norms[1])
            steps += 1
            return factor * loss

        count = math.ceil(len(self.train) / self.batch)
        epochs = min(EPOCHS[1], max(EPOCHS[0], math.ceil(STEPS / count)))
        schedule = Schedule(epochs, self.batch, LR[optimiser], optimizer=optimiser)  # type: ignore[arg-type]
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(CPU, self.seed, 0.0, Checkpoints(Path(folder), {}, resume=False), Reporter())
            trainer.run(head, objective, self.train, schedule)
        return head.eval(), float(np.mean(ratios)) if ratios else 1.0

    @torch.no_grad()
    def figures(self, head: Any) -> dict[str, float]:
        """AUROC and average precision of the score; of images, of the map's mean, too; the error of what was trained on."""
        x, _ = self.train.batch(torch.arange(min(len(self.train), 512)), CPU)
        if self.inlet is None:
            scores = head.score(self.test).numpy()
            return {
                "auroc": auroc(self.truth, scores),
                "ap": average_precision(self.truth, scores),
                "error": head.errors(x).mean(),
            }
        found = [head.score_and_map(self.inlet(part)) for part in torch.split(self.test, 32)]
        scores, means = torch.cat([s for s, _ in found]).numpy(), torch.cat([m.mean((1, 2)) for _, m in found]).numpy()
        return {
            "auroc": auroc(self.truth, scores), "ap": average_precision(self.truth, scores),
            "auroc_mean": auroc(self.truth, means), "error": head.errors(self.inlet(x)).mean(),
        }  # fmt: skip


def norm(loss: Tensor, parameters: list[nn.Parameter]) -> float:
    grads = torch.autograd.grad(loss, parameters, retain_graph=True)
    return math.sqrt(sum(float(g.double().square().sum()) for g in grads))


def measure(cell: str, budget: str) -> dict[str, Any]:
    name, metric, optimiser, seed = cell.split("/")
    task = Task(name, metric, int(seed), budget)
    lamp, c = task.trained(optimiser, "log")
    base, _ = task.trained(optimiser, "none")
    scaled, _ = task.trained(optimiser, "none", c)
    found = {arm: task.figures(head) for arm, head in zip(ARMS, (base, scaled, lamp), strict=True)}
    rounded = {arm: {key: round(float(value), 6) for key, value in values.items()} for arm, values in found.items()}
    return {"c": round(c, 5), **rounded}


def differences(cells: dict[str, Any]) -> dict[str, Any]:
    """Of each SET/METRIC/OPTIMISER and over the sets: mean paired difference over seeds and half its 95 % interval."""
    by_seed: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for cell, found in cells.items():
        group, seed = cell.rsplit("/", 1)
        by_seed[group][seed] = found
    out: dict[str, Any] = {}
    pooled: dict[str, dict[str, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    for group, seeds in sorted(by_seed.items()):
        name, metric, optimiser = group.split("/")
        rows = []
        for seed, found in seeds.items():
            row = {
                f"{key}: lamp - {arm}": found["lamp"][key] - found[arm][key]
                for arm in ("base", "scaled") for key in ("auroc", "auroc_mean", "ap") if key in found["lamp"]
            }  # fmt: skip
            rows.append(row)
            kind = "tables" if name in QUICK_TABLES else "images"
            pooled[f"all {kind}/{metric}/{optimiser}"][seed].append(row)
        means = {
            f"{key}: {arm}": mean([f[arm][key] for f in seeds.values()])
            for arm in ARMS
            for key in ("auroc", "ap", "error")
        }
        out[group] = {"seeds": len(rows), "c": mean([f["c"] for f in seeds.values()]), **means, **intervals(rows)}
    for group, of_seed in pooled.items():
        most = max(map(len, of_seed.values()))  # a seed of which sets are missing would shift the mean
        of_seed = {seed: rows for seed, rows in of_seed.items() if len(rows) == most}
        rows = [{key: mean([row[key] for row in rows]) for key in rows[0]} for rows in of_seed.values()]
        out[group] = {"seeds": len(rows), "sets": len(next(iter(of_seed.values()))), **intervals(rows)}
    return out


def mean(values: list[float]) -> float:
    return round(float(np.mean(values)), 5)


def intervals(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Mean, and half the width of the 95 % interval where there are 5 or 10 seeds."""
    out: dict[str, Any] = {}
    for key in rows[0]:
        values = np.array([row[key] for row in rows])
        half = T95[len(values) - 1] * values.std(ddof=1) / math.sqrt(len(values)) if len(values) - 1 in T95 else None
        out[key] = [round(float(values.mean()), 5), None if half is None else round(float(half), 5)]
    return out


def main() -> None:
    given = settings(__doc__ or "", seeds=5)
    groups = image_cells(given.budget) + table_cells(given.budget)
    cells = [f"{group}/{seed}" for seed in range(given.seeds) for group in groups]
    torch.set_num_threads(1)
    results = Results("lamp" if given.budget == "quick" else "lamp_full", given)
    results.run([cell for cell in cells if given.wants(cell)], lambda cell: measure(cell, given.budget), cells)
    results.extra = {"differences": differences(results.cells)}
    results.write(cells)
    rows = [
        [
            group,
            str(d["seeds"]),
            *(shown(d.get(f"{key}: lamp - {arm}")) for arm in ("base", "scaled") for key in ("auroc", "ap")),
        ]
        for group, d in results.extra["differences"].items()
    ]
    print_table(["set/metric/optimiser", "seeds", "AUROC: lamp − base", "AP", "lamp − scaled", "AP"], rows)


def shown(value: Any) -> str:
    if value is None:
        return "–"
    middle, half = value
    return f"{middle:+.4f}" + ("" if half is None else f" ± {half:.4f}")


if __name__ == "__main__":
    main()
