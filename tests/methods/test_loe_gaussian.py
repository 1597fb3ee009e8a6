"""The Gaussian's M-step against numpy, and the alternation on planted outliers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from anoaudit.methods.loe.alternate import alternate
from anoaudit.methods.loe.assignment import Assignment
from anoaudit.methods.loe.gaussian import PRIOR_PER_CHANNEL, RIDGE, Gaussian, GaussianMap, GaussianVector
from anoaudit.methods.loe.whole import GaussianImage
from anoaudit.progress import Reporter
from anoaudit.training.loop import Part

CPU = torch.device("cpu")


class Held:
    """Batches in memory."""

    def __init__(self, x: Tensor, labels: Tensor | None = None) -> None:
        self.x = x
        self.labels = torch.full((len(x),), -1, dtype=torch.int8) if labels is None else labels

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        return self.x[indices], self.labels[indices]


def covariances(x_NPC: np.ndarray, w_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [P, C] and shrunk covariance [P, C, C], place by place."""
    _, places, channels = x_NPC.shape
    means, raw = [], []
    for p in range(places):
        mean = np.average(x_NPC[:, p], axis=0, weights=w_N)
        d = x_NPC[:, p] - mean
        means.append(mean)
        raw.append(sum(w * np.outer(v, v) for w, v in zip(w_N, d, strict=True)) / w_N.sum())
    total, shrunk = w_N.sum(), []
    for cov in raw:
        if places > 1:
            target, prior = np.mean(raw, axis=0), PRIOR_PER_CHANNEL * channels
        else:
            target, prior = np.diag(np.diag(cov)), channels
        mixed = (total * cov + prior * target) / (total + prior)
        shrunk.append(mixed + RIDGE * np.mean(np.diag(target)) * np.eye(channels))
    return np.stack(means), np.stack(shrunk)


@pytest.mark.parametrize("places", [1, 3])
@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_m_step_and_distance_against_numpy(places, offset):
    rng = np.random.default_rng(places)
    mix = rng.normal(size=(places, 4, 4))
    x = np.einsum("npc,pdc->npd", rng.normal(size=(70, places, 4)), mix) + offset
    x = x.astype(np.float32).astype(np.float64)
    weights = rng.choice([0.0, 0.5, 1.0], size=70, p=[0.1, 0.2, 0.7])
    gaussian = Gaussian(4, places)
    held = torch.from_numpy(x).float()
    gaussian.m_step(Held(held if places > 1 else held[:, 0]), torch.from_numpy(weights), CPU)
    means, shrunk = covariances(x, weights)
    assert np.allclose(gaussian.mean.numpy(), means, rtol=1e-5, atol=1e-4)
    precision = (gaussian.whiten.transpose(1, 2) @ gaussian.whiten).double().numpy()
    assert np.allclose(precision, np.linalg.inv(shrunk), rtol=1e-3, atol=1e-4)
    found = gaussian.distance(held).numpy()
    for n in (0, 13, 69):
        for p in range(places):
            d = x[n, p] - means[p]
            assert found[n, p] == pytest.approx(d @ np.linalg.inv(shrunk[p]) @ d / 4, rel=2e-3, abs=1e-3)


def test_a_constant_channel_and_equal_channels_do_not_break_it():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    x[:, 1], x[:, 2] = 5.0, x[:, 0]
    gaussian = Gaussian(3)
    gaussian.m_step(Held(x), torch.ones(50), CPU)
    assert torch.isfinite(gaussian.distance(x[:, None])).all()
    gaussian.m_step(Held(torch.ones(50, 3)), torch.ones(50), CPU)
    assert torch.isfinite(gaussian.distance(x[:, None])).all()


