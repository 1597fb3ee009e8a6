"""Several columns over the same tables: ranks, Friedman's test, Nemenyi's critical difference, Wilcoxon's test by pairs.

As Demšar recommends (Statistical comparisons of classifiers over multiple data sets, JMLR 7, 2006). `chart` draws the mean
ranks with their critical difference as an SVG that needs nothing else.
"""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import f, studentized_range

Floats = npt.NDArray[np.float64]
LEVEL = 0.05


def ranks(values: dict[str, Floats]) -> dict[str, Floats]:
    """Name → figure on each table (higher is better) to name → rank on each table; 1 is best, ties share their mean."""
    array = np.array(list(values.values())).reshape(len(values), -1)
    better = (array[None] > array[:, None]).sum(1)
    equal = (array[None] == array[:, None]).sum(1) - 1
    return dict(zip(values, 1 + better + equal / 2, strict=True))


def wilcoxon(differences: Floats) -> float:
    """Two-sided p of the signed-rank sum, exact; differences of 0 keep their place in the ranking but count to no side."""
    size = np.abs(differences)
    doubled = (
        2 * (size[None] < size[:, None]).sum(1) + (size[None] == size[:, None]).sum(1) + 1
    )  # whole, also when tied
    doubled = np.where(size > 0, doubled, 0).astype(int)
    chance = np.ones(1)  # of each sum of those with a positive sign
    for rank in doubled[doubled > 0]:
        longer = np.zeros(len(chance) + rank)
        longer[: len(chance)] += chance / 2
        longer[rank:] += chance / 2
        chance = longer
    positive, middle = int(doubled[differences > 0].sum()), doubled.sum() / 2
    extreme = np.abs(np.arange(len(chance)) - middle) >= abs(positive - middle)
    return min(1.0, float(chance[extreme].sum()))


def holm(p: dict[str, float]) -> dict[str, float]:
    """Adjusted for as many tests as there are (Holm, 1979), in the order of size."""
    found, largest = {}, 0.0
    for done, name in enumerate(sorted(p, key=lambda name: p[name])):
        largest = max(largest, min(1.0, (len(p) - done) * p[name]))
        found[name] = largest
    return found


def friedman(rank: dict[str, Floats]) -> float:
    """p that the columns' ranks are alike, by Iman and Davenport's F."""
    array = np.array(list(rank.values()))
    k, n = array.shape
    square = 12 * n / (k * (k + 1)) * ((array.mean(1) - (k + 1) / 2) ** 2).sum()
    if n * (k - 1) - square < 1e-9:
        return 0.0
    return float(f.sf((n - 1) * square / (n * (k - 1) - square), k - 1, (k - 1) * (n - 1)))


def critical_difference(k: int, n: int) -> float:
    """Nemenyi: mean ranks of k columns on n tables that lie further apart differ at `LEVEL`, whichever two they are."""
    return float(studentized_range.isf(LEVEL, k, np.inf) / np.sqrt(2) * np.sqrt(k * (k + 1) / (6 * n)))


def compare(values: dict[str, Floats]) -> dict[str, Any]:
    """Mean ranks (best first), Friedman's p, the critical difference, and Holm's p of each pair, `better > other`."""
    rank = ranks(values)
    order = sorted(rank, key=lambda name: float(rank[name].mean()))
    tables = len(next(iter(values.values())))
    pairs = {
        f"{one} > {other}": wilcoxon(values[one] - values[other])
        for i, one in enumerate(order) for other in order[i + 1 :]
    }  # fmt: skip
    return {
        "tables": tables, "columns": len(order), "friedman_p": float(f"{friedman(rank):.2g}"),
        "critical_difference": round(critical_difference(len(order), tables), 3),
        "mean_ranks": {name: round(float(rank[name].mean()), 3) for name in order},
        "wilcoxon_holm_p": {pair: float(f"{value:.2g}") for pair, value in holm(pairs).items()},
    }  # fmt: skip


