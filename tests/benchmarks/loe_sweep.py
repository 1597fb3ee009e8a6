"""How much contamination LOE stands, and what a wrong α costs: thyroid, NTL, LOE's protocol (loe_tables.py), F1.

usage: python tests/benchmarks/loe_sweep.py [--only thyroid/soft] [--seeds 3] [--budget quick|full] [--minutes N]
Cells are thyroid/ASSIGNMENT/TRUE/ASSUMED/SEED, both shares in percent. The sweep: α true and known, 0 to 20 %, five assignments
(at 0 % they are all blind). The grid: soft and hard with every other α. quick: one seed of the grid; full: all seeds.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

from harness import Results, print_table, settings
from loe_tables import (
    ASSIGNMENTS,
    FIRST_SEED,
    auroc,
    configuration,
    f1_at_true_share,
    protocol,
    scores_of,
    shown,
    trained,
)

TABLE = "thyroid"
SHARES = (0, 5, 10, 15, 20)  # %
ASSUMED = (5, 10, 15, 20)


def measure(cell: str) -> dict[str, Any]:
    table, assignment, true, assumed, seed = cell.split("/")
    sets = protocol(table, int(seed), int(true) / 100)
    options = configuration(table, "ntl", assignment)
    began = time.perf_counter()
    pair, trainer = trained(sets, options, int(seed), int(assumed) / 100)
    scores = scores_of(pair, sets.test)
    assert trainer.history is not None
    return {
        "f1": f1_at_true_share(scores, sets.test_labels), "auroc": auroc(scores, sets.test_labels),
        "seconds": round(time.perf_counter() - began, 1), "best_epoch": trainer.history.best_epoch + 1,
    }  # fmt: skip


def sweep(seeds: int) -> list[str]:
    return [
        f"{TABLE}/{assignment}/{share}/{share}/{FIRST_SEED + k}"
        for k in range(seeds) for share in SHARES for assignment in ASSIGNMENTS
        if share or assignment == "blind"
    ]  # fmt: skip


def grid(seeds: int) -> list[str]:
    return [
        f"{TABLE}/{assignment}/{true}/{assumed}/{FIRST_SEED + k}"
        for k in range(seeds) for true, assumed in itertools.product(SHARES, ASSUMED) for assignment in ("soft", "hard")
        if true != assumed
    ]  # fmt: skip


def main() -> None:
    given = settings("contamination and wrong α on thyroid", seeds=3)
    every = [*sweep(given.seeds), *grid(given.seeds)]
    cells = every if given.budget == "full" else [*sweep(given.seeds), *grid(1)]
    results = Results("loe_sweep", given)
    results.run([cell for cell in cells if given.wants(cell)], measure, every)

    def found(assignment: str, true: int, assumed: int) -> str:
        start = f"{TABLE}/{assignment}/{true}/{assumed}/"
        ours = [cell["f1"] for name, cell in results.cells.items() if name.startswith(start)]
        return shown(ours) if ours else "–"

    print_table(
        ["true = assumed %", *ASSIGNMENTS],
        [[str(share), *(found(assignment, share, share) for assignment in ASSIGNMENTS)] for share in SHARES],
    )
    for assignment in ("soft", "hard"):
        print(f"\n{assignment}: rows true, columns assumed %")
        rows = [[str(true), *(found(assignment, true, assumed) for assumed in ASSUMED)] for true in SHARES]
        print_table(["", *map(str, ASSUMED)], rows)


if __name__ == "__main__":
    main()