@pytest.fixture
def planted() -> tuple[Tensor, Tensor]:
    """180 rows on a line in the plane, 20 in a cluster off it that stretches the covariance."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 3, generator=generator) * torch.tensor([3.0, 0.3, 1.0])
    truth = torch.zeros(200, dtype=torch.int8)
    truth[::10] = 1
    x[::10] = torch.randn(20, 3, generator=generator) * 0.2 + torch.tensor([0.0, 4.0, 2.0])
    return x, truth


@pytest.mark.parametrize("kind", ["refine", "hard"])
def test_the_alternation_drops_planted_outliers(planted, kind):
    x, truth = planted
    head = GaussianVector(3)
    history, last = alternate(head, Held(x), Assignment(kind, 0.1, warmup=0), 20, CPU, Reporter())
    assert 1 < len(history) < 20  # it settles
    score = head.score(x)
    assert torch.equal(score, last)
    assert score[truth == 1].min() > score[truth == 0].max()
    clean = GaussianVector(3)
    clean.gaussian.m_step(Held(x), (truth == 0).float(), CPU)
    assert torch.allclose(head.gaussian.mean, clean.gaussian.mean, atol=1e-5)


def test_soft_gives_half_a_weight_and_gt_takes_the_labels(planted):
    x, truth = planted
    soft, gt, blind, wanted = (GaussianVector(3) for _ in range(4))
    alternate(soft, Held(x), Assignment("soft", 0.1, warmup=0), 2, CPU, Reporter())
    wanted.gaussian.m_step(Held(x), torch.ones(200), CPU)
    weights = torch.ones(200)
    weights[wanted.score(x).topk(20).indices] = 0.5
    wanted.gaussian.m_step(Held(x), weights, CPU)
    assert torch.equal(soft.gaussian.whiten, wanted.gaussian.whiten)
    alternate(gt, Held(x, truth), Assignment("gt", 0.1, warmup=0), 20, CPU, Reporter())
    wanted.gaussian.m_step(Held(x), (truth == 0).float(), CPU)
    assert torch.allclose(gt.gaussian.whiten, wanted.gaussian.whiten)
    alternate(blind, Held(x), Assignment("blind", 0.1, warmup=0), 20, CPU, Reporter())
    wanted.gaussian.m_step(Held(x), torch.ones(200), CPU)
    assert torch.allclose(blind.gaussian.whiten, wanted.gaussian.whiten)


def test_fewer_items_than_one_over_alpha_flag_none(planted):
    x, _ = planted
    head, blind = GaussianVector(3), GaussianVector(3)
    alternate(head, Held(x[:40]), Assignment("hard", 0.01, warmup=0), 20, CPU, Reporter())
    blind.gaussian.m_step(Held(x[:40]), torch.ones(40), CPU)
    assert torch.equal(head.gaussian.whiten, blind.gaussian.whiten)


def test_the_map_is_of_the_kept_channels_at_their_places():
    torch.manual_seed(0)
    features = torch.randn(30, 6, 4, 5)
    kept = torch.tensor([1, 4, 5])
    head = GaussianMap(kept, (4, 5), 0.1)
    flat = features[:, kept].flatten(2).transpose(1, 2)
    head.gaussian.m_step(Held(flat), torch.ones(30), CPU)
    score, heat = head.score_and_map(features)
    for b, i, j in [(0, 0, 0), (3, 2, 4), (29, 3, 1)]:
        d = (features[b, kept, i, j] - head.gaussian.mean[i * 5 + j]).double()
        w = head.gaussian.whiten[i * 5 + j].double()
        assert float(heat[b, i, j]) == pytest.approx(float((w @ d).square().sum()) / 3, rel=1e-4)
    assert score.tolist() == pytest.approx([sum(sorted(h.flatten().tolist())[-2:]) / 2 for h in heat], rel=1e-5)
    assert torch.allclose(head.score(flat), score)


@pytest.fixture
def pictures():
    """60 maps and vectors, 6 of them anomalous: 3 at a place, 3 as a whole; and which."""
    generator = torch.Generator().manual_seed(2)
    maps, vectors = (torch.randn(60, *shape, generator=generator) for shape in ((3, 4, 5), (24,)))
    for k in range(3):
        maps[k, :, k, 2] += 12.0
    vectors[3:6] = vectors[3:6] * 5.0 + 300.0  # the vectors' own scale must not matter
    vectors[6:] += 300.0
    vectors[:3] += 300.0
    held = Held(maps.flatten(2).transpose(1, 2))
    held.vectors, held.alignment = vectors, 0.4
    return maps, vectors, held


def test_an_image_is_found_by_a_place_or_as_a_whole(pictures):
    maps, vectors, held = pictures
    head = GaussianImage(torch.arange(3), (4, 5), 0.05, 24)
    alternate(head, held, Assignment("refine", 0.1, warmup=0), 10, CPU, Reporter())
    score, heat = head.score_and_map_of(maps, vectors)
    assert set(score.topk(6).indices.tolist()) == set(range(6))
    assert int(heat[1].argmax()) == 1 * 5 + 2
    assert heat[4].max() < heat[0].max() / 2  # the map shows places alone
    places, _ = GaussianMap.score_and_map(head, maps)
    assert torch.allclose(score, places**0.4 * head.whole_distance(vectors) ** 0.6)
    standard = (vectors - vectors.mean(0)) / vectors.std(0)
    near = head.nearest.score(standard)
    whole = (head.whole.distance(standard[:, None])[:, 0].double() * (near / near.median()).square()).sqrt()
    assert torch.allclose(head.whole_distance(vectors).double(), whole, rtol=1e-3)
    assert torch.allclose(score, head.scores(held, CPU), rtol=1e-4)
    assert torch.allclose(score[:2], head.score_and_map_of(maps[:2], vectors[:2])[0])


def test_a_part_of_the_pictures_has_its_own_vectors(pictures):
    maps, vectors, held = pictures
    head = GaussianImage(torch.arange(3), (4, 5), 0.05, 24)
    rows = torch.arange(6, 60, 2)
    head.m_step(Part(held, rows), torch.ones(len(rows)), CPU)
    assert torch.allclose(head.shift, vectors[rows].mean(0))
    assert torch.allclose(
        head.scores(Part(held, rows), CPU), head.score_and_map_of(maps[rows], vectors[rows])[0], rtol=1e-4
    )


def test_the_more_alike_the_pictures_lie_the_more_a_place_counts(pictures):
    maps, vectors, held = pictures
    for alignment, worst in ((0.0, range(3, 6)), (1.0, range(3))):
        held.alignment = alignment
        head = GaussianImage(torch.arange(3), (4, 5), 0.05, 24)
        alternate(head, held, Assignment("refine", 0.05, warmup=0), 10, CPU, Reporter())
        assert set(head.score_and_map_of(maps, vectors)[0].topk(3).indices.tolist()) == set(worst)


def test_winsorised_features_end_at_the_limit(planted):
    x, _ = planted
    head, wanted = GaussianVector(3, limit=1.5), GaussianVector(3)
    head.m_step(Held(x), torch.ones(200), CPU)
    wanted.m_step(Held(x.clamp(-1.5, 1.5)), torch.ones(200), CPU)
    assert torch.equal(head.gaussian.whiten, wanted.gaussian.whiten)
    assert torch.equal(head.score(x), wanted.score(x.clamp(-1.5, 1.5)))


def test_a_channel_that_was_dead_in_training_does_not_outshout_the_others(pictures):
    _, vectors, held = pictures
    held.vectors[:, 5] = 0.0
    head = GaussianImage(torch.arange(3), (4, 5), 0.05, 24)
    alternate(head, held, Assignment("refine", 0.1, warmup=0), 10, CPU, Reporter())
    woken = vectors[20:21].clone()
    woken[0, 5] = 0.01
    assert float(head.whole_distance(woken)) < 20 * float(head.whole_distance(vectors[20:21]))
