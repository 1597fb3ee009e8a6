"""The audit board: fit on a table that nobody cleaned, score the same rows, and see what labels say; beside the peers.

usage: python tests/benchmarks/audit_board.py [--only thyroid,*/default] [--seeds 3] [--budget quick|full] [--minutes 9]
quick: the default recipe; full: the other methods and detectors that fit without labels, too, one seed of the slow ones. Needs
the tables beside the checkout. Rows: at most 5,000 of a table, as in peers.py. The program runs as a user runs it (`anoaudit
fit`, all options as they are by default, so --contamination is 0.1 whatever the true share); labels are for evaluation only.
What the program refuses to fit (`icl` on 512 columns) is a cell with its reason, listed in `not_measured` with the peers'.

`removed` cells are the default on the table without its anomalies: what its rule flags there is false. Peers come from
results/peers.json (peers.py), images from results/audit_images.json (audit_images.py). Ranks are among the columns that have
all tables of the half. Differences have a paired 95 % interval from 10,000 bootstraps over tables, and Wilcoxon's signed-rank
test (two-sided, exact). `critical_difference` has, of each half and of all tables, the mean ranks of the columns that have all
tables, Friedman's test, Nemenyi's critical difference and Wilcoxon's test of every pair with Holm's correction, drawn in
results/audit_board.svg. `wins`: tables where nothing measured there ranks better by AUROC. `published`: see published.py.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from critical_difference import chart, compare, ranks, wilcoxon
from harness import RESULTS, SHARED, RefusedError, Results, anoaudit, print_table, settings
from peers import board_rows
from published import beside_published

from anoaudit.reports.metrics import auroc, average_precision, precision_at

#: Our columns: every way to fit without labels. Options of `fit`, and whether a fit takes minutes.
COLUMNS: dict[str, tuple[list[str], bool]] = {
    "default": ([], False),
    "gaussian": (["--set", "detector=gaussian"], False),
    "deep-svdd": (["--set", "detector=deep-svdd"], False),
    "ntl": (["--set", "detector=ntl"], False),
    "autoencoder": (["--set", "detector=autoencoder"], False),
    "lamp": (["--method", "lamp"], False),
    "icl": (["--set", "detector=icl"], True),
    "ntl paper": (["--set", "recipe=paper"], True),
    "icl paper": (["--set", "recipe=paper", "--set", "detector=icl"], True),
}
MEASURES = ("auroc", "average_precision", "precision_at_n")
PUBLISHED = ("published_auroc", "published_ap", "measured_auroc", "measured_ap")
BOOTSTRAPS = 10_000

Floats = npt.NDArray[np.float64]
ByTable = dict[str, dict[str, float]]  # table → the mean over seeds of each figure


def halves() -> dict[str, str]:
    return dict(pl.read_csv(SHARED / "data" / "tables.csv").select("table", "half").iter_rows())


def measure(cell: str) -> dict[str, Any]:
    table, column, seed = cell.split("/")
    rows, anomalous = board_rows(table)
    if column == "removed":
        rows, anomalous = rows[anomalous == 0], anomalous[anomalous == 0]
    arguments = COLUMNS["default" if column == "removed" else column][0]
    with tempfile.TemporaryDirectory() as folder:
        source, model = Path(folder) / f"{table}.parquet", Path(folder) / "board.anoaudit"
        pl.DataFrame(rows, schema=[f"c{j}" for j in range(rows.shape[1])]).write_parquet(source)
        try:
            _, seconds, mib = anoaudit("fit", source, "-o", model, "--seed", seed, "--format", "csv", *arguments)
        except RefusedError as error:
            return {"skipped": str(error)}
        found = pl.read_parquet(model / "scores.parquet").sort(pl.col("id").cast(pl.Int64, strict=False))
    scores, flagged = found["score"].to_numpy(), found["flagged"].fill_null(False).to_numpy()
    assert len(scores) == len(rows)
    count = int(anomalous.sum())
    figures: dict[str, Any] = {
        "rows": len(rows), "anomalies": count, "flagged": int(flagged.sum()), "hits": int((flagged & (anomalous == 1)).sum()),
        "seconds": round(seconds, 1), "mib": round(mib),
    }  # fmt: skip
    if count:
        for name, value in zip(
            MEASURES,
            (auroc(anomalous, scores), average_precision(anomalous, scores), precision_at(anomalous, scores, count)),
            strict=True,
        ):
            assert value is not None
            figures[name] = round(value, 5)
    return figures


def by_table(cells: dict[str, Any], column: str) -> ByTable:
    """Means over seeds."""
    found: dict[str, list[dict[str, Any]]] = {}
    for cell, figures in cells.items():
        table, name, _ = cell.split("/")
        if name == column and "auroc" in figures:
            found.setdefault(table, []).append(figures)
    return {
        table: {key: float(np.mean([run[key] for run in runs])) for key in (*MEASURES, "seconds", "mib")}
        for table, runs in found.items()
    }


def ranks_of(columns: dict[str, ByTable], tables: list[str], key: str) -> dict[str, Floats]:
    """Rank of each column on each table, of the columns that have all tables."""
    return ranks(whole(columns, tables, key))


def whole(columns: dict[str, ByTable], tables: list[str], key: str) -> dict[str, Floats]:
    """Column → figure on each table, of the columns that have all tables."""
    return {
        name: np.array([figures[table][key] for table in tables])
        for name, figures in columns.items() if all(table in figures for table in tables)
    }  # fmt: skip


def interval(differences: Floats) -> tuple[float, float]:
    """Paired 95 % interval of the mean, by bootstrap over tables."""
    drawn = np.random.default_rng(0).integers(0, len(differences), (BOOTSTRAPS, len(differences)))
    low, high = np.quantile(differences[drawn].mean(1), [0.025, 0.975])
    return round(float(low), 4), round(float(high), 4)


def summary(columns: dict[str, ByTable], peers: set[str], half: str, tables: list[str]) -> list[dict[str, Any]]:
    by_rank = {key: ranks_of(columns, tables, key) for key in MEASURES[:2]}
    best = {table: max(figures[table]["auroc"] for figures in columns.values() if table in figures) for table in tables}
    found = []
    for name, figures in columns.items():
        known = [table for table in tables if table in figures]
        if not known:
            continue
        mean = {key: float(np.mean([figures[table][key] for table in known])) for key in (*MEASURES, "seconds", "mib")}
        rank = by_rank["auroc"].get(name)
        found.append({
            "family": "tables", "half": half, "column": name, "is_peer": name in peers, "tables": len(known), "of": len(tables),
            "mean_auroc": round(mean["auroc"], 4), "mean_ap": round(mean["average_precision"], 4),
            "mean_precision_at_n": round(mean["precision_at_n"], 4),
            "mean_rank": None if rank is None else round(float(rank.mean()), 2),
            "mean_rank_ap": None if rank is None else round(float(by_rank["average_precision"][name].mean()), 2),
            "wins": sum(figures[table]["auroc"] >= best[table] for table in known),
            "seconds": round(mean["seconds"], 2), "mib": round(mean["mib"]),
        })  # fmt: skip
    return found


def differences(columns: dict[str, ByTable], peers: set[str], half: str, tables: list[str]) -> list[dict[str, Any]]:
    """The default against each peer on the tables that both have."""
    mine = columns["default"]
    found = []
    for name in sorted(peers):
        theirs = columns[name]
        common = [table for table in tables if table in mine and table in theirs]
        if not common:
            continue
        entry: dict[str, Any] = {"half": half, "peer": name, "tables": len(common)}
        for key in MEASURES[:2]:
            gap = np.array([mine[table][key] - theirs[table][key] for table in common])
            entry[key] = {
                "mean": round(float(gap.mean()), 4), "interval": interval(gap), "wilcoxon_p": round(wilcoxon(gap), 4),
                "wins": int((gap > 0).sum()), "losses": int((gap < 0).sum()),
            }  # fmt: skip
        by_rank = ranks_of({n: f for n, f in columns.items() if n == "default" or n in peers}, common, "auroc")
        gap = by_rank["default"] - by_rank[name]
        entry["rank"] = {"mean": round(float(gap.mean()), 2), "interval": interval(gap)}
        found.append(entry)
    return found


def decisions(cells: dict[str, Any], half: str, tables: list[str]) -> dict[str, Any]:
    """The default rule's mean precision (where it flags), recall and false discovery proportion over tables and seeds."""
    of = {name: [run for cell, run in cells.items() if cell.split("/")[1] == name and cell.split("/")[0] in tables]
          for name in ("default", "removed")}  # fmt: skip
    natural, removed = of["default"], of["removed"]
    flagging = [run for run in natural if run["flagged"]]
    flags = sum(run["flagged"] for run in natural)

    def mean(values: list[float]) -> float | None:
        return round(float(np.mean(values)), 4) if values else None

    return {
        "half": half, "fits": len(natural), "fits_that_flag": len(flagging),
        "precision": mean([run["hits"] / run["flagged"] for run in flagging]),
        "recall": mean([run["hits"] / run["anomalies"] for run in natural]),
        "false_discovery_proportion": mean([(run["flagged"] - run["hits"]) / max(run["flagged"], 1) for run in natural]),
        "false_of_all_flags": round(1 - sum(run["hits"] for run in natural) / flags, 4) if flags else None,
        "removed": {
            "fits": len(removed), "fits_that_flag": sum(run["flagged"] > 0 for run in removed),
            "share_flagged": mean([run["flagged"] / run["rows"] for run in removed]),
        },
    }  # fmt: skip


