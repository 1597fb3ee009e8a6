"""The image half of the audit board: the default on contaminated image folders, beside peers on the same backbone.

usage: python tests/benchmarks/audit_images.py [--only cubes,lamp,*/default/2] [--seeds 1] [--budget quick|full]
quick: the seven families that were developed on; full: `cubes`, all of `piped`, CIFAR-10 one class against the rest (120 images
of the class, anomalies from the others; see image_sets.py), and folders that hold several of these, at 5, 10, 20 %. The same
images are fitted and scored, without labels, the backbone mobilenetv2_100, all options as they are by default (so
--contamination is 0.1 whatever the true share).

`default` cells run the program's fit and audit with the exported graph replaced by the detector that it is made of, and each
image's features computed once; `whole` cells run the program as a user does, for its seconds and memory. `removed` is the same
folder without its anomalies, for the decisions; `places` is the default's ranking with whole=false. Our other ways to fit
images without labels (OTHERS in image_runs.py) run as a user runs them; they take minutes a set on a CPU, and the quick budget
measures them on three sets at 10 %. Peers (image_peers.py): the
distance to the nearest patch of other images; a Gaussian a place on the same maps (plain, as PaDiM); k-NN (fifth neighbour),
isolation forest, MCD and one Gaussian (GMM) on pooled features, standardised, the last two after a PCA to at most 16 components, a
quarter of the images; and, if ANOAUDIT_PEERS_PYTHON is set, PyOD's EmbeddingOD on the same pooled features. A seed is another
draw of the anomalies, too.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from harness import Results, print_table, settings
from image_peers import PEERS, POOLED, PYTHON, peer_scores
from image_runs import OTHERS, default_table, whole
from image_sets import CIFAR, DEV, GROUPS, RATIOS, families, features_of, mixed
from peer_detectors import EMBEDDING

from anoaudit.reports.metrics import auroc, average_precision, precision_at

KINDS = ("defects", "cifar10", "defects, groups", "cifar10, groups")
WHOLE = ("cubes", "PA_BRG01_RL", "cifar10_0")


def measure(cell: str) -> dict[str, Any]:
    family, ratio, column, seed = cell.split("/")
    folder, truth = mixed(family, "0" if ratio == "removed" else ratio, int(seed))
    ids = sorted(truth)
    y = np.array([truth[item] for item in ids], dtype=np.int8)
    if column in (*PEERS, "places"):
        features_of(family, ids, column in POOLED)  # what is in the file cache now is no part of the time
    began = time.perf_counter()
    found: dict[str, Any] = {"items": len(ids), "anomalies": int(y.sum())}
    if column in (*PEERS, "places"):
        scores, seconds = peer_scores(column, family, ratio, ids, int(seed))
        seconds = time.perf_counter() - began if seconds is None else seconds
        found["seconds"] = round(seconds, 2)  # without the backbone's
    else:
        if column == "whole" or column in OTHERS:
            table, seconds, peak = whole(folder, column, int(seed))
            found |= {"seconds": round(seconds, 1), "peak_mib": round(peak)}
        else:
            table = default_table(family, folder, int(seed))
        by_id = {row["id"]: row for row in table.to_dicts()}
        scores = np.array([by_id[item]["score"] for item in ids])
        flagged = np.array([bool(by_id[item]["flagged"]) for item in ids])
        hits = int((flagged & (y == 1)).sum())
        found |= {"flagged": int(flagged.sum()), "hits": hits, "p_values": by_id[ids[0]]["p_value"] is not None}
    if y.any():
        found |= {
            "auroc": auroc(y, scores), "ap": average_precision(y, scores), "p_at_n": precision_at(y, scores, int(y.sum())),
        }  # fmt: skip
    return found


def half_of(family: str) -> str:
    return "dev" if set(family.split("+")) <= set(DEV) else "confirm"


def kind_of(family: str) -> str:
    return ("cifar10" if family.startswith("cifar10") else "defects") + (", groups" if "+" in family else "")


def by_set(cells: dict[str, Any], half: str, *kinds: str) -> dict[tuple[str, str], dict[str, dict[str, float]]]:
    """(family, ratio) → column → means over the seeds that all columns have; of the columns with all of the half and kinds."""
    sets = [
        (family, ratio) for family in all_families() if half_of(family) == half and kind_of(family) in kinds
        for ratio in RATIOS if f"{family}/{ratio}/default/0" in cells
    ]  # fmt: skip
    columns = [
        c
        for c in ("default", "places", *PEERS, *OTHERS)
        if all(f"{family}/{ratio}/{c}/0" in cells for family, ratio in sets)
    ]
    found = {}
    for family, ratio in sets:
        runs = {
            column: [cells.get(f"{family}/{ratio}/{column}/{seed}", {}) for seed in range(100)] for column in columns
        }
        seeds = [seed for seed in range(100) if all(runs[column][seed] for column in columns)]
        found[family, ratio] = {
            column: {
                key: float(np.mean([runs[column][seed].get(key, np.nan) for seed in seeds]))
                for key in ("auroc", "ap", "p_at_n", "seconds")
            } | {"seeds": len(seeds)}
            for column in columns
        }  # fmt: skip
    return found


def summary(cells: dict[str, Any]) -> list[dict[str, Any]]:
    """Means over family × ratio, dev and confirm apart; of folders with one kind of thing."""
    found = []
    whole_seconds = [c["seconds"] for name, c in cells.items() if "/whole/" in name]
    for half in ("dev", "confirm"):
        means = by_set(cells, half, *KINDS[:2])
        columns = [column for column in next(iter(means.values()), {}) if column != "places"]
        aurocs = np.array([[entry[column]["auroc"] for column in columns] for entry in means.values()])
        ranks = np.array([[(row > value).sum() + ((row == value).sum() + 1) / 2 for value in row] for row in aurocs])
        for i, column in enumerate(columns):
            mean = {
                key: float(np.mean([entry[column][key] for entry in means.values()]))
                for key in means[next(iter(means))][column]
            }
            seconds = float(np.mean(whole_seconds)) if column == "default" and whole_seconds else mean["seconds"]
            found.append({
                "family": "images", "half": half, "column": column, "is_peer": column in PEERS, "sets": len(means),
                "seeds": min(entry[column]["seeds"] for entry in means.values()),
                "mean_auroc": mean["auroc"], "mean_ap": mean["ap"], "mean_p_at_n": mean["p_at_n"],
                "mean_rank": float(ranks[:, i].mean()), "seconds": None if np.isnan(seconds) else seconds,
            })  # fmt: skip
    return found


def by_kind(cells: dict[str, Any]) -> list[dict[str, Any]]:
    """All columns and the default's places alone, CIFAR-10 apart from the folders of defects."""
    found = []
    for half in ("dev", "confirm"):
        for kind in KINDS:
            means = list(by_set(cells, half, kind).values())
            for column in means[0] if means else ():
                here = [entry[column] for entry in means]
                found.append({
                    "half": half, "kind": kind, "column": column, "sets": len(here), "seeds": min(c["seeds"] for c in here),
                    "mean_auroc": float(np.mean([c["auroc"] for c in here])), "mean_ap": float(np.mean([c["ap"] for c in here])),
                })  # fmt: skip
    return found


