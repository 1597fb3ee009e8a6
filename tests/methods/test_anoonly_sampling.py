"""Batch compositions: the shares of METHODS §2, also where known anomalies are fewer than a batch wants."""

from __future__ import annotations

import pytest
import torch

from anoaudit.methods.anoonly.sampling import Halves, Pairs, Unlabelled, in_turn


def labels_of(known: int, others: int) -> torch.Tensor:
    return torch.tensor([1] * known + [-1] * others, dtype=torch.int8)[torch.randperm(known + others)]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_in_turn_draws_all_equally_often() -> None:
    drawn = in_turn(torch.tensor([3, 5, 9]), 10, rng())
    assert sorted(torch.bincount(drawn)[[3, 5, 9]].tolist()) == [3, 3, 4]
    assert len(set(in_turn(torch.arange(50), 20, rng()).tolist())) == 20


@pytest.mark.parametrize(("known", "others"), [(2, 40), (100, 300), (50, 3)])
def test_halves(known: int, others: int) -> None:
    labels = labels_of(known, others)
    batches = list(Halves(labels, steps=7, size=64)(rng(), 64))
    assert len(batches) == 7
    for indices in batches:
        assert (labels[indices] == 1).tolist() == [False] * 32 + [True] * 32


@pytest.mark.parametrize(("known", "others"), [(2, 40), (400, 900)])
def test_pairs(known: int, others: int) -> None:
    labels = labels_of(known, others)
    for indices in Pairs(labels, steps=3, size=512)(rng(), min(512, known + others)):
        left, right = (labels[indices] == 1).view(2, -1).long()
        assert torch.bincount(left + right).tolist() == [256, 128, 128]  # uu, au, aa
    assert len(set(indices.tolist())) > min(known + others, 512) // 2


def test_unlabelled_holds_no_known_anomaly() -> None:
    labels = labels_of(20, 30)
    for indices in Unlabelled(labels, steps=5, size=16)(rng(), 16):
        assert (len(indices), int((labels[indices] == 1).sum())) == (16, 0)


def test_less_memory_makes_smaller_batches_of_the_same_composition() -> None:
    labels = labels_of(4, 36)
    sampler = Halves(labels, steps=1, size=64)  # of 40 items the loop asks for 40 at most
    assert [len(next(sampler(rng(), asked))) for asked in (40, 20, 10)] == [64, 32, 16]


def test_an_epoch_follows_from_its_generator() -> None:
    sampler = Pairs(labels_of(5, 50), steps=2, size=16)
    first, again, other = (torch.cat(list(sampler(rng(seed), 16))) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
