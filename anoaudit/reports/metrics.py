"""How well a ranking and its decisions agree with a known truth. Numpy only; scikit-learn is the tests' oracle.

A figure that is undefined, such as an AUROC where every item is normal, is None, never NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from anoaudit.scoring.table import READABLE, ScoreTable


def auroc(truth: npt.ArrayLike, score: npt.ArrayLike) -> float | None:
    """Area under the ROC curve: the chance that an anomaly scores above a normal item, ties counting half."""
    positive, values = _arrays(truth, score)
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return None
    tp, fp = _at_each_score(positive, values)
    below = n_negative - np.cumsum(fp)  # normal items that score strictly lower than each distinct score
    return float((tp * (below + 0.5 * fp)).sum() / (n_positive * n_negative))


def average_precision(truth: npt.ArrayLike, score: npt.ArrayLike) -> float | None:
    """Average precision: Σ (Rᵢ - Rᵢ₋₁) Pᵢ over the distinct scores, highest first, without interpolation."""
    positive, values = _arrays(truth, score)
    n_positive = int(positive.sum())
    if not n_positive or n_positive == len(positive):
        return None
    tp, fp = _at_each_score(positive, values)
    found, taken = np.cumsum(tp), np.cumsum(tp + fp)
    return float((tp / n_positive * (found / taken)).sum())


def precision_at(truth: npt.ArrayLike, score: npt.ArrayLike, k: int) -> float | None:
    """Share of anomalies among the k highest scores; None when there are fewer than k items.

    Where equal scores straddle the k-th place this is the mean over every order of them: the order of the input, often
    sorted by class, must not decide it.
    """
    positive, values = _arrays(truth, score)
    if k < 1 or k > len(positive):
        return None
    tp, fp = _at_each_score(positive, values)
    size = tp + fp
    before = np.concatenate(([0.0], np.cumsum(size)[:-1]))
    taken = np.clip(k - before, 0, size)
    return float((tp * taken / size).sum() / k)


def metrics(table: ScoreTable) -> dict[str, Any] | None:
    """The table's figures against its truth, as plain JSON types; None when it has no truth.

    They are over the readable items whose truth is known. Left out and counted: `unlabelled` (readable, truth unknown)
    and `unreadable_anomalies` (anomalies that could not be read, misses which no figure here can show).
    """
    if not table.has_truth:
        return None
    readable = (pl.col("status") == READABLE) & pl.col("score").is_not_nan()  # a null score is dropped as well
    rows = table.lazy().select("group", "score", "flagged", "truth", readable.fill_null(False).alias("readable"))
    left_out = rows.select(
        (pl.col("readable") & pl.col("truth").is_null()).sum().alias("unlabelled"),
        (~pl.col("readable") & (pl.col("truth") == 1)).sum().alias("unreadable_anomalies"),
    ).collect()
    known = rows.filter(pl.col("readable") & pl.col("truth").is_not_null()).collect()

    truth, score = known["truth"].to_numpy(), known["score"].to_numpy()
    figures = _figures(known)
    k = figures["anomalies"]
    return {
        "n": figures["n"],
        "unlabelled": int(left_out["unlabelled"][0]),
        "unreadable_anomalies": int(left_out["unreadable_anomalies"][0]),
        **{name: value for name, value in figures.items() if name != "n"},
        "k": k,
        "precision_at_k": precision_at(truth, score, k),
        "precision_at_10": precision_at(truth, score, 10),
        "groups": _by_group(known),
    }


def _arrays(truth: npt.ArrayLike, score: npt.ArrayLike) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    positive, values = np.asarray(truth).astype(bool), np.asarray(score, dtype=np.float64)
    if positive.shape != values.shape or positive.ndim != 1:
        raise ValueError(f"truth and score must be one-dimensional and of one length: {positive.shape}, {values.shape}")
    if np.isnan(values).any():
        raise ValueError("a NaN score has no place in a ranking")
    return positive, values


def _at_each_score(
    positive: npt.NDArray[np.bool_], values: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Anomalies and normal items at each distinct score, highest first: tied items count together."""
    if not len(values):
        return np.zeros(0), np.zeros(0)
    order = np.argsort(-values, kind="stable")
    ranked, positive = values[order], positive[order]
    starts = np.concatenate(([0], np.flatnonzero(ranked[1:] != ranked[:-1]) + 1))
    tp = np.add.reduceat(positive.astype(np.float64), starts)
    return tp, np.diff(np.concatenate((starts, [len(values)]))) - tp


def _figures(known: pl.DataFrame) -> dict[str, Any]:
    truth, score = known["truth"].to_numpy().astype(bool), known["score"].to_numpy()
    flagged = known["flagged"].to_numpy().astype(bool)
    hits, n_flagged, anomalies = int((truth & flagged).sum()), int(flagged.sum()), int(truth.sum())
    return {
        "n": len(truth),
        "anomalies": anomalies,
        "flagged": n_flagged,
        "auroc": auroc(truth, score),
        "average_precision": average_precision(truth, score),
        "precision": hits / n_flagged if n_flagged else None,
        "recall": hits / anomalies if anomalies else None,
        "f1": 2 * hits / (n_flagged + anomalies) if anomalies else None,
    }


def _by_group(known: pl.DataFrame) -> list[dict[str, Any]]:
    """The figures of every group by name, the top level (None) first; empty when no item is in a group."""
    if known["group"].null_count() == known.height:
        return []
    parts = known.sort("group", nulls_last=False).partition_by("group", maintain_order=True)
    return [{"group": part["group"][0], **_figures(part)} for part in parts]
