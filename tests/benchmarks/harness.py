"""What benchmark scripts share: options, a resumable JSON file of results, running the program as a user does.

A script gives its cells (name → settings); each finished cell is written at once, so a stopped run goes on where it was.
Several runs may fill one file at the same time: each takes the cells that nobody has taken yet.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import Any

OWN = ("machine", "versions", "settings", "complete", "cells")
RESULTS = Path(__file__).parent / "results"
SHARED = Path(os.environ.get("ANOAUDIT_SHARED", Path(__file__).parents[3] / "shared"))


@dataclass(frozen=True)
class Settings:
    only: tuple[str, ...]
    seeds: int
    budget: str
    fresh: bool
    minutes: float

    def wants(self, cell: str) -> bool:
        """Whether `--only` asks for the cell: by the start of its name, with * and ? (`thyroid/ntl,*/icl/soft`)."""
        return not self.only or any(fnmatch(cell, name + "*") for name in self.only)


def settings(description: str, seeds: int) -> Settings:
    """`--only NAMES --seeds N --budget quick|full --minutes N --fresh`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--only", default="", help="names, with commas")
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--budget", choices=("quick", "full"), default="quick")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no further cell after so long")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    given = parser.parse_args()
    only = tuple(filter(None, given.only.split(",")))
    return Settings(only, given.seeds, given.budget, given.fresh, given.minutes)


class Results:
    """`results/NAME.json`: machine, versions, settings, cells, and whether all cells are there."""

    def __init__(self, name: str, given: Settings) -> None:
        self.path, self.given = RESULTS / f"{name}.json", given
        self._began = time.monotonic()  # a script may run its cells in parts
        self.cells: dict[str, Any] = {}
        self.extra: dict[str, Any] = {}  # what a script adds to the document, a summary say
        self._earlier: dict[str, Any] = {}
        self._locks = RESULTS.parent / "cache" / f"{name}.locks"
        if given.fresh:
            self.path.unlink(missing_ok=True)
        self._read()

    def run(self, wanted: Iterable[str], measure: Callable[[str], Any], asked: Collection[str]) -> None:
        """Measure each wanted cell that is not there yet; `asked` are the names of all cells of the grid."""
        commit = _commit()
        for name in wanted:
            if time.monotonic() - self._began > 60 * self.given.minutes:
                break
            with self._taken(name.replace("/", "~")) as mine:
                self._read()
                if name in self.cells or not mine:
                    continue
                print(f"… {name}", file=sys.stderr, flush=True)
                found = measure(name)
                self.write(asked, {name: found | {"commit": commit} if isinstance(found, dict) else found})
        self._read()

    def write(self, asked: Collection[str], new: dict[str, Any] | None = None) -> None:
        """The document with what other runs have measured meanwhile, and `new` cells."""
        names = ("torch", "timm", "onnxruntime-gpu", "numpy", "polars", "scikit-learn", "pyod", "deepod", "suod")
        with self._taken("write", wait=True):
            self._read()
            self.cells |= new or {}
            document = {
                "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "python": platform.python_version()},
                "versions": {name: version(name) for name in names if _installed(name)},
                "settings": {"seeds": self.given.seeds, "budget": self.given.budget},
                "complete": all(name in self.cells for name in asked),
                **self._earlier,  # a stopped run leaves the last one's summary
                **self.extra,
                "cells": self.cells,
            }
            RESULTS.mkdir(exist_ok=True)
            temporary = self.path.with_suffix(".tmp")
            temporary.write_text(json.dumps(document, indent=1) + "\n")
            temporary.rename(self.path)

    def _read(self) -> None:
        if self.path.exists():
            document = json.loads(self.path.read_text())
            self.cells |= document.pop("cells")
            self._earlier = {key: value for key, value in document.items() if key not in OWN}

    @contextmanager
    def _taken(self, what: str, wait: bool = False) -> Iterator[bool]:
        """Whether this run, and no other, has `what`; with `wait` it always does in the end."""
        self._locks.mkdir(parents=True, exist_ok=True)
        with (self._locks / what).open("w") as file:
            mine = False
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                mine = True
            yield mine


class RefusedError(RuntimeError):
    """The program's error line, on exit 2: what it will not do anywhere."""


def anoaudit(*arguments: object) -> tuple[str, float, float]:
    """Run the program; (stdout, wall seconds, peak MiB of the process). Raises RefusedError on exit 2, RuntimeError on 3."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "anoaudit", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        out = process.stdout.read()
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    if process.returncode == 2 and errors:
        raise RefusedError(errors[-1].removeprefix("error: "))
    if process.returncode not in (0, 1):
        raise RuntimeError(f"{' '.join(command)}: exit {process.returncode}\n{said}")
    return out, time.perf_counter() - start, usage.ru_maxrss / 1024


def print_table(head: list[str], rows: list[list[str]]) -> None:
    """Markdown, so that it can be pasted."""
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def _installed(name: str) -> bool:
    try:
        version(name)
    except Exception:
        return False
    return True


def _commit() -> str:
    command = ["git", "-C", str(RESULTS.parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
