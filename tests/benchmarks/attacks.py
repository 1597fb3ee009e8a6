"""Hostile models and hostile images at scale: each is refused in one line or does no harm; never a crash, a hang, a flood.

usage: python tests/benchmarks/attacks.py [--only manifests,links] [--seeds 1] [--budget quick|full] [--fresh]. Needs no data.
Every case is judged in a worker process, so that a crash or a hang counts and does not end the script. What failed is kept
in `anoaudit-attacks` in the folder for temporary files.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import re
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from subprocess import Popen
from threading import Timer
from typing import Any

import hypothesis
import numpy as np
import polars as pl
from harness import Results, anoaudit, print_table, settings
from hostile_images import bombs, damaged, valid
from hostile_manifests import changed, text_of
from hostile_models import ATTACKS, Rng, tiny
from hypothesis import strategies as st
from PIL import Image

from anoaudit import api
from anoaudit.data.decoding import UnreadableImageError, read_image
from anoaudit.data.items import ImageSpec
from anoaudit.errors import AuditError
from anoaudit.model.artefact import load_model
from anoaudit.model.card import render_card
from anoaudit.reports.writers import write

KEPT = Path(tempfile.gettempdir()) / "anoaudit-attacks"
SLOW, LARGE, LINE = 5.0, 500.0, 500  # of a model: seconds, MiB, characters
MANIFESTS, PICTURES = {"quick": 1_000, "full": 10_000}, {"quick": 500, "full": 2_000}


def model(path: Path) -> str:
    """What a user would do with the model: score four items, look at the result and at the model's card."""
    rows = path.parent / "rows.parquet"
    try:
        spec = load_model(path)
        data = path.parent / "pictures" if path.name == "images" else rows
        if data == rows:
            cells = {"numeric": [0.5, -2.0, None, 7.0], "boolean": ["yes", "no", "true", None],
                     "datetime": ["2024-02-01", "24.12.2024", None, "x"], "categorical": ["a", "b", None, "new"]}  # fmt: skip
            columns = spec.manifest.input.columns  # type: ignore[union-attr]
            names = [rule.name.encode("utf-8", "replace").decode() for rule in columns]
            pl.DataFrame(dict(zip(names, (cells[rule.kind] for rule in columns), strict=True))).write_parquet(rows)
        found = api.score(data, model=path, device="cpu", max_unreadable="25%", out=path.parent / "scores.parquet")
        write(found.table, "table", path.parent / "shown.txt")
    except AuditError as error:
        assert_line(error.message)
        assert_line(error.hint or "-")
        return "refused"
    for line in [*(path.parent / "shown.txt").read_text().splitlines(), *render_card(spec.manifest, "m").splitlines()]:
        assert all(c.isprintable() or c == "\u200d" for c in line), f"unprintable: {line[:200]!r}"
    frame = found.table.lazy().collect()
    assert frame.height == 4, f"{frame.height} rows"
    for score, p, reason in frame.select("score", "p_value", "reason").iter_rows():
        assert (score is None) != (reason is None), f"score {score}, reason {reason}"
        assert score is None or math.isfinite(score), f"score {score}"
        assert p is None or 0 <= p <= 1, f"p-value {p}"
        assert_line(reason or "-")
    return "refused" if found.exit_code == 3 else "harmless"


def image(path: Path) -> str:
    try:
        pixels = read_image(path, ImageSpec(64, 48)).pixels
    except UnreadableImageError as error:
        assert_line(str(error))
        return "refused"
    assert pixels.shape == (64, 48, 3), f"shape {pixels.shape}"
    return "harmless"


def assert_line(text: str) -> None:
    assert text, "no words"
    assert text.isprintable(), f"unprintable: {text[:200]!r}"
    assert len(text) <= LINE, f"{len(text)} characters: {text[:200]!r}"


