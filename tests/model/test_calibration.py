from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anoaudit.model.calibration import FAR, Array, Calibration, conformal, fit_null, wider
from anoaudit.scoring.decisions import benjamini_hochberg

FINITE = st.floats(-1e30, 1e30, allow_nan=False)


@settings(max_examples=150, deadline=None, database=None)
@given(
    st.lists(FINITE | st.integers(0, 3).map(float), min_size=1, max_size=30),
    st.lists(FINITE | st.integers(0, 3).map(float), min_size=1),
)
def test_conformal_is_exact(reference: list[float], scores: list[float]) -> None:
    found = conformal(np.array(reference)).p_values(np.array(scores))
    assert found is not None
    expected = [(1 + sum(r >= s for r in reference)) / (len(reference) + 1) for s in scores]
    assert found.tolist() == expected


def test_conformal_is_uniform_on_exchangeable_data() -> None:
    rng = np.random.default_rng(3)
    found = []
    for _ in range(2000):
        scores = rng.gamma(2.0, 1.0, 20)
        p = conformal(scores[1:]).p_values(scores[:1])
        assert p is not None
        found.append(round(float(p[0]) * 20))
    counts = np.bincount(found, minlength=21)[1:]
    assert counts.sum() == 2000  # each of 1/20 … 20/20 should come 100 times
    assert ((counts - 100.0) ** 2 / 100).sum() < 43.8  # χ² with 19 degrees of freedom, p = 0.001
    for level in (0.05, 0.1, 0.5):
        assert np.mean(np.array(found) / 20 <= level) <= level + 3 * np.sqrt(level * (1 - level) / 2000)


def test_conformal_says_how_small_p_can_be() -> None:
    assert conformal(np.arange(99.0)).to_json() == {
        "kind": "conformal-clean", "n": 99, "smallest_p": 0.01, "exact": True,
    }  # fmt: skip


EXTREMES = np.array([-1.7e308, -1e30, -1e10, -3.0, -1.0, 0.0, 0.5, 1.0, 2.0, 10.0, 1e3, 1e10, 1e30, 1.7e308])
SHAPES = {
    "gamma": lambda rng: rng.gamma(3.0, 1.0, 400),
    "normal": lambda rng: rng.normal(100.0, 1e-3, 400),
    "tiny": lambda rng: rng.gamma(3.0, 1e-30, 400),
    "huge": lambda rng: rng.gamma(3.0, 1e30, 400),
    "left": lambda rng: -rng.gamma(1.0, 1.0, 400),
    "heavy": lambda rng: np.abs(rng.standard_cauchy(400)),
    "two": lambda rng: rng.choice([0.0, 1.0], 400),
    "outlier": lambda rng: np.append(rng.normal(0.0, 1.0, 400), 1e38),
    "fifty": lambda rng: rng.normal(0.0, 1.0, 50),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("skew", [0.0, 2.0, 5.0])
def test_a_scale_next_to_zero_gives_p_values_without_a_warning(skew: float) -> None:
    values = {"kind": "fitted-null", "fits": [[1.0, 5e-324, skew], [1.0, 1e-300, skew]]}
    p = Calibration.from_json(values, np.empty(0)).p_values(np.array([-1e30, 1.0, 1e30]))
    assert p is not None
    assert ((p > 0) & (p <= 1)).all()
    assert (np.diff(p) <= 0).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", SHAPES)
def test_p_values_are_probabilities_and_fall_with_the_score(name: str) -> None:
    scores = SHAPES[name](np.random.default_rng(1))
    for calibration in (fit_null(scores), conformal(scores)):
        tried = np.sort(np.concatenate([scores, EXTREMES]))
        p = calibration.p_values(tried)
        if calibration.kind == "none":
            assert p is None
            continue
        assert p is not None
        assert p.dtype == np.float64
        assert not np.isnan(p).any()
        assert (p > 0).all()
        assert (p <= 1).all()
        assert (np.diff(p) <= 0).all()
        again = Calibration.from_json(calibration.to_json(), calibration.reference)
        np.testing.assert_array_equal(again.p_values(tried), p)


@pytest.mark.parametrize("n", [0, 1, 19, 49])
def test_few_rows_have_no_p_values(n: int) -> None:
    calibration = fit_null(np.random.default_rng(0).random(n))
    assert (calibration.kind, calibration.p_values(np.array([1.0]))) == ("none", None)
    assert f"{n} items" in calibration.note


@pytest.mark.parametrize("scores", [np.zeros(100), np.full(100, 7e20), np.append(np.ones(99), 1e6)])
def test_equal_scores_have_no_p_values(scores: np.ndarray) -> None:  # type: ignore[type-arg]
    calibration = fit_null(scores)
    assert calibration.kind == "none"
    assert calibration.note


def test_the_order_of_the_scores_does_not_matter() -> None:
    scores = np.random.default_rng(2).gamma(2.0, 1.0, 300)
    np.testing.assert_array_equal(fit_null(scores).p_values(EXTREMES), fit_null(scores[::-1].copy()).p_values(EXTREMES))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2])
