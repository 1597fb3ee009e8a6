"""The peers: PyOD's and DeepOD's detectors with their default options, each fitted and scored apart, with time and memory.

usage: PEERS_PYTHON tests/benchmarks/peer_detectors.py FEATURES.npz SCORES.npz [FEATURES.npz SCORES.npz …]
       [--detectors KNN,MCD] [--seed 0] [--limit 240] [--raw] [--set epochs=20,n_ensemble=1]

Runs in an environment of its own, the program depends on none of this: pip install pyod suod combo pandas tqdm psutil
polars pyarrow torch, then pip install --no-deps deepod (it asks for a torch of 2022, but runs with today's).

FEATURES.npz holds one array, float[N, D] (`features`, or the only one there). Columns that do not vary are dropped, the
others standardised, unless --raw. SCORES.npz gets the scores float64[N] (higher is more anomalous) of the same rows under
each detector's name, and `report`, a JSON text: per detector `seconds` and `mib`, or why there are no scores.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # one thread for all, as for the program's own columns

import numpy as np  # noqa: E402  the threads come first
import numpy.typing as npt  # noqa: E402

Rows = npt.NDArray[np.float64]

LIMIT = 240  # CPU seconds for one fit and its scores
MEMORY = 4 << 30  # bytes of data one may hold
EPOCHS = {"epochs": 20}  # DeepOD's default is 100; what has been measured of them before has 20
#: library, module, class, options. `d` is the number of columns, `seed` the seed.
PYOD: dict[str, tuple[str, str]] = {
    "IForest": ("iforest", "IForest"), "MCD": ("mcd", "MCD"), "CBLOF": ("cblof", "CBLOF"), "ECOD": ("ecod", "ECOD"),
    "COPOD": ("copod", "COPOD"), "HBOS": ("hbos", "HBOS"), "KNN": ("knn", "KNN"), "LOF": ("lof", "LOF"),
    "OCSVM": ("ocsvm", "OCSVM"), "PCA": ("pca", "PCA"), "GMM": ("gmm", "GMM"), "SUOD": ("suod", "SUOD"),
    "DeepSVDD": ("deep_svdd", "DeepSVDD"), "AutoEncoder": ("auto_encoder", "AutoEncoder"),
}  # fmt: skip
DEEPOD = ("NeuTraL", "ICL", "SLAD", "DeepIsolationForest")
#: PyOD's detector for images and texts: an encoder, then a detector. Here the encoder hands on the features that are given.
#: Its presets for images take DINOv2 and k-NN (`fast`, `best`) or LOF (`balanced`); LUNAR is the class's own default.
EMBEDDING = {"EmbeddingOD-KNN": "KNN", "EmbeddingOD-LOF": "LOF", "EmbeddingOD-LUNAR": "LUNAR"}
SEEDED = ("IForest", "MCD", "CBLOF", "GMM", "DeepSVDD", "AutoEncoder", *DEEPOD)  # take a seed
RANDOM = (*SEEDED, "SUOD", "EmbeddingOD-LUNAR")  # differ from seed to seed
DEEP = ("DeepSVDD", "AutoEncoder", *DEEPOD)
SHALLOW = tuple(name for name in PYOD if name not in DEEP)


def standardised(rows: Rows) -> Rows:
    """Without the columns that do not vary, the others at mean 0 and standard deviation 1."""
    rows = rows[:, rows.std(axis=0) > 0]
    return np.ascontiguousarray((rows - rows.mean(axis=0)) / rows.std(axis=0))  # as numba has compiled for


def make(name: str, columns: int, seed: int, options: dict[str, Any]) -> Any:
    """The detector with its library's defaults, but for the seed and, of DeepOD's, `EPOCHS`."""
    import importlib

    if name in EMBEDDING:
        from pyod.models.embedding import EmbeddingOD

        return EmbeddingOD(encoder=lambda given: given, detector=EMBEDDING[name], random_state=seed, **options)
    if name in DEEPOD:
        made = getattr(importlib.import_module("deepod.models.tabular"), name)
        return made(**{**EPOCHS, "device": "cpu", "verbose": 0, "random_state": seed, **options})
    module, attribute = PYOD[name]
    given: dict[str, Any] = {"random_state": seed} if name in SEEDED else {}
    if name == "DeepSVDD":
        given |= {"n_features": columns, "verbose": 0}
    elif name == "AutoEncoder":
        given |= {"verbose": 0}
    elif name == "SUOD":
        given |= {"n_jobs": 1}
    return getattr(importlib.import_module(f"pyod.models.{module}"), attribute)(**given, **options)


def warm_up(names: Sequence[str]) -> None:
    """Import and compile before the clock runs. Torch is only imported: it does not survive a fork once it has trained."""
    rows = np.random.default_rng(0).normal(size=(64, 4))
    for name in names:
        if name in DEEP or name == "EmbeddingOD-LUNAR":
            import torch
            import torch._dynamo  # the optimisers import it when first made

            torch.set_num_threads(1)
            make(name, 4, 0, {})
        else:
            make(name, 4, 0, {}).fit(rows)


def fit_and_score(name: str, rows: Rows, seed: int, options: dict[str, Any]) -> Rows:
    """Scores of the very rows that were fitted."""
    np.random.seed(seed)  # for those that take no seed
    random.seed(seed)
    detector = make(name, rows.shape[1], seed, options)
    detector.fit(rows)
    scores = getattr(detector, "decision_scores_", None)
    if scores is None or len(scores) != len(rows):
        scores = detector.decision_function(rows)
    return np.asarray(scores, dtype=np.float64).ravel()


def scores_of(
    name: str, rows: Rows, seed: int = 0, options: dict[str, Any] | None = None, limit: int = LIMIT
) -> tuple[Rows | None, dict[str, Any]]:
    """(scores, or None, {seconds, wall_seconds, mib, added_mib} or {skipped: why}), measured in a process of its own.

    `seconds` are of the CPU, one thread: what the clock shows where nothing else runs. `added_mib` is what the
    process's peak adds to the loaded libraries, `mib` both.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "scores.npy")

        def work() -> dict[str, Any]:
            began, wall = time.process_time(), time.perf_counter()
            scores = fit_and_score(name, rows, seed, options or {})
            seconds = {"seconds": time.process_time() - began, "wall_seconds": time.perf_counter() - wall}
            bad = int((~np.isfinite(scores)).sum())
            if bad:
                return {"skipped": f"{bad} of {len(scores)} scores are not finite"}
            np.save(path, scores)
            return {key: round(value, 3) for key, value in seconds.items()}

        found = _apart(work, limit)
        return (None if "skipped" in found else np.load(path)), found


