"""AnoOnly: base methods as published and without a loss on normal data; how both bear hidden anomalies; images.

usage: python tests/benchmarks/anoonly.py [--only emb,small/cardio] [--seeds 5] [--budget quick|full] [--minutes 9]
Cells, all figures of test rows that training never saw, nothing chosen by them:
emb/TABLE/hidden|clean/BASE/SUPERVISION/SEED    ten tables of embeddings, METHODS §2's protocol: 70/30 by class, a tenth of the
    training anomalies labelled, the others hidden among the unlabelled, or left out (clean); all options as published
small/TABLE/COUNT/BASE/SUPERVISION/SEED         eight ordinary tables with 5, 10, 30 labelled; rivals: gradient boosting (labelled
    against all others, balanced weights), isolation forest and our default LOE (without labels)
share/TABLE/PERCENT/BASE/SUPERVISION/SEED       as a user does it: contaminate, fit with 10 labelled, score; chart in
    results/anoonly.svg
piped/TYPE/MODE/0/0/SEED                        four paper types, three labelled defects, a tenth of hidden ones; 128 px,
    mobilenetv2_100; MODE is a base, a base+tuned (fine_tune=true), or loe (the default, without labels)
quick: seeds 0, 1 of emb (hidden), one of the others. full: everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from anoonly_cells import RIVALS, cli_cell, images_cell, rows_cell
from harness import RESULTS, Results, print_table, settings

BASES = ("devnet", "prenet", "deepsad", "feawad")
VARIANTS = (*BASES, "devnet-linear")
KINDS = ("full", "anomaly-only")
EMBEDDED = (
    "emb_CIFAR10_0", "emb_CIFAR10_4", "emb_SVHN_0", "emb_SVHN_8", "emb_MVTec-AD_bottle", "emb_MVTec-AD_carpet",
    "emb_MVTec-AD_hazelnut", "emb_MVTec-AD_screw", "emb_MVTec-AD_zipper", "emb_20news_3",
)  # fmt: skip
ORDINARY = ("annthyroid", "cardio", "satellite", "pendigits", "mammography", "PageBlocks", "Waveform", "campaign")
COUNTS = ("5", "10", "30")
SHARED_TABLES, SHARES = ("satellite", "Cardiotocography"), ("0", "5", "10", "20")
TYPES = ("PA_BDP01_TL", "PA_BRG01_RL", "PA_BTN01_RL", "PA_ZPB01_RL")
MODES = ("loe", *BASES, "deepsad+tuned", "devnet+tuned")
RESAMPLED = 10_000


def grid(seeds: int) -> Iterator[str]:
    """All cells, those of the quick budget's seeds first."""
    for seed in range(seeds):
        for unlabelled in ("hidden", "clean"):
            yield from (
                f"emb/{t}/{unlabelled}/{b}/{k}/{seed}" for t in EMBEDDED for b in VARIANTS for k in KINDS
            )  # fmt: skip
        for count in COUNTS:
            for table in ORDINARY:
                yield from (f"small/{table}/{count}/{b}/{k}/{seed}" for b in BASES for k in KINDS)
                yield from (f"small/{table}/{count}/{rival}/none/{seed}" for rival in RIVALS)
        yield from (
            f"share/{t}/{p}/{b}/{k}/{seed}" for t in SHARED_TABLES for p in SHARES for b in BASES[:3] for k in KINDS
        )
        yield from (f"piped/{family}/{mode}/0/0/{seed}" for family in TYPES for mode in MODES)


def quick(cell: str) -> bool:
    family, _, third, *_, seed = cell.split("/")
    if family == "emb":
        return third == "hidden" and int(seed) < 2 and "linear" not in cell
    return seed == "0" and (family != "small" or third == "10")


def measure(cell: str) -> dict[str, Any]:
    family, name, third, base, kind, seed = cell.split("/")
    if family == "emb":
        return rows_cell(name, None, third, base, kind, int(seed))
    if family == "small":
        return rows_cell(name, int(third), "hidden", base, kind, int(seed))
    return images_cell(name, third, int(seed)) if family == "piped" else cli_cell(name, third, base, kind, int(seed))


