"""`--contamination auto` against the true share, on LOE's 22 tables at 0 to 20 %; and what a wrong share does to the ranking.

usage: python tests/benchmarks/alpha.py [--only thyroid,wine] [--seeds 3] [--budget quick|full]. Needs the tables beside the
checkout. quick: one seed.

Cells TABLE/SHARE/SEED: real anomalies are drawn without replacement; where there are too few for the share, normals are left
out, too. At most ROWS rows. The program's own pilot scores and estimate, and on the same scores the other estimators. Estimates
are clipped to 0 … 0.49 and replaced by 0.1 where there is none, as the program does. Then AUROC and average precision of the
the trimmed Gaussian (`detector=gaussian`), audit mode, at the true share, half and twice it, the estimate, and 0.1; cells
TABLE/SHARE/SEED/deep-svdd the same of a trained detector under soft. Labels are for drawing and evaluation only.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from harness import SHARED, Results, print_table, settings
from loe_tables import NAMED, Protocol, scores_of, trained
from loe_tables import OTHERS as MORE
from proportions import OTHERS

from anoaudit.data.source import open_dataset
from anoaudit.data.tables import ColumnOptions, TableFiles
from anoaudit.methods.loe.options import LoeOptions
from anoaudit.methods.pilot import pilot_scores
from anoaudit.model.alpha import MOST, estimate_alpha
from anoaudit.progress import Reporter
from anoaudit.reports.metrics import auroc, average_precision
from anoaudit.training.checkpoint import Checkpoints
from anoaudit.training.items import Split, TrainingItems
from anoaudit.training.trainer import Trainer

TABLES = SHARED / "data" / "tables"
SHARES = (0.0, 0.02, 0.05, 0.1, 0.2)
ROWS = 10_000
TRAINED = 0.1  # the share at which the trained detector is looked at
OURS = "Meinshausen-Rice"


def draw(table: str, share: float, seed: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int8]]:
    """Rows and labels with this share of anomalies, shuffled."""
    frame = pl.read_parquet(TABLES / f"{table}.parquet")
    labels = frame["anomaly"].to_numpy()
    rng = np.random.default_rng(seed)
    normals, anomalies = (rng.permutation(np.flatnonzero(labels == kind)) for kind in (0, 1))
    most = len(normals) if share == 0 else int(len(anomalies) * (1 - share) / share + 1e-9)
    count = min(len(normals), most, int(ROWS * (1 - share)))
    chosen = rng.permutation(np.concatenate([normals[:count], anomalies[: round(share / (1 - share) * count)]]))
    return frame.drop("anomaly").to_numpy().astype(np.float64)[chosen], labels[chosen].astype(np.int8)


def estimated(rows: npt.NDArray[np.float64], seed: int) -> dict[str, Any]:
    """The program's estimate, and the others' on the same scores."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.parquet")
        pl.DataFrame(rows, schema=[f"c{j}" for j in range(rows.shape[1])]).write_parquet(path)
        dataset = open_dataset(str(path), ColumnOptions((), (), None), None, None, None)
        assert isinstance(dataset, TableFiles)
        every, unknown = np.ones(len(rows), dtype=bool), np.full(len(rows), -1, dtype=np.int8)
        items = TrainingItems(dataset, dataset.infer(seed), Split(every, ~every, unknown, False), every)
        trainer = Trainer(
            torch.device("cpu"), seed, 0.1, Checkpoints(Path(folder, "part"), {}, resume=False), Reporter()
        )
        scores = pilot_scores(items, trainer)
    ours = estimate_alpha(unknown, lambda: scores, 0.1)
    found = {OURS: ours.share}
    for name, estimator in OTHERS.items():
        share = estimator(scores) if np.ptp(scores) > 0 else np.nan
        found[name] = float(np.clip(share, 0.0, MOST)) if np.isfinite(share) else 0.1
    return {"low": ours.low, "high": ours.high, "estimates": found}


def assumptions(share: float, estimate: float) -> dict[str, float]:
    wanted = {"half": share / 2, "true": share, "double": min(2 * share, MOST), "estimate": estimate, "0.1": 0.1}
    return wanted if share > 0 else {name: wanted[name] for name in ("true", "estimate", "0.1")}


def ranking(
    rows: npt.NDArray[np.float64], labels: npt.NDArray[np.int8], detector: str, alpha: float, seed: int
) -> tuple[float, float] | None:
    """AUROC and average precision of the rows themselves, fitted under an assumed share."""
    from anoaudit.methods.loe.alternate import alternate
    from anoaudit.methods.loe.assignment import Assignment
    from anoaudit.methods.loe.gaussian import GaussianVector
    from anoaudit.training.features import RowBatches

    scale = rows.std(axis=0)
    scaled = ((rows - rows.mean(axis=0)) / np.where(scale > 0, scale, 1.0)).astype(np.float32)
    if detector == "gaussian":
        head = GaussianVector(rows.shape[1])
        data = RowBatches(torch.from_numpy(scaled), labels)
        alternate(head, data, Assignment("refine", alpha, warmup=0), 10, torch.device("cpu"), Reporter())
        with torch.no_grad():
            scores = head.score(torch.from_numpy(scaled)).double().numpy()
    else:
        options = LoeOptions(detector="deep-svdd", scaling="none").for_data("table")
        pair, _ = trained(Protocol(scaled, labels, scaled, labels), options, seed, alpha)
        scores = scores_of(pair, scaled)
    area, precision = auroc(labels == 1, scores), average_precision(labels == 1, scores)
    return None if area is None or precision is None else (area, precision)


