"""SIGKILL at random moments of a fit, then `--resume`: the same model and scores, nothing half-written, nothing left behind.

usage: python tests/benchmarks/kills.py [--only sensors-ntl] [--budget quick|full] (quick: ten kills in all, full: ten a case).
Checkpoints are written every 0.3 s instead of every 10, so that short runs have some. Uses the generated samples.
"""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
from harness import Results, print_table, settings

SAMPLES = Path(__file__).parents[2] / "samples"
PROGRAM = """
import sys, anoaudit.training.checkpoint as checkpoint
from anoaudit.cli import main
checkpoint.SECONDS_BETWEEN = 0.3
main(sys.argv[1:])
"""
CASES: dict[str, list[str | Path]] = {
    "sensors-ntl": [SAMPLES / "sensors.parquet", "--set", "detector=ntl", "--set", "epochs=150"],
    "sensors-deep-svdd": [SAMPLES / "sensors.parquet", "--set", "detector=deep-svdd", "--set", "epochs=300"],
    "parts-deep-svdd": [SAMPLES / "parts", "--backbone", "none", "--set", "detector=deep-svdd", "--set", "epochs=6"],
    "sensors-gaussian": [SAMPLES / "sensors.parquet"],
}
QUICK = {"sensors-ntl": 4, "sensors-deep-svdd": 2, "parts-deep-svdd": 3, "sensors-gaussian": 1}


def start(case: str, model: Path, *more: str) -> subprocess.Popen[str]:
    arguments = [
        "fit",
        *map(str, CASES[case]),
        "-o",
        str(model),
        "--device",
        "cpu",
        "--seed",
        "3",
        "--format",
        "json",
        *more,
    ]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    _, said = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"exit {process.returncode}\n{said}")
    return said


def outcome(model: Path) -> tuple[str, list[float | None]]:
    """(hash of the graph, scores)."""
    scores = pl.read_parquet(model / "scores.parquet")["score"].to_list()
    return hashlib.sha256((model / "model.onnx").read_bytes()).hexdigest(), scores


@cache
def undisturbed(case: str) -> tuple[float, tuple[str, list[float | None]]]:
    """(seconds, outcome) of a run that nobody kills."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        finish(start(case, Path(folder, "m")))
        return time.perf_counter() - began, outcome(Path(folder, "m"))


def measure(cell: str) -> dict[str, Any]:
    case = cell.split("/")[0]
    seconds, expected = undisturbed(case)
    after = random.Random(cell).uniform(0.0, seconds)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "m")
        process = start(case, model)
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        half_written = model.exists() and outcome(model) != expected
        finished = model.exists()
        said = finish(start(case, model, "--force" if finished else "--resume"))
        return {
            "killed_after": round(after, 2), "of": round(seconds, 2), "finished_before": finished, "half_written": half_written,
            "resumed": ", ".join(line.strip() for line in said.splitlines() if "resum" in line) or "anew",
            "same_scores_and_graph": outcome(model) == expected,
            "left_behind": sorted(path.name for path in Path(folder).iterdir() if path != model),
        }  # fmt: skip


def main() -> None:
    given = settings("fit killed and resumed", seeds=1)
    every = [f"{case}/{i}" for case in CASES for i in range(10)]
    cells = every if given.budget == "full" else [f"{case}/{i}" for case, count in QUICK.items() for i in range(count)]
    wanted = [cell for cell in cells if not given.only or cell.split("/")[0] in given.only]
    results = Results("kills", given)
    results.run(wanted, measure, every)
    rows = []
    for cell in wanted:
        r = results.cells[cell]
        rows.append(
            [cell, f"{r['killed_after']} of {r['of']} s", r["resumed"], "yes" if r["same_scores_and_graph"] else "NO"]
            + ["YES" if r["half_written"] else "no", ", ".join(r["left_behind"]) or "nothing"]
        )
    print_table(["case", "killed after", "then", "same scores and graph", "half-written model", "left behind"], rows)


if __name__ == "__main__":
    main()