def interval(differences: list[float]) -> tuple[float, float]:
    """95 % interval of the mean of paired differences, by bootstrap over them."""
    values = np.array(differences)
    drawn = np.random.default_rng(0).integers(0, len(values), (RESAMPLED, len(values)))
    low, high = np.quantile(values[drawn].mean(1), [0.025, 0.975])
    return round(float(low), 4), round(float(high), 4)


def compare(cells: dict[str, Any]) -> list[dict[str, Any]]:
    """Base against base + AnoOnly: per family, group, setting and base, paired over seeds and, in the groups' rows, over tables."""
    found: dict[tuple[str, str, str, str], dict[str, dict[str, Any]]] = {}
    for cell, figures in cells.items():
        family, name, third, base, kind, seed = cell.split("/")
        if family == "piped" or base in RIVALS:
            continue
        groups = [name]
        if family == "emb" or seed in _whole_seeds(cells, family):
            groups.append(_group(family, name))
        for group in groups:
            found.setdefault((family, group, third, base), {}).setdefault(f"{name}/{seed}", {})[kind] = figures
    rows = []
    for (family, group, third, base), runs in sorted(found.items()):
        pairs = [run for run in runs.values() if set(run) >= set(KINDS)]
        if not pairs:
            continue
        row: dict[str, Any] = {"family": family, "data": group, "setting": third, "base": base, "pairs": len(pairs)}
        for key in ("auroc", "ap"):
            full, only = ([pair[kind][key] for pair in pairs] for kind in KINDS)
            row |= {
                f"{key}_full": round(float(np.mean(full)), 4),
                f"{key}_anomaly_only": round(float(np.mean(only)), 4),
            }
            row[f"{key}_difference"] = interval([b - a for a, b in zip(full, only, strict=True)])
        rows.append(row)
    return rows


def _group(family: str, name: str) -> str:
    if family != "emb":
        return "all tables"
    return "all MVTec" if "MVTec" in name else "all " + name.removeprefix("emb_").rsplit("_", 1)[0]


def means(cells: dict[str, Any], family: str, setting: int) -> dict[tuple[str, ...], tuple[float, float, int]]:
    """(setting, column …) → mean AUROC, mean average precision, number of cells."""
    found: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    seeds = (
        _whole_seeds(cells, family) if family != "piped" else set("01234")
    )  # of which each row says how many cells it has
    for cell, figures in cells.items():
        parts = cell.split("/")
        if parts[0] == family and parts[-1] in seeds:
            key = (parts[setting], *(parts[3:5] if family != "piped" else ()))
            found.setdefault(key, []).append((figures["auroc"], figures["ap"]))
    averages = {key: np.mean(values, axis=0) for key, values in found.items()}
    return {key: (float(mean[0]), float(mean[1]), len(found[key])) for key, mean in averages.items()}