def measure(cell: str) -> dict[str, Any]:
    table, text, number, *more = cell.split("/")
    share, seed = float(text), int(number)
    rows, labels = draw(table, share, seed)
    found: dict[str, Any] = {"rows": len(rows), "true": float((labels == 1).mean())}
    estimate = estimated(rows, seed)
    detector = more[0] if more else "gaussian"
    if not more:
        found |= estimate
    found["ranking"] = {
        name: ranking(rows, labels, detector, alpha, seed)
        for name, alpha in assumptions(share, estimate["estimates"][OURS]).items()
    }
    return found


def summary(cells: dict[str, Any]) -> dict[str, Any]:
    """Per estimator: mean absolute and signed error over the contaminated cells; coverage of the interval; effect on rankings."""
    plain = {name: cell for name, cell in cells.items() if name.count("/") == 2}
    dirty = {name: cell for name, cell in plain.items() if cell["true"] > 0}
    errors = {
        name: np.array([cell["estimates"][name] - cell["true"] for cell in dirty.values()]) for name in (OURS, *OTHERS)
    }
    developed = _development()
    halves = {
        "all": list(dirty.values()),
        **{
            half: [cell for name, cell in dirty.items() if (name.split("/")[0] in developed) == (half == "development")]
            for half in ("development", "others")
        },
    }
    found: dict[str, Any] = {
        "cells": len(dirty),
        "estimators": {
            name: {"mean_absolute_error": _mean(np.abs(e)), "signed_error": _mean(e)} for name, e in errors.items()
        },
        "interval": {half: _interval(of) for half, of in halves.items()},
        "tables": {
            table: {
                "mean_absolute_error": _mean([abs(c["estimates"][OURS] - c["true"]) for c in of]),
                "signed_error": _mean([c["estimates"][OURS] - c["true"] for c in of]),
                "coverage": _mean([c["low"] <= c["true"] <= c["high"] for c in of if c["low"] is not None]),
            }
            for table in dict.fromkeys(name.split("/")[0] for name in dirty)
            for of in [[cell for name, cell in dirty.items() if name.startswith(f"{table}/")]]
        },
        "shares": {
            str(share): {
                "estimate": _mean([c["estimates"][OURS] for c in of]),
                "mean_absolute_error": _mean([abs(c["estimates"][OURS] - c["true"]) for c in of]),
                "coverage": _mean([c["low"] <= c["true"] <= c["high"] for c in of if c["low"] is not None]),
            }
            for share in SHARES
            for of in [[cell for name, cell in plain.items() if name.split("/")[1] == str(share)]]
        },
    }
    for detector, depth in (("gaussian", 2), ("deep-svdd", 3)):
        rankings = [c["ranking"] for name, c in cells.items() if name.count("/") == depth and c["ranking"].get("half")]
        found[detector] = {
            name: {
                "auroc": _mean([r[name][0] for r in rankings]),
                "average_precision": _mean([r[name][1] for r in rankings]),
            }
            for name in ("half", "true", "double", "estimate", "0.1")
        }
    return found


def _interval(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """How the interval did, where there was one: its upper end rests on the development tables."""
    told = [cell for cell in cells if cell["low"] is not None]
    errors = [cell["estimates"][OURS] - cell["true"] for cell in cells]
    return {
        "cells": len(cells),
        "not_estimated": len(cells) - len(told),
        "mean_absolute_error": _mean(np.abs(errors)),
        "signed_error": _mean(errors),
        "coverage": _mean([cell["low"] <= cell["true"] <= cell["high"] for cell in told]),
        "low_holds": _mean([cell["low"] <= cell["true"] for cell in told]),
        "high_holds": _mean([cell["true"] <= cell["high"] for cell in told]),
        "width": _mean([cell["high"] - cell["low"] for cell in told]),
    }


def _development() -> set[str]:
    """The tables that the program was developed on."""
    marks = pl.read_csv(SHARED / "data" / "tables.csv")
    return set(marks.filter(pl.col("half") == "dev")["table"].to_list())


def _mean(values: Any) -> float | None:
    return round(float(np.mean(values)), 4) if len(values) else None


def main() -> None:
    given = settings("estimated against true contamination", seeds=3)
    tables = (*MORE, *NAMED)
    every = [f"{table}/{share}/{seed}" for seed in range(given.seeds) for table in tables for share in SHARES]
    every += [f"{table}/{TRAINED}/0/deep-svdd" for table in tables]
    wanted = [cell for cell in every if not given.only or cell.split("/")[0] in given.only]
    if given.budget == "quick":
        wanted = [cell for cell in wanted if cell.split("/")[2] == "0"]
    results = Results("alpha", given)
    results.run(wanted, measure, every)
    results.extra["summary"] = found = summary(results.cells)
    results.write(every)
    print_table(
        ["estimator", "mean absolute error", "signed error"],
        [
            [name, f"{e['mean_absolute_error']:.3f}", f"{e['signed_error']:+.3f}"]
            for name, e in found["estimators"].items()
        ],
    )
    print()
    for key in ("shares", "tables"):
        print_table(
            [key, "estimate" if key == "shares" else "signed error", "mean absolute error", "coverage"],
            [
                [
                    name,
                    *(
                        str(v[k])
                        for k in ("estimate" if key == "shares" else "signed_error", "mean_absolute_error", "coverage")
                    ),
                ]
                for name, v in found[key].items()
            ],
        )
        print()
    for half, values in found["interval"].items():
        print(half, values)
    for detector in ("gaussian", "deep-svdd"):
        print(detector, found[detector])


if __name__ == "__main__":
    main()
