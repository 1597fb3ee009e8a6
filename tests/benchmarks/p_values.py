"""What p-values are worth: conformal ones on clean data, fitted nulls on simulated and on real tables.

usage: python tests/benchmarks/p_values.py [--only thyroid,gauss] [--seeds 1] [--budget quick|full]
quick: the simulations and the development tables; full: the confirming tables too. Real tables lie beside the checkout.

Cells: conformal/SOURCE (are they uniform?), clean/FAMILY/ROWS (simulated clean tables: share of sets with any flag),
table/NAME (a real table as it is, with its anomalies removed, and scored by a model of its other half), all with
detector=gaussian; default/FAMILY/ROWS is clean/… with the default detector, fewer sets; gaussian/FAMILY/ROWS are as many with
detector=gaussian, of the tables whose columns move as one. What the default flags on real tables
is on the audit board (audit_board.py).
"""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from harness import SHARED, Results, print_table, settings
from nulls import CANDIDATES

from anoaudit import api
from anoaudit.scoring.decisions import benjamini_hochberg

DATA = SHARED / "data"
FDR = 0.1
ROWS = 5000
LEVELS = (0.01, 0.05, 0.1, 0.5)
FAMILIES = ("gauss", "correlated", "t5", "log-normal", "two clusters")
AS_ONE = ("one column", "one factor", "one factor and a clock")
SIZES = (50, 100, 300, 1000, 3000)
REPEATS = {50: 30, 100: 20, 300: 20, 1000: 10, 3000: 6}
DEFAULT_REPEATS = {50: 10, 100: 10, 300: 10, 1000: 4}

Array = npt.NDArray[np.float64]


def simulate(family: str, rows: int, rng: np.random.Generator, columns: int = 8) -> Array:
    """Clean data: independent rows of one distribution."""
    x = rng.normal(size=(rows, columns))
    if family == "correlated":
        return x @ np.random.default_rng(7).normal(size=(columns, columns))
    if family == "t5":
        return x / np.sqrt(rng.chisquare(5, size=(rows, 1)) / 5)
    if family == "log-normal":
        return np.exp(0.5 * x)
    if family == "one column":
        return x[:, :1]
    if family == "one factor":
        return x[:, :1] + 0.2 * rng.normal(size=x.shape)
    if family == "one factor and a clock":
        return np.hstack([x[:, :1] + 0.2 * rng.normal(size=(rows, columns - 1)), 60.0 * np.arange(rows)[:, None]])
    if family == "two clusters":
        return x + 4.0 * (rng.random((rows, 1)) < 0.3)
    return x


def fit(
    frame: pl.DataFrame, seed: int, new: pl.DataFrame | None = None, **more: Any
) -> tuple[Array, Array, Array | None]:
    """(audit scores, the null's out-of-sample scores, p-values and scores of `new` or None)."""
    more = {"options": ["detector=gaussian"], **more}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frame.write_parquet(folder / "data.parquet")
        api.fit(folder / "data.parquet", out=folder / "m", device="cpu", seed=seed, **more)
        scores = pl.read_parquet(folder / "m" / "scores.parquet")["score"].to_numpy()
        reference = pl.read_parquet(folder / "m" / "calibration.parquet").to_numpy().ravel()
        if new is None:
            return scores, reference, None
        new.write_parquet(folder / "new.parquet")
        api.score(folder / "new.parquet", model=folder / "m", out=folder / "s.parquet")
        return scores, reference, pl.read_parquet(folder / "s.parquet", columns=["score", "p_value"]).to_numpy()


def conformal(source: str, seed: int) -> dict[str, float]:
    """Fit on half the normals (known as such), score the other half: shares of p at or under each level."""
    rng = np.random.default_rng(seed)
    rows = (
        simulate(source, 2000, rng)
        if source in FAMILIES
        else table(source).filter(pl.col("anomaly") == 0).drop("anomaly").to_numpy()
    )
    rows = rows[rng.permutation(len(rows))]
    frame = pl.DataFrame(rows, schema=[f"x{i}" for i in range(rows.shape[1])]).with_columns(known=pl.lit(0))
    half = len(frame) // 2
    *_, scored = fit(frame[:half], seed, frame[half:].drop("known"), labels="known", train_on="normal")
    assert scored is not None
    return {str(level): float((scored[:, 1] <= level).mean()) for level in LEVELS}


