"""Counts and draws: pure numbers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anoaudit.contamination.draw import anomalies_needed, draw, highest_ratio
from anoaudit.errors import UsageError

counts = st.integers(1, 400)
ratios = st.one_of(
    st.floats(0, 0.95, allow_subnormal=False), st.sampled_from([0.0, 0.01, 0.05, 0.1, 1 / 3, 0.5, 0.59, 0.9])
)


@settings(deadline=None)
@given(n=counts, ratio=ratios)
def test_no_other_count_comes_nearer_to_the_ratio(n: int, ratio: float) -> None:
    k = anomalies_needed(n, ratio)
    share = Fraction(repr(ratio))
    best = min(abs(Fraction(j, n + j) - share) for j in range(20 * n + 3))
    assert abs(Fraction(k, n + k) - share) == best


def test_decimal_ratios_are_met_exactly() -> None:
    assert [anomalies_needed(90, 0.1), anomalies_needed(95, 0.05), anomalies_needed(7, 0.3)] == [10, 5, 3]
    assert anomalies_needed(10**9, 0.1) == round(10**9 / 9)


@settings(deadline=None)
@given(n=counts, pool=st.integers(0, 50), ratio=ratios, seed=st.integers(0, 5), again=st.booleans())
def test_every_normal_once_and_anomalies_once_without_replacement(
    n: int, pool: int, ratio: float, seed: int, again: bool
) -> None:
    k = anomalies_needed(n, ratio)
    if (ratio > 0 and k == 0) or (k and not pool) or (k > pool and not again):
        with pytest.raises(UsageError):
            draw(n, pool, ratio, seed, again)
        return
    drawn = draw(n, pool, ratio, seed, again)
    assert sorted(drawn.order) == list(range(n + k))
    assert len(drawn.anomalies) == k
    assert all(0 <= i < pool for i in drawn.anomalies)
    assert again or len(set(drawn.anomalies.tolist())) == k


@settings(deadline=None)
@given(n=counts, pool=st.integers(1, 300))
def test_the_highest_ratio_named_can_be_had(n: int, pool: int) -> None:
    named = float(highest_ratio(n, pool))
    assert 0 <= Fraction(pool, n + pool) - Fraction(highest_ratio(n, pool)) < Fraction(1, 10**5)
    assert anomalies_needed(n, named) in (pool - 1, pool)


def test_too_few_anomalies_names_the_way_out() -> None:
    with pytest.raises(UsageError) as caught:
        draw(20, 5, 0.5, 0, False)
    assert "needs 20 anomalies" in caught.value.message
    assert "0.2" in caught.value.hint
    assert "--with-replacement" in caught.value.hint


def test_a_ratio_of_less_than_one_anomaly_is_refused() -> None:
    with pytest.raises(UsageError, match="no anomaly at all") as caught:
        draw(20, 5, 0.001, 0, False)
    assert "0.047619" in caught.value.hint


def test_the_order_is_shuffled_and_depends_on_the_seed() -> None:
    first, other = draw(80, 20, 0.2, 0, False), draw(80, 20, 0.2, 1, False)
    assert not np.array_equal(first.order, other.order)
    places = np.flatnonzero(first.order >= 80)
    assert places.min() < 30
    assert places.max() > 70
