"""What stands beside the places in the default score of images, and how much it counts: on the sets that are developed on.

usage: python tests/benchmarks/whole_images.py [--only cubes] [--seeds 6] [--minutes 9]
A seed is a draw of the anomalies. `half` is √(places · Gaussian of the whole image), `places` the places alone; the others are
places^R · whole^(1 − R), R the images' alignment, whole the Gaussian, the nearest others, or both. Refined as LOE does (α = 0.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from harness import Results, print_table, settings
from image_sets import DEV, GROUPS, RATIOS, backbone, mixed
from torch import Tensor

from anoaudit.data.images import ImageFolder
from anoaudit.data.items import ImageSpec
from anoaudit.data.source import open_dataset
from anoaudit.methods.loe.gaussian import Gaussian, GaussianMap
from anoaudit.methods.loe.nearest import NearestSamples
from anoaudit.reports.metrics import auroc, average_precision
from anoaudit.training.features import RowBatches, alignment_of

CPU, ALPHA, ROUNDS, CHANNELS = torch.device("cpu"), 0.1, 10, 64
FAMILIES = (*DEV, *(group for group in GROUPS if set(group.split("+")) <= set(DEV)))
COLUMNS = ("places", "half", "Gaussian", "nearest", "both")
NET = backbone(False)


def rows(x: Tensor) -> RowBatches:
    return RowBatches(x, np.full(len(x), -1, dtype=np.int8))


def scores(column: str, x: Tensor, v: Tensor, head: GaussianMap, share: float, seed: int) -> Callable[[Tensor], Tensor]:
    """Fit to items with these weights, and score all."""
    whole, near = Gaussian(v.shape[1]), NearestSamples(v.shape[1], seed)

    def fit(weights: Tensor) -> Tensor:
        head.m_step(rows(x), weights, CPU)
        places = torch.cat([head.score(part) for part in torch.split(x, 32)])
        whole.m_step(rows(v), weights, CPU)
        near.m_step(rows(v), weights, CPU)
        g, n = whole.distance(v[:, None])[:, 0], near.score(v).float().square()
        if column == "half":
            return (places * g).sqrt()
        beside = {"places": places, "Gaussian": g, "nearest": n, "both": (g * n).sqrt()}[column]
        return places**share * beside ** (1 - share)

    return fit


def refined(fit: Callable[[Tensor], Tensor], count: int) -> Tensor:
    y = torch.zeros(count)
    for k in range(ROUNDS):
        found = fit(1 - y)
        new = torch.zeros(count)
        new[found.topk(int(ALPHA * count)).indices] = 1
        if k and torch.equal(new, y):
            break
        y = new
    return found


def measure(cell: str) -> dict[str, Any]:
    family, ratio, seed = cell.split("/")
    folder, truth = mixed(family, ratio, int(seed))
    dataset = open_dataset(str(folder))
    assert isinstance(dataset, ImageFolder)
    y = np.array([truth[item] for item in dataset.ids], dtype=np.int8)
    with torch.inference_mode():
        spec = ImageSpec(NET.height, NET.width)
        parts = [NET.maps_and_vector(torch.from_numpy(chunk.values)) for chunk in dataset.chunks(spec, 16)]
        maps, vectors = (torch.cat(both) for both in zip(*parts, strict=True))
        share = alignment_of(len(maps), maps.double().sum(0), maps.double().square().sum(0))
        maps = (maps - maps.mean((0, 2, 3), keepdim=True)) / maps.std((0, 2, 3), keepdim=True).clamp_min(1e-6)
        std = vectors.std(0)
        v = (vectors - vectors.mean(0)) / std.clamp_min(1e-6 + 1e-2 * std.square().mean().sqrt())
        kept = np.sort(np.random.default_rng(int(seed)).permutation(maps.shape[1])[:CHANNELS])
        x = maps[:, kept].flatten(2).transpose(1, 2).contiguous()
        head = GaussianMap(torch.arange(CHANNELS), (maps.shape[2], maps.shape[3]), 0.01)
        found: dict[str, Any] = {"alignment": round(share, 4)}
        for column in COLUMNS:
            score = refined(scores(column, x, v, head, share, int(seed)), len(y)).numpy()
            found[column] = [auroc(y, score), average_precision(y, score)]
    return found


def main() -> None:
    given = settings("what stands beside the places", seeds=6)
    cells = [f"{family}/{ratio}/{seed}" for seed in range(given.seeds) for family in FAMILIES for ratio in RATIOS]
    results = Results("whole_images", given)
    results.run([cell for cell in cells if given.wants(cell)], measure, cells)
    kinds: dict[str, list[dict[str, Any]]] = {}
    for name, cell in results.cells.items():
        family = name.split("/")[0]
        kind = ("classes" if family.startswith("cifar10") else "defects") + (", groups" if "+" in family else "")
        kinds.setdefault(kind, []).append(cell)
    table = []
    for column in COLUMNS:
        means = [np.mean([c[column] for c in found], axis=0) for found in kinds.values()]
        table.append([column, *(f"{a:.3f} / {p:.3f}" for a, p in means)])
    print_table(["", *(f"{kind} ({len(found)})" for kind, found in kinds.items())], table)


if __name__ == "__main__":
    main()
