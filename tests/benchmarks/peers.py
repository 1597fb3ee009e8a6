"""The audit board's peer columns: PyOD's and DeepOD's detectors fitted on a contaminated table, scoring the same rows.

usage: PYTHONPATH=. PEERS_PYTHON tests/benchmarks/peers.py [--only thyroid,*/MCD] [--seeds 3] [--budget quick|full]
       [--minutes 9]. Needs the tables beside the checkout and the environment that `peer_detectors.py` describes.
quick: the shallow ones; full: the deep ones, too.

Rows: of a table with more than 5,000 those at numpy.random.default_rng(0).permutation(n)[:5000]. Columns that do not vary are
dropped, the others standardised. Labels are for evaluation only. What takes no seed runs once. A detector that takes more than
`LIMIT` CPU seconds or `MEMORY` bytes on a table is skipped there, and the cell says so.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import peer_detectors as peers
import polars as pl
from harness import SHARED, Results, print_table, settings

from anoaudit.reports.metrics import auroc, average_precision, precision_at

TABLES = SHARED / "data" / "tables"
MOST_ROWS = 5000
#: In the order of measuring: the cheap ones, the deep ones, the dearest.
COLUMNS = (*peers.SHALLOW, *(name for name in peers.DEEP if name != "ICL"), "ICL")


def board_rows(table: str) -> tuple[peers.Rows, npt.NDArray[np.int8]]:
    """(rows float64[N, D], anomalous int8[N]) of a table, at most 5,000, columns as they are."""
    frame = pl.read_parquet(TABLES / f"{table}.parquet")
    anomalous = frame["anomaly"].to_numpy().astype(np.int8)
    rows = frame.drop("anomaly").to_numpy().astype(np.float64)
    if len(rows) > MOST_ROWS:
        kept = np.random.default_rng(0).permutation(len(rows))[:MOST_ROWS]
        rows, anomalous = rows[kept], anomalous[kept]
    return rows, anomalous


def main() -> None:
    given = settings("PyOD's and DeepOD's detectors on the board's tables", seeds=3)
    marks = pl.read_csv(SHARED / "data" / "tables.csv")
    halves = dict(marks.select("table", "half").iter_rows())
    sizes = dict(marks.select("table", pl.col("rows").clip(upper_bound=MOST_ROWS) * pl.col("columns")).iter_rows())
    every = [
        f"{table}/{name}/{seed}"
        for name in COLUMNS for seed in range(given.seeds if name in peers.RANDOM else 1) for table in halves
    ]  # fmt: skip
    if given.budget == "full":  # of the deep ones one seed of all, the small tables first, before the others
        every.sort(key=lambda cell: _turn(cell, sizes))
    quick = [cell for cell in every if cell.split("/")[1] not in peers.DEEP]
    wanted = [cell for cell in (every if given.budget == "full" else quick) if given.wants(cell)]
    results = Results("peers", given)
    results.extra["summary"] = summary(results.cells, halves)  # of what there is, should this run be stopped
    warnings.filterwarnings("ignore")

    def measure(cell: str) -> dict[str, Any]:
        table, name, seed = cell.split("/")
        before: dict[str, Any] = results.cells.get(f"{table}/{name}/0", {})
        if "skipped" in before and (name in peers.DEEP or before["skipped"].startswith("over")):
            return before
        rows, anomalous = board_rows(table)
        rows = peers.standardised(rows)
        scores, found = peers.scores_of(name, rows, int(seed))
        count = int(anomalous.sum())
        found |= {"rows": len(rows), "columns": rows.shape[1], "anomalies": count}
        if scores is None:
            return found
        figures = {
            "auroc": auroc(anomalous, scores), "average_precision": average_precision(anomalous, scores),
            "precision_at_n": precision_at(anomalous, scores, count),
        }  # fmt: skip
        return {key: round(value, 5) for key, value in figures.items() if value is not None} | found

    for deep in (False, True):  # the memory of the shallow ones is without torch
        part = [cell for cell in wanted if (cell.split("/")[1] in peers.DEEP) == deep]
        missing = [cell.split("/")[1] for cell in part if cell not in results.cells]
        peers.warm_up(list(dict.fromkeys(missing)))
        results.run(part, measure, every)
    results.extra["summary"] = summary(results.cells, halves)
    results.write(every)
    print_table(
        ["half", "column", "tables", "skipped", "seeds", "AUROC", "AP", "P@n", "seconds", "MiB"],
        [
            [s["half"], s["column"], str(s["tables"]), str(s["skipped"]), str(s["seeds"])]
            + [f"{s[key]:.3f}" for key in ("mean_auroc", "mean_ap", "mean_precision_at_n")]
            + [f"{s['seconds']:.2f}", f"{s['mib']:.0f}"]
            for s in results.extra["summary"]
        ],
    )


def _turn(cell: str, sizes: dict[str, int]) -> tuple[int, int]:
    table, name, seed = cell.split("/")
    return (1 + int(seed), sizes[table]) if name in peers.DEEP else (0, 0)


def summary(cells: dict[str, Any], halves: dict[str, str]) -> list[dict[str, Any]]:
    """One object per half and column: means over tables of the means over seeds, without what was skipped."""
    found = []
    for half in ("dev", "confirm"):
        for name in COLUMNS:
            by_table: dict[str, list[dict[str, Any]]] = {}
            for cell, figures in cells.items():
                table, column, _ = cell.split("/")
                if column == name and halves[table] == half:
                    by_table.setdefault(table, []).append(figures)
            runs_of = [[run for run in runs if "skipped" not in run] for runs in by_table.values()]
            measured = [runs for runs in runs_of if runs]
            if not measured:
                continue

            def mean(key: str, tables: list[list[dict[str, Any]]] = measured) -> float:
                return round(float(np.mean([np.mean([run[key] for run in runs]) for runs in tables])), 4)

            found.append({
                "family": "tables", "half": half, "column": name, "is_peer": True, "tables": len(measured),
                "skipped": len(by_table) - len(measured), "seeds": min(len(runs) for runs in measured),
                "mean_auroc": mean("auroc"), "mean_ap": mean("average_precision"),
                "mean_precision_at_n": mean("precision_at_n"), "seconds": mean("seconds"), "mib": mean("mib"),
            })  # fmt: skip
    return found


if __name__ == "__main__":
    main()
