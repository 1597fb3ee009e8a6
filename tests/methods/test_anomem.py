"""AnoMem's losses: what may change the memory, and that stage 2 cannot make everything equal."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from anoaudit.errors import UsageError
from anoaudit.methods.anomem.contrast import memory_contrast
from anoaudit.methods.anomem.deviation import EPSILON, SLOPE, AnoMemDetector, DistanceNet
from anoaudit.methods.anomem.method import distance_loss
from anoaudit.methods.anomem.options import AnoMemOptions
from anoaudit.methods.loe.assignment import Assignment
from anoaudit.nets.memory import Memory

TAU = 0.2
BARE = nn.Identity()


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def gradient(memory: Memory, z1, z2, anomalous, image, part: int | None = None) -> torch.Tensor:
    memory.zero_grad()
    both = memory_contrast(z1, z2, anomalous, image, memory, TAU, BARE)
    (sum(both) if part is None else both[part]).backward()
    assert memory.slots.grad is not None
    return memory.slots.grad.clone()


def test_a_labelled_anomaly_changes_no_memory_gradient():
    torch.manual_seed(0)
    memory = Memory(8, 16)
    z1, z2, image = unit(10, 16), unit(10, 16, seed=1), torch.arange(10)
    anomalous = torch.tensor([False, True] + [False] * 6 + [True, False])
    with_them = gradient(memory, z1, z2, anomalous, image)
    n = ~anomalous
    without = gradient(memory, z1[n], z2[n], anomalous[n], image[n])
    assert with_them.abs().max() > 1e-3
    assert torch.allclose(with_them, without, atol=1e-7)
    moved = torch.where(anomalous[:, None], unit(10, 16, seed=9), z1)
    assert torch.allclose(gradient(memory, moved, z2, anomalous, image), with_them, atol=1e-7)
    taken_for_normal = gradient(memory, z1, z2, torch.zeros(10, dtype=torch.bool), image)
    assert not torch.allclose(taken_for_normal, without, atol=1e-4)


def test_a_labelled_anomaly_teaches_the_encoder():
    memory = Memory(8, 16)
    z1, z2 = unit(6, 16).requires_grad_(), unit(6, 16, seed=1)
    anomalous = torch.tensor([True] + [False] * 5)
    memory_contrast(z1, z2, anomalous, torch.arange(6), memory, TAU, BARE)[0].backward()
    assert z1.grad is not None
    assert z1.grad[0].abs().max() > 1e-3


def test_only_anomalies_and_one_item():
    memory = Memory(8, 16)
    for count, anomalous in ((3, True), (1, False), (1, True)):
        loss, variance = memory_contrast(
            unit(count, 16),
            unit(count, 16, seed=1),
            torch.full((count,), anomalous),
            torch.arange(count),
            memory,
            TAU,
            BARE,
        )
        assert torch.isfinite(loss)
        assert torch.isfinite(variance)


def test_contrast_against_its_formula():
    """Anchors are prototypes; negatives are other images' second views, never another place of the same image."""
    torch.manual_seed(1)
    memory = Memory(8, 16)
    z1, z2 = unit(6, 16), unit(6, 16, seed=1)
    image = torch.tensor([0, 0, 1, 1, 2, 2])
    found, _ = memory_contrast(z1, z2, torch.zeros(6, dtype=torch.bool), image, memory, TAU, BARE)
    wanted = 0.0
    for a, b in ((z1, z2), (z2, z1)):
        u = F.normalize(memory(a), dim=1)
        for i in range(6):
            rivals = [i] + [j for j in range(6) if image[j] != image[i]]
            logits = torch.stack([(u[i] @ b[j]) / TAU for j in rivals])
            wanted = wanted - torch.log_softmax(logits, 0)[0] / 12
    assert torch.allclose(found, wanted, atol=1e-5)


