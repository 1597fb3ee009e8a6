"""The board beside published figures: Livernoche et al. (On diffusion modeling for anomaly detection, ICLR 2024), unsupervised.

Their protocol is near ours, not the same: ADBench's copies of the tables, fitted on contaminated data, of large tables more rows
than our 5,000. So what both have measured, the isolation forest say, stands beside its published figure, too. Only tables that
are the same data set count: neither ODDS's wbc, another set than ADBench's of that name, nor single classes of embeddings.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from harness import SHARED

FILE = SHARED / "data" / "published_unsupervised.csv"
OTHER_NAME = {"lympho": "lymphography"}
NOT_THE_SAME = ("wbc",)
#: The board's columns of published methods.
MEASURED = {
    "IForest": "IForest", "MCD": "MCD", "CBLOF": "CBLOF", "kNN": "KNN", "OCSVM": "OCSVM", "PCA": "PCA", "HBOS": "HBOS",
    "COPOD": "COPOD", "ECOD": "ECOD", "LOF": "LOF", "SLAD": "SLAD", "ICL": "ICL", "DeepSVDD": "DeepSVDD",
    "DIF": "DeepIsolationForest",
}  # fmt: skip


def beside_published(columns: dict[str, dict[str, dict[str, float]]], half_of: dict[str, str]) -> list[dict[str, Any]]:
    """Means over the tables in common, published and measured here, best first; the default among them. Empty without the file."""
    if not FILE.exists():
        return []
    frame = pl.read_csv(FILE)
    names = {table: OTHER_NAME.get(table, table.lower()) for table in half_of if table not in NOT_THE_SAME}
    known = set(frame["dataset"])
    found = []
    for half in ("dev", "confirm"):
        common = [table for table, of in half_of.items() if of == half and names.get(table) in known]
        common = [table for table in common if table in columns["default"]]
        if not common:
            continue
        here = frame.filter(pl.col("dataset").is_in([names[table] for table in common]))
        means = here.group_by("method").agg(pl.len(), pl.col("auroc", "ap").mean() / 100)
        entries = [
            _entry(half, method, common, columns.get(_column(method, columns), {}), (area, precision))
            for method, count, area, precision in means.iter_rows() if count == len(common)
        ]  # fmt: skip
        entries.append(_entry(half, "default", common, columns["default"], None))
        found += sorted(entries, key=lambda entry: -(entry["published_auroc"] or entry["measured_auroc"]))
    return found


def _column(method: str, columns: dict[str, Any]) -> str:
    name = MEASURED.get(method, "")
    return f"{name} (peer)" if f"{name} (peer)" in columns else name


def _entry(
    half: str,
    method: str,
    tables: list[str],
    figures: dict[str, dict[str, float]],
    published: tuple[float, float] | None,
) -> dict[str, Any]:
    whole = bool(figures) and all(table in figures for table in tables)
    measured = [
        round(float(np.mean([figures[table][key] for table in tables])), 4) if whole else None
        for key in ("auroc", "average_precision")
    ]
    return {
        "half": half, "method": method, "tables": len(tables),
        "published_auroc": published and round(published[0], 4), "published_ap": published and round(published[1], 4),
        "measured_auroc": measured[0], "measured_ap": measured[1],
    }  # fmt: skip
