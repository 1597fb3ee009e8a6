"""What one cell of `anoonly.py` measures; see there."""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from harness import SHARED, anoaudit
from image_sets import DATA, WEIGHTS

from anoaudit.data.items import ColumnRule, TableSpec
from anoaudit.methods.anoonly.method import make_base, train_base
from anoaudit.methods.anoonly.options import AnoOnlyOptions
from anoaudit.nets.table_input import TableInput
from anoaudit.progress import Reporter
from anoaudit.reports.metrics import auroc, average_precision
from anoaudit.training.checkpoint import Checkpoints
from anoaudit.training.device import seed_everything
from anoaudit.training.features import RowBatches
from anoaudit.training.trainer import Trainer

TABLES = SHARED / "data" / "tables"
TRAIN, LABELLED = 0.7, 0.1
DEFECTS, HIDDEN = 3, 0.1  # images: labelled defects, share of hidden ones among the unlabelled
SIDE = "size=128"

Rows = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int8]


@cache
def table_of(name: str) -> tuple[Rows, Labels]:
    frame = pl.read_parquet(TABLES / f"{name}.parquet")
    return frame.drop("anomaly").to_numpy().astype(np.float64), frame["anomaly"].to_numpy().astype(np.int8)


def halves(truth: Labels, seed: int) -> npt.NDArray[np.bool_]:
    """bool[N]: which rows are trained on, 70 % of the anomalies and 70 % of the others."""
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(truth), dtype=bool)
    for kind in (0, 1):
        of_kind = rng.permutation(np.flatnonzero(truth == kind))
        chosen[of_kind[: round(TRAIN * len(of_kind))]] = True
    return chosen


def labelled(truth: Labels, training: npt.NDArray[np.bool_], count: int | None, seed: int) -> Labels:
    """1 of so many of the training anomalies (by default a tenth, at least 2), else -1."""
    anomalies = np.flatnonzero(training & (truth == 1))
    count = min(count or max(2, round(LABELLED * len(anomalies))), len(anomalies))
    known = np.full(len(truth), -1, dtype=np.int8)
    known[np.random.default_rng(seed + 1000).permutation(anomalies)[:count]] = 1
    return known


def rows_cell(
    name: str, count: int | None, unlabelled: str, column: str, supervision: str, seed: int
) -> dict[str, Any]:
    """A base (or a rival) on the training rows, AUROC and average precision of the test rows."""
    rows, truth = table_of(name)
    training = halves(truth, seed)
    known = labelled(truth, training, count, seed)
    if unlabelled == "clean":
        training &= (truth == 0) | (known == 1)
    tested = ~halves(truth, seed)
    began = time.perf_counter()
    if column in RIVALS:
        scores, seconds = rival(column, rows, training, known, tested, seed), time.perf_counter() - began
        spent = 0.0
    else:
        scores, seconds, spent = base_scores(column, supervision, rows, training, known, tested, seed)
    positive = truth[tested] == 1
    return {
        "auroc": round(float(auroc(positive, scores) or 0), 5), "ap": round(float(average_precision(positive, scores) or 0), 5),
        "labelled": int((known == 1).sum()), "hidden": int((training & (truth == 1) & (known != 1)).sum()),
        "seconds": round(seconds, 2), "score_seconds": round(spent, 3),
    }  # fmt: skip


def base_scores(
    base: str, supervision: str, rows: Rows, training: npt.NDArray[np.bool_], known: Labels, tested: npt.NDArray[np.bool_],
    seed: int,
) -> tuple[npt.NDArray[np.float64], float, float]:  # fmt: skip
    name, _, loss = base.partition("-")
    more = {"loss": loss} if loss else {}
    options = AnoOnlyOptions(base=name, supervision=supervision, **more).for_data("table")  # type: ignore[arg-type]
    seed_everything(seed, torch.device("cpu"))
    spec = TableSpec(tuple(ColumnRule(f"c{j}", "numeric") for j in range(rows.shape[1])))
    inlet = TableInput(spec, rows[training], "interval")
    with torch.no_grad():
        x, y = inlet(torch.from_numpy(rows[training])), inlet(torch.from_numpy(rows[tested]))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(torch.device("cpu"), seed, 0.1, Checkpoints(Path(folder), {}, False), Reporter())
        net: Any = make_base(inlet.width, options)
        train_base(net, net, lambda batch: batch, RowBatches(x, known[training]), options, trainer, "train")
    fitted = time.perf_counter()
    with torch.no_grad():
        scores = torch.cat([net.eval().score(part) for part in torch.split(y, 4096)]).double().numpy()
    return scores, fitted - began, time.perf_counter() - fitted


RIVALS = ("boosting", "forest", "loe")


