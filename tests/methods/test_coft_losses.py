"""The three terms of COFT-AD against values by hand and by loops; views, negatives, the Gaussian, the guard."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.covariance import ledoit_wolf as sklearn_ledoit_wolf
from torch import nn

from anoaudit.methods.coft.collapse import Watch, effective_rank, variances
from anoaudit.methods.coft.gaussian import ShrunkGaussian, ledoit_wolf, left_out
from anoaudit.methods.coft.losses import contrastive, cross_instance, repelled
from anoaudit.methods.coft.negatives import cutpaste, rotate, synthesise

OWNER = torch.tensor([0, 1, 0, 1])
#: Two images, two views each, in the plane: image 0 at 0° and 60°, image 1 at 90° and 180°.
Z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, math.sqrt(0.75)], [-1.0, 0.0]])


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_contrast_by_hand() -> None:
    """Anchor at 0°: its other view has cosine ½, the other image's views 0 and −1; and so on."""
    t, root = 0.5, math.sqrt(0.75)

    def term(positive: float, *others: float) -> float:
        top = math.exp(positive / t)
        return -math.log(top / (top + sum(math.exp(c / t) for c in others)))

    wanted = (term(0.5, 0, -1) + term(0.5, root, -0.5) + term(0, 0, root) + term(0, -1, -0.5)) / 4
    assert contrastive(Z, OWNER, t).item() == pytest.approx(wanted, rel=1e-5)


def test_contrast_is_nt_xent_with_two_views_and_never_repels_views_of_one_image() -> None:
    z, owner = unit(12, 5), torch.arange(6).repeat(2)
    wanted = []
    for i, j in itertools.permutations(range(12), 2):
        if owner[i] == owner[j]:
            logits = (
                torch.stack([z[i] @ z[k] for k in range(12) if k != i]) / 0.25
            )  # SimCLR's: all but the anchor itself
            wanted.append(torch.logsumexp(logits, 0) - z[i] @ z[j] / 0.25)
    assert contrastive(z, owner, 0.25).item() == pytest.approx(torch.stack(wanted).mean().item(), rel=1e-5)
    # With three views a third one of the same image is nowhere in the denominator: moving it changes its own pairs only.
    one = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    two = torch.tensor([0, 0, 0, 1])
    pair = -math.log(math.exp(4) / (math.exp(4) + 1))
    assert contrastive(one, two, 0.25).item() == pytest.approx(pair, rel=1e-4)


def test_cross_instance_by_hand() -> None:
    cosines = [0.0, -1.0, math.sqrt(0.75), -0.5]  # of view pairs of the two images
    assert cross_instance(Z, OWNER).item() == pytest.approx(1 - sum(cosines) / 4, rel=1e-6)


def test_push_by_hand() -> None:
    negatives = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    cosines = [1, 0, 0, -1, 0.5, -math.sqrt(0.75), -1, 0]
    soft = sum(math.log1p(math.exp(c / 0.25)) for c in cosines) / 8
    assert repelled(Z, negatives, 0.25, "softplus").item() == pytest.approx(soft, rel=1e-5)
    assert repelled(Z, negatives, 0.25, "hinge").item() == pytest.approx(1.5 / 8, rel=1e-6)


def test_one_image_has_no_other_to_compare_with() -> None:
    z = unit(2, 4).requires_grad_()
    loss = contrastive(z, torch.zeros(2), 0.25) + cross_instance(z, torch.zeros(2))
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert torch.isfinite(z.grad).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["cutpaste", "rotate"])
def test_a_negative_differs_from_its_image_and_follows_the_seed(kind: str) -> None:
    images = torch.rand(16, 3, 24, 32, generator=torch.Generator().manual_seed(0))

    def made() -> torch.Tensor:
        torch.manual_seed(3)
        return synthesise(images, kind)  # type: ignore[arg-type]

    out = made()
    assert torch.equal(out, made())
    assert out.shape == images.shape
    assert float(out.min()) >= 0
    assert float(out.max()) <= 1
    assert ((out - images).abs().amax((1, 2, 3)) > 0).all()