def decisions(cells: dict[str, Any]) -> list[dict[str, Any]]:
    """Precision, recall and false discovery proportion of the default rule, all images of a half together."""
    found = []
    for half in ("dev", "confirm"):
        for ratio in (*RATIOS, "removed"):
            here = [
                c for name, c in cells.items()
                if name.split("/")[1:3] == [ratio, "default"] and half_of(name.split("/")[0]) == half and c["p_values"]
                and "+" not in name
            ]  # fmt: skip
            if not here:
                continue
            wrong = [1 - c["hits"] / c["flagged"] if c["flagged"] else 0.0 for c in here]
            items, anomalies, flagged, hits = (
                sum(c[key] for c in here) for key in ("items", "anomalies", "flagged", "hits")
            )
            found.append({
                "half": half, "ratio": ratio, "sets": len(here), "items": items, "anomalies": anomalies, "flagged": flagged,
                "precision": hits / flagged if flagged else None, "recall": hits / anomalies if anomalies else None,
                "false_discovery_proportion": 1 - hits / flagged if flagged else 0.0,
                "mean_false_discovery_proportion": float(np.mean(wrong)),
                "sets_with_a_flag": sum(c["flagged"] > 0 for c in here), "share_flagged": flagged / items,
            })  # fmt: skip
    return found