def audit_flags(null: Any, scores: Array, reference: Array) -> npt.NDArray[np.bool_]:
    """Nearly as the program audits: of the null of its own scores and the out-of-sample one, the one with fewer p ≤ 0.001.

    (The program compares the scores at p = 0.001, which not every candidate can tell.)
    """
    own, other = null(scores, scores), null(reference, scores)
    return benjamini_hochberg(own if (own <= 0.001).sum() <= (other <= 0.001).sum() else other, FDR)


def clean(family: str, rows: int, seed: int, repeats: int, **more: Any) -> dict[str, Any]:
    """Simulated clean tables: any flag at all, and the share flagged, in an audit and on as many new rows."""
    found: dict[str, list[tuple[bool, float, bool, float]]] = {name: [] for name in CANDIDATES}
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat, rows])
        values = simulate(family, 2 * rows, rng)
        both = pl.DataFrame(values, schema=[f"x{i}" for i in range(values.shape[1])])
        scores, reference, new = fit(both[:rows], seed, both[rows:], **more)
        assert new is not None
        for name, null in CANDIDATES.items():
            audit, unseen = audit_flags(null, scores, reference), benjamini_hochberg(null(reference, new[:, 0]), FDR)
            found[name].append((bool(audit.any()), audit.mean(), bool(unseen.any()), unseen.mean()))
    keys = ("audit_any", "audit_share", "new_any", "new_share")
    return {
        name: dict(zip(keys, np.mean(values, axis=0).round(4).tolist(), strict=True)) for name, values in found.items()
    }


def table(name: str) -> pl.DataFrame:
    """At most 5,000 rows, by the rule of the audit board."""
    frame = pl.read_parquet(DATA / "tables" / f"{name}.parquet")
    if len(frame) <= ROWS:
        return frame
    kept: list[int] = np.sort(np.random.default_rng(0).permutation(len(frame))[:ROWS]).tolist()
    return frame[kept]


def real(name: str, seed: int) -> dict[str, Any]:
    frame = table(name)
    order = np.random.default_rng([seed, 1]).permutation(len(frame))
    first, second = (frame[np.sort(part).tolist()] for part in np.array_split(order, 2))
    normals = frame.filter(pl.col("anomaly") == 0)
    natural = fit(frame, seed, exclude=["anomaly"])
    removed = fit(normals, seed, exclude=["anomaly"])
    _, reference, new = fit(first, seed, second, exclude=["anomaly"])
    assert new is not None
    truth, new_truth = frame["anomaly"].to_numpy() == 1, second["anomaly"].to_numpy() == 1
    result: dict[str, Any] = {"rows": len(frame), "anomalies": int(truth.sum())}
    for candidate, null in CANDIDATES.items():
        without = audit_flags(null, removed[0], removed[1])
        result[candidate] = {
            "natural": outcome(audit_flags(null, natural[0], natural[1]), truth),
            "removed": {"share": float(without.mean()), "any": bool(without.any())},
            "new": outcome(benjamini_hochberg(null(reference, new[:, 0]), FDR), new_truth),
        }
    return result