def judging(line: Connection) -> None:
    """Answers each (kind, path) with the verdict, a note, seconds, MiB."""
    resource.setrlimit(
        resource.RLIMIT_AS, (12 << 30, 12 << 30)
    )  # what grows without end ends here, not in a dead machine
    printed = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
    os.dup2(printed.fileno(), 1)
    os.dup2(printed.fileno(), 2)
    while True:
        kind, path = line.recv()
        os.lseek(printed.fileno(), 0, os.SEEK_SET)
        os.ftruncate(printed.fileno(), 0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts anew
        before, start = memory("VmRSS"), time.perf_counter()
        try:
            said, note = {"model": model, "image": image}[kind](path), ""
            sys.stdout.flush()
            remarks = os.pread(printed.fileno(), 300, 0)
            assert not remarks or kind == "image", f"printed {remarks!r}"  # libtiff's own are beyond reach
        except BaseException as error:  # Rust's panics are no Exception
            said, note = "failed", f"{type(error).__name__}: {str(error)[:300]}"
        line.send((said, note, time.perf_counter() - start, memory("VmHWM") - before))


def memory(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


class Judge:
    """Counts what became of the cases; a worker that dies or does not answer is a failure and is replaced."""

    def __init__(self, limit: float, warm: tuple[str, Path], slow: float = SLOW) -> None:
        self.counts: Counter[str] = Counter()
        self.slowest = self.peak = 0.0
        self.failed: list[str] = []
        self.limit, self.warm, self.slow = limit, warm, slow
        self.process: Any = None

    def _ask(self, kind: str, path: Path) -> tuple[str, str, float, float]:
        if self.process is None:
            self.line, other = multiprocessing.Pipe()
            self.process = multiprocessing.get_context("spawn").Process(target=judging, args=(other,), daemon=True)
            self.process.start()
            other.close()
            self._ask(*self.warm)  # what is imported and allocated once is no case's
        self.line.send((kind, path))
        try:
            if self.line.poll(60):
                answer: tuple[str, str, float, float] = self.line.recv()
                return answer
            note = "hangs"
        except EOFError:
            self.process.join()
            note = f"the process ended: {self.process.exitcode}"
        self.close()
        return "failed", note, 60.0, 0.0

    def __call__(self, kind: str, path: Path, case: str = "") -> str:
        """The verdict: refused, harmless or failed."""
        said, note, seconds, mib = self._ask(kind, path)
        if said != "failed" and (seconds > self.slow or mib > self.limit):
            said, note = "failed", f"{seconds:.1f} s, {mib:.0f} MiB"
        self.counts[said] += 1
        self.slowest, self.peak = max(self.slowest, seconds), max(self.peak, mib)
        if said == "failed":
            KEPT.mkdir(exist_ok=True)
            kept = KEPT / f"{len(os.listdir(KEPT))}-{path.name}"
            shutil.copy(path, kept) if path.is_file() else shutil.copytree(path, kept, symlinks=True, ignore=pipes)
            self.failed.append(f"{case} {kept}: {note}")
            print(f"FAILED {self.failed[-1]}", file=sys.stderr, flush=True)
        return said

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None

    def cell(self, wrong: list[str] | None = None, **more: Any) -> dict[str, Any]:
        """The figures; `wrong` is what went wrong beside the cases."""
        self.close()
        return {"attacked": self.counts.total(), "refused": self.counts["refused"], "harmless": self.counts["harmless"],
                "failures": self.counts["failed"] + len(wrong or ()), "slowest_seconds": round(self.slowest, 2),
                "peak_mib": round(self.peak), "failed": [*self.failed, *(wrong or ())][:20], **more}  # fmt: skip


def pipes(folder: str, names: list[str]) -> list[str]:
    """What cannot be copied."""
    return [name for name in names if not Path(folder, name).is_file() and not Path(folder, name).is_dir()]


def manifests(rng: Rng, folder: Path, budget: str) -> dict[str, Any]:
    bases = tiny(folder)
    documents = [(path / "manifest.json").read_text() for path in bases]
    judge = Judge(LARGE, ("model", tiny(folder / "warm")[0]))
    wanted, seen = MANIFESTS[budget], set[int]()

    @hypothesis.seed(int(rng.integers(2**32)))
    @hypothesis.settings(max_examples=3 * wanted, database=None, deadline=None, phases=[hypothesis.Phase.generate],
                         suppress_health_check=list(hypothesis.HealthCheck))  # fmt: skip
    @hypothesis.given(st.data())
    def attack(data: st.DataObject) -> None:
        which = data.draw(st.integers(0, len(bases) - 1))
        values = json.loads(documents[which])
        for _ in range(data.draw(st.sampled_from([1, 1, 1, 2, 3]))):
            changed(data, values)
        text = text_of(data, values)
        if hash((which, text)) not in seen and len(seen) < wanted:  # some come again and again
            seen.add(hash((which, text)))
            (bases[which] / "manifest.json").write_bytes(text)
            judge("model", bases[which])

    attack()
    return judge.cell()


def directories(name: str, rng: Rng, folder: Path) -> dict[str, Any]:
    bases = tiny(folder)
    shutil.copytree(folder / "pictures", folder / "m" / "pictures")
    count, attack = ATTACKS[name]
    judge = Judge(LARGE, ("model", bases[0]))
    for _ in range(count):
        base = bases[rng.integers(len(bases))]
        path = folder / "m" / base.name
        shutil.copytree(base, path)
        attack(rng, path, bases)
        judge("model", path, name)
        shutil.rmtree(path)
    return judge.cell()


def images(rng: Rng, folder: Path, budget: str) -> dict[str, Any]:
    """Every file by itself, then all of them through the program."""
    data, normal, count = folder / "data", folder / "normal", PICTURES[budget]
    data.mkdir()
    normal.mkdir()
    for i in range(30):
        Image.fromarray(rng.integers(100, 130, (24, 32, 3), dtype=np.uint8)).save(normal / f"{i}.png")
    anoaudit("fit", normal, "--backbone", "none", "--device", "cpu", "-o", folder / "model", "--format", "json")
    # Without limits: a hundred megapixels are allowed, and the figures say what they take.
    judge = Judge(math.inf, ("image", normal / "0.png"), math.inf)
    seeds, large = valid(rng), bombs()
    said: dict[str, str] = {}
    for i, (suffix, content) in enumerate(large + [damaged(rng, seeds) for _ in range(count - len(large))]):
        odd = str(rng.choice(["", "", "", " \x1b[2J", "\n", "\u202e"]))
        path = data / f"{i:04}{odd}.{suffix}"
        path.write_bytes(content)
        said[path.name] = judge("image", path, "image")
    options = ["--format", "json", "--max-unreadable", "100%"]
    command = [sys.executable, "-m", "anoaudit", "score", str(data), "-m", str(folder / "model"), *options]
    start, out, err = time.perf_counter(), folder / "out", folder / "err"
    with out.open("wb") as o, err.open("wb") as e, Popen(command, stdout=o, stderr=e) as run:
        timer = Timer(600, run.kill)
        timer.start()
        _, status, usage = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
        timer.cancel()
    score: dict[str, Any] = {
        "seconds": round(time.perf_counter() - start, 1),
        "peak_mib": round(usage.ru_maxrss / 1024),
    }
    words = err.read_text(errors="replace")
    wrong = [f"exit {run.returncode}: {words[-500:]}"] if run.returncode or "Traceback" in words else []
    rows = json.loads(out.read_text())["rows"] if not run.returncode else []
    wrong += [] if len(rows) == count else [f"{len(rows)} rows"]
    wrong += [f"{row}, alone {said[row['id']]}" for row in rows if not fine(row, said[row["id"]])]
    print(*wrong, sep="\n", file=sys.stderr)
    score |= {"rows": len(rows), "unreadable": sum(row["status"] != "ok" for row in rows)}
    return judge.cell(wrong, score=score)


def fine(row: dict[str, Any], alone: str) -> bool:
    """Whether a row is a finite score or a reason of one line, as it was for the file by itself."""
    if row["status"] == "ok":
        return row["reason"] is None and math.isfinite(row["score"]) and alone == "harmless"
    return row["score"] is None and row["reason"].isprintable() and len(row["reason"]) <= LINE and alone == "refused"


def main() -> None:
    given = settings("hostile models and images", seeds=1)
    names = ["manifests", *ATTACKS, "images"]
    cells = [f"{name}/{seed}" for seed in range(given.seeds) for name in names]
    wanted = [cell for cell in cells if not given.only or cell.split("/")[0] in given.only]

    def measure(cell: str) -> dict[str, Any]:
        name, seed = cell.split("/")
        rng = np.random.default_rng([int(seed), names.index(name)])
        with tempfile.TemporaryDirectory() as folder:
            if name in ATTACKS:
                return directories(name, rng, Path(folder))
            return {"manifests": manifests, "images": images}[name](rng, Path(folder), given.budget)

    results = Results("attacks", given)
    results.run(wanted, measure, cells)
    figures = ("attacked", "refused", "harmless", "failures", "slowest_seconds", "peak_mib")
    found = [results.cells[cell] for cell in wanted]
    rows = [[name, *(f"{cell[f]:,}" for f in figures)] for name, cell in zip(wanted, found, strict=True)]
    rows.append(["all", *(f"{(max if f in figures[4:] else sum)(cell[f] for cell in found):,}" for f in figures)])
    print_table(["attack", "attacked", "refused", "harmless", "failures", "slowest, s", "peak, MiB"], rows)
    sys.exit(any(cell["failures"] for cell in found))


if __name__ == "__main__":
    main()
