"""Memory of `score` while the data grows: rows and images, peak and curve over time of the whole process.

usage: python tests/benchmarks/memory.py [--only rows] [--budget quick|full]. Generates its data in a temporary folder.
quick: up to 200,000 rows and 2,000 images; full: up to 2,000,000 rows and 20,000 images. Linux only (/proc).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from harness import Results, anoaudit, print_table, settings
from PIL import Image

ROWS = (20_000, 200_000, 2_000_000)
IMAGES = (200, 2_000, 20_000)
DISTINCT = 200  # images are hard links to so many files: each is opened and decoded all the same
PAGE = os.sysconf("SC_PAGE_SIZE")


@cache
def folder() -> Path:
    holder = tempfile.TemporaryDirectory()
    FOLDERS.append(holder)
    return Path(holder.name)


FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


def table(rows: int) -> Path:
    path = folder() / f"rows-{rows}.parquet"
    if not path.exists():
        rng = np.random.default_rng(0)
        writer = None
        for _ in range(0, rows, 20_000):
            values = {f"x{i}": rng.normal(size=20_000) for i in range(10)} | {
                "mode": rng.choice(["a", "b", "c"], 20_000)
            }
            part = pl.DataFrame(values).to_arrow()
            writer = writer or pq.ParquetWriter(path, part.schema)
            writer.write_table(part)
        assert writer is not None
        writer.close()
    return path


def images(count: int) -> Path:
    path = folder() / f"images-{count}"
    if not path.exists():
        path.mkdir()
        rng = np.random.default_rng(0)
        for i in range(count):
            file = path / f"{i:05d}.jpg"
            if i < DISTINCT:
                low = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
                low.resize((256, 256), Image.Resampling.BICUBIC).save(file, quality=90)
            else:
                file.hardlink_to(path / f"{i % DISTINCT:05d}.jpg")
    return path


@cache
def model(kind: str) -> Path:
    path = folder() / f"{kind}.anoaudit"
    data, more = (table(ROWS[0]), []) if kind == "rows" else (images(IMAGES[0]), ["--backbone", "none"])
    anoaudit("fit", data, "-o", path, "--format", "json", "--device", "cpu", *more)
    return path


def watched(command: list[str]) -> tuple[float, list[tuple[float, int]]]:
    """Seconds, and (seconds, MiB resident) every 20 ms."""
    began = time.perf_counter()
    curve = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            try:
                pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
            except (OSError, IndexError):
                break
            curve.append((time.perf_counter() - began, pages * PAGE >> 20))
            time.sleep(0.02)
        assert process.stderr is not None
        said = process.stderr.read()
    if process.returncode != 0:
        raise RuntimeError(f"exit {process.returncode}\n{said}")
    return time.perf_counter() - began, curve


def measure(cell: str) -> dict[str, Any]:
    kind, count = cell.split("/")
    data = table(int(count)) if kind == "rows" else images(int(count))
    out = folder() / "scores.parquet"
    seconds, curve = watched(
        [sys.executable, "-m", "anoaudit", "score", str(data), "-m", str(model(kind)), "-o", str(out)]
    )
    scored = pq.ParquetFile(out).metadata.num_rows
    assert scored == int(count), f"{scored} rows"
    if kind == "rows":
        data.unlink() if int(count) > ROWS[0] else None
    times, resident = np.array(curve).T
    at = [int(resident[np.searchsorted(times, seconds * share) - 1]) for share in (0.1, 0.25, 0.5, 0.75, 0.9)]
    return {
        "seconds": round(seconds, 1),
        "per_second": round(int(count) / seconds),
        "peak_mib": int(resident.max()),
        "curve_mib": at,
    }


def main() -> None:
    given = settings("memory of score", seeds=1)
    every = [f"rows/{n}" for n in ROWS] + [f"images/{n}" for n in IMAGES]
    cells = (
        every if given.budget == "full" else [cell for cell in every if cell not in ("rows/2000000", "images/20000")]
    )
    wanted = [cell for cell in cells if not given.only or cell.split("/")[0] in given.only]
    results = Results("memory", given)
    results.run(wanted, measure, every)
    rows = []
    for cell in wanted:
        r = results.cells[cell]
        rows.append(
            [
                cell,
                f"{r['seconds']} s",
                str(r["per_second"]),
                f"{r['peak_mib']} MiB",
                " ".join(map(str, r["curve_mib"])),
            ]
        )
    print_table(["data", "time", "a second", "peak", "MiB at 10, 25, 50, 75, 90 % of the time"], rows)


if __name__ == "__main__":
    main()
