"""LOE's assignments against loops that read like METHODS §1."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from anoaudit.methods.loe.assignment import Assignment

UNKNOWN = torch.full((1,), -1, dtype=torch.int8)


def losses(size: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(size, generator=generator) * 3, torch.rand(size, generator=generator) * 3


def reference(kind: str, alpha: float, normal: list[float], anomaly: list[float], labels: list[int]) -> float:
    """One batch's loss with ⌊αB⌋ ≥ 1, after the warm-up."""
    size = len(normal)
    count = math.floor(alpha * size + 1e-9)
    key = normal if kind == "refine" else [n - a for n, a in zip(normal, anomaly, strict=True)]
    worst = sorted(range(size), key=lambda i: -key[i])[:count]
    terms = []
    for i in range(size):
        if kind == "blind":
            y = 0.0
        elif kind == "gt":
            y = 1.0 if labels[i] == 1 else 0.0
        elif kind == "refine":
            if i in worst:
                continue
            y = 0.0
        else:
            y = 0.0 if i not in worst else 0.5 if kind == "soft" else 1.0
        terms.append((1 - y) * normal[i] + y * anomaly[i])
    return sum(terms) / len(terms)


@pytest.mark.parametrize("kind", ["blind", "refine", "soft", "hard", "gt"])
@pytest.mark.parametrize(("size", "alpha"), [(10, 0.1), (37, 0.1), (100, 0.29), (8, 0.49)])
def test_the_loss_is_the_formula(kind, size, alpha):
    normal, anomaly = losses(size, size)
    labels = (torch.arange(size) % 3 - 1).to(torch.int8)
    found = Assignment(kind, alpha).loss(normal, anomaly, labels, 2)
    wanted = reference(kind, alpha, normal.tolist(), anomaly.tolist(), labels.tolist())
    assert float(found) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("kind", ["refine", "soft", "hard"])
def test_warm_up_is_blind_and_gt_has_none(kind):
    normal, anomaly = losses(20, 1)
    labels = torch.ones(20, dtype=torch.int8)
    assignment = Assignment(kind, 0.2)
    for epoch in (0, 1):
        assert float(assignment.loss(normal, anomaly, labels, epoch)) == pytest.approx(float(normal.mean()))
    assert assignment.targets(normal, anomaly, labels, 2).count_nonzero() == 4
    assert Assignment(kind, 0.2, warmup=0).targets(normal, anomaly, labels, 0).count_nonzero() == 4
    assert Assignment("gt", 0.2).loss(normal, anomaly, labels, 0) == anomaly.mean()


@pytest.mark.parametrize(
    ("size", "alpha", "count"), [(10, 0.1, 1), (19, 0.1, 1), (20, 0.1, 2), (100, 0.29, 29), (3, 0.34, 1)]
)
def test_flagged_are_floor_alpha_b(size, alpha, count):
    normal, anomaly = losses(size, 3)
    y = Assignment("hard", alpha, warmup=0).targets(normal, anomaly, UNKNOWN.expand(size), 0)
    assert y.sum() == count
    assert Assignment("soft", alpha, warmup=0).targets(normal, anomaly, UNKNOWN.expand(size), 0).sum() == count / 2
    equal = torch.ones(size)
    assert Assignment("hard", alpha, warmup=0).targets(equal, equal, UNKNOWN.expand(size), 0).sum() == count


def test_refine_drops_by_normal_and_the_others_rank_by_the_difference():
    normal, anomaly = torch.tensor([5.0, 4.0, 1.0, 0.5]), torch.tensor([9.0, 1.0, 2.0, 0.4])
    unknown = UNKNOWN.expand(4)
    assert Assignment("refine", 0.25, 0).targets(normal, anomaly, unknown, 0).tolist() == [1, 0, 0, 0]
    assert Assignment("hard", 0.25, 0).targets(normal, anomaly, unknown, 0).tolist() == [0, 1, 0, 0]
    assert Assignment("soft", 0.25, 0).targets(normal, anomaly, unknown, 0).tolist() == [0, 0.5, 0, 0]
    assert float(Assignment("refine", 0.25, 0).loss(normal, anomaly, unknown, 0)) == pytest.approx(5.5 / 3)


