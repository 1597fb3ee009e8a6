"""Why do F1 figures differ from LOE's paper? One thing changed at a time in loe_tables.py's protocol, the rest as it is there.

usage: python tests/benchmarks/loe_ablation.py [--only wbc] [--seeds 3] [--budget quick|full] [--minutes N]
Cells are TABLE/DETECTOR/ASSIGNMENT/CHANGE/SEED at 10 %. quick: NTL on three tables of the development half that miss; full: on
all but the two whose protocol is known. It looks for the authors' unstated protocol: what comes closest to their figures, not
what is best. No default of the program follows from it.
"""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import replace
from typing import Any

import numpy as np
from harness import Results, print_table, settings
from loe_tables import (
    ALPHA,
    FIRST_SEED,
    OTHERS,
    auroc,
    configuration,
    f1_at_true_share,
    figures,
    protocol,
    scores_of,
    trained,
)

TABLES = ("wbc", "breastw", "cardio")
ASSIGNMENTS = ("blind", "soft")
#: What is changed: arguments of the protocol, options of the training.
Change = tuple[dict[str, Any], dict[str, Any]]
ONE: dict[str, Change] = {
    "file order": ({"shuffle": False}, {}),
    "no noise": ({"noise": 0.0}, {}),
    "batches of 32": ({}, {"batch_size": 32}),
    "1200 epochs": ({}, {"epochs": 1200}),
    "30 epochs": ({}, {"epochs": 30}),
    "warm-up 10": ({}, {"warmup": 10}),
}
STANDARD = {"scaling": "standard"}
CHANGES: dict[str, Change] = {
    "as it is": ({}, {}),
    "standardised": (STANDARD, {}),
    "min-max": ({"scaling": "minmax"}, {}),
    **ONE,
    **{f"standardised + {name}": (STANDARD | data, training) for name, (data, training) in ONE.items()},
}


def measure(cell: str) -> dict[str, Any]:
    table, detector, assignment, change, seed = cell.split("/")
    of_data, of_training = CHANGES[change]
    sets = protocol(table, int(seed), **of_data)
    options = replace(configuration(table, detector, assignment), **of_training)
    began = time.perf_counter()
    pair, trainer = trained(sets, options, int(seed), ALPHA)
    scores = scores_of(pair, sets.test)
    assert trainer.history is not None
    return {
        "f1": f1_at_true_share(scores, sets.test_labels), "auroc": auroc(scores, sets.test_labels),
        "seconds": round(time.perf_counter() - began, 1), "epochs": len(trainer.history.losses),
        "best_epoch": trainer.history.best_epoch + 1,
    }  # fmt: skip


def distances(cells: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """Of each change: how far F1 is from the published figures, beside the same cells without it."""
    found: dict[str, list[tuple[float, float]]] = {}
    for name, cell in cells.items():
        table, detector, assignment, change, seed = name.split("/")
        without = "standardised" if change.startswith("standardised +") else "as it is"
        same = cells.get(f"{table}/{detector}/{assignment}/{without}/{seed}")
        if without == "as it is":
            same = same or base.get(f"{table}/{detector}/{assignment}/{seed}")
        theirs = figures(table, detector, assignment)
        if theirs and same and change != "as it is":
            paper = theirs[0][1][0]
            found.setdefault(change, []).append((abs(cell["f1"] - paper), abs(same["f1"] - paper)))
    return {
        change: {
            "cells": len(pairs), "mean distance": round(float(np.mean([a for a, _ in pairs])), 1),
            "without it": round(float(np.mean([b for _, b in pairs])), 1), "nearer in": sum(a < b for a, b in pairs),
        }
        for change, pairs in found.items()
    }  # fmt: skip


def main() -> None:
    given = settings("one change at a time in LOE's protocol", seeds=3)
    tables = tuple(OTHERS) if given.budget == "full" else TABLES
    cells = [
        f"{table}/ntl/{assignment}/{change}/{FIRST_SEED + k}"
        for k in range(given.seeds) for table in tables for change in CHANGES for assignment in ASSIGNMENTS
    ]  # fmt: skip
    results = Results("loe_ablation", given)
    results.run([cell for cell in cells if given.wants(cell)], measure, cells)
    results.extra["distance from the paper"] = distances(results.cells, Results("loe_tables", given).cells)
    results.write(cells)
    seen = [table for table in OTHERS if any(name.startswith(f"{table}/") for name in results.cells)]
    rows = []
    for change, assignment in itertools.product(CHANGES, ASSIGNMENTS):
        row = [change, assignment]
        for table in seen:
            start = f"{table}/ntl/{assignment}/{change}/"
            ours = [cell["f1"] for name, cell in results.cells.items() if name.startswith(start)]
            row.append(f"{np.mean(ours):.1f} ({OTHERS[table][ASSIGNMENTS.index(assignment)]:.1f})" if ours else "–")
        if row[2:] != ["–"] * len(seen):
            rows.append(row)
    print_table(["change", "assignment", *(f"{table} (paper)" for table in seen)], rows)
    print(json.dumps(results.extra, indent=1))


if __name__ == "__main__":
    main()
