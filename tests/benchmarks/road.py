"""The road on real data: fit and score the same contaminated data with default options, beside an isolation forest.

usage: python tests/benchmarks/road.py [--only thyroid,cubes] [--seeds 1]. Needs the data sets beside the checkout.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from harness import SHARED, Results, anoaudit, print_table, settings
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score

DATA, WEIGHTS = SHARED / "data", SHARED / "weights"
TABLES = ("thyroid", "cardio", "satellite", "shuttle")
IMAGES = {"cubes": DATA / "cubes", "piped": DATA / "piped" / "PA_BDP01_TL"}
TRUTH = {"cubes": DATA / "cubes" / "labels.csv", "piped": DATA / "piped" / "labels.csv"}
BACKBONES: dict[str, list[str | Path]] = {
    "mobilenetv2_100": [
        "--backbone", "mobilenetv2_100", "--weights", WEIGHTS / "mobilenetv2_100.safetensors",
        "--backbone-arg", "mean=0.5", "--backbone-arg", "std=0.5",
    ],
    "none": ["--backbone", "none"],
}  # fmt: skip


def measure(cell: str) -> dict[str, Any]:
    name, variant, seed = cell.split("/")
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "m.anoaudit")
        common = ["-o", model, "--seed", seed, "--format", "json", "--device", "cpu"]
        if name in TABLES:
            data = DATA / "tables" / f"{name}.parquet"
            more = [] if variant == "default" else ["--set", f"detector={variant}"]
            out, seconds, memory = anoaudit("fit", data, "--truth", "anomaly", *common, *more)
        else:
            data = IMAGES[name]
            out, seconds, memory = anoaudit("fit", data, "--truth", TRUTH[name], *common, *BACKBONES[variant])
        _, score_seconds, score_memory = anoaudit("score", data, "-m", model, "-o", Path(folder, "s.parquet"))
    document = json.loads(out)
    figures = {k: v for k, v in document["metrics"].items() if k != "groups"}
    result = {
        **figures, "rows": document["summary"]["rows"], "fit_seconds": round(seconds, 2), "fit_mib": round(memory),
        "score_seconds": round(score_seconds, 2), "score_mib": round(score_memory),
    }  # fmt: skip
    if name in TABLES:
        result["isolation_forest"] = forest(name, int(seed))
    return result


def forest(name: str, seed: int) -> dict[str, float]:
    """scikit-learn's, default settings, on the same rows."""
    frame = pl.read_parquet(DATA / "tables" / f"{name}.parquet")
    truth, x = frame["anomaly"].to_numpy(), frame.drop("anomaly").to_numpy().astype(np.float64)
    score = -IsolationForest(random_state=seed, n_jobs=1).fit(x).score_samples(x)
    return {
        "auroc": float(roc_auc_score(truth, score)),
        "average_precision": float(average_precision_score(truth, score)),
    }


def main() -> None:
    given = settings("the road on real data", seeds=1)
    cells = [f"{t}/{v}/{s}" for s in range(given.seeds) for t in TABLES for v in ("default", "deep-svdd", "ntl")]
    cells += [f"{i}/{b}/{s}" for s in range(given.seeds) for i in IMAGES for b in BACKBONES]
    wanted = [cell for cell in cells if not given.only or cell.split("/")[0] in given.only]
    results = Results("road", given)
    results.run(wanted, measure, cells)
    rows = []
    for cell in wanted:
        r = results.cells[cell]
        peer = r.get("isolation_forest")
        shown = f"{peer['auroc']:.3f} / {peer['average_precision']:.3f}" if peer else ""
        rows.append(
            [cell, str(r["rows"]), str(r["anomalies"]), f"{r['auroc']:.3f} / {r['average_precision']:.3f}", shown]
            + [f"{r['precision']:.2f} / {r['recall']:.2f}" if r["precision"] is not None else "nothing flagged"]
            + [f"{r['fit_seconds']:.0f} s", f"{r['score_seconds']:.1f} s", f"{r['score_mib']} MiB"]
        )
    print_table(
        ["data/variant/seed", "items", "anomalies", "AUROC / AP", "isolation forest", "precision / recall of the flags"]
        + ["fit", "score", "score memory"],
        rows,
    )


if __name__ == "__main__":
    main()