@pytest.mark.parametrize("kind", ["soft", "hard", "refine", "blind"])
def test_alpha_zero_is_blind(kind):
    normal, anomaly = losses(50, 4)
    assert float(Assignment(kind, 0.0).loss(normal, anomaly, UNKNOWN.expand(50), 9)) == pytest.approx(
        float(normal.mean())
    )


@pytest.mark.parametrize("kind", ["soft", "hard", "refine"])
def test_no_gradient_goes_through_the_ranking(kind):
    normal, anomaly = (t.requires_grad_() for t in losses(20, 5))
    assignment = Assignment(kind, 0.2, 0)
    y = assignment.targets(normal, anomaly, UNKNOWN.expand(20), 0)
    assert not y.requires_grad
    loss = assignment.loss(normal, anomaly, UNKNOWN.expand(20), 0)
    loss.backward()
    if kind == "refine":
        assert normal.grad.tolist() == pytest.approx(((y == 0).float() / 16).tolist())
        assert anomaly.grad is None or not anomaly.grad.any()
    else:
        assert normal.grad.tolist() == pytest.approx(((1 - y) / 20).tolist())
        assert anomaly.grad.tolist() == pytest.approx((y / 20).tolist())


@pytest.mark.parametrize(("items", "batch", "alpha"), [(1000, 4, 0.1), (1000, 16, 0.02), (40, 16, 0.05), (30, 7, 0.1)])
def test_small_batches_are_not_blind(items, batch, alpha):
    """Over the epochs after warm-up the flagged share is α, and the flagged are the anomalous ones."""
    generator = torch.Generator().manual_seed(0)
    score = torch.rand(items, generator=generator)
    anomalous = score >= score.quantile(1 - alpha)
    assignment, flagged, right, seen, epochs = Assignment("hard", alpha), 0, 0, 0, 60
    for epoch in range(epochs):
        for indices in torch.randperm(items, generator=generator).split(batch):
            y = assignment.targets(score[indices], torch.zeros(len(indices)), UNKNOWN.expand(len(indices)), epoch)
            if epoch >= 10:  # the pool is full
                flagged, seen = flagged + int(y.sum()), seen + len(indices)
                right += int(y[anomalous[indices]].sum())
    assert flagged / seen == pytest.approx(alpha, rel=0.15)
    assert right / flagged > 0.6


def test_one_epoch_is_not_blind():
    score = torch.rand(200, generator=torch.Generator().manual_seed(1))
    assignment = Assignment("hard", 0.1, warmup=0)
    y = torch.cat([assignment.targets(part, torch.zeros(5), UNKNOWN.expand(5), 0) for part in score.split(5)])
    assert 12 <= y.sum() <= 24


def test_the_pool_holds_the_last_items_and_ties_do_not_flag_everything():
    assignment = Assignment("hard", 0.1, warmup=0)
    flagged = 0
    for _ in range(100):
        flagged += int(assignment.targets(torch.ones(5), torch.zeros(5), UNKNOWN.expand(5), 0).sum())
    assert len(assignment.pool) == 100
    assert flagged <= 0.2 * 500
    large = torch.full((5,), 9.0)
    assert assignment.targets(large, torch.zeros(5), UNKNOWN.expand(5), 0).sum() == 5  # all among the 10 largest of 100
    assert list(assignment.pool)[-5:] == [9.0] * 5


def test_the_last_short_batch_ranks_among_those_before_it():
    assignment = Assignment("hard", 0.1, warmup=0)
    assignment.targets(torch.arange(50.0), torch.zeros(50), UNKNOWN.expand(50), 0)
    assert assignment.targets(torch.tensor([99.0, 1.0]), torch.zeros(2), UNKNOWN.expand(2), 0).tolist() == [1, 0]


def test_refine_of_a_batch_dropped_as_a_whole_stays_differentiable():
    assignment = Assignment("refine", 0.4, warmup=0)
    for _ in range(30):
        assignment.targets(torch.zeros(2), torch.zeros(2), UNKNOWN.expand(2), 0)
    normal = torch.tensor([5.0, 6.0], requires_grad=True)
    loss = assignment.loss(normal, torch.zeros(2), UNKNOWN.expand(2), 0)
    loss.backward()
    assert loss.item() == 0.0
    assert normal.grad.tolist() == [0, 0]