def test_the_variance_term_sees_collapse():
    torch.manual_seed(0)
    wide, collapsed = Memory(256, 16, 1e3), Memory(8, 16)
    with torch.no_grad():
        collapsed.slots[:] = collapsed.slots[0]
    z1, z2, none = unit(300, 16), unit(300, 16, seed=1), torch.zeros(300, dtype=torch.bool)
    far, near = (memory_contrast(z1, z2, none, torch.arange(300), m, TAU, BARE)[1] for m in (wide, collapsed))
    assert far < 0.15 < 0.9 < near <= 1.0
    start = F.normalize(torch.randn(8, 16), dim=1) * 1e-2 + collapsed.slots[0].detach()  # nearly collapsed
    with torch.no_grad():
        collapsed.slots.copy_(start)
    gradient(collapsed, z1, z2, none, torch.arange(300), part=1)
    with torch.no_grad():
        collapsed.slots -= 0.05 * collapsed.slots.grad
    assert memory_contrast(z1, z2, none, torch.arange(300), collapsed, TAU, BARE)[1] < near


class Affine(nn.Module):
    """The trap: what a distance network with biases and free weights would be."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, width), nn.LeakyReLU(SLOPE), nn.Linear(width, width))

    def forward(self, x):
        return self.net(x).square().sum(1)


def trained_one_class(net: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances of normals (in a few directions) and of others, after much training, decay and all."""
    basis = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(0))).Q
    generator = torch.Generator().manual_seed(1)
    normal = torch.randn(400, 3, generator=generator) @ basis[:3] + 0.05 * torch.randn(400, 16, generator=generator)
    other = torch.randn(200, 3, generator=generator) @ basis[3:6] + 0.05 * torch.randn(200, 16, generator=generator)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2, weight_decay=1e-2)
    for _ in range(400):
        optimizer.zero_grad()
        net(normal).mean().backward()
        optimizer.step()
    with torch.no_grad():
        return net(normal), net(other)


def test_one_class_stage_2_cannot_collapse_to_a_constant():
    torch.manual_seed(0)
    net = DistanceNet(16, 2)
    normal, other = trained_one_class(net)
    assert normal.std() / normal.mean() > 0.3
    assert other.median() > 3 * normal.median()  # of the same length: it has learned which directions are usual
    length = torch.randn(50, 16, generator=torch.Generator().manual_seed(5)).mul(7)
    ratio = (net(length) / length.square().sum(1)).sqrt().detach()
    assert ratio.min() >= SLOPE**2 * 0.999
    assert ratio.max() <= 1.001
    bad_normal, bad_other = trained_one_class(Affine(16))  # the same checks would catch it
    assert bad_normal.mean() < 1e-3 * normal.mean()
    assert not (bad_normal.std() / bad_normal.mean() > 0.3 and bad_other.median() > 3 * bad_normal.median())


def test_deviations_are_whitened():
    torch.manual_seed(0)
    x = torch.randn(4000, 6) @ torch.randn(6, 6) + torch.arange(6.0)
    net = DistanceNet(6, 2)
    double = x.double()
    net.measure(100_000, len(x), double.sum(0), double.T @ double)
    white = net.whitened(x)
    assert torch.allclose(torch.cov(white.T), torch.eye(6), atol=0.02)
    assert white.mean(0).abs().max() < 1e-3
    net.measure(1, len(x), double.sum(0), double.T @ double)  # of one image no covariance can be told
    assert torch.linalg.eigvalsh(torch.cov(net.whitened(x).T)).amax() < 6.5
    net.measure(8, 8, torch.zeros(6).double(), torch.zeros(6, 6).double())
    assert torch.isfinite(net(x)).all()


def test_settled_weights_give_the_same_distances():
    torch.manual_seed(0)
    net = DistanceNet(8, 2)
    x = torch.randn(20, 8)
    before = net(x).detach()
    twin = copy.deepcopy(net)
    twin.settle()
    assert torch.allclose(twin(x), before, atol=1e-6)
    assert all("parametrizations" not in name for name in twin.state_dict())


