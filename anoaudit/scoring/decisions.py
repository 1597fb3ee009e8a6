"""From scores and p-values to ranks and flags. The rule is chosen when scoring or reporting, never at fit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anoaudit.errors import UsageError
from anoaudit.model.calibration import Calibration

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
MOST_FLAGGED = 0.25  # beyond it flags say more of the reference than of single items (our choice)


@dataclass(frozen=True)
class Rule:
    """Exactly one of the three: the false discovery rate, a score threshold, or the k worst (a count or a share)."""

    fdr: float | None = 0.1
    threshold: float | None = None
    top_count: int | None = None
    top_share: float | None = None

    def describe(self, calibration: Calibration) -> str:
        """As shown to readers: an estimate is never called a guarantee."""
        if self.threshold is not None:
            return f"score ≥ {self.threshold:g}"
        if self.top_count is not None:
            return "the worst" if self.top_count == 1 else f"the {self.top_count} worst"
        if self.top_share is not None:
            return f"the worst {self.top_share:.4g} %"
        if calibration.kind == "none":
            return "none: no p-values, so nothing is flagged"
        word = "controlled" if calibration.exact else "estimated"
        return f"Benjamini-Hochberg, {word} FDR {self.fdr:g}"


def make_rule(fdr: float | None, threshold: float | None, top_k: str | None) -> Rule:
    """The rule of the options `--fdr`, `--threshold`, `--top-k N|P%`; raises UsageError unless at most one is given."""
    given = [
        name for name, value in (("--fdr", fdr), ("--threshold", threshold), ("--top-k", top_k)) if value is not None
    ]
    if len(given) > 1:
        raise UsageError(f"{given[0]} and {given[1]} are two rules", "give one of --fdr, --threshold, --top-k")
    if threshold is not None:
        if not math.isfinite(threshold):
            raise UsageError("--threshold must be a finite number", "for example --threshold 3.5")
        return Rule(fdr=None, threshold=threshold)
    if top_k is not None:
        count, share = parse_count("--top-k", top_k)
        return Rule(fdr=None, top_count=count, top_share=share)
    value = 0.1 if fdr is None else fdr
    if not 0 < value < 1:
        raise UsageError(f"--fdr must lie between 0 and 1, not {value:g}", "for example --fdr 0.1")
    return Rule(fdr=value)


def parse_count(option: str, text: str) -> tuple[int | None, float | None]:
    """`N` → (N, None), `P%` → (None, P). Raises UsageError."""
    try:
        if text.strip().endswith("%"):
            share = float(text.strip()[:-1])
            if 0 <= share <= 100:
                return None, share
        else:
            count = int(text)
            if count >= 0:
                return count, None
    except ValueError:
        pass
    raise UsageError(
        f"{option} {text!r} is neither a number nor a percentage", f"for example {option} 20 or {option} 1%"
    )


def ranks(scores: Array) -> npt.NDArray[np.uint32]:
    """1 for the highest score; equal scores keep their input order."""
    order = np.argsort(-scores, kind="stable")
    result = np.empty(len(scores), dtype=np.uint32)
    result[order] = np.arange(1, len(scores) + 1, dtype=np.uint32)
    return result


def decide(rule: Rule, scores: Array, p_values: Array | None) -> Flags:
    """Which of the readable items are flagged."""
    n = len(scores)
    if rule.threshold is not None:
        return scores >= rule.threshold
    if rule.fdr is not None:
        return np.zeros(n, dtype=bool) if p_values is None else benjamini_hochberg(p_values, rule.fdr)
    # A share rounds up: 1 % of 50 rows is one row, not none.
    k = rule.top_count if rule.top_count is not None else math.ceil(n * (rule.top_share or 0.0) / 100 - 1e-9)
    return ranks(scores) <= k


def benjamini_hochberg(p_values: Array, q: float) -> Flags:
    """Benjamini and Hochberg (1995): all p up to the largest p_(k) with p_(k) ≤ q·k/n."""
    n = len(p_values)
    if n == 0:
        return np.zeros(0, dtype=bool)
    ordered = np.sort(p_values[p_values <= q])  # no other can pass, and there are fewer
    passing = np.flatnonzero(ordered <= q * np.arange(1, len(ordered) + 1) / n)
    if len(passing) == 0:
        return np.zeros(n, dtype=bool)
    return np.asarray(p_values <= ordered[passing[-1]], dtype=bool)


def remarks(rule: Rule, calibration: Calibration, p_values: Array | None, flags: Flags) -> list[str]:
    """What a reader should know of decisions by false discovery rate that say nothing, or flag nearly everything."""
    if rule.fdr is None or p_values is None or not len(p_values):
        return []
    found = []
    if calibration.kind == "conformal-clean" and not flags.any():
        smallest = 1.0 / (len(calibration.reference) + 1)
        needed = math.ceil(len(p_values) * smallest / rule.fdr)
        if needed > 1:
            found.append(
                f"{len(calibration.reference)} known normals resolve p-values down to {smallest:.2g}: of {len(p_values):,} "
                f"items fewer than {needed:,} cannot be flagged at FDR {rule.fdr:g}; label more normals, or use --top-k or "
                "--threshold"
            )
    if flags.mean() > MOST_FLAGGED:
        found.append(
            f"{100 * flags.mean():.0f} % are flagged: as a whole the data is unlike its normal reference; look at why (a time, "
            "a place that the reference does not cover?) before trusting single flags"
        )
    return found


def nothing_flagged(fdr: float, readable: int, best: float) -> str:
    """What an audit without flags means, and what to do: clean data and data full of anomalies look alike to the rule."""
    return (
        f"nothing is flagged: the least p-value of {readable:,} items is {best:.2g}, and alone it would have to be "
        f"{fdr / readable:.2g} for FDR {fdr:g}. So it is with clean data, but also with anomalies that are many or lie near; "
        "the ranking holds without flags, and --top-k N flags its first N"
    )
