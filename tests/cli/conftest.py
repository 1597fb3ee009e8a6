"""A tiny table and a tiny image folder, each with planted anomalies and a model fitted on it through the command line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from anoaudit.cli import main


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """`anoaudit ARGS` in this process."""

    def call(*arguments: object) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(a) for a in arguments])
        captured = capfd.readouterr()
        return Outcome(int(stop.value.code or 0), captured.out, captured.err)

    return call


def make_table(rows: int = 400, anomalies: int = 12, seed: int = 0) -> pl.DataFrame:
    """Correlated numbers, a category, dates, an identifier, a constant; the last rows break the correlation."""
    rng = np.random.default_rng(seed)
    load = rng.normal(50, 10, rows)
    flow = 2 * load + rng.normal(0, 2, rows)
    flow[-anomalies:] += 60
    order = rng.permutation(rows)
    frame = pl.DataFrame(
        {
            "key": [f"row-{i:04d}" for i in range(rows)],
            "load": load,
            "flow": flow,
            "mode": rng.choice(["idle", "run"], rows),
            "time": 1.7e9 + np.sort(rng.uniform(0, 1e6, rows)),
            "site": ["north"] * rows,
            "anomaly": [0] * (rows - anomalies) + [1] * anomalies,
        }
    )
    return frame[order.tolist()]


def make_images(folder: Path, count: int = 40, anomalies: int = 3, seed: int = 0) -> Path:
    """Striped tiles in two sub-folders; the last ones have a bright blot."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        y, x = np.mgrid[0:48, 0:48]
        pixels = 120 + 40 * np.sin(x / 3 + rng.uniform(-0.2, 0.2)) + rng.normal(0, 4, (48, 48))
        if i >= count - anomalies:
            cy, cx = rng.integers(12, 36, 2)
            pixels[(y - cy) ** 2 + (x - cx) ** 2 < 30] = 250
        target = folder / ("left" if i % 2 else "right") / f"tile_{i:03d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(target)
    labels = folder.parent / f"{folder.name}-labels.csv"
    lines = [f"{'left' if i % 2 else 'right'}/tile_{i:03d}.png,{int(i >= count - anomalies)}" for i in range(count)]
    labels.write_text("path,anomaly\n" + "\n".join(lines) + "\n")
    return labels


@dataclass(frozen=True)
class Fitted:
    data: Path
    model: Path
    labels: Path
    out: str
    err: str


def _fit(data: Path, labels: Path, model: Path, *more: str) -> Fitted:
    command = [sys.executable, "-m", "anoaudit", "fit", str(data), "-o", str(model), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Fitted(data, model, labels, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    folder = tmp_path_factory.mktemp("table")
    frame = make_table()
    frame.write_parquet(folder / "pumps.parquet")
    frame.select(pl.col("key").alias("id"), "anomaly").write_csv(folder / "labels.csv")
    arguments = ("--truth", "anomaly", "--id-column", "key")
    return _fit(folder / "pumps.parquet", folder / "labels.csv", folder / "pumps.anoaudit", *arguments)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    folder = tmp_path_factory.mktemp("images")
    labels = make_images(folder / "tiles")
    arguments = ("--backbone", "none", "--truth", str(labels), "--format", "json")
    return _fit(folder / "tiles", labels, folder / "tiles.anoaudit", *arguments)
