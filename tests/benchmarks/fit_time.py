"""How long the default takes on a table of 5,000 × 20, beside an isolation forest and DeepOD's NeuTraL on the same rows.

usage: ANOAUDIT_PEERS_PYTHON=PEERS_PYTHON python tests/benchmarks/fit_time.py [--only 0] [--seeds 5]. The environment is the one
that `peer_detectors.py` describes. Needs no data: three clusters of correlated normal columns, 5 % of rows out of their range.

A cell is a run: one after the other, each as a process of its own with its imports, wall and CPU seconds. `default` is `anoaudit
fit TABLE` as a user types it, which trains twice (first without a fifth of the rows, for p-values), exports, checks the model and
writes the scores; the peers fit and score with their default options (PyOD's IForest; NeuTraL with 20 epochs, `NeuTraL 100` with
DeepOD's 100), `alone` is their fit and scores without imports. `one thread`: the default with OMP_NUM_THREADS=1, as the
peers run.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import polars as pl
from harness import Results, anoaudit, print_table, settings

ROWS, COLUMNS, ANOMALOUS = 5000, 20, 0.05
PEERS = {"IForest": ("IForest", ""), "NeuTraL": ("NeuTraL", "epochs=20"), "NeuTraL 100": ("NeuTraL", "epochs=100")}


def rows_of(seed: int) -> Any:
    """float64[5000, 20]"""
    rng = np.random.default_rng(seed)
    of = rng.integers(0, 3, ROWS)
    rows = np.empty((ROWS, COLUMNS))
    for k in range(3):
        mixing = rng.normal(size=(COLUMNS, COLUMNS)) / np.sqrt(COLUMNS)
        rows[of == k] = rng.normal(size=(int((of == k).sum()), COLUMNS)) @ mixing + 2 * rng.normal(size=COLUMNS)
    odd = rng.random(ROWS) < ANOMALOUS
    rows[odd] = rng.uniform(-6, 6, (int(odd.sum()), COLUMNS))
    return rows


def timed(run: Callable[[], Any]) -> dict[str, Any]:
    began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    found = run()
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = spent.ru_utime + spent.ru_stime - used.ru_utime - used.ru_stime
    return {"seconds": round(time.perf_counter() - began, 2), "cpu_seconds": round(cpu, 2), **(found or {})}


def measure(cell: str) -> dict[str, Any]:
    seed = int(cell)
    rows = rows_of(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table, features = folder / "table.parquet", folder / "features.npz"
        pl.DataFrame(rows, schema=[f"c{j}" for j in range(COLUMNS)]).write_parquet(table)
        np.savez(features, features=rows)

        def fit() -> None:
            anoaudit("fit", table, "-o", folder / "m.anoaudit", "--force", "--seed", seed)

        def peer(detector: str, options: str) -> dict[str, Any]:
            script = Path(__file__).with_name("peer_detectors.py")
            line = [os.environ["ANOAUDIT_PEERS_PYTHON"], str(script), str(features), str(folder / "scores.npz")]
            line += [
                "--detectors",
                detector,
                "--seed",
                str(seed),
                "--limit",
                "600",
                *(["--set", options] if options else []),
            ]
            subprocess.run(line, check=True, capture_output=True)
            with np.load(folder / "scores.npz") as arrays:
                return {"alone": json.loads(str(arrays["report"]))[detector]["seconds"]}

        found = {"default": timed(fit)}
        with mock.patch.dict(os.environ, OMP_NUM_THREADS="1"):
            found["one thread"] = timed(fit)
        for column, (detector, options) in PEERS.items():
            found[column] = timed(lambda d=detector, o=options: peer(d, o))  # type: ignore[misc]
    return found


def summary(cells: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each column least, median, most seconds, and the default's median over it."""
    out = []
    runs = [cell for cell in cells.values() if isinstance(cell, dict)]
    default = float(np.median([run["default"]["seconds"] for run in runs]))
    for column in ("default", "one thread", *PEERS):
        wall = [run[column]["seconds"] for run in runs]
        row: dict[str, Any] = {
            "column": column,
            "runs": len(wall),
            "seconds": [min(wall), round(float(np.median(wall)), 2), max(wall)],
        }
        row["default_over_it"] = round(default / float(np.median(wall)), 2)
        if column in PEERS:
            row["alone"] = round(float(np.median([run[column]["alone"] for run in runs])), 2)
        out.append(row)
    return out


def main() -> None:
    given = settings("fit time of the default", seeds=5)
    if "ANOAUDIT_PEERS_PYTHON" not in os.environ:
        sys.exit("set ANOAUDIT_PEERS_PYTHON to the python of an environment with DeepOD (see peer_detectors.py)")
    every = [str(seed) for seed in range(given.seeds)]
    results = Results("fit_time", given)
    results.run([cell for cell in every if given.wants(cell)], measure, every)
    results.extra["summary"] = summary(results.cells)
    results.write(every)
    print_table(
        ["", "runs", "seconds, least – median – most", "default / it", "fit and scores alone"],
        [
            [s["column"], str(s["runs"]), " – ".join(f"{v:.1f}" for v in s["seconds"]), f"{s['default_over_it']:.2f}"]
            + [f"{s['alone']:.1f}" if "alone" in s else ""]
            for s in results.extra["summary"]
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
