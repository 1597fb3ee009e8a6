"""The exported graph against torch, on real items, before a model is written: same scores whatever the company in the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from anoaudit.errors import AuditError
from anoaudit.model.session import Session

ITEMS = 64
TOLERANCE = 1e-3  # of the scores' MAD
#: Of the score itself (our addition): single precision carries no more through a deep graph. Measured: 2e-5 for far outliers,
#: 3.4e-5 through a backbone and a batch norm of units that hardly vary, which it divides by next to nothing.
RESOLUTION = 5e-5
#: Where torch itself, item by item, differs more from what it says of all at once (a network trained on a few items), so many
#: times its own difference, up to a share of the score that no rounding explains.
OWN, MOST = 10.0, 1e-3

Scores = npt.NDArray[np.float64]
Decide = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.bool_]]


def check_parity(
    detector: nn.Module, session: Session, items: npt.NDArray[Any], mad: float, decide: Decide, seed: int
) -> dict[str, Any]:
    """Score the same items one by one, by sevens, at once, permuted and padded; all must agree with torch and each other.

    `mad` is the median absolute deviation of the data's scores, `decide` the decisions for scores. Raises AuditError;
    returns the measured differences for the manifest.
    """
    detector = detector.cpu().eval()
    reference = _scores(detector, items)
    allowed = TOLERANCE * mad + RESOLUTION * np.abs(reference)
    exact = False
    decided = decide(reference)
    worst, worst_way = 0.0, ""
    for way, scores in _ways(session, items, seed).items():
        difference = np.abs(scores - reference)
        if not exact and not (difference <= allowed).all():  # so written that NaN fails
            exact, own = True, np.abs(_one_by_one(lambda batch: _scores(detector, batch), items) - reference)
            share = OWN * float(np.max(own / (np.abs(reference) + mad)))
            allowed = TOLERANCE * mad + min(max(RESOLUTION, share), MOST) * np.abs(reference)
        if not (difference <= allowed).all():
            at = int(np.argmax(np.nan_to_num(difference - allowed, nan=np.inf)))
            raise AuditError(
                f"the exported model disagrees with torch ({way}): {scores[at]:.6g} instead of {reference[at]:.6g}",
                "nothing was written; please report this with the backbone and options used",
            )
        changed = int((decide(scores) != decided).sum())
        if changed:
            raise AuditError(
                f"the exported model decides {changed} of {len(items)} items differently ({way})", "nothing was written"
            )
        if difference.max() > worst:
            worst, worst_way = float(difference.max()), way
    return {"items": len(items), "max_abs_difference": worst, "where": worst_way, "mad": mad, "decisions_changed": 0}


def _ways(session: Session, items: npt.NDArray[Any], seed: int) -> dict[str, npt.NDArray[np.float64]]:
    def run(batch: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        return session.run(batch)[0].astype(np.float64)

    n = len(items)
    order = np.random.default_rng(seed).permutation(n)
    back = np.argsort(order)
    padding = np.repeat(items[:1], max(1, min(7, n // 2)), axis=0)  # of few large images few more, for memory's sake
    return {
        "all at once": run(items),
        "one by one": _one_by_one(run, items),
        "by sevens": np.concatenate([run(items[i : i + 7]) for i in range(0, n, 7)]),
        "permuted": run(items[order])[back],
        "padded": run(np.concatenate([items, padding]))[:n],
    }


def _one_by_one(run: Callable[[npt.NDArray[Any]], Scores], items: npt.NDArray[Any]) -> Scores:
    return np.concatenate([run(items[i : i + 1]) for i in range(len(items))])


def _scores(detector: nn.Module, items: npt.NDArray[Any]) -> Scores:
    with torch.no_grad():
        out = detector(torch.from_numpy(items))
    found: Scores = (out[0] if isinstance(out, tuple) else out).numpy().astype(np.float64)
    return found


def median_absolute_deviation(scores: npt.NDArray[np.float64]) -> float:
    """Of the scores; where more than half are equal, the mean absolute deviation."""
    deviation = np.abs(scores - np.median(scores))
    return float(np.median(deviation)) or float(deviation.mean())
