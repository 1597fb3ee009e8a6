"""`--contamination auto` against known shares: tables mixed to 2, 5, 10 and 20 % true anomalies.

usage: python tests/benchmarks/contamination_auto.py [--only thyroid,wbc] [--seeds 3] [--budget quick|full]
quick: the development tables, all candidates of shares.py; full: METHODS' 20 tables and the confirming tables too, the
program's estimator only. Needs the tables beside the checkout.

Cells TABLE/SHARE/DRAW. At most 3,000 rows; where anomalies are too few for the share, fewer normals. Mixtures of under 50 rows are
not estimated but assumed to be 10 %, as the program does: they count in the error, not in the coverage. Beside it, what the
estimate does to the audit: AUROC and average precision of the default detector fitted with α = truth, estimate, 0.1.
"""

from __future__ import annotations

import csv
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from harness import SHARED, Results, print_table, settings
from shares import CANDIDATES, CHOSEN, CONSTANT

from anoaudit.data.items import ColumnRule, TableSpec
from anoaudit.methods.loe.assignment import Assignment
from anoaudit.methods.loe.gaussian import GaussianVector, alternate
from anoaudit.nets.table_input import TableInput
from anoaudit.progress import Reporter
from anoaudit.reports.metrics import auroc, average_precision
from anoaudit.training.contamination import Estimate, estimate
from anoaudit.training.features import RowBatches
from anoaudit.training.first_pass import first_pass, vectors

DATA = SHARED / "data"
SHARES = (0.02, 0.05, 0.1, 0.2)
ROWS, DRAWS = 3000, 3
LISTED = (
    "annthyroid breastw cardio glass ionosphere letter lympho mammography mnist musk optdigits pendigits pima satellite "
    "satimage-2 shuttle vertebral vowels wbc wine"
).split()  # METHODS §1

Array = npt.NDArray[np.float64]


def tables(half: str) -> list[str]:
    with (DATA / "tables.csv").open() as file:
        return [row["table"] for row in csv.DictReader(file) if row["half"] == half]


def mixed(table: str, share: float, draw: int) -> tuple[Array, npt.NDArray[np.bool_]]:
    """(rows, which are anomalous), shuffled."""
    frame = pl.read_parquet(DATA / "tables" / f"{table}.parquet")
    anomalous = frame["anomaly"].to_numpy() == 1
    rng = np.random.default_rng([draw, round(share * 100)])
    total = min(ROWS, int((~anomalous).sum() / (1 - share)), int(anomalous.sum() / share))
    count = round(share * total)
    normals = rng.choice(np.flatnonzero(~anomalous), min(total - count, int((~anomalous).sum())), replace=False)
    chosen = rng.permutation(
        np.concatenate([normals, rng.choice(np.flatnonzero(anomalous), count, replace=False)])
    )
    return frame.drop("anomaly").to_numpy().astype(np.float64)[chosen], anomalous[chosen]


def features(rows: Array) -> RowBatches:
    """As the program encodes them."""
    varying = rows[:, np.ptp(rows, axis=0) > 0]
    inlet = TableInput(TableSpec(tuple(ColumnRule(f"x{j}", "numeric") for j in range(varying.shape[1]))), varying, "standard")
    return RowBatches(inlet(torch.from_numpy(varying)), np.full(len(rows), -1, dtype=np.int8))


def audit(data: RowBatches, alpha: float, truth: npt.NDArray[np.bool_]) -> list[float]:
    head = GaussianVector(data.rows.shape[1])
    alternate(head, data, Assignment("refine", alpha, 0), 10, torch.device("cpu"), Reporter())
    with torch.no_grad():
        scores = head.score(data.rows).double().numpy()
    return [float(auroc(truth, scores)), float(average_precision(truth, scores))]


