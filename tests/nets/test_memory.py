"""Retrieval against a slow reference, and what the diagnostics say of good and bad memories."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from anoaudit.nets.memory import Memory


def slow(z, slots, beta):
    """softmax(β z Mᵀ) M, number by number."""
    slots = [[v / math.sqrt(sum(w * w for w in row)) for v in row] for row in slots.double().tolist()]
    found = []
    for query in z.double().tolist():
        logits = [beta * sum(q * m for q, m in zip(query, slot, strict=True)) for slot in slots]
        top = max(logits)
        weights = [math.exp(v - top) for v in logits]
        total = sum(weights)
        found.append(
            [sum(w * slot[j] for w, slot in zip(weights, slots, strict=True)) / total for j in range(len(query))]
        )
    return torch.tensor(found)


@pytest.mark.parametrize("beta", [0.01, 1.0, 4.0, 50.0, 1e4])
def test_retrieval(beta):
    torch.manual_seed(0)
    memory = Memory(12, 16, beta)
    with torch.no_grad():
        memory.slots.mul_(torch.rand(12, 1) * 5 + 0.1)  # their lengths do not matter
    z = F.normalize(torch.randn(9, 16), dim=1)
    assert torch.allclose(memory(z), slow(z, memory.slots.detach(), beta), atol=1e-5)
    assert torch.allclose(memory.weights(z).sum(1), torch.ones(9))


def test_small_beta_averages_and_large_beta_picks_the_nearest():
    torch.manual_seed(0)
    z = F.normalize(torch.randn(50, 16), dim=1)
    flat, sharp, default = Memory(32, 16, 1e-3), Memory(32, 16, 1e6), Memory(32, 16)
    assert default.beta == 4
    unit = F.normalize(flat.slots.detach(), dim=1)
    assert torch.allclose(flat(z), unit.mean(0).expand(50, -1), atol=1e-3)
    unit = F.normalize(sharp.slots.detach(), dim=1)
    assert torch.allclose(sharp(z), unit[(z @ unit.T).argmax(1)], atol=1e-3)
    assert flat.diagnose(z)["effective_slots"] == pytest.approx(32, abs=0.01)
    assert sharp.diagnose(z)["effective_slots"] == pytest.approx(1, abs=0.2)
    assert flat.diagnose(z)["spread"] < 0.01 < 0.5 < sharp.diagnose(z)["spread"] <= 1


def test_used_slots_are_counted():
    memory = Memory(10, 4)
    with torch.no_grad():
        memory.slots[:] = torch.tensor([1.0, 0, 0, 0])
        memory.slots[3] = torch.tensor([0.0, 1, 0, 0])
        memory.slots[7] = torch.tensor([0.0, 0, 1, 0])
    z = torch.tensor([[0.0, 1, 0, 0], [0.0, 0, 1, 0], [0.0, 0, 1, 0]])
    assert memory.diagnose(z)["used"] == 0.2


def test_it_starts_as_the_data():
    torch.manual_seed(0)
    z = F.normalize(torch.tensor([[1.0, 2, 0, 0, 0, 0, 0, 0], [0.0, 0, 0, 0, 0, 0, 1, 3]]), dim=1)
    memory = Memory(40, 8)
    memory.start(z)
    nearest = F.normalize(memory.slots.detach(), dim=1) @ z.T
    assert nearest.max(1).values.min() > 0.9
    assert 5 < int((nearest.argmax(1) == 0).sum()) < 35