ROW, LEFT, WIDE, TOP = 19, 150, 280, 84
STYLE = """text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif;fill:#1c2127}.s{font-size:11px;fill:#59636e}
.b{font-weight:600}.g{stroke:#d8dee4}.w{stroke:#93a1b0;stroke-width:2}.d{fill:#59636e}.o{fill:#ffffff;stroke:#59636e;stroke-width:1.5}
.band{fill:#fbeee8}.m .w{stroke:#b93c0b}.m .d{fill:#b93c0b}.m text{fill:#b93c0b}"""


def chart(title: str, panels: list[tuple[str, dict[str, Any]]], marked: str, measure: str = "AUROC") -> str:
    """SVG: per panel (heading, what `compare` found) each column's mean rank ± half the critical difference.

    The shaded band is that of the `marked` column: who does not reach into it differs from it by Nemenyi's test. A hollow dot
    does not differ from it by Wilcoxon's test with Holm's correction.
    """
    tall = TOP + ROW * max(found["columns"] for _, found in panels) + 40
    wide = (LEFT + WIDE + 20) * len(panels) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {tall}" width="{wide}" height="{tall}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<rect width="{wide}" height="{tall}" fill="#ffffff"/><text class="b" x="12" y="22">{escape(title)}</text>',
    ]
    for number, (heading, found) in enumerate(panels):
        parts += _panel(heading, found, marked, number * (LEFT + WIDE + 20) + 12, measure)
    said = f"Shaded: not told from {marked} by Nemenyi's test; hollow: not by Wilcoxon's with Holm's correction."
    parts.append(f'<text class="s" x="12" y="{tall - 10}">{escape(said)} Columns that have all tables.</text>')
    return "\n".join([*parts, "</svg>", ""])


def _panel(heading: str, found: dict[str, Any], marked: str, left: int, measure: str) -> list[str]:
    k: int = found["columns"]
    half: float = found["critical_difference"] / 2
    mean: dict[str, float] = found["mean_ranks"]
    low, high = min(mean.values()) - half, max(mean.values()) + half
    ticks = [tick for tick in range(1, k + 1) if low <= tick <= high and (k < 12 or tick % 2)]

    def place(rank: float) -> float:
        return round(left + LEFT + (rank - low) / (high - low) * WIDE, 1)

    bottom = TOP + ROW * k
    p = found["friedman_p"]
    chance = "< 0.001" if p < 1e-3 else f"= {p:.3f}"
    said = f"mean rank by {measure}, 1 is best; critical difference {2 * half:.1f}; Friedman p {chance}"
    parts = [
        f'<g><text class="b" x="{left}" y="46">{escape(heading)}</text><text class="s" x="{left}" y="62">{escape(said)}</text>',
        f'<rect class="band" x="{place(mean[marked] - half)}" y="{TOP - 8}" '
        f'width="{round(place(mean[marked] + half) - place(mean[marked] - half), 1)}" height="{ROW * k + 4}"/>',
    ]
    for tick in ticks:
        x = place(tick)
        parts.append(f'<path class="g" d="M{x} {TOP - 8}V{bottom - 4}"/>')
        parts.append(f'<text class="s" x="{x}" y="{bottom + 12}" text-anchor="middle">{tick}</text>')
    same = _alike(found, marked)
    for row, (name, rank) in enumerate(mean.items()):
        y = TOP + ROW * row + 4
        mine = ' class="m"' if name == marked else ""
        dot = "o" if name in same else "d"
        parts.append(
            f'<g{mine}><text x="{left + LEFT - 40}" y="{y + 4}" text-anchor="end">{escape(name)}</text>'
            f'<text class="s" x="{left + LEFT - 8}" y="{y + 4}" text-anchor="end">{rank:.1f}</text>'
            f'<path class="w" d="M{place(rank - half)} {y}H{place(rank + half)}"/>'
            f'<circle class="{dot}" cx="{place(rank)}" cy="{y}" r="4"/></g>'
        )
    return [*parts, "</g>"]


def _alike(found: dict[str, Any], marked: str) -> set[str]:
    """The columns that do not differ from the marked one by Wilcoxon's test with Holm's correction."""
    pairs = ((pair.split(" > "), p) for pair, p in found["wilcoxon_holm_p"].items())
    return {name for names, p in pairs if marked in names and p >= LEVEL for name in names} - {marked}
