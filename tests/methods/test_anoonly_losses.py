"""AnoOnly's bases against slow, obvious references; and what the wrapper lets through: no normal loss, but normal items in BN."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anoaudit.methods.anoonly.method import make_base, train_base
from anoaudit.methods.anoonly.options import AnoOnlyOptions
from anoaudit.methods.anoonly.supervision import normal_terms, supervised_loss
from anoaudit.progress import Reporter
from anoaudit.training.checkpoint import Checkpoints
from anoaudit.training.features import RowBatches
from anoaudit.training.trainer import Trainer

BASES = ("devnet", "prenet", "deepsad", "feawad")
FEATURES, HALF = 6, 8


def base_of(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    base = make_base(FEATURES, AnoOnlyOptions(base=name, **options).for_data("table"))  # type: ignore[arg-type]
    for parameter in base.parameters():  # far from 0, so that hinges are open and nothing cancels
        nn.init.normal_(parameter, std=0.4)
    return base


def batch(seed: int = 1) -> tuple[Tensor, Tensor]:
    """Unlabelled items first, then known anomalies; as pairs: uu, uu … on the left, ua, aa … on the right of it."""
    x = torch.randn(2 * HALF, FEATURES, generator=torch.Generator().manual_seed(seed))
    anomalous = torch.zeros(2 * HALF, dtype=torch.bool)
    anomalous[HALF - 2 : HALF] = anomalous[-HALF // 2 :] = True
    return x, anomalous


def test_devnet_is_its_formula() -> None:
    x, anomalous = batch()
    for loss, supervision in (("hinge", "full"), ("linear", "full"), ("linear", "anomaly-only")):
        base = base_of("devnet", loss=loss, supervision=supervision)
        base.net[-1].bias.data += 5  # some beyond 5, where the three differ
        f = base.score(x).tolist()
        missing = {
            ("hinge", "full"): lambda v: max(0.0, 5 - v),
            ("linear", "full"): lambda v: abs(5 - v),
            ("linear", "anomaly-only"): lambda v: 5 - v,
        }[loss, supervision]
        expected = [missing(v) if a else abs(v) for v, a in zip(f, anomalous.tolist(), strict=True)]
        assert base.losses(x, anomalous).tolist() == pytest.approx(expected, rel=1e-5)
        assert max(f) > 5 > min(f)


def test_prenet_is_its_formula() -> None:
    x, anomalous = batch()
    base = base_of("prenet", norm=False)
    expected = []
    for left, right in zip(range(HALF), range(HALF, 2 * HALF), strict=True):
        both = torch.cat([base.features(x[left]), base.features(x[right])])
        f = (base.relation.weight[0] @ both + base.relation.bias).item()
        label = {0: 0.0, 1: 4.0, 2: 8.0}[int(anomalous[left]) + int(anomalous[right])]
        expected.append(abs(f - label))
    assert base.losses(x, anomalous).tolist() == pytest.approx(expected, rel=1e-4)
    assert sorted({int(anomalous[i]) + int(anomalous[i + HALF]) for i in range(HALF)}) == [0, 1, 2]


def test_prenet_scores_by_its_stored_partners() -> None:
    x, anomalous = batch()
    base = base_of("prenet", partners=3)
    base.losses(x, anomalous)  # BN has seen something
    a, u = x[anomalous][:3], x[~anomalous][:3]
    base.finish(a, u)
    h = base.eval().features

    def f(left: Tensor, right: Tensor) -> float:
        return base.relation(torch.cat([h(left[None]), h(right[None])], dim=1)).item()

    expected = [sum(f(a[k], item) + f(item, u[k]) for k in range(3)) / 3 for item in x]
    assert base.score(x).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_deepsad_is_its_formula() -> None:
    x, anomalous = batch()
    base = base_of("deepsad")
    base.start(x)
    outputs = base.net.eval()(x)
    mean = outputs.mean(0).tolist()
    center = [m if abs(m) >= 0.1 else math.copysign(0.1, m) for m in mean]
    assert base.center.tolist() == pytest.approx(center, rel=1e-5)
    distance = [sum((o.item() - c) ** 2 for o, c in zip(row, center, strict=True)) for row in outputs]
    expected = [1 / (d + 1e-6) if a else d for d, a in zip(distance, anomalous.tolist(), strict=True)]
    assert base.losses(x, anomalous).tolist() == pytest.approx(expected, rel=1e-4)
    assert base.score(x).tolist() == pytest.approx(distance, rel=1e-4)


def test_feawad_is_its_formula() -> None:
    x, anomalous = batch()
    base = base_of("feawad").eval()
    expected, norms = [], []
    for item, anomaly in zip(x, anomalous.tolist(), strict=True):
        code = base.encoder(item)
        residual = item - base.decoder(code)
        r = math.sqrt(sum(v.item() ** 2 for v in residual))
        f = base.head(torch.cat([residual / r, code, torch.tensor([r])])[None]).item()
        expected.append(max(0, 5 - f) + max(0, 5 - r) if anomaly else abs(f) + r)
        norms.append(r)
    assert base.losses(x, anomalous).tolist() == pytest.approx(expected, rel=1e-4)
    assert max(norms) > 2 * min(norms)  # of a residual that is normalised first, the norm would be a constant


def test_a_pair_is_normal_when_neither_is_known() -> None:
    anomalous = torch.tensor([False, False, True, False, True, True])  # pairs: (u, u), (u, a), (a, a)
    assert normal_terms(anomalous, 2).tolist() == [True, False, False]
    assert normal_terms(anomalous, 1).tolist() == (~anomalous).tolist()


@pytest.mark.parametrize("name", BASES)
def test_no_gradient_from_the_normal_loss(name: str) -> None:
    """The loss of normal terms may be anything: neither the loss nor any gradient knows of it."""
    x, anomalous = batch()
    base = base_of(name)
    if name == "deepsad":
        base.start(x)
    terms = base.losses
    weights = [p for p in base.parameters() if p.requires_grad]
    found = []
    for factor in (1.0, 1e6, -1e30):
        base.losses = lambda x, a, factor=factor: torch.where(
            normal_terms(a, base.items_per_term), factor * terms(x, a), terms(x, a)
        )
        loss = supervised_loss(base, x, anomalous, "anomaly-only")
        found.append([loss, *torch.autograd.grad(loss, weights, allow_unused=True)])
    for other in found[1:]:
        for ours, theirs in zip(found[0], other, strict=True):
            assert (ours is None) == (theirs is None)
            assert ours is None or torch.equal(ours, theirs)
    base.losses = terms
    full = supervised_loss(base, x, anomalous, "full")
    assert full is not None
    assert not torch.isclose(full, found[0][0])  # there was something to drop


@pytest.mark.parametrize("name", ["devnet", "deepsad", "feawad"])
def test_normal_items_act_through_batch_normalisation_alone(name: str) -> None:
    """Other normal items: without BN the same gradient to the bit, with BN another one, and other running statistics."""
    x, anomalous = batch()
    other = torch.where(anomalous[:, None], x, batch(2)[0] * 3)
    for norm in (True, False):
        gradients, statistics = [], []
        for items in (x, other):
            base = base_of(name, norm=norm)
            if name == "deepsad":
                base.start(x)
            base.train()
            loss = supervised_loss(base, items, anomalous, "anomaly-only")
            loss.backward()
            gradients.append([p.grad for p in base.parameters() if p.grad is not None])
            statistics += [m.running_mean.clone() for m in base.modules() if isinstance(m, nn.BatchNorm1d)]
        same = all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
        assert same is not norm
        assert bool(statistics) is norm
        assert not norm or not torch.equal(statistics[0], statistics[len(statistics) // 2])


def test_prenet_drops_the_pairs_without_an_anomaly() -> None:
    """An unlabelled item that meets no anomaly gets no gradient without BN, and one through BN."""
    x, anomalous = batch()
    alone = normal_terms(anomalous, 2)
    for norm in (False, True):
        base = base_of("prenet", norm=norm)
        leaf = x.clone().requires_grad_(True)
        supervised_loss(base, leaf, anomalous, "anomaly-only").backward()
        assert bool((leaf.grad[:HALF][alone] == 0).all()) is not norm


@pytest.mark.parametrize("name", BASES)
def test_scores_rest_on_running_statistics(name: str) -> None:
    x, anomalous = batch()
    base = base_of(name)
    if name == "prenet":
        base.finish(x[:30].repeat(2, 1)[:30], x[:30].repeat(2, 1)[:30])
    base.train().losses(x, anomalous)
    base.eval()
    together, apart = base.score(x), torch.cat([base.score(item[None]) for item in x])
    assert torch.allclose(together, apart, atol=1e-4)


@pytest.mark.parametrize("name", BASES)
def test_a_batch_without_known_anomalies_takes_no_step(name: str) -> None:
    x, _ = batch()
    base = base_of(name)
    nobody = torch.zeros(len(x), dtype=torch.bool)
    assert supervised_loss(base, x, nobody, "anomaly-only") is None
    assert supervised_loss(base, x, nobody, "full") is not None


def test_running_statistics_of_few_steps_are_those_of_the_data(tmp_path: Path) -> None:
    """From 0 and 1 fifty steps would leave a variance of a hundredth half as large again: then p-values are off."""
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(0.5 + 0.05 * rng.normal(size=(100, 8))).float()
    labels = np.full(100, -1, dtype=np.int8)
    labels[:4] = 1
    options = AnoOnlyOptions().for_data("table")
    torch.manual_seed(0)
    base = make_base(8, options)
    trainer = Trainer(torch.device("cpu"), 0, 0.1, Checkpoints(tmp_path, {}, False), Reporter())
    train_base(base, base, lambda x: x, RowBatches(rows, labels), options, trainer, "train")
    first, norm = base.net[0], base.net[1]
    assert isinstance(norm, nn.BatchNorm1d)
    with torch.no_grad():
        assert torch.allclose(norm.running_var, first(rows).var(0), rtol=0.1)
        assert torch.allclose(norm.running_mean, first(rows).mean(0), atol=0.02)