def test_labels_and_assignment_of_stage_2():
    normal, anomaly = torch.tensor([1.0, 2.0, 3.0, 9.0]), torch.tensor([5.0, 6.0, 7.0, 0.5])
    unknown, known = torch.full((4,), -1), torch.tensor([0, 1, -1, -1])
    blind = Assignment("blind", 0.25, 0)
    assert distance_loss(normal, anomaly, unknown, blind, 0) == pytest.approx((1 + 2 + 3 + 9) / 4)
    assert distance_loss(normal, anomaly, known, blind, 0) == pytest.approx((1 + 6 + 3 + 9) / 4)
    soft = distance_loss(normal, anomaly, unknown, Assignment("soft", 0.25, 0), 0)
    assert soft == pytest.approx((1 + 2 + 3 + (9 + 0.5) / 2) / 4)
    both = distance_loss(normal, anomaly, known, Assignment("hard", 0.5, 0), 0)
    assert both == pytest.approx((1 + 6 + 3 + 0.5) / 4)
    dropped = distance_loss(normal, anomaly, known, Assignment("refine", 0.5, 0), 0)
    assert dropped == pytest.approx((1 + 6 + 3) / 3)
    assert distance_loss(normal[:1], anomaly[:1], unknown[:1], Assignment("refine", 1.0, 0), 0) is None


class Fixed(nn.Module):
    """Deviations as given, in place of an encoder: the "items" are places' squared distances [B, places]."""

    def __init__(self, grid: tuple[int, int]) -> None:
        super().__init__()
        self.widths = [1]
        self.grids, self.pooled = [grid], False

    def maps(self, items):
        return [items.sqrt().reshape(-1, 1, *self.grids[0])]

    def vectors(self, items):
        return [items.sqrt()[:, :, None]]

    def deviations(self, vectors):
        return vectors

    def measure(self, batches):
        pass


def test_an_anomaly_pays_at_its_worst_places_alone(monkeypatch):
    for name, does in (("unit_pixels", lambda x: x), ("place_vectors", lambda m: m.flatten(2).transpose(1, 2))):
        monkeypatch.setattr(f"anoaudit.methods.anomem.deviation.{name}", does)
    monkeypatch.setattr(DistanceNet, "measure", lambda *_: None)
    detector = AnoMemDetector(Fixed((2, 2)), 0, 0.25, [1.0])
    normal, anomaly = detector.losses(torch.tensor([[1.0, 1.0, 1.0, 5.0]]))
    assert normal == pytest.approx(2.0)
    assert anomaly.item() == pytest.approx((3 + 1 / (5 + EPSILON)) / 4, rel=1e-5)
    detector.refer(lambda: [torch.tensor([[1.0, 3.0, 2.0, 2.0]])])
    detector.standardise([torch.tensor([[2.0, 4.0, 2.0, 2.0], [2.0, 2.0, 6.0, 2.0], [8.0, 2.0, 2.0, 2.0]])])
    score, heat = detector(torch.tensor([[2.0, 2.0, 2.0, 6.0], [2.0, 2.0, 2.0, 12.0]]))
    assert score[0] == pytest.approx(0, abs=1e-5)  # the median of 2, 3, 4
    assert score[1] == pytest.approx(3 / 1.5, rel=1e-4)  # half the median: more than 1.4826 times the MAD, 1
    assert torch.equal(heat[1].argmax(), torch.tensor(3))
    assert heat[1].max() == pytest.approx(score[1].item(), rel=1e-5)


def test_options():
    assert AnoMemOptions().for_data("images").projection == 64
    paper = AnoMemOptions(recipe="paper", slots=16).for_data("images")
    assert (paper.encoder, paper.images.size, paper.slots, paper.projection, paper.beta) == (
        "resnet18",
        32,
        16,
        128,
        None,
    )
    for wrong, said in ((AnoMemOptions(scales=(16, 8)), "finest first"), (AnoMemOptions(weights=(1, 2)), "for each")):
        with pytest.raises(UsageError) as caught:
            wrong.for_data("images")
        assert said in caught.value.message + caught.value.hint
    with pytest.raises(UsageError, match="is a table"):
        AnoMemOptions().for_data("table")