def others(cells: dict[str, Any]) -> list[dict[str, Any]]:
    """Our other ways to fit, of one seed, beside the default where they have been measured."""
    found = []
    for column in ("default", *OTHERS):
        for name, cell in cells.items():
            family, ratio, of, seed = name.split("/")
            if of == column and seed == "0" and (column in OTHERS or (ratio == "0.1" and family in WHOLE)):
                seconds = (
                    cells.get(f"{family}/0.1/whole/0", {}).get("seconds") if column == "default" else cell["seconds"]
                )
                found.append({
                    "column": column, "family": family, "ratio": ratio, "auroc": cell["auroc"], "ap": cell["ap"],
                    "seconds": seconds,
                })  # fmt: skip
    return found


def all_families() -> list[str]:
    return [*families(), *CIFAR, *GROUPS]


def main() -> None:
    given = settings("audit of contaminated image folders", seeds=1)
    asked = all_families() if given.budget == "full" else list(DEV)
    columns = (
        ["default", *PEERS, "places"] if PYTHON else ["default", *(c for c in PEERS if c not in EMBEDDING), "places"]
    )
    every = [f"{family}/0.1/{column}/0" for column in ("whole", *OTHERS) for family in WHOLE]
    for seed in range(given.seeds):
        for family in asked:
            every += [f"{family}/{ratio}/{column}/{seed}" for ratio in RATIOS for column in columns]
            every.append(f"{family}/removed/default/{seed}")
    if given.budget == "full":
        grid = [f"{family}/{ratio}/{column}/0" for column in OTHERS for family in asked for ratio in RATIOS]
        every += [cell for cell in grid if cell not in every]
    wanted = [cell for cell in every if given.wants(cell) or {cell.split("/")[0], cell.split("/")[2]} & set(given.only)]
    results = Results("audit_images", given)
    results.run(wanted, measure, every)
    results.extra |= {
        "halves": {"dev": list(DEV), "confirm": [f for f in all_families() if half_of(f) == "confirm"]},
        "summary": summary(results.cells), "by_kind": by_kind(results.cells),
        "decisions": decisions(results.cells), "others": others(results.cells),
    }  # fmt: skip
    results.write(every)
    for half in ("dev", "confirm"):
        print(f"\n{half}\n")
        rows = [
            [e["column"], *(f"{e[k]:.3f}" for k in ("mean_auroc", "mean_ap", "mean_p_at_n")), f"{e['mean_rank']:.2f}"]
            for e in results.extra["summary"] if e["half"] == half
        ]  # fmt: skip
        print_table(["", "AUROC", "average precision", "precision at n", "mean rank"], rows)
    rows = [
        [e["half"], e["ratio"], *("–" if e[k] is None else f"{e[k]:.2f}" for k in ("precision", "recall", "share_flagged"))]
        for e in results.extra["decisions"]
    ]  # fmt: skip
    print("\nDecisions\n")
    print_table(["half", "contamination", "precision", "recall", "share flagged"], rows)


if __name__ == "__main__":
    main()