def _apart(work: Callable[[], dict[str, Any]], limit: int) -> dict[str, Any]:
    """What `work` answers in a fork of this process, with its peak memory; or why it does not."""
    reading, writing = os.pipe()
    loaded = _resident_mib()
    child = os.fork()
    if child == 0:
        warnings.filterwarnings("ignore")
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
        silent = os.open(os.devnull, os.O_WRONLY)  # some of them talk
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        began = _resident_mib()  # without the pages of libraries that the parent alone has touched
        try:
            answer = work()
            if "skipped" not in answer:
                added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - began
                answer |= {"mib": round(loaded + added), "added_mib": round(added)}
        except BaseException as error:
            answer = {"skipped": f"{type(error).__name__}: {error}"[:200]}
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if not text:
        return {"skipped": f"over {limit} s" if code == -signal.SIGXCPU else f"ended with status {code}"}
    told: dict[str, Any] = json.loads(text)
    return told


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def read(path: Path) -> Rows:
    with np.load(path) as arrays:
        names = list(arrays)
        name = "features" if "features" in names else names[0] if len(names) == 1 else ""
        if not name:
            sys.exit(f"{path} holds {', '.join(names)}; call the features `features`")
        rows = np.asarray(arrays[name], dtype=np.float64)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        sys.exit(f"{path}: features are finite numbers, rows × columns; these are {rows.shape}")
    return rows


def _options(text: str) -> dict[str, Any]:
    """`epochs=20,n_ensemble=1`."""
    pairs = [part.split("=", 1) for part in filter(None, text.split(","))]
    return {key: json.loads(value) if value[:1].isdigit() else value for key, value in pairs}


def main() -> None:
    every = (*SHALLOW, *EMBEDDING, *DEEP)
    parser = argparse.ArgumentParser(description="PyOD's and DeepOD's scores of given features")
    parser.add_argument("files", type=Path, nargs="+", metavar="FEATURES SCORES", help="in pairs")
    parser.add_argument("--detectors", default=",".join((*SHALLOW, *EMBEDDING)), help=f"of {', '.join(every)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=LIMIT, help="CPU seconds a detector may take")
    parser.add_argument("--raw", action="store_true", help="features as they are")
    parser.add_argument("--set", default="", help="options of the detectors")
    given = parser.parse_args()
    names, options = given.detectors.split(","), _options(given.set)
    unknown = [name for name in names if name not in every]
    if unknown:
        sys.exit(f"there is no {unknown[0]}; there are {', '.join(every)}")
    if len(given.files) % 2:
        sys.exit("files come in pairs, FEATURES.npz SCORES.npz")
    warnings.filterwarnings("ignore")
    warm_up(names)
    for source, target in zip(given.files[::2], given.files[1::2], strict=True):
        rows = read(source)
        rows = rows if given.raw else standardised(rows)
        arrays: dict[str, Any] = {}
        report = {}
        for name in names:
            scores, report[name] = scores_of(name, rows, given.seed, options, given.limit)
            print(f"{name}: {report[name]}", file=sys.stderr, flush=True)
            if scores is not None:
                arrays[name] = scores
        np.savez(target, report=np.array(json.dumps(report)), **arrays)


if __name__ == "__main__":
    main()
