"""What LAMP looks like: the loss landscape, sheets of heat maps to check by eye, and how fast it is.

    lamp_looks.py landscape     results/lamp_landscape.svg and .json
    lamp_looks.py sheet SETS    one PNG a set under cache/ (git ignores it): defective images beside their heat maps
    lamp_looks.py throughput    results/lamp_throughput.json

The landscape: cubes at 64 px, L2, the base and the LAMP network of the benchmark (seed 0). Both are moved along the same two random
directions, each filter's part scaled to that filter's norm (Li et al., NeurIPS 2018), and what is drawn is the un-amplified error
of the training images, for both.

What was seen on the sheets is written down by hand in results/lamp_maps.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from harness import RESULTS, anoaudit
from image_sets import CACHE, folder, root_of
from lamp import CPU, Task
from PIL import Image, ImageDraw
from torch import Tensor, nn

from anoaudit import api
from anoaudit.data.items import ImageSpec
from anoaudit.data.source import open_dataset
from anoaudit.model.artefact import load_model
from anoaudit.model.session import Session
from anoaudit.reports.heatmap import COLOURS

STEPS, REACH = 15, 1.0  # points a side of the landscape, from −1 to 1 times the filters' norms
CELL, GAP = 18, 60  # pixels of a point, and between the two panels
SHOWN, SIDE = 12, 200  # defective images of a sheet, and their pixels


def directions(head: nn.Module) -> list[list[Tensor]]:
    """Two random directions, filter-normalised; the same draws for networks of the same shape. Biases do not move."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(2):
        direction = []
        for p in head.parameters():
            d = torch.randn(p.shape, generator=generator)
            if p.dim() < 2:
                direction.append(torch.zeros_like(d))
                continue
            flat, of = d.flatten(1), p.detach().flatten(1)
            direction.append((flat / flat.norm(dim=1, keepdim=True) * of.norm(dim=1, keepdim=True)).view_as(d))
        found.append(direction)
    return found


@torch.no_grad()
def surface(head: Any, x: Tensor) -> npt.NDArray[np.float64]:
    """float64[STEPS, STEPS]: the mean un-amplified error at each point."""
    origin = [p.clone() for p in head.parameters()]
    first, second = directions(head)
    axis = np.linspace(-REACH, REACH, STEPS)
    out = np.empty((STEPS, STEPS))
    for i, b in enumerate(axis):
        for j, a in enumerate(axis):
            for p, o, d, e in zip(head.parameters(), origin, first, second, strict=True):
                p.copy_(o + a * d + b * e)
            out[i, j] = float(head.errors(x).mean())
    for p, o in zip(head.parameters(), origin, strict=True):
        p.copy_(o)
    return out


def landscape() -> None:
    task = Task("cubes", "l2", 0, "quick")
    x = task.inlet(task.train.batch(torch.arange(min(32, len(task.train))), CPU)[0])  # type: ignore[misc]
    found = {}
    for name, amplifier in (("base", "none"), ("LAMP", "log")):
        head, _ = task.trained("adam", amplifier)  # type: ignore[arg-type]
        found[name] = surface(head, x)
    document = {
        "set": "cubes, 64 px, l2, seed 0", "axis": np.linspace(-REACH, REACH, STEPS).round(4).tolist(),
        **{name: values.round(6).tolist() for name, values in found.items()},
        "curvature": {name: round(curvature(values), 6) for name, values in found.items()},
    }  # fmt: skip
    (RESULTS / "lamp_landscape.json").write_text(json.dumps(document) + "\n")
    (RESULTS / "lamp_landscape.svg").write_text(drawn(found))


def curvature(values: npt.NDArray[np.float64]) -> float:
    """Mean rise of the error from the minimum to its eight neighbours."""
    m = STEPS // 2
    ring = values[m - 1 : m + 2, m - 1 : m + 2]
    return float((ring.sum() - ring[1, 1]) / 8 - ring[1, 1])