def main() -> None:
    given = settings("the audit board", seeds=3)
    half_of = halves()
    every = [
        f"{table}/{column}/{seed}"
        for seed in range(given.seeds) for column in ("default", "removed", *list(COLUMNS)[1:]) for table in half_of
        if seed == 0 or not COLUMNS.get(column, ([], False))[1]
    ]  # fmt: skip
    quick = [cell for cell in every if cell.split("/")[1] in ("default", "removed")]
    wanted = [cell for cell in (every if given.budget == "full" else quick) if given.wants(cell)]
    results = Results("audit_board", given)
    results.run(wanted, measure, every)
    peer_cells = _document("peers").get("cells", {})
    peers = list(dict.fromkeys(cell.split("/")[1] for cell in peer_cells))
    columns = {name: by_table(results.cells, name) for name in COLUMNS}
    columns |= {name if name not in columns else f"{name} (peer)": by_table(peer_cells, name) for name in peers}
    names = set(columns) - set(COLUMNS)
    results.extra = {"summary": [], "differences": [], "decisions": [], "critical_difference": []}
    for half in ("dev", "confirm"):
        tables = [table for table, of in half_of.items() if of == half and table in columns["default"]]
        if not tables:
            continue
        results.extra["summary"] += summary(columns, names, half, tables)
        results.extra["differences"] += differences(columns, names, half, tables)
        results.extra["decisions"].append(decisions(results.cells, half, tables))
    for half in ("dev", "confirm", "all"):
        tables = [table for table, of in half_of.items() if half in (of, "all")]
        for key in MEASURES[:2]:
            figures = whole(columns, tables, key)
            if len(figures) > 1:
                results.extra["critical_difference"].append({"half": half, "measure": key, **compare(figures)})
    results.extra["not_measured"] = {
        cell: figures["skipped"] for cell, figures in (peer_cells | results.cells).items() if "skipped" in figures
    }  # fmt: skip
    results.extra["published"] = beside_published(columns, half_of)
    results.extra["summary"] += _document("audit_images").get("summary", [])
    results.write(every)
    _draw(results.extra["critical_difference"])
    _print(results.extra)


