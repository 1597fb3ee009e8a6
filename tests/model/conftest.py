from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny_models import write_tiny


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model directory with all of its files."""
    scores = tmp_path / "scores.parquet"
    scores.write_bytes(b"any bytes")
    write_tiny(tmp_path / "m.anoaudit", scores=scores, card="# card\n")
    scores.unlink()
    return tmp_path / "m.anoaudit"


@pytest.fixture
def full_disk() -> Iterator[Callable[[int], None]]:
    """Lets no file of this process grow beyond so many bytes: writing fails as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
