from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from report_rows import Maker, row, rows_of
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

from anoaudit.reports.metrics import auroc, average_precision, metrics, precision_at

finite = st.floats(-1e300, 1e300)
tied = st.integers(0, 4).map(float)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    n = draw(st.integers(2, 40))
    truth = draw(hnp.arrays(np.int8, n, elements=st.integers(0, 1)))
    truth[:2] = [0, 1]
    return truth, draw(hnp.arrays(np.float64, n, elements=draw(st.sampled_from([finite, tied]))))


@settings(max_examples=200, deadline=None)
@given(cases())
def test_auroc_and_average_precision_agree_with_scikit_learn(case: tuple[np.ndarray, np.ndarray]) -> None:
    truth, score = case
    assert auroc(truth, score) == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
    assert average_precision(truth, score) == pytest.approx(average_precision_score(truth, score), abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(cases(), st.randoms())
def test_order_of_the_rows_changes_nothing(case: tuple[np.ndarray, np.ndarray], random: object) -> None:
    truth, score = case
    order = np.arange(len(truth))
    random.shuffle(order)  # type: ignore[attr-defined]
    k = int(truth.sum())
    for figure in (auroc, average_precision, lambda t, s: precision_at(t, s, k)):
        assert figure(truth[order], score[order]) == pytest.approx(figure(truth, score), abs=1e-12)


@pytest.mark.parametrize("truth", [[], [0, 0], [1, 1]])
def test_one_class_alone_is_undefined(truth: list[int]) -> None:
    assert auroc(truth, np.arange(len(truth))) is None
    assert average_precision(truth, np.arange(len(truth))) is None


def test_infinite_scores_rank_at_the_end_and_nan_is_refused() -> None:
    assert auroc([1, 0, 0], [math.inf, 1.0, -math.inf]) == 1.0
    with pytest.raises(ValueError, match="NaN"):
        auroc([1, 0], [math.nan, 1.0])


def test_precision_at_k_splits_ties_fairly() -> None:
    assert precision_at([1, 1, 0, 0], [1, 1, 1, 1], 2) == 0.5  # sorted by class: the order must not help
    assert precision_at([1, 0, 1, 0], [3, 2, 2, 1], 2) == 0.75
    assert precision_at([1, 0], [1, 0], 3) is None


def test_a_table_without_truth_has_no_metrics(make: Maker) -> None:
    assert metrics(make(rows_of([1.0, 2.0]))) is None


def test_metrics_at_the_decision_agree_with_scikit_learn(make: Maker) -> None:
    rng = np.random.default_rng(0)
    truth, score = rng.integers(0, 2, 200), rng.normal(size=200)
    rows = [
        row(str(i), s, flagged=bool(s > 0.5), truth=int(t)) for i, (t, s) in enumerate(zip(truth, score, strict=True))
    ]
    found = metrics(make(rows))
    assert found is not None
    precision, recall, f1, _ = precision_recall_fscore_support(truth, score > 0.5, average="binary")
    assert (found["precision"], found["recall"], found["f1"]) == pytest.approx((precision, recall, f1))
    assert found["k"] == found["anomalies"] == truth.sum()
    assert found["precision_at_10"] == pytest.approx(truth[np.argsort(-score)[:10]].mean())
    assert found["groups"] == []


def test_what_cannot_be_judged_is_left_out_and_counted(make: Maker) -> None:
    rows = [
        row("a", 3.0, truth=1, flagged=True),
        row("b", 1.0, truth=0),
        row("c", 2.0, truth=None, flagged=True),
        row("d", None, truth=1),
        row("e", None, truth=0),
    ]
    found = metrics(make(rows))
    assert found is not None
    assert (found["n"], found["unlabelled"], found["unreadable_anomalies"]) == (2, 1, 1)
    assert found["flagged"] == 1
    assert found["auroc"] == found["precision"] == found["recall"] == 1.0
    assert found["precision_at_10"] is None


def test_groups_are_judged_one_by_one(make: Maker) -> None:
    rows = [
        row("top", 1.0, truth=0),
        row("b/1", 3.0, truth=1, group="b", flagged=True),
        row("b/2", 1.0, truth=0, group="b", flagged=True),
        row("a/1", 1.0, truth=0, group="a"),
    ]
    found = metrics(make(rows))
    assert found is not None
    assert [g["group"] for g in found["groups"]] == [None, "a", "b"]
    top, _, b = found["groups"]
    assert (top["auroc"], top["precision"], top["recall"], top["f1"]) == (None, None, None, None)
    assert (b["n"], b["anomalies"], b["flagged"], b["auroc"], b["precision"]) == (2, 1, 2, 1.0, 0.5)


@pytest.mark.parametrize("truth", [None, 0, 1])
def test_undefined_is_null_and_never_nan(make: Maker, truth: int | None) -> None:
    found = metrics(make([row("a", 1.0, truth=truth), row("b", 1.0, truth=truth), row("c", None, truth=1)]))
    assert found is not None
    json.dumps(found, allow_nan=False)
    assert found["auroc"] is None
    assert found["average_precision"] is None