def _draw(found: list[dict[str, Any]]) -> None:
    titles = {"dev": "development tables", "confirm": "other tables"}
    panels = [
        (f"{entry['tables']} {titles[entry['half']]}", entry)
        for entry in found
        if entry["measure"] == "auroc" and "default" in entry["mean_ranks"] and entry["half"] in titles
    ]
    if panels:
        title = "Audit board: fitted on the contaminated table, the same rows ranked"
        (RESULTS / "audit_board.svg").write_text(chart(title, panels, "default"))


def _document(name: str) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    document: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return document


def _print(found: dict[str, Any]) -> None:
    rank: Callable[[Any], float] = lambda entry: -entry["mean_auroc"]  # noqa: E731
    print_table(
        ["half", "column", "tables", "AUROC", "AP", "P@n", "rank", "wins", "seconds", "MiB"],
        [
            [s["half"], s["column"], f"{s['tables']}/{s['of']}", f"{s['mean_auroc']:.3f}", f"{s['mean_ap']:.3f}"]
            + [
                f"{s['mean_precision_at_n']:.3f}",
                str(s["mean_rank"] or ""),
                str(s["wins"]),
                f"{s['seconds']:.1f}",
                str(s["mib"]),
            ]
            for half in ("dev", "confirm")
            for s in sorted((s for s in found["summary"] if s["family"] == "tables" and s["half"] == half), key=rank)
        ],
    )
    print()
    print_table(
        ["half", "default −", "tables", "AUROC", "AP", "rank", "wins (AUROC)", "p"],
        [
            [d["half"], d["peer"], str(d["tables"])]
            + [f"{d[k]['mean']:+.3f} [{d[k]['interval'][0]:+.3f}, {d[k]['interval'][1]:+.3f}]" for k in MEASURES[:2]]
            + [f"{d['rank']['mean']:+.1f} [{d['rank']['interval'][0]:+.1f}, {d['rank']['interval'][1]:+.1f}]"]
            + [f"{d['auroc']['wins']}:{d['auroc']['losses']}", f"{d['auroc']['wilcoxon_p']:.3f}"]
            for d in found["differences"]
        ],
    )
    for cell, why in found["not_measured"].items():
        print(f"\nnot measured: {cell}: {why}")
    print("\n" + json.dumps(found["decisions"], indent=1) + "\n")
    print_table(
        ["half", "method", "tables", "AUROC published", "AP published", "AUROC here", "AP here"],
        [
            [p["half"], p["method"], str(p["tables"])]
            + ["" if p[key] is None else f"{p[key]:.3f}" for key in PUBLISHED]
            for p in found["published"]
        ],
    )


if __name__ == "__main__":
    main()