def drawn(found: dict[str, npt.NDArray[np.float64]]) -> str:
    """Two panels on one logarithmic scale, as SVG."""
    logs = {name: np.log10(values) for name, values in found.items()}
    low, high = min(v.min() for v in logs.values()), max(v.max() for v in logs.values())
    side = STEPS * CELL
    parts = []
    for k, (name, values) in enumerate(logs.items()):
        left, middle = 20 + k * (side + GAP), 10 ** values[STEPS // 2, STEPS // 2]
        parts.append(f'<text x="{left}" y="24">{name}: error at the middle {middle:.2g}</text>')
        for (i, j), value in np.ndenumerate(values):
            r, g, b = COLOURS[round((value - low) / (high - low) * (len(COLOURS) - 1))]
            place = f'x="{left + j * CELL}" y="{36 + i * CELL}" width="{CELL}" height="{CELL}"'
            parts.append(f'<rect {place} fill="#{r:02x}{g:02x}{b:02x}"/>')
    scale = f"dark {10**low:.2g} to light {10**high:.2g}, logarithmic"
    note = f"un-amplified L2 error, {scale}; same random directions, filter-normalised"
    parts.append(f'<text x="20" y="{36 + side + 22}">{note}</text>')
    size = f'width="{40 + 2 * side + GAP}" height="{side + 74}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">'
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def sheet(family: str, options: list[str]) -> None:
    """Fit on the normals as a user would, and put every few defective images beside their heat maps."""
    place = folder("lamp-sheet-")
    root = root_of(family)
    normal, odd = ("normal", "abnormal") if family == "cubes" else ("good", "defect")
    labels = place / "labels.csv"
    ids = [
        (f"{kind}/{path.name}", int(kind == odd)) for kind in (normal, odd) for path in sorted((root / kind).glob("*"))
    ]
    labels.write_text("path,label\n" + "".join(f"{item},{label}\n" for item, label in ids))
    result = api.fit(
        root, method="lamp", out=place / "m", labels=str(labels), train_on="normal", truth=str(labels), options=options
    )
    api.report(place / "m", maps=place / "maps", top=len(ids))
    with (place / "maps" / "index.csv").open() as file:
        entries = {row["id"]: row for row in csv.DictReader(file)}
    defects = [item for item, label in ids if label]
    chosen = defects[:: max(1, len(defects) // SHOWN)][:SHOWN]
    columns = 3
    paper = Image.new("RGB", (columns * 2 * (SIDE + 6), math.ceil(len(chosen) / columns) * (SIDE + 20)), "white")
    draw = ImageDraw.Draw(paper)
    for k, item in enumerate(chosen):
        x, y = k % columns * 2 * (SIDE + 6), k // columns * (SIDE + 20)
        entry = entries[item]
        picture = Image.open(root / item).convert("RGB")
        for n, image in enumerate((picture, Image.open(place / "maps" / entry["file"]))):
            scale = SIDE / max(image.size)
            paper.paste(
                image.resize((round(image.width * scale), round(image.height * scale))), (x + n * (SIDE + 3), y + 14)
            )
        scale = SIDE / max(picture.size)
        cx, cy = (float(entry[f"peak_{axis}"]) * scale for axis in "xy")
        draw.ellipse((x + cx - 9, y + 14 + cy - 9, x + cx + 9, y + 14 + cy + 9), outline="cyan", width=2)
        draw.text(
            (x, y), f"{k + 1}: {Path(item).name} rank {entry['rank']} ({cx / SIDE:.2f}, {cy / SIDE:.2f})", fill="black"
        )
    CACHE.mkdir(exist_ok=True)
    paper.save(CACHE / f"lamp-sheet-{family}.png")
    print(family, result.table.summary.rows, CACHE / f"lamp-sheet-{family}.png")


def throughput() -> None:
    """Images a second on this CPU at 256 × 256: fit (one epoch more against one less) and score, and the part that is decoding."""
    place = folder("lamp-speed-")
    root, size = place / "data", 256
    root.mkdir()
    source = sorted((root_of("cubes") / "normal").glob("*"))
    for k in range(200):
        with Image.open(source[k % len(source)]) as image:
            image.convert("RGB").save(root / f"{k:03}.jpg", quality=92)
    found: dict[str, Any] = {"images": 200, "source": "cubes, 640 × 480 JPEG", "size": size, "cores": os.cpu_count()}
    seconds = {}
    for epochs in (1, 3):
        arguments = ("--method", "lamp", "--set", f"size={size}", "--set", f"epochs={epochs}", "--force")
        _, seconds[epochs], memory = anoaudit("fit", root, "-o", place / "m.anoaudit", *arguments)
        found["fit_mib"] = round(memory)
    trained = 200 + 150  # images an epoch of the two fits: the first leaves out a quarter of 200
    found["fit_images_per_second"] = round(2 * trained / (seconds[3] - seconds[1]), 1)
    found["fit_seconds_one_epoch"] = round(seconds[1], 1)
    model = load_model(place / "m.anoaudit")
    assert isinstance(model.manifest.input, ImageSpec)
    dataset = open_dataset(str(root))
    chunks = list(dataset.chunks(model.manifest.input, 32))
    session = Session(model.graph, "cpu")
    session.run(chunks[0].values)
    start = time.perf_counter()
    for _ in dataset.chunks(model.manifest.input, 32):
        pass
    decoding = time.perf_counter() - start
    start = time.perf_counter()
    for chunk in chunks:
        session.run(chunk.values)
    network = time.perf_counter() - start
    _, whole, memory = anoaudit("score", root, "--model", place / "m.anoaudit", "--format", "json")
    found |= {
        "decoding_alone_images_per_second": round(200 / decoding, 1), "network_alone_images_per_second": round(200 / network, 1),
        "decoding_share": round(decoding / (decoding + network), 3), "score_seconds_with_start": round(whole, 2),
        "score_mib": round(memory),
    }  # fmt: skip
    (RESULTS / "lamp_throughput.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("landscape", "sheet", "throughput"))
    parser.add_argument("sets", nargs="*")
    parser.add_argument("--set", action="append", default=[], dest="options")
    given = parser.parse_args()
    if given.what == "landscape":
        landscape()
    elif given.what == "throughput":
        throughput()
    else:
        for family in given.sets or sys.exit("name some sets"):
            sheet(family, given.options)


if __name__ == "__main__":
    main()
