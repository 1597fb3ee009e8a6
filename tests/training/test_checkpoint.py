"""What an interrupted fit leaves in `<MODEL>.part/`."""

from __future__ import annotations

from pathlib import Path

import pytest

from anoaudit.training.checkpoint import discard_if_fresh

PASSING = ("lock", "features.f16", "scores.parquet", ".tmpJrD0FH", ".anoaudit-6468f37eb32f.tmp")


@pytest.mark.parametrize("more", [None, "state.json", "notes.txt"])
def test_what_is_nothing_to_go_on_from_goes_and_all_else_stays(more: str | None, tmp_path: Path) -> None:
    part = tmp_path / "m.part"
    part.mkdir()
    for name in (*PASSING, *filter(None, [more])):
        (part / name).write_bytes(b"half")
    discard_if_fresh(part)
    assert part.exists() == (more is not None)
    assert more is None or len(list(part.iterdir())) == len(PASSING) + 1
