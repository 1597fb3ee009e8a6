"""Tiny data to mix, and hashes of everything below a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image


def _tree(folder: Path) -> dict[str, str]:
    """Relative path → hash of every file, hidden ones too; folders as well."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
    }


def _picture(path: Path, grey: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((16, 16, 3), grey, dtype=np.uint8)).save(path)


@pytest.fixture
def tree() -> Callable[[Path], dict[str, str]]:
    return _tree


@pytest.fixture
def picture() -> Callable[[Path, int], None]:
    return _picture


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, Path]:
    """18 normal images and 4 anomalies; two names are in both."""
    good, bad = tmp_path / "in" / "good", tmp_path / "in" / "bad"
    for i in range(18):
        _picture(good / ("line1" if i % 2 else "line2") / f"{i:02}.png", i)
    for i, name in enumerate(["line1/01.png", "line2/00.png", "scratch.png", "deep/er/x.png"]):
        _picture(bad / name, 200 + i)
    return good, bad


@pytest.fixture
def table() -> Callable[[int, float], pl.DataFrame]:
    def make(rows: int, value: float) -> pl.DataFrame:
        return pl.DataFrame({"a": range(rows), "b": [value + i / 8 for i in range(rows)], "c": ['x,"y"'] * rows})

    return make
