"""Rows of small score tables; a module of its own because `import conftest` means another room's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from anoaudit.scoring.table import ScoreTable, schema

Maker = Callable[..., ScoreTable]

NASTY = [
    "[bold]x[/bold].png",
    "a|b.jpg",
    "`tick`.png",
    "<script>alert(1)</script>.png",
    "Öse_日本語_瓶.png",
    "new\nline.png",
    "carriage\rreturn.png",
    "escape\x1b[31m.png",
    'quote",comma.png',
    "next\u2028line\x85.png",
    "right-to-left\u202egnp.png",
    "@someone #1 _x_ *y*.png",
    "d/" * 20 + "x" * 255,
]


def row(item: str, score: float | None, **more: Any) -> dict[str, Any]:
    """One row; unreadable when it has no score."""
    readable = score is not None
    base = dict.fromkeys(schema())
    status = {"status": "ok", "reason": None} if readable else {"status": "unreadable", "reason": "not an image"}
    return {**base, "id": item, **status, "score": score, "flagged": False, **more}


def rows_of(scores: list[float | None], flag_from: float = float("inf"), **more: Any) -> list[dict[str, Any]]:
    return [row(f"item-{i}", s, flagged=s is not None and s >= flag_from, **more) for i, s in enumerate(scores)]
