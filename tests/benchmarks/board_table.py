"""The READMEs' tables of the audit board and of AnoMem, from results/audit_board.json, audit_images.json and anomem.json.

usage: python tests/benchmarks/board_table.py [--write]
Prints the tables; --write puts them in the READMEs in place of those with the same first line. tests/test_board.py compares.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[2] / "README.md"
MORE = Path(__file__).parent / "README.md"
LABELS = {
    "default": "**default**", "gaussian": "`detector=gaussian`", "deep-svdd": "`detector=deep-svdd`", "ntl": "`detector=ntl`",
    "icl": "`detector=icl`", "autoencoder": "`detector=autoencoder`", "lamp": "`--method lamp`",
    "ntl paper": "`recipe=paper`", "icl paper": "`recipe=paper detector=icl`",
    "IForest": "isolation forest", "OCSVM": "one-class SVM", "KNN": "k-NN", "AutoEncoder": "autoencoder", "DeepSVDD": "Deep SVDD",
    "DeepIsolationForest": "deep isolation forest",
}  # fmt: skip
OF_IMAGES = {
    "default": "default", "nearest patch": "nearest patch", "Gaussian a place": "Gaussian a place", "kNN": "k-NN, pooled",
    "MCD": "MCD, pooled", "GMM": "Gaussian, pooled", "IForest": "isolation forest, pooled",
    "EmbeddingOD-KNN": "PyOD EmbeddingOD, k-NN", "EmbeddingOD-LOF": "PyOD EmbeddingOD, LOF",
    "EmbeddingOD-LUNAR": "PyOD EmbeddingOD, LUNAR",
}  # fmt: skip

WAYS_TO_FIT = {
    "default": "default", "lamp": "`--method lamp`", "anomem": "`--method anomem`", "ntl paper": "`recipe=paper`",
    "mhrot paper": "`recipe=paper detector=mhrot`",
}  # fmt: skip
CIFAR_CLASS = {"1": "automobiles", "3": "cats"}
WAYS = {
    "plain": "no memory in stage 1", "single": "a memory at the coarsest scale alone", "pooled": "three scales, `match=pooled`",
    "default": "three scales, `match=points` (the default)", "mhrot": "MHRot, 400 images",
    "scratch": "from scratch", "finetune": "from weights, trained along", "frozen": "from weights, frozen",
}  # fmt: skip
SETTINGS = {"clean": "one class", "0.1": "audit at 10 %", "0.1-soft": "audit at 10 %, `assignment=soft`", "0": ""}
ANOMEM = {
    "cifar": [
        f"{label}/{way}/0/0" for label in CIFAR_CLASS
        for way in ("plain", "single", "pooled", "default", "mhrot")
    ],
    "folder": [
        f"{family}/{init}/{setting}/0" for family in ("PA_BDP01_TL", "PA_BTN01_RL", "cubes")
        for init in ("scratch", "finetune", "frozen") for setting in ("clean", "0.1", "0.1-soft")
    ],
}  # fmt: skip


def ranking(board: dict[str, Any]) -> str:
    """AUROC / average precision, mean rank and wins: best first by the development half, columns of few tables last."""
    entries = {(s["half"], s["column"]): s for s in board["summary"] if s["family"] == "tables"}
    columns = sorted({column for _, column in entries}, key=lambda column: _place(entries.get(("dev", column))))
    best = {
        (half, key): max(s[key] for (of, _), s in entries.items() if of == half and s["tables"] == s["of"])
        for half in ("dev", "confirm") for key in ("mean_auroc", "mean_ap")
    }  # fmt: skip
    count = {half: entries[half, "default"]["of"] for half in ("dev", "confirm")}
    lines = [
        f"| | {count['dev']} development tables | rank | wins | {count['confirm']} others | rank | wins |",
        "|---|---|---|---|---|---|---|",
    ]
    for column in columns:
        cells = [LABELS.get(column, column)]
        for half in ("dev", "confirm"):
            s = entries.get((half, column))
            if s is None:
                cells += ["–", "", ""]
                continue
            figures = []
            for key in ("mean_auroc", "mean_ap"):
                leads = s["tables"] == s["of"] and s[key] == best[half, key]
                figures.append(f"**{s[key]:.3f}**" if leads else f"{s[key]:.3f}")
            some = "" if s["tables"] == s["of"] else f", {s['tables']} tables"
            rank = "" if s["mean_rank"] is None else f"{s['mean_rank']:.1f}"
            cells += [" / ".join(figures) + some, rank, str(s["wins"])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _place(dev: dict[str, Any] | None) -> tuple[bool, float]:
    return (True, 0.0) if dev is None else (2 * dev["tables"] < dev["of"], -dev["mean_auroc"])


def decisions(board: dict[str, Any]) -> str:
    """What the default rule flags."""
    dev, confirm = (next(d for d in board["decisions"] if d["half"] == half) for half in ("dev", "confirm"))
    lines = ["| | development | others |", "|---|---|---|"]
    for said, key in (
        ("anomalies that were flagged, mean", "recall"),
        ("flags that were wrong, mean (none counts as 0)", "false_discovery_proportion"),
        ("flags that were wrong, all flags together", "false_of_all_flags"),
    ):
        lines.append(f"| {said} | {100 * dev[key]:.0f} % | {100 * confirm[key]:.0f} % |")
    lines.append(f"| audits with any flag | {dev['fits_that_flag']} of {dev['fits']} | {_of(confirm)} |")
    share = [100 * d["removed"]["share_flagged"] for d in (dev, confirm)]
    lines.append(f"| rows flagged once the labelled anomalies were removed | {share[0]:.1f} % | {share[1]:.1f} % |")
    lines.append(f"| audits with any flag then | {_of(dev['removed'])} | {_of(confirm['removed'])} |")
    return "\n".join(lines)


def _of(found: dict[str, Any]) -> str:
    return f"{found['fits_that_flag']} of {found['fits']}"


def images(found: dict[str, Any], several: bool = False) -> str:
    """AUROC / average precision on folders of defects and on CIFAR-10, both halves; or on folders of `several` of these."""
    groups = [(half, kind + ", groups" * several) for kind in ("defects", "cifar10") for half in ("dev", "confirm")]
    names = {group: {c["column"]: c for c in found["by_kind"] if (c["half"], c["kind"]) == group} for group in groups}
    heads = (
        [
            "4 folders of several kinds of parts, developed on",
            "3 others",
            "2 classes together, developed on",
            "4 other pairs",
        ]
        if several
        else ["5 folders of defects, developed on", "9 others", "2 classes of CIFAR-10, developed on", "8 others"]
    )
    lines = ["| | " + " | ".join(heads) + " |", "|---|---|---|---|---|"]
    for column, label in OF_IMAGES.items():
        if not any(column in names[group] for group in groups):
            continue
        cells = [label]
        for group in groups:
            if column not in names[group]:
                cells.append("–")
                continue
            best = {
                key: max(c[key] for name, c in names[group].items() if name in OF_IMAGES)
                for key in ("mean_auroc", "mean_ap")
            }
            cells.append(" / ".join(_bold(names[group][column][key], best[key]) for key in best))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def other_images(found: dict[str, Any]) -> str:
    """AUROC / average precision and seconds of our other ways to fit images without labels, on the sets that have them all."""
    cells = {(c["column"], c["family"]): c for c in found["others"] if c["ratio"] == "0.1"}
    sets = [family for column, family in cells if column == "default"]
    lines = ["| at 10 %, one seed | " + " | ".join(sets) + " |", "|---" * (len(sets) + 1) + "|"]
    for column in dict.fromkeys(column for column, _ in cells):
        row = [WAYS_TO_FIT.get(column, f"`detector={column}`")]
        for family in sets:
            cell = cells.get((column, family))
            row.append("–" if cell is None else f"{cell['auroc']:.3f} / {cell['ap']:.3f}, {cell['seconds']:.0f} s")
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def _bold(value: float, best: float) -> str:
    return f"**{value:.3f}**" if value == best else f"{value:.3f}"


def published(board: dict[str, Any]) -> str:
    """AUROC / average precision of published methods and of the default on the tables in common; measured here in brackets."""
    halves = {half: {p["method"]: p for p in board["published"] if p["half"] == half} for half in ("dev", "confirm")}
    count = [next(iter(entries.values()))["tables"] for entries in halves.values()]
    lines = [f"| published, and (measured here) | {count[0]} development tables | {count[1]} others |", "|---|---|---|"]
    for method in halves["dev"]:
        cells = [LABELS.get(method, method)]
        for entries in halves.values():
            here, there = (_pair(entries.get(method, {}), kind) for kind in ("measured", "published"))
            cells.append(" ".join(filter(None, [there, f"({here})" if here else ""])))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _pair(entry: dict[str, Any], kind: str) -> str:
    area, precision = entry.get(f"{kind}_auroc"), entry.get(f"{kind}_ap")
    return "" if area is None else f"{area:.3f} / {precision:.3f}"


def anomem(cells: dict[str, Any], group: str) -> str:
    """AUROC in %, one row for each cell of `cifar` or of `folder`: in the course of stage 1, after stage 2, of the Gaussian."""
    head = (
        "| "
        + ("CIFAR-10, one class" if group == "cifar" else "folders")
        + " | stage 1, untrained → trained | after stage 2 | "
    )
    lines = [head + "its scales, finest first | Gaussian, untrained → trained |", "|---|---|---|---|---|"]
    for name in (f"{group}/{rest}" for rest in ANOMEM[group]):
        if name not in cells:
            continue
        _, subject, way, setting, _ = name.split("/")
        cell, label = cells[name], [CIFAR_CLASS.get(subject, subject), WAYS.get(way, f"`{way}`"), SETTINGS[setting]]
        row = [", ".join(filter(None, label))]
        if "auroc" in cell:
            row += ["", f"{cell['auroc']:.1f}", "", ""]
        else:
            looks = [look for _, look in sorted(cell["stage1"].items(), key=lambda pair: int(pair[0]))]
            after = cell["after"]
            row += [
                " → ".join(f"{look['auroc']:.1f}" for look in looks), f"{after['auroc']:.1f}",
                " ".join(f"{value:.1f}" for value in after["scales"]),
                " → ".join(f"{look['gaussian']:.1f}" for look in (looks[0], looks[-1])),
            ]  # fmt: skip
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def tables() -> dict[Path, list[str]]:
    """The tables of each README."""
    board, found, memories = (
        json.loads((RESULTS / f"{name}.json").read_text()) for name in ("audit_board", "audit_images", "anomem")
    )
    return {
        README: [decisions(board), ranking(board), images(found)],
        MORE: [
            published(board), images(found, several=True), other_images(found),
            *(anomem(memories["cells"], group) for group in ANOMEM),
        ],
    }  # fmt: skip


def with_tables(text: str, new: list[str]) -> str:
    """The text with each table in place of the one with the same first line."""
    lines = text.splitlines()
    for table in new:
        start = lines.index(table.splitlines()[0])
        end = next((i for i in range(start, len(lines)) if not lines[i].startswith("|")), len(lines))
        lines[start:end] = table.splitlines()
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for path, found in tables().items():
        print("\n\n".join(found) + "\n")
        if "--write" in sys.argv:
            path.write_text(with_tables(path.read_text(), found))