def test_the_null_looks_past_the_anomalies(share: float) -> None:
    rng = np.random.default_rng(4)
    normal = rng.normal(0.0, 1.0, 4000)
    scores = np.append(normal, rng.normal(12.0, 1.0, int(4000 * share)))
    p = fit_null(scores).p_values(normal)
    assert p is not None
    assert np.mean(p < 0.01) < 0.02  # about one in a hundred, never many more
    anomalies = fit_null(scores).p_values(np.array([12.0]))
    assert anomalies is not None
    assert anomalies[0] < 1e-3


def test_the_audit_takes_the_null_that_reaches_further() -> None:
    rng = np.random.default_rng(0)
    narrow, wide = fit_null(rng.normal(0, 1, 500)), fit_null(rng.normal(0, 2, 500))
    assert wider(narrow, wide) is wide
    assert wider(wide, narrow) is wide
    none = fit_null(np.zeros(3))
    assert wider(narrow, none) is narrow
    assert wider(none, wide) is none
    for null in (narrow, wide):
        far = null.p_values(np.array([null.score_at(FAR)]))
        assert far is not None
        assert abs(float(far[0]) - 0.001) < 1e-4


def share_of_clean_sets_with_a_flag(n: int, runs: int, calibration: Callable[[Array], Calibration]) -> float:
    hits = 0
    for run in range(runs):
        scores = np.random.default_rng(run).chisquare(20, n)
        p = calibration(scores).p_values(scores)
        assert p is not None
        hits += bool(benjamini_hochberg(p, 0.1).any())
    return hits / runs


def test_a_null_from_few_clean_scores_flags_little() -> None:
    """Were every p uniform, Benjamini-Hochberg at 0.1 would flag something in one clean set of ten."""
    with_bootstraps = share_of_clean_sets_with_a_flag(50, 60, fit_null)
    alone = share_of_clean_sets_with_a_flag(
        50, 60, lambda scores: replace(fit_null(scores), fits=fit_null(scores).fits[:1])
    )
    assert with_bootstraps <= 0.1 < alone


@pytest.mark.parametrize(("contamination", "bulk"), [(0.0, 0.9), (0.05, 0.9), (0.1, 0.8), (0.2, 0.6), (0.49, 0.5)])
def test_the_bulk_follows_the_assumed_contamination(contamination: float, bulk: float) -> None:
    null = fit_null(np.random.default_rng(0).random(500), contamination)
    assert null.to_json()["bulk"] == pytest.approx(bulk)


def test_p_is_the_mean_tail_of_the_fits() -> None:
    null = fit_null(np.random.default_rng(5).gamma(2.0, 1.0, 300))
    scores = np.linspace(0.1, 30.0, 50)
    slow = []
    for score in scores:
        tails = []
        for fit in null.fits:
            inside = 1.0 + fit.skew * (score - fit.location) / fit.scale
            z = math.log(inside) / fit.skew if fit.skew and inside > 0 else -math.inf if fit.skew else inside
            tails.append(1.0 - NormalDist().cdf(z))
        slow.append(np.mean(tails))
    found = null.p_values(scores)
    assert found is not None
    np.testing.assert_allclose(found, slow, rtol=1e-4, atol=1e-14)