def chart(cells: dict[str, Any]) -> str:
    """AUROC against the share of hidden anomalies, a panel a table, a line for each base and supervision."""
    hues = {"devnet": "#2563eb", "prenet": "#16a34a", "deepsad": "#c2410c"}
    wide, tall, left, top = 300, 240, 44, 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide * len(SHARED_TABLES) + 150} {tall + 60}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
    ]
    lines: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for (table, base, kind, share), value in _by_share(cells).items():
        lines.setdefault((table, base, kind), []).append((float(share), value))
    low = min([0.5, *(v for line in lines.values() for _, v in line)])
    for panel, table in enumerate(SHARED_TABLES):
        x0 = panel * wide + left
        parts.append(f'<text x="{x0}" y="24">{table}</text>')
        for tick in np.linspace(low, 1, 6):
            y = top + (1 - tick) / (1 - low) * tall * 0.8
            parts.append(f'<path d="M{x0} {y:.1f}h{wide - left - 16}" stroke="#ddd"/>')
            parts.append(f'<text x="{x0 - 4}" y="{y + 4:.1f}" text-anchor="end">{tick:.2f}</text>')
        for share in SHARES:
            x = x0 + float(share) / 20 * (wide - left - 16)
            parts.append(f'<text x="{x:.1f}" y="{tall + 10}" text-anchor="middle">{share} %</text>')
        for (name, base, kind), line in sorted(lines.items()):
            if name != table:
                continue
            points = " ".join(
                f"{x0 + share / 20 * (wide - left - 16):.1f},{top + (1 - value) / (1 - low) * tall * 0.8:.1f}"
                for share, value in sorted(line)
            )
            dash = ' stroke-dasharray="5 4"' if kind == "full" else ""
            parts.append(f'<polyline points="{points}" fill="none" stroke="{hues[base]}" stroke-width="2"{dash}/>')
    for k, (base, hue) in enumerate(hues.items()):
        parts.append(f'<text x="{wide * len(SHARED_TABLES) + 10}" y="{60 + 20 * k}" fill="{hue}">{base}</text>')
    parts.append(f'<text x="{wide * len(SHARED_TABLES) + 10}" y="140">dashed: as published</text>')
    parts.append(
        f'<text x="{left}" y="{tall + 40}">AUROC against the share of hidden anomalies, 10 labelled</text></svg>'
    )
    return "\n".join(parts) + "\n"


def _whole_seeds(cells: dict[str, Any], family: str) -> set[str]:
    """The seeds of which all cells of the family are there: means over others would compare unlike sets."""
    found: dict[str, int] = {}
    for cell in cells:
        if cell.startswith(f"{family}/"):
            seed = cell.rpartition("/")[2]
            found[seed] = found.get(seed, 0) + 1
    wanted = sum(cell.startswith(f"{family}/") for cell in grid(1))
    return {seed for seed, count in found.items() if count == wanted}


def _by_share(cells: dict[str, Any]) -> dict[tuple[str, str, str, str], float]:
    found: dict[tuple[str, str, str, str], list[float]] = {}
    seeds = _whole_seeds(cells, "share")
    for cell, figures in cells.items():
        family, table, share, base, kind, seed = cell.split("/")
        if family == "share" and seed in seeds:
            found.setdefault((table, base, kind, share), []).append(figures["auroc"])
    return {key: float(np.mean(values)) for key, values in found.items()}


def main() -> None:
    given = settings(str(__doc__), seeds=5)
    results = Results("anoonly", given)
    whole = list(grid(given.seeds))
    wanted = [cell for cell in whole if given.wants(cell) and (given.budget == "full" or given.only or quick(cell))]
    results.run(wanted, measure, whole)
    compared = compare(results.cells)
    results.extra = {"summary": compared}
    results.write(whole)
    (RESULTS / "anoonly.svg").write_text(chart(results.cells))
    print_table(
        ["data", "setting", "base", "pairs", "AUROC", "+AnoOnly", "difference", "AP", "+AnoOnly", "difference"],
        [
            [r["data"], r["setting"], r["base"], str(r["pairs"]), f"{r['auroc_full']:.3f}", f"{r['auroc_anomaly_only']:.3f}",
             "[{:+.3f}, {:+.3f}]".format(*r["auroc_difference"]), f"{r['ap_full']:.3f}", f"{r['ap_anomaly_only']:.3f}",
             "[{:+.3f}, {:+.3f}]".format(*r["ap_difference"])]
            for r in compared
        ],
    )  # fmt: skip
    for family, setting in (("small", 2), ("piped", 2)):
        rows = [
            [*key, f"{a:.3f}", f"{p:.3f}", str(n)]
            for key, (a, p, n) in sorted(means(results.cells, family, setting).items())
        ]
        if rows:
            names = ["setting", "column", "supervision"] if family == "small" else ["mode"]
            print_table([*names, "AUROC", "AP", "cells"], rows)


if __name__ == "__main__":
    main()
