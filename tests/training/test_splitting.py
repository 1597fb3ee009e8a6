"""Which items are trained on and which are kept out."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_items import Memory, items_of

from anoaudit.data.items import TableSpec
from anoaudit.errors import AuditError, UsageError
from anoaudit.training import items as room
from anoaudit.training.items import Split, TrainingItems, some_of, split_items, survey


def split(n, normals=0, only_normal=False, unreadable=0, seed=0, kind="table"):
    readable = np.ones(n, dtype=bool)
    readable[n - unreadable :] = False
    labels = np.full(n, -1, dtype=np.int8)
    labels[:normals] = 0
    labels[normals : normals + 5] = 1 if normals else -1
    found = split_items(readable, labels, kind, seed, only_normal)
    assert not (found.train & found.held_out).any()
    assert not (found.train & ~readable).any()
    assert not (found.held_out & ~readable).any()
    return found


@pytest.mark.parametrize(
    ("n", "held_out"),
    [
        (20, 0),
        (49, 0),
        (50, 25),
        (60, 30),
        (99, 49),
        (150, 50),
        (200, 50),
        (250, 50),
        (400, 80),
        (1000, 200),
        (25_000, 5000),
        (60_000, 5000),
    ],
)
def test_sizes(n, held_out):
    found = split(n)
    assert found.held_out.sum() == held_out
    assert found.train.sum() == n - held_out
    assert not found.clean


def test_under_twenty_is_too_few():
    with pytest.raises(AuditError, match="19 readable items"):
        split(30, unreadable=11)
    assert split(30, unreadable=10).train.sum() == 20


def test_known_normals_calibrate_where_there_are_enough():
    few, enough = split(1000, normals=149), split(1000, normals=150)
    assert not few.clean
    assert enough.clean
    assert enough.held_out.sum() == 50
    assert (enough.labels[enough.held_out] == 0).all()
    assert enough.train.sum() == 950
    assert split(1000, normals=600).held_out.sum() == 120


def test_only_normal_trains_on_known_normals():
    found = split(1000, normals=100, only_normal=True)
    assert found.clean
    assert (found.labels[found.train] == 0).all()
    assert (found.train.sum(), found.held_out.sum()) == (67, 33)
    with pytest.raises(UsageError, match="19 items are labelled 0"):
        split(1000, normals=19, only_normal=True)
    assert split(1000, normals=20, only_normal=True).train.sum() == 14


def test_the_seed_decides():
    assert np.array_equal(split(300).held_out, split(300).held_out)
    assert not np.array_equal(split(300).held_out, split(300, seed=1).held_out)


def test_training_is_capped(monkeypatch):
    monkeypatch.setitem(room.MAX_TRAINING, "table", 100)
    found = split(1000)
    assert (found.train.sum(), found.held_out.sum()) == (100, 200)


def test_known_anomalies_are_never_kept_out_of_a_null():
    labels = np.full(200, -1, dtype=np.int8)
    labels[::4] = 1
    found = split_items(np.ones(200, dtype=bool), labels, "table", 0, False)
    assert found.held_out.sum() == 50
    assert (labels[found.held_out] == -1).all()
    assert (found.train & (labels == 1)).sum() == 50
    labels[:190] = 1  # of so few others there is no null
    assert split_items(np.ones(200, dtype=bool), labels, "table", 0, False).held_out.sum() == 0


def test_known_anomalies_are_trained_on_where_training_is_capped(monkeypatch):
    monkeypatch.setitem(room.MAX_TRAINING, "table", 100)
    labels = np.full(1000, -1, dtype=np.int8)
    labels[500:520] = 1
    found = split_items(np.ones(1000, dtype=bool), labels, "table", 0, False)
    assert found.train.sum() == 100
    assert found.train[500:520].all()
    mask = np.arange(9) > 1
    assert some_of(mask, np.ones(9, dtype=np.int8), 3, np.random.default_rng(0)).sum() == 3


def test_items_stream_in_order_and_changes_are_noticed():
    values = np.arange(60.0).reshape(30, 2)
    items = items_of(values)
    mask = np.arange(30) % 3 == 0
    some = TrainingItems(items.dataset, items.spec, Split(mask, ~mask, np.arange(30).astype(np.int8), False), mask)
    assert np.array_equal(some.values(4), values[::3])
    assert some.labels.tolist() == list(range(0, 30, 3))
    assert len(some) == 10
    broken = TrainingItems(Memory(values, broken=(6,)), items.spec, some.split, mask)
    with pytest.raises(AuditError, match="changed while"):
        broken.values()


def test_survey():
    readable, labels, lost = survey(Memory(np.zeros((9, 1)), broken=(2, 8)), TableSpec(()))
    assert np.flatnonzero(~readable).tolist() == [2, 8]
    assert labels.tolist() == [-1] * 9
    assert lost == [("2", "broken"), ("8", "broken")]


def test_few_shot_needs_one_item_and_keeps_nothing_out_of_few():
    def few(n, labels=None, only_normal=False):
        known = np.full(n, -1, dtype=np.int8) if labels is None else np.array(labels, dtype=np.int8)
        return split_items(np.ones(n, dtype=bool), known, "images", 0, only_normal, few_shot=True)

    assert few(1).train.tolist() == [True]
    assert (few(149).train.sum(), few(149).held_out.sum()) == (149, 0)
    assert few(150).held_out.sum() == 50
    found = few(5, [0, 1, -1, 0, 1])
    assert found.train.tolist() == [True, False, True, True, False]
    found = few(5, [0, 1, -1, 0, 1], only_normal=True)
    assert found.train.tolist() == [True, False, False, True, False]
    with pytest.raises(AuditError, match="0 readable items"):
        few(2, [1, 1])
    with pytest.raises(UsageError, match="0 items are labelled 0"):
        few(2, [-1, 1], only_normal=True)