def test_cutpaste_changes_one_rectangle_and_takes_it_from_the_image() -> None:
    image = torch.arange(30 * 40.0).reshape(1, 1, 30, 40).expand(64, 3, -1, -1) / 1200
    torch.manual_seed(0)
    changed = (cutpaste(image) - image).abs().amax(1) > 1e-6
    for one in changed:
        rows, columns = torch.nonzero(one.any(1))[:, 0], torch.nonzero(one.any(0))[:, 0]
        if len(rows) == 0:
            continue
        height, width = int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)
        assert 0.01 < height * width / 1200 < 0.2
        assert one[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].float().mean() > 0.9


def test_rotate_turns_by_quarters() -> None:
    image = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(0)).expand(30, -1, -1, -1)
    torch.manual_seed(0)
    turned = rotate(image)
    every = [torch.rot90(image[0], k, (1, 2)) for k in (1, 2, 3)]
    found = {min(range(3), key=lambda k: float((out - every[k]).abs().max())) for out in turned}
    assert found == {0, 1, 2}
    assert all(min(float((out - k).abs().max()) for k in every) < 1e-4 for out in turned)


@pytest.mark.parametrize(("n", "d"), [(12, 30), (400, 6)])
def test_shrinkage_is_ledoit_and_wolfs(n: int, d: int) -> None:
    x = np.random.default_rng(0).normal(size=(n, d)) * np.linspace(0.2, 2, d)
    mean, cov, rho = ledoit_wolf(torch.from_numpy(x))
    wanted, wanted_rho = sklearn_ledoit_wolf(x)
    assert rho == pytest.approx(wanted_rho, rel=1e-6)
    assert np.allclose(cov.numpy(), wanted)
    assert np.allclose(mean.numpy(), x.mean(0))
    gaussian = ShrunkGaussian(d).fit(torch.from_numpy(x))
    new = np.random.default_rng(1).normal(size=(5, d))
    distance = [(row - x.mean(0)) @ np.linalg.solve(wanted, row - x.mean(0)) / d for row in new]
    assert np.allclose(gaussian.score(torch.from_numpy(new).float()).numpy(), distance, rtol=1e-4)


def test_the_odd_one_lies_far_from_the_others() -> None:
    generator = torch.Generator().manual_seed(0)
    plain = F.normalize(1 + 0.1 * torch.randn(5, 20, generator=generator), dim=-1)
    plain[3] = F.normalize(torch.arange(20.0), dim=-1)
    views = F.normalize(plain[:, None] + 0.02 * torch.randn(5, 10, 20, generator=generator), dim=-1)
    distance = left_out(views, plain)
    assert int(distance.argmax()) == 3
    assert distance[3] > 3 * distance[[0, 1, 2, 4]].max()
    assert left_out(views[:1], plain[:1]).isnan().all()


def test_rank_and_variances() -> None:
    assert effective_rank(torch.eye(4)) == pytest.approx(4)
    assert effective_rank(torch.ones(6, 3)) == pytest.approx(1, abs=1e-6)
    x = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    assert variances(x, torch.tensor([5, 5, 7, 7])) == pytest.approx((25.0, 1.0))


@pytest.mark.parametrize("alone", [True, False])
def test_cross_instance_alone_collapses_and_is_caught(alone: bool) -> None:
    """A free embedding of 8 images, descending L_PP: all become one and the watch takes the epoch back; not with L_con."""
    z = nn.Parameter(unit(16, 6))
    owner = torch.arange(8).repeat(2)
    step = torch.optim.SGD([z], lr=1.0)
    watch, stopped = Watch(), None
    for epoch in range(200):
        h = F.normalize(z, dim=-1)
        loss = cross_instance(h, owner) + (0.0 if alone else contrastive(h, owner, 0.25))
        step.zero_grad()
        loss.backward()
        step.step()
        watch.see(h, owner)
        if not watch.accept(epoch):
            stopped = epoch + 1
            break
    assert (stopped is not None) == alone
    assert watch.fallen_in == stopped
    if alone:
        rank = watch.columns()["effective_rank"]
        assert rank[-1] < rank[0]