def outcome(flags: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Share flagged, false discovery proportion (0 where nothing is flagged), recall."""
    return {
        "share": float(flags.mean()),
        "false": float((flags & ~truth).sum() / max(1, flags.sum())),
        "recall": float(flags[truth].mean()) if truth.any() else 0.0,
    }


def measure(cell: str) -> dict[str, Any]:
    kind, *rest, seed = cell.split("/")
    if kind == "conformal":
        return conformal(rest[0], int(seed))
    if kind in ("default", "gaussian"):
        options = [] if kind == "default" else ["detector=gaussian"]
        return clean(rest[0], int(rest[1]), int(seed), DEFAULT_REPEATS[int(rest[1])], options=options)
    return (
        clean(rest[0], int(rest[1]), int(seed), REPEATS[int(rest[1])]) if kind == "clean" else real(rest[0], int(seed))
    )


def tables(half: str) -> list[str]:
    with (DATA / "tables.csv").open() as file:
        return [row["table"] for row in csv.DictReader(file) if row["half"] == half]


def show(results: Results, wanted: list[str]) -> None:
    head = ["conformal-clean: share of p ≤", *map(str, LEVELS)]
    by_source: dict[str, list[dict[str, float]]] = {}
    for cell in wanted:
        if cell.startswith("conformal/"):
            by_source.setdefault(cell.split("/")[1], []).append(results.cells[cell])
    rows = [
        [source, *(f"{np.mean([c[str(level)] for c in cells]):.3f}" for level in LEVELS)]
        for source, cells in by_source.items()
    ]
    print_table(head, rows)
    for kind, key, title in (
        ("clean", "audit", "audit"), ("clean", "new", "new rows"),
        ("default", "audit", "audit by the default detector"), ("default", "new", "new rows, default detector"),
        ("gaussian", "audit", "audit by detector=gaussian where columns move as one"),
    ):  # fmt: skip
        print(
            f"\nsimulated clean tables, {title}: share of sets with any flag / share of rows flagged, mean over families\n"
        )
        rows = []
        for name in CANDIDATES:
            row = [name]
            for size in SIZES:
                cells = [results.cells[c][name] for c in wanted if c.startswith(f"{kind}/") and f"/{size}/" in c]
                row.append(
                    f"{np.mean([c[f'{key}_any'] for c in cells]):.2f} / {np.mean([c[f'{key}_share'] for c in cells]):.4f}"
                    if cells else "–"
                )  # fmt: skip
            rows.append(row)
        print_table(["null", *(f"{size} rows" for size in SIZES)], rows)
    for half in ("dev", "confirm"):
        cells = [results.cells[c] for c in wanted if c.startswith("table/") and c.split("/")[1] in tables(half)]
        if cells:
            print(
                f"\n{len(cells)} {half} tables: false discovery proportion / recall; flagged without anomalies; sets with any\n"
            )
            print_table(
                ["null", "audit", "share flagged", "anomalies removed", "any", "new rows"],
                [_means(name, [cell[name] for cell in cells]) for name in CANDIDATES],
            )
    print(
        "\nthe default, by table: flagged share / false / recall in the audit; without anomalies; new rows false / recall\n"
    )
    rows = []
    for cell in wanted:
        if cell.startswith("table/"):
            r = results.cells[cell]
            d = r[next(iter(CANDIDATES))]
            a, n = d["natural"], d["new"]
            rows.append(
                [
                    cell.split("/")[1],
                    f"{r['anomalies']} of {r['rows']}",
                    f"{a['share']:.3f} / {a['false']:.2f} / {a['recall']:.2f}",
                ]
                + [f"{d['removed']['share']:.3f}", f"{n['false']:.2f} / {n['recall']:.2f}"]
            )
    print_table(["table", "anomalies", "audit", "anomalies removed", "new rows"], rows)


def _means(name: str, cells: list[dict[str, Any]]) -> list[str]:
    def mean(part: str, key: str) -> float:
        return float(np.mean([cell[part][key] for cell in cells]))

    return [
        name, f"{mean('natural', 'false'):.2f} / {mean('natural', 'recall'):.2f}", f"{mean('natural', 'share'):.3f}",
        f"{mean('removed', 'share'):.3f}", f"{mean('removed', 'any'):.2f}",
        f"{mean('new', 'false'):.2f} / {mean('new', 'recall'):.2f}",
    ]  # fmt: skip


def main() -> None:
    given = settings("what p-values are worth", seeds=1)
    cells = [f"conformal/{s}/{seed}" for s in (*FAMILIES, *TABLES_OF_NORMALS) for seed in range(10)]
    cells += [f"clean/{f}/{n}/{seed}" for f in FAMILIES for n in SIZES for seed in range(given.seeds)]
    of_default = (*FAMILIES, *AS_ONE)
    cells += [f"default/{f}/{n}/{seed}" for f in of_default for n in DEFAULT_REPEATS for seed in range(given.seeds)]
    cells += [f"gaussian/{f}/{n}/{seed}" for f in AS_ONE for n in DEFAULT_REPEATS for seed in range(given.seeds)]
    full = cells + [f"table/{t}/{seed}" for h in ("dev", "confirm") for t in tables(h) for seed in range(given.seeds)]
    cells = (
        full
        if given.budget == "full"
        else cells + [f"table/{t}/{s}" for t in tables("dev") for s in range(given.seeds)]
    )
    wanted = [cell for cell in cells if not given.only or cell.split("/")[1] in given.only]
    results = Results("p_values", given)
    results.run(wanted, measure, full)
    show(results, wanted)


TABLES_OF_NORMALS = ("thyroid", "pendigits", "satellite", "shuttle")

if __name__ == "__main__":
    main()
