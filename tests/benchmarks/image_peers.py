"""The peers of the image half of the audit board, on the features of the network that the default uses, too (image_sets.py).

PyOD's detector for images, EmbeddingOD, is an encoder and a detector. Its own encoders are fetched from a hub; here the encoder
hands on the same pooled features, and the detector is that of its presets (k-NN in `fast` and `best`, LOF in `balanced`) or of
the class itself (LUNAR). It runs in the environment that peer_detectors.py describes (ANOAUDIT_PEERS_PYTHON).
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from image_sets import RATIOS, features_of, mixed, nearest_patch
from loe_spatial import scores_of
from peer_detectors import EMBEDDING
from sklearn.covariance import MinCovDet
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors

from anoaudit.methods.loe.options import LoeOptions

Scores = npt.NDArray[np.float64]
Pooled = npt.NDArray[np.float32]
ALPHA = 0.1
PYTHON = os.environ.get("ANOAUDIT_PEERS_PYTHON")


def knn(x: Pooled, seed: int) -> Scores:
    found: Scores = NearestNeighbors(n_neighbors=6).fit(x).kneighbors(x)[0][:, 5]  # the first is the image itself
    return found


def iforest(x: Pooled, seed: int) -> Scores:
    found: Scores = -IsolationForest(random_state=seed).fit(x).score_samples(x)
    return found


def reduced(x: Pooled) -> Pooled:
    found: Pooled = PCA(min(16, len(x) // 4), random_state=0).fit_transform(x)
    return found


def mcd(x: Pooled, seed: int) -> Scores:
    found: Scores = MinCovDet(random_state=seed).fit(reduced(x)).mahalanobis(reduced(x))
    return found


def gmm(x: Pooled, seed: int) -> Scores:
    found: Scores = -GaussianMixture(1, random_state=seed).fit(reduced(x)).score_samples(reduced(x))
    return found


ON_POOLED: dict[str, Callable[[Pooled, int], Scores]] = {"kNN": knn, "IForest": iforest, "MCD": mcd, "GMM": gmm}
POOLED = (*ON_POOLED, *EMBEDDING)
PEERS = ("nearest patch", "Gaussian a place", *POOLED)


def peer_scores(column: str, family: str, ratio: str, ids: list[str], seed: int) -> tuple[Scores, float | None]:
    """Scores of these items, and the seconds where the clock of this process is not the one to read."""
    if column in EMBEDDING:
        return embedding(family, seed)[ratio, column]
    if column in ON_POOLED:
        x = features_of(family, ids, pooled=True).astype(np.float32)
        std = x.std(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ON_POOLED[column]((x[:, std > 0] - x.mean(0)[std > 0]) / std[std > 0], seed), None
    maps = features_of(family, ids)
    if column == "nearest patch":
        return nearest_patch(maps), None
    assignment: Any = "refine" if column == "places" else "blind"
    options = LoeOptions(detector="gaussian", assignment=assignment, whole=False).for_data("images")
    return scores_of(maps, np.full(len(ids), -1, dtype=np.int8), options, ALPHA, seed), None


@lru_cache(8)
def embedding(family: str, seed: int) -> dict[tuple[str, str], tuple[Scores, float]]:
    """(ratio, column) → scores and CPU seconds of EmbeddingOD, all in one process of the other environment."""
    assert PYTHON is not None
    with tempfile.TemporaryDirectory() as name:
        files = {ratio: (Path(name, f"{ratio}.features.npz"), Path(name, f"{ratio}.scores.npz")) for ratio in RATIOS}
        for ratio, (features, _) in files.items():
            ids = sorted(mixed(family, ratio, seed)[1])
            np.savez(features, features=features_of(family, ids, pooled=True).astype(np.float64))
        line = [
            PYTHON,
            str(Path(__file__).with_name("peer_detectors.py")),
            *(str(f) for pair in files.values() for f in pair),
        ]
        line += ["--raw", "--detectors", ",".join(EMBEDDING), "--seed", str(seed)]
        subprocess.run(line, check=True, capture_output=True)
        found: dict[tuple[str, str], tuple[Scores, float]] = {}
        for ratio, (_, scores) in files.items():
            with np.load(scores) as arrays:
                report: dict[str, Any] = json.loads(str(arrays["report"]))
                found |= {(ratio, column): (arrays[column], report[column]["seconds"]) for column in EMBEDDING}
        return found