def rival(
    name: str, rows: Rows, training: npt.NDArray[np.bool_], known: Labels, tested: npt.NDArray[np.bool_], seed: int
) -> npt.NDArray[np.float64]:
    """scikit-learn's gradient boosting (known anomalies against all others), its isolation forest, our default LOE."""
    from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest

    if name == "boosting":
        weight = np.where(known[training] == 1, (training.sum() / max((known == 1).sum(), 1)), 1.0)
        model = HistGradientBoostingClassifier(random_state=seed).fit(rows[training], known[training] == 1, weight)
        found: npt.NDArray[np.float64] = model.predict_proba(rows[tested])[:, 1]
        return found
    if name == "forest":
        forest = IsolationForest(random_state=seed).fit(rows[training])
        return -np.asarray(forest.score_samples(rows[tested]), dtype=np.float64)
    columns = [f"c{j}" for j in range(rows.shape[1])]
    with tempfile.TemporaryDirectory() as folder:
        train, test, model_path = (Path(folder) / f for f in ("train.parquet", "test.parquet", "m.anoaudit"))
        pl.DataFrame(rows[training], schema=columns).write_parquet(train)
        pl.DataFrame(rows[tested], schema=columns).write_parquet(test)
        anoaudit("fit", train, "-o", model_path, "--seed", seed, "--format", "csv")
        anoaudit("score", test, "-m", model_path, "-o", Path(folder) / "s.parquet")
        return pl.read_parquet(Path(folder) / "s.parquet")["score"].to_numpy()


def cli_cell(name: str, share: str, base: str, supervision: str, seed: int) -> dict[str, Any]:
    """As a user does it: `contaminate` the training half, add ten labelled anomalies, `fit`, `score` the test half."""
    frame = pl.read_parquet(TABLES / f"{name}.parquet")
    truth = frame["anomaly"].to_numpy().astype(np.int8)
    training = halves(truth, seed)
    known = labelled(truth, training, 10, seed) == 1
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        frame.filter(pl.Series(training & ~known)).write_parquet(place / "train.parquet")
        frame.filter(pl.Series(~training)).write_parquet(place / "test.parquet")
        anoaudit(
            "contaminate", place / "train.parquet", "--truth", "anomaly", "--ratio", float(share) / 100,
            "-o", place / "mixed.parquet", "--seed", seed,
        )  # fmt: skip
        hidden = int(pl.read_csv(place / "mixed.labels.csv")["anomaly"].sum())
        mixed = pl.read_parquet(place / "mixed.parquet").with_columns(known=pl.lit(None, dtype=pl.Int8))
        ones = frame.filter(pl.Series(known)).drop("anomaly").with_columns(known=pl.lit(1, dtype=pl.Int8))
        pl.concat([mixed, ones]).write_parquet(place / "data.parquet")
        options = ["--set", f"base={base}", "--set", f"supervision={supervision}"]
        _, seconds, mib = anoaudit(
            "fit", place / "data.parquet", "--method", "anoonly", "--labels", "known", "-o", place / "m.anoaudit",
            "--seed", seed, "--format", "csv", *options,
        )  # fmt: skip
        out, spent, _ = anoaudit(
            "score", place / "test.parquet", "-m", place / "m.anoaudit", "--truth", "anomaly", "--format", "json"
        )
        metrics = json.loads(out)["metrics"]
    return {
        "auroc": round(metrics["auroc"], 5), "ap": round(metrics["average_precision"], 5), "hidden": hidden,
        "seconds": round(seconds, 1), "score_seconds": round(spent, 1), "mib": round(mib),
    }  # fmt: skip


def images_cell(family: str, mode: str, seed: int) -> dict[str, Any]:
    """A paper type: 70 % of the normals, three labelled defects, hidden ones; tested on the other normals and defects."""
    root = DATA / "piped" / family
    with (DATA / "piped" / "labels.csv").open() as file:
        rows = [
            (row["path"], int(row["anomaly"])) for row in csv.DictReader(file) if row["path"].startswith(family + "/")
        ]
    rng = np.random.default_rng(seed)
    normals, defects = ([rows[i][0] for i in rng.permutation(len(rows)) if rows[i][1] == kind] for kind in (0, 1))
    count = round(TRAIN * len(normals))
    hidden = round(HIDDEN / (1 - HIDDEN) * count)
    known, secret = defects[:DEFECTS], defects[DEFECTS : DEFECTS + hidden]
    tested = normals[count:] + defects[DEFECTS + hidden :]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for part, paths in (("train", normals[:count] + secret + known), ("test", tested)):
            for path in paths:
                target = place / part / path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(root.parent / path, target)
        (place / "known.csv").write_text("path,label\n" + "".join(f"{path},1\n" for path in known))
        defective = set(defects)
        (place / "truth.csv").write_text(
            "path,anomaly\n" + "".join(f"{path},{int(path in defective)}\n" for path in tested)
        )
        backbone = ["--backbone", "mobilenetv2_100", "--weights", WEIGHTS, "--backbone-arg", SIDE]
        method = ["--method", "anoonly", "--labels", place / "known.csv"] if mode != "loe" else []
        base, _, tuned = mode.partition("+")
        method += ["--set", f"base={base}"] if mode != "loe" else []
        method += ["--set", "fine_tune=true"] if tuned else []
        _, seconds, mib = anoaudit(
            "fit", place / "train", *method, *backbone, "-o", place / "m.anoaudit", "--seed", seed, "--format", "csv"
        )
        out, spent, _ = anoaudit(
            "score", place / "test", "-m", place / "m.anoaudit", "--truth", place / "truth.csv", "--format", "json"
        )
        metrics = json.loads(out)["metrics"]
    return {
        "auroc": round(metrics["auroc"], 5), "ap": round(metrics["average_precision"], 5),
        "train": count + len(secret) + len(known), "test": len(tested),
        "seconds": round(seconds, 1), "score_seconds": round(spent, 1), "mib": round(mib),
    }  # fmt: skip
