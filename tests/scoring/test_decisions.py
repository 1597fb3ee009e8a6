from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anoaudit.errors import UsageError
from anoaudit.model.calibration import Calibration, conformal, fit_null
from anoaudit.scoring.decisions import Rule, benjamini_hochberg, decide, make_rule, parse_count, ranks, remarks

SCORES = st.lists(st.floats(-1e30, 1e30, allow_nan=False) | st.integers(0, 3).map(float), max_size=40).map(np.array)


def textbook(p_values: list[float], q: float) -> list[bool]:
    """Step-up, as it is written: the largest k with p_(k) ≤ q·k/m, then the hypotheses of the k smallest p."""
    m = len(p_values)
    order = sorted(range(m), key=lambda i: p_values[i])
    k = 0
    for place in range(1, m + 1):
        if p_values[order[place - 1]] <= q * place / m:
            k = place
    rejected = set(order[:k])
    return [i in rejected for i in range(m)]


@settings(max_examples=300, deadline=None, database=None)
@given(
    st.lists(st.integers(1, 60).map(lambda i: i / 60) | st.floats(1e-300, 1.0), max_size=30),
    st.sampled_from([0.01, 0.1, 0.5, 0.99]),
)
def test_benjamini_hochberg(p_values: list[float], q: float) -> None:
    flags = benjamini_hochberg(np.array(p_values), q)
    assert flags.dtype == bool
    expected = textbook(p_values, q)
    assert flags.tolist() == expected


def test_benjamini_hochberg_of_the_paper() -> None:
    p = [
        0.0001,
        0.0004,
        0.0019,
        0.0095,
        0.0201,
        0.0278,
        0.0298,
        0.0344,
        0.0459,
        0.3240,
        0.4262,
        0.5719,
        0.6528,
        0.7590,
        1.0,
    ]
    assert benjamini_hochberg(np.array(p), 0.05).tolist() == [True] * 4 + [False] * 11


def test_fdr_is_controlled_with_conformal_p_values() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        calibration = conformal(rng.normal(size=999))
        p = calibration.p_values(np.concatenate([rng.normal(size=180), rng.normal(5.0, 1.0, 20)]))
        assert p is not None
        flags = benjamini_hochberg(p, 0.1)
        shares.append(flags[:180].sum() / max(flags.sum(), 1))
    assert np.mean(shares) < 0.1


@settings(max_examples=200, deadline=None, database=None)
@given(SCORES)
def test_ranks_are_a_stable_permutation(scores: Any) -> None:
    found = ranks(scores).tolist()
    assert sorted(found) == list(range(1, len(scores) + 1))
    expected = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    assert [found[i] for i in expected] == list(range(1, len(scores) + 1))


@settings(max_examples=200, deadline=None, database=None)
@given(SCORES, st.integers(0, 50))
def test_top_k_flags_exactly_k(scores: Any, k: int) -> None:
    flags = decide(Rule(fdr=None, top_count=k), scores, None)
    assert flags.sum() == min(k, len(scores))
    if 0 < flags.sum() < len(scores):
        assert scores[flags].min() >= scores[~flags].max()


@settings(max_examples=300, deadline=None, database=None)
@given(st.integers(0, 500), st.integers(0, 10_000))
def test_top_percent_rounds_up(n: int, hundredths: int) -> None:
    rule = make_rule(None, None, f"{hundredths / 100}%")
    expected = math.ceil(Fraction(n * hundredths, 10_000))
    assert decide(rule, np.arange(float(n)), None).sum() == expected


def test_a_threshold_includes_its_value() -> None:
    rule = make_rule(None, 2.0, None)
    assert decide(rule, np.array([1.9, 2.0, 3.0]), None).tolist() == [False, True, True]


def test_no_p_values_no_flags() -> None:
    assert decide(Rule(), np.arange(5.0), None).tolist() == [False] * 5
    assert decide(Rule(), np.empty(0), np.empty(0)).tolist() == []


def test_words() -> None:
    none, clean = Calibration(kind="none"), conformal(np.arange(9.0))
    guess = fit_null(np.arange(60.0))
    assert Rule().describe(guess) == "Benjamini-Hochberg, estimated FDR 0.1"
    assert Rule(fdr=0.05).describe(clean) == "Benjamini-Hochberg, controlled FDR 0.05"
    assert "nothing is flagged" in Rule().describe(none)
    for calibration in (none, clean, guess):
        assert make_rule(None, 2.5, None).describe(calibration) == "score ≥ 2.5"
        assert make_rule(None, None, "7").describe(calibration) == "the 7 worst"
        assert make_rule(None, None, "1").describe(calibration) == "the worst"
        assert make_rule(None, None, "2.5%").describe(calibration) == "the worst 2.5 %"


@pytest.mark.parametrize(
    "given_", [(0.1, 1.0, None), (0.1, None, "3"), (None, 1.0, "3"), (0.1, 1.0, "3"), (None, 0.0, "0")]
)
def test_two_rules_are_none(given_: Any) -> None:
    with pytest.raises(UsageError, match="two rules"):
        make_rule(*given_)


@pytest.mark.parametrize("fdr", [0.0, 1.0, -0.1, 2.0, float("nan"), float("inf")])
def test_rates_out_of_range(fdr: float) -> None:
    with pytest.raises(UsageError, match="--fdr"):
        make_rule(fdr, None, None)


@pytest.mark.parametrize("threshold", [float("nan"), float("inf"), -float("inf")])
def test_thresholds_that_are_none(threshold: float) -> None:
    with pytest.raises(UsageError, match="--threshold"):
        make_rule(None, threshold, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", (0, None)),
        ("20", (20, None)),
        (" 3 ", (3, None)),
        ("0%", (None, 0.0)),
        ("2.5 %", (None, 2.5)),
        ("100%", (None, 100.0)),
    ],
)
def test_counts(text: str, expected: Any) -> None:
    assert parse_count("--top-k", text) == expected


@pytest.mark.parametrize("text", ["", "%", "-1", "-1%", "101%", "1.5", "nan%", "inf%", "x", "1%%", "1e3", "9" * 5000])
def test_counts_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--top-k"):
        parse_count("--top-k", text)


def test_a_count_beyond_all_bounds_flags_all() -> None:
    assert decide(make_rule(None, None, "9" * 30), np.arange(3.0), None).all()


def test_a_gate_that_cannot_fire_says_so() -> None:
    """Of 1,000 items and 99 known normals, 100 at the smallest p are needed; 50 are silent without a remark."""
    normals = conformal(np.arange(99.0))
    scores = np.concatenate([np.full(50, 1e3), np.full(950, 50.0)])
    p_values = normals.p_values(scores)
    flags = decide(Rule(), scores, p_values)
    assert not flags.any()
    [line] = remarks(Rule(), normals, p_values, flags)
    assert "of 1,000 items fewer than 100 cannot be flagged at FDR 0.1" in line
    assert remarks(Rule(fdr=None, top_count=5), normals, p_values, flags) == []


def test_most_of_the_data_flagged_is_remarked() -> None:
    normals = conformal(np.arange(999.0))
    scores = np.concatenate([np.full(600, 1e4), np.full(400, 500.0)])
    p_values = normals.p_values(scores)
    [line] = remarks(Rule(), normals, p_values, decide(Rule(), scores, p_values))
    assert line.startswith("60 % are flagged")