def measure(cell: str) -> dict[str, Any]:
    table, share, draw = cell.split("/")
    rows, truth = mixed(table, int(share) / 100, int(draw))
    data = features(rows)
    start = time.perf_counter()
    scores = first_pass(vectors(data, np.arange(len(rows)), aligned=False), 0)
    found: Estimate = estimate(scores)
    seconds = time.perf_counter() - start
    result: dict[str, Any] = {
        "rows": len(rows), "anomalies": int(truth.sum()), "assumed": bool(found.reason), "seconds": round(seconds, 2),
    }  # fmt: skip
    others = table in tables("dev") and not found.reason
    result["estimates"] = {
        name: [round(value, 4) for value in candidate(scores)]
        for name, candidate in CANDIDATES.items()
        if others and name not in (CHOSEN, CONSTANT)
    }
    result["estimates"][CHOSEN] = [round(value, 4) for value in (found.share, found.low, found.high)]
    result["estimates"][CONSTANT] = list(CANDIDATES[CONSTANT](scores))
    alphas = {"truth": float(truth.mean()), "estimate": found.used, "0.1": 0.1}
    result["audit"] = {name: [round(v, 4) for v in audit(data, alpha, truth)] for name, alpha in alphas.items()}
    return result


def summary(name: str, cells: list[dict[str, Any]]) -> list[str]:
    """MAE, bias, how often half as much again or under two thirds; of the cells that were estimated: coverage, width."""
    truth = np.array([cell["anomalies"] / cell["rows"] for cell in cells])
    share, low, high = np.array([cell["estimates"][name] for cell in cells]).T
    kept = np.array([not cell["assumed"] for cell in cells])
    inside = ((low <= truth) & (truth <= high))[kept]
    by_share = [
        f"{100 * share[near].mean():.1f} ± {100 * np.abs(share - truth)[near].mean():.1f}"
        for near in (np.abs(truth - s) < 0.012 for s in SHARES)
    ]
    return [
        name, f"{100 * np.abs(share - truth).mean():.2f}", f"{100 * (share - truth).mean():+.2f}",
        f"{100 * (share > 1.5 * truth).mean():.0f} / {100 * (share < truth / 1.5).mean():.0f}", *by_share,
        *(["–", "–"] if name == CONSTANT else [f"{100 * inside.mean():.0f}", f"{100 * low[kept].mean():.0f} to {100 * high[kept].mean():.0f}"]),
    ]  # fmt: skip


def show(results: Results, wanted: list[str]) -> None:
    head = ["estimator", "mean absolute error, points", "bias", "% over / under by half", *(f"at {100 * s:.0f} %" for s in SHARES)]
    head += ["coverage of the 90 % interval, %", "its mean"]
    for title, names in (("development", tables("dev")), ("METHODS' 20", LISTED), ("confirming", tables("confirm"))):
        cells = [results.cells[cell] for cell in wanted if cell.split("/")[0] in names and cell in results.cells]
        of = {cell.split("/")[0] for cell in wanted if cell.split("/")[0] in names and cell in results.cells}
        if not cells:
            continue
        print(f"\n{len(of)} {title} tables, {len(cells)} mixtures, {sum(cell['assumed'] for cell in cells)} of under 50 rows\n")
        named = [name for name in CANDIDATES if all(name in cell["estimates"] for cell in cells)]
        print_table(head, [summary(name, cells) for name in named])
        print("\nthe audit with it, AUROC / average precision: " + "; ".join(
            f"α = {name} {' / '.join(f'{v:.3f}' for v in np.mean([cell['audit'][name] for cell in cells], axis=0))}"
            for name in ("truth", "estimate", "0.1")
        ))  # fmt: skip
    print("\nmean estimate by table, %\n")
    rows = []
    for table in dict.fromkeys(cell.split("/")[0] for cell in wanted):
        row = [table]
        for share in SHARES:
            found = [results.cells[c]["estimates"][CHOSEN] for c in wanted if c.startswith(f"{table}/{100 * share:.0f}/")]
            row.append(" ".join(f"{100 * v:.0f}" for v in np.mean(found, axis=0)))
        rows.append(row)
    print_table(["table", *(f"{100 * s:.0f} %: estimate, low, high" for s in SHARES)], rows)


def main() -> None:
    given = settings("--contamination auto against known shares", seeds=DRAWS)
    names = list(dict.fromkeys([*tables("dev"), *LISTED, *tables("confirm")]))
    full = [f"{t}/{100 * s:.0f}/{d}" for t in names for s in SHARES for d in range(given.seeds)]
    cells = full if given.budget == "full" else [cell for cell in full if cell.split("/")[0] in tables("dev")]
    wanted = [cell for cell in cells if not given.only or cell.split("/")[0] in given.only]
    results = Results("contamination_auto", given)
    results.run(wanted, measure, len(full))
    show(results, wanted)


if __name__ == "__main__":
    main()
