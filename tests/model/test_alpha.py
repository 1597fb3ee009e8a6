"""α from scores: what the estimate finds, when it declines, what known labels do, and the rank measures."""

from __future__ import annotations

import numpy as np
import pytest

from anoaudit.model import alpha
from anoaudit.model.alpha import bounding, estimate_alpha, excess, from_scores, spearman, top_overlap

UNKNOWN = -1


def mixture(n: int, share: float, seed: int = 0) -> np.ndarray:
    """Scores of a log-normal bulk, and of anomalies far above it."""
    rng = np.random.default_rng(seed)
    scores = np.exp(0.4 * rng.normal(size=n))
    count = round(share * n)
    scores[:count] = rng.uniform(15, 40, count)
    return scores


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1])
def test_clear_anomalies_are_counted(share: float) -> None:
    found = from_scores(mixture(3000, share))
    assert found is not None
    estimate, low, high = found
    assert abs(estimate - share) < 0.03
    assert low <= share <= high
    assert low > 0


@pytest.mark.parametrize("seed", range(5))
def test_a_clean_bulk_has_next_to_none_and_the_lower_end_is_nothing(seed: int) -> None:
    found = from_scores(mixture(2000, 0.0, seed))
    assert found is not None
    assert found[0] < 0.03
    assert found[1] < 0.005


def test_the_scale_of_the_scores_does_not_matter() -> None:
    scores = mixture(1000, 0.05)
    assert from_scores(scores) == pytest.approx(from_scores(1000.0 * scores), abs=2e-3)


def test_bounding_holds_for_uniform_p_values() -> None:
    rng = np.random.default_rng(0)
    above = [excess(np.sort(rng.random(500)), bounding(500)) > 0.01 for _ in range(200)]
    assert np.mean(above) <= 0.05


@pytest.mark.parametrize(
    ("labels", "scores", "why"),
    [
        (np.full(30, UNKNOWN, np.int8), np.arange(30.0), "only 30 items"),
        (np.full(100, UNKNOWN, np.int8), np.ones(100), "one value"),
    ],
)
def test_without_an_estimate_the_given_share_is_assumed(labels: np.ndarray, scores: np.ndarray, why: str) -> None:
    found = estimate_alpha(labels, lambda: scores, 0.1)
    assert not found.usable
    assert (found.share, found.low, found.high) == (0.1, None, None)
    assert why in alpha.estimate_line(found.share, found.to_json())


def test_labels_count_where_all_are_known_and_bound_where_some_are() -> None:
    labels = np.zeros(200, np.int8)
    labels[:30] = 1
    found = estimate_alpha(labels, lambda: pytest.fail("no scores are needed"), 0.1)
    assert (found.share, found.low, found.high) == (0.15, 0.15, 0.15)
    some = np.full(1000, UNKNOWN, np.int8)
    some[:80] = 1  # more known anomalies than the scores show
    bounded = estimate_alpha(some, lambda: mixture(1000, 0.0), 0.1)
    assert (bounded.share, bounded.low) == (0.08, 0.08)
    some[80:990] = 0
    assert estimate_alpha(some, lambda: mixture(1000, 0.0), 0.1).high == pytest.approx(0.09)


def test_rank_measures() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=200)
    assert spearman(scores, np.exp(scores)) == pytest.approx(1.0)
    assert spearman(scores, -scores) == pytest.approx(-1.0)
    assert spearman(np.array([1.0, 1, 2, 3]), np.array([1.0, 2, 2, 3])) == pytest.approx(0.8333333)  # ties: mean ranks
    assert top_overlap(scores, scores, 10) == 1.0
    assert top_overlap(scores, -scores, 10) == 0.0


@pytest.mark.parametrize("odd", [None, "x" * 99, 10**400, [], {}, -1.5])
def test_lines_of_odd_values_are_lines(odd: object) -> None:
    """They come from manifests and score tables, which are anyone's."""
    values = {
        "low": odd,
        "high": odd,
        "items": odd,
        "estimator": "E",
        "k": odd,
        "runs": [{"alpha": odd}, odd],
        "epochs": odd,
    }
    assert alpha.estimate_line(0.1, values)
    assert alpha.sensitivity_line(values)
    assert alpha.sensitivity_line({"runs": odd}) == ""
