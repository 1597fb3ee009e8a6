"""LOE's own protocol on tables (Qiu et al. 2022; METHODS §1): F1 at 10 % contamination, five assignments, beside the paper.

usage: python tests/benchmarks/loe_tables.py [--only thyroid] [--seeds 5]. Needs the tables beside the checkout.

The normals, in file order, are split in half: the first half trains, the second and all anomalies test. ⌊α/(1 − α)·n⌋
anomalies are added to training: test anomalies plus Gaussian noise with the anomalies' standard deviation per column, drawn
with replacement where there are too few. F1 with the threshold at the test set's true share of normals. Nothing is scaled.
NTL's networks, the assignments and the training loop are the program's own; only data and metric are this script's.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from harness import SHARED, Results, print_table, settings

from anoaudit.methods.loe.method import loss_pair, train_pair
from anoaudit.methods.loe.options import LoeOptions
from anoaudit.progress import Reporter
from anoaudit.training.checkpoint import Checkpoints
from anoaudit.training.device import seed_everything
from anoaudit.training.features import RowBatches
from anoaudit.training.trainer import Trainer

TABLES = SHARED / "data" / "tables"
ALPHA = 0.1
FIRST_SEED, SEEDS = 40, 5
ASSIGNMENTS = ("blind", "refine", "hard", "soft", "gt")
COMMON: dict[str, Any] = {
    "detector": "ntl", "batch_size": 128, "lr": 1e-3, "weight_decay": 1e-5, "epochs": 300, "patience": 100, "warmup": 2,
    "transforms": 9, "transform": "residual", "temperature": 0.1, "scaling": "none",
}  # fmt: skip
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "thyroid": COMMON | {"hidden": 24, "out": 24, "transform_hidden": 24},
    "arrhythmia": COMMON | {"hidden": 64, "out": 32, "transform_hidden": 200},
}
#: F1 in %, mean and standard deviation over five seeds: the paper's, and the authors' code run again on a CPU.
PAPER: dict[str, dict[str, tuple[float, float]]] = {
    "thyroid": {
        "blind": (43.4, 5.5),
        "refine": (55.1, 4.2),
        "hard": (82.4, 2.7),
        "soft": (82.4, 2.3),
        "gt": (84.9, 1.3),
    },
    "arrhythmia": {"blind": (57.6, 2.5), "refine": (59.1, 2.1), "hard": (62.1, 2.8), "soft": (62.7, 3.3)},
}
RERUN: dict[str, dict[str, tuple[float, float]]] = {
    "thyroid": {
        "blind": (34.7, 7.9),
        "refine": (54.5, 4.2),
        "hard": (84.0, 2.2),
        "soft": (82.6, 2.4),
        "gt": (85.3, 1.2),
    },
    "arrhythmia": {
        "blind": (55.8, 1.5),
        "refine": (56.7, 1.5),
        "hard": (63.0, 3.7),
        "soft": (60.6, 1.4),
        "gt": (66.7, 3.3),
    },
}

Rows = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Protocol:
    """A contaminated training set and a test set; labels 1 are anomalies."""

    train: Rows
    train_labels: Labels
    test: Rows
    test_labels: Labels


def protocol(table: str, seed: int, alpha: float = ALPHA) -> Protocol:
    frame = pl.read_parquet(TABLES / f"{table}.parquet")
    rows = frame.drop("anomaly").to_numpy().astype(np.float32)
    anomalous = frame["anomaly"].to_numpy() == 1
    normals, anomalies = rows[~anomalous], rows[anomalous]
    half = len(normals) // 2
    count = math.floor(alpha / (1 - alpha) * half)
    rng = np.random.default_rng(seed)
    drawn = anomalies[rng.choice(len(anomalies), count, replace=count > len(anomalies))]
    contaminants = drawn + rng.normal(size=drawn.shape) * anomalies.std(axis=0)
    return Protocol(
        np.concatenate([normals[:half], contaminants.astype(np.float32)]),
        np.repeat(np.array([0, 1], dtype=np.int8), [half, count]),
        np.concatenate([normals[half:], anomalies]),
        np.repeat(np.array([0, 1], dtype=np.int8), [len(normals) - half, len(anomalies)]),
    )


def f1_at_true_share(scores: npt.NDArray[np.float64], labels: Labels) -> float:
    """F1 in %, everything above the quantile of the true share of normals called anomalous."""
    called = scores >= np.quantile(scores, float((labels == 0).mean()))
    hits = int((called & (labels == 1)).sum())
    return 200.0 * hits / (int(called.sum()) + int((labels == 1).sum()))


def measure(cell: str) -> dict[str, Any]:
    table, assignment, seed = cell.split("/")
    sets = protocol(table, int(seed))
    options = LoeOptions(assignment=assignment, **CONFIGURATIONS[table])  # type: ignore[arg-type]
    device = torch.device("cpu")
    seed_everything(int(seed), device)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(device, int(seed), ALPHA, Checkpoints(Path(folder), {}, resume=False), Reporter())
        pair = loss_pair(options.detector, sets.train.shape[1], options)
        train_pair(pair, RowBatches(torch.from_numpy(sets.train), sets.train_labels), options, trainer, "train")
    with torch.no_grad():
        scores = pair.score(torch.from_numpy(sets.test)).double().numpy()  # type: ignore[operator]
    assert trainer.history is not None
    losses = trainer.history.losses
    return {
        "f1": f1_at_true_share(scores, sets.test_labels),
        "auroc": auroc(scores, sets.test_labels),
        "epochs": len(losses), "best_epoch": trainer.history.best_epoch + 1, "loss": min(losses[options.warmup :]),
    }  # fmt: skip


def auroc(scores: npt.NDArray[np.float64], labels: Labels) -> float:
    from anoaudit.reports.metrics import auroc as measured

    return float(measured(labels == 1, scores))


def agrees(ours: list[float], theirs: tuple[float, float] | None) -> bool:
    """METHODS' rule: within two standard errors of the difference of the means."""
    if theirs is None:
        return False
    ours_sd = float(np.std(ours, ddof=1)) if len(ours) > 1 else 0.0
    return abs(float(np.mean(ours)) - theirs[0]) <= 2 * math.sqrt(ours_sd**2 / len(ours) + theirs[1] ** 2 / 5)


def main() -> None:
    given = settings("LOE's protocol on tables", seeds=SEEDS)
    seeds = range(FIRST_SEED, FIRST_SEED + given.seeds)
    cells = [f"{t}/{a}/{s}" for t in CONFIGURATIONS for a in ASSIGNMENTS for s in seeds]
    wanted = [cell for cell in cells if not given.only or cell.split("/")[0] in given.only]
    results = Results("loe_tables", given)
    results.run(wanted, measure, len(cells))
    rows = []
    for table in dict.fromkeys(cell.split("/")[0] for cell in wanted):
        for assignment in ASSIGNMENTS:
            ours = [results.cells[f"{table}/{assignment}/{s}"]["f1"] for s in seeds]
            paper, again = PAPER[table].get(assignment), RERUN[table].get(assignment)
            agree = [name for name, figure in (("paper", paper), ("re-run", again)) if agrees(ours, figure)]
            rows.append(
                [table, assignment, f"{np.mean(ours):.1f} ± {np.std(ours, ddof=1):.1f}"]
                + [f"{m:.1f} ± {sd:.1f}" if m else "–" for m, sd in (paper or (0, 0), again or (0, 0))]
                + [" and ".join(agree) or "no"]
            )
    print_table(["table", "assignment", "F1 here", "paper", "authors' code again", "agrees with"], rows)


if __name__ == "__main__":
    main()
