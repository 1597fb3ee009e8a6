"""What training costs: NTL and ICL here beside DeepOD's NeuTraL and ICL, on the same rows, epochs and number of threads.

usage: ANOAUDIT_PEERS_PYTHON=PEERS_PYTHON python tests/benchmarks/cost.py [--only thyroid,*/ntl] [--seeds 3] [--minutes 9].
Needs the tables beside the checkout, and the environment that `peer_detectors.py` describes, run as a process of its own.

Audit mode: fitted on the contaminated table, the same rows scored (at most 5,000, standardised). Development tables only. One
thread each, one after the other; seconds are of the CPU. `ours` and `theirs` are training and scoring alone: default options of
the detector, soft assignment, α = 0.1, batches of 128 rows; DeepOD's defaults (batches of 64), but one network of ICL.
`same_batch` is ours with batches of 64, `lean` NTL with the options `LEAN`. `command` is a whole process with its imports; ours
is `anoaudit fit`, which trains twice (first without a fifth of the rows, for p-values), exports and checks the model. Of ICL
with seed 0 also `paper_width`, ours with the encoders of recipe=paper, and `shipped`, DeepOD's default of several networks, of
which it scores with the last.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402  the threads come first
import polars as pl  # noqa: E402
import torch  # noqa: E402
from harness import Results, anoaudit, print_table, settings  # noqa: E402
from loe_tables import Protocol, scores_of, trained  # noqa: E402
from peer_detectors import standardised  # noqa: E402
from peers import board_rows  # noqa: E402

from anoaudit.methods.loe.options import LoeOptions  # noqa: E402
from anoaudit.reports.metrics import auroc  # noqa: E402

TABLES = ("wbc", "vowels", "cardio", "letter", "thyroid", "satellite", "pendigits")
THEIRS = {"ntl": "NeuTraL", "icl": "ICL"}
EPOCHS, ALPHA = 20, 0.1
#: Narrower nets, fewer views, large batches: by the time and AUROC of these tables and breastw, two seeds.
LEAN = {"batch_size": 512, "lr": 4e-3, "hidden": 24, "out": 24, "transform_hidden": 24, "transforms": 5}
PAIRS = (
    ("ours", "theirs"), ("same_batch", "theirs"), ("lean", "theirs"), ("command", "theirs"),
    ("ours", "shipped"), ("paper_width", "shipped"),
)  # fmt: skip


def ours(rows: Any, anomalous: Any, detector: str, seed: int, **options: Any) -> dict[str, float]:
    """Seconds of training and scoring alone, and AUROC."""
    given = LoeOptions(detector=detector, epochs=EPOCHS, scaling="none", **options).for_data("table")
    sets = Protocol(rows, np.full(len(rows), -1, dtype=np.int8), rows, anomalous)
    began = time.process_time()
    pair, _ = trained(sets, given, seed, ALPHA)
    scores = scores_of(pair.eval(), rows)
    return {"seconds": time.process_time() - began, "auroc": auroc(anomalous, scores) or 0.0}


def command(table: Path, detector: str, seed: int) -> dict[str, float]:
    """The whole of `anoaudit fit` on the file."""
    used = _children()
    with tempfile.TemporaryDirectory() as folder:
        options = ["--set", f"detector={detector}", "--set", f"epochs={EPOCHS}", "--contamination", ALPHA]
        out, _, _ = anoaudit(
            "fit", table, "--truth", "anomaly", "-o", Path(folder, "m"), "--seed", seed, *options, "--device", "cpu",
            "--format", "json",
        )  # fmt: skip
    return {"seconds": _children() - used, "auroc": json.loads(out)["metrics"]["auroc"]}


def theirs(rows: Any, anomalous: Any, detector: str, seed: int, **given: int) -> dict[str, Any]:
    """Seconds of fit, which scores the same rows, seconds of the whole process, AUROC."""
    used = _children()
    with tempfile.TemporaryDirectory() as folder:
        features, scores = Path(folder, "features.npz"), Path(folder, "scores.npz")
        np.savez(features, features=rows)
        chosen = ",".join(f"{key}={value}" for key, value in ({"epochs": EPOCHS} | given).items())
        script = Path(__file__).with_name("peer_detectors.py")
        line = [os.environ["ANOAUDIT_PEERS_PYTHON"], str(script), str(features), str(scores), "--raw"]
        line += ["--detectors", THEIRS[detector], "--seed", str(seed), "--set", chosen, "--limit", "600"]
        subprocess.run(line, check=True, capture_output=True)
        with np.load(scores) as arrays:
            report = json.loads(str(arrays["report"]))[THEIRS[detector]]
            if "skipped" in report:
                return dict(report)
            figure = auroc(anomalous, arrays[THEIRS[detector]])
    return {"seconds": report["seconds"], "command_seconds": _children() - used, "auroc": figure}


def measure(cell: str) -> dict[str, Any]:
    table, detector, seed = cell.split("/")
    raw, anomalous = board_rows(table)
    rows = standardised(raw).astype(np.float32)
    warm = np.random.default_rng(0).normal(size=(64, rows.shape[1])).astype(np.float32)
    ours(warm, np.arange(64) % 2, detector, 0)  # first calls set things up
    found: dict[str, Any] = {"rows": len(rows), "columns": rows.shape[1]}
    found["ours"] = ours(rows, anomalous, detector, int(seed))
    found["same_batch"] = ours(rows, anomalous, detector, int(seed), batch_size=64)
    if detector == "ntl":
        found["lean"] = ours(rows, anomalous, detector, int(seed), **LEAN)
    found["theirs"] = theirs(rows, anomalous, detector, int(seed), **({"n_ensemble": 1} if detector == "icl" else {}))
    if detector == "icl" and seed == "0":
        found["paper_width"] = ours(rows, anomalous, detector, 0, hidden=200)
        found["shipped"] = theirs(rows, anomalous, detector, 0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"{table}.parquet")
        columns = {f"c{i}": column for i, column in enumerate(raw.T)}
        pl.DataFrame(columns | {"anomaly": anomalous}).write_parquet(file)
        found["command"] = command(file, detector, int(seed))
    return {key: _rounded(value) for key, value in found.items()}


def summary(cells: dict[str, Any]) -> list[dict[str, Any]]:
    """Per detector: ours over theirs in seconds (geometric mean over tables of means over seeds), and the AUROCs."""
    rows = []
    for detector in THEIRS:
        for name, against in PAIRS:
            by_table: dict[str, list[tuple[float, float, float, float]]] = {}
            for cell, found in cells.items():
                if cell.split("/")[1] != detector or "seconds" not in found.get(against, {}) or name not in found:
                    continue
                mine, other = found[name], found[against]
                cost = other["command_seconds" if name == "command" else "seconds"]
                by_table.setdefault(cell.split("/")[0], []).append(
                    (mine["seconds"], cost, mine["auroc"], other["auroc"])
                )
            if not by_table:
                continue
            means = np.array([np.mean(runs, axis=0) for runs in by_table.values()])
            gain = means[:, 2] - means[:, 3]
            rows.append({
                "detector": detector, "ours": name, "theirs": against, "tables": len(means),
                "seeds": min(map(len, by_table.values())),
                "seconds_ratio": round(float(np.exp(np.log(means[:, 0] / means[:, 1]).mean())), 4),
                "seconds_ratio_range": [round(float(f(means[:, 0] / means[:, 1])), 4) for f in (np.min, np.max)],
                "auroc_ours": round(float(means[:, 2].mean()), 4), "auroc_theirs": round(float(means[:, 3].mean()), 4),
                "auroc_ratio": round(float(means[:, 2].mean() / means[:, 3].mean()), 4),
                "tables_not_worse": int((gain >= 0).sum()),
            })  # fmt: skip
    return rows


def _rounded(value: Any) -> Any:
    return (
        {k: round(v, 4) if isinstance(v, float) else v for k, v in value.items()} if isinstance(value, dict) else value
    )


def _children() -> float:
    """CPU seconds of the processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    given = settings("training cost beside DeepOD's", seeds=3)
    if "ANOAUDIT_PEERS_PYTHON" not in os.environ:
        sys.exit("set ANOAUDIT_PEERS_PYTHON to the python of an environment with DeepOD (see peer_detectors.py)")
    torch.set_num_threads(1)
    every = [f"{table}/{detector}/{seed}" for seed in range(given.seeds) for detector in THEIRS for table in TABLES]
    results = Results("cost", given)
    results.extra["summary"] = summary(results.cells)  # of what there is, should this run be stopped
    results.run([cell for cell in every if given.wants(cell)], measure, every)
    results.extra["summary"] = summary(results.cells)
    results.write(every)
    print_table(
        [
            "detector",
            "ours",
            "theirs",
            "tables",
            "seconds, ours / theirs",
            "least – most",
            "AUROC ours",
            "theirs",
            "tables not worse",
        ],
        [
            [s["detector"], s["ours"], s["theirs"], str(s["tables"]), f"{s['seconds_ratio']:.2f}"]
            + [" – ".join(f"{r:.2f}" for r in s["seconds_ratio_range"])]
            + [f"{s['auroc_ours']:.3f}", f"{s['auroc_theirs']:.3f}", str(s["tables_not_worse"])]
            for s in results.extra["summary"]
        ],
    )


if __name__ == "__main__":
    main()
