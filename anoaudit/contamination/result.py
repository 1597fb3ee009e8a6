"""What `anoaudit contaminate` made: its figures, and the manifest that lies beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anoaudit import __version__
from anoaudit.contamination.place import Target
from anoaudit.contamination.pools import Source

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Mixture:
    """What was made, where it lies, and its figures."""

    path: Path
    labels: Path  # columns `path` (images) or `id` (tables) and `anomaly`, for --truth
    manifest: Path
    kind: str  # "images" or "table"
    normals: int
    anomalies: int
    ratio: float  # reached: anomalies / (normals + anomalies)
    asked: float
    pool: int  # anomalies there were to draw from; items there were to damage
    unlabelled: int  # items left out because --truth says nothing about them; unreadable ones, which stay
    replacement: bool
    emptied: tuple[
        tuple[str, str], ...
    ] = ()  # id and reason of each file that could not be read: an empty one stands for it
    notes: tuple[str, ...] = ()  # one line each: what of --truth and the data did not meet

    def __len__(self) -> int:
        return self.normals + self.anomalies


def source_json(source: Source) -> dict[str, Any]:
    """A source by name and hash: no folders, so that the manifest is the same on every machine."""
    return {"name": source.name, "items": len(source), "fingerprint": source.fingerprint()}


def write_manifest(
    target: Target, mixture: Mixture, seed: int, inputs: dict[str, Any], chosen: list[dict[str, str]], **more: Any
) -> None:
    """What was made of what, and which items are the anomalies; `more` are entries of one way of making it."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "anoaudit": __version__,
        "kind": mixture.kind,
        "inputs": inputs,
        "seed": seed,
        "ratio": {"asked": mixture.asked, "reached": mixture.ratio},
        "counts": {
            "items": len(mixture),
            "normals": mixture.normals,
            "anomalies": mixture.anomalies,
            "pool": mixture.pool,
            "unlabelled": mixture.unlabelled,
        },
        "replacement": mixture.replacement,
        **more,
        "anomalies": chosen,
    }
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    # A folder's name need not be UTF-8; ids are made printable by the data room already.
    target.manifest.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
