"""The loss pairs against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from anoaudit.methods.loe.detectors import NTL, DeepSVDD, Spatial
from anoaudit.methods.loe.options import LoeOptions
from anoaudit.nets.mlp import ParallelMLP, bias_free_mlp


def mlp_of(weights, x, slope=0.0):
    """A bias-free perceptron in numpy; weights are [in, out]."""
    for i, w in enumerate(weights):
        if i:
            x = np.where(x > 0, x, slope * x)
        x = x @ w
    return x


def encoder_weights(net):
    return [layer.weight.detach().double().numpy().T for layer in net if isinstance(layer, nn.Linear)]


def ntl_reference(ntl: NTL, x: np.ndarray) -> tuple[list[float], list[float]]:
    encoder = encoder_weights(ntl.encoder)
    views = [[w[k].detach().double().numpy() for w in ntl.transforms.weights] for k in range(ntl.views)]
    unit = lambda v: v / max(np.linalg.norm(v), 1e-12)  # noqa: E731 - rectifiers may leave nothing
    tau, K = ntl.temperature, ntl.views
    normal, anomaly = [], []
    for row in x:
        made = [mlp_of(view, row) + (row if ntl.residual else 0) for view in views]
        z = [unit(mlp_of(encoder, v)) for v in [row, *made]]
        h = lambda a, b, z=z: math.exp(float(z[a] @ z[b]) / tau)  # noqa: E731
        l_n = l_a = 0.0
        for k in range(1, K + 1):
            p = h(k, 0) / (h(k, 0) + sum(h(k, j) for j in range(1, K + 1) if j != k))
            l_n -= math.log(p)
            l_a -= math.log(1 - p)
        normal.append(l_n / (K * math.log(K)))
        anomaly.append(l_a / (K * math.log(K)))
    return normal, anomaly


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize(("views", "temperature"), [(2, 0.1), (5, 0.1), (9, 1.0)])
def test_ntl_is_the_formula(residual, views, temperature):
    torch.manual_seed(views)
    ntl = NTL(views, [6, 7, 6], [6, 8, 8, 4], residual, temperature)
    x = torch.randn(11, 6)
    normal, anomaly = ntl.losses(x)
    wanted_normal, wanted_anomaly = ntl_reference(ntl, x.double().numpy())
    assert normal.tolist() == pytest.approx(wanted_normal, rel=1e-3, abs=1e-5)
    assert anomaly.tolist() == pytest.approx(wanted_anomaly, rel=1e-3, abs=1e-5)
    assert torch.equal(ntl.score(x), normal)


def test_ntl_stays_finite_where_p_saturates():
    """The views equal the original, all others point away: p → 1, ln(1 − p) underflows without log-sum-exp."""
    ntl = NTL(2, [2, 2], [2, 2], residual=False, temperature=1e-3)
    with torch.no_grad():
        ntl.transforms.weights[0].copy_(torch.stack([torch.eye(2), -torch.eye(2)]))
        ntl.encoder[0].weight.copy_(torch.eye(2))
    x = torch.tensor([[1.0, 0.0], [0.0, 0.0]])  # a row of zeros has no direction
    normal, anomaly = ntl.losses(x)
    assert anomaly[0] > 500  # p of the first view is 1 − e^−2000
    (normal.sum() + anomaly.sum()).backward()
    assert torch.isfinite(normal).all()
    assert torch.isfinite(anomaly).all()
    assert all(torch.isfinite(p.grad).all() for p in ntl.parameters())


def test_ntl_learns_what_it_says():
    torch.manual_seed(0)
    ntl = NTL(4, [3, 6, 3], [3, 6, 4], True)
    x = torch.randn(64, 3)
    optimizer = torch.optim.Adam(ntl.parameters(), lr=1e-2)
    first = ntl.losses(x)[0].mean().item()
    for _ in range(30):
        optimizer.zero_grad()
        ntl.losses(x)[0].mean().backward()
        optimizer.step()
    assert ntl.losses(x)[0].mean().item() < 0.7 * first


def test_perceptrons_have_no_bias():
    torch.manual_seed(0)
    assert not any("bias" in name for name, _ in bias_free_mlp([3, 4, 5]).named_parameters())
    many = ParallelMLP(3, [4, 5, 2])
    x = torch.randn(7, 4)
    wanted = np.stack(
        [mlp_of([w[k].detach().double().numpy() for w in many.weights], x.double().numpy()) for k in range(3)], axis=1
    )
    assert np.allclose(many(x).detach().numpy(), wanted, atol=1e-6)
    assert not many(torch.zeros(2, 4)).any()


def test_deep_svdd_is_the_formula():
    torch.manual_seed(3)
    svdd = DeepSVDD([5, 8, 4])
    x = torch.randn(9, 5)
    svdd.start(x)
    outputs = mlp_of(encoder_weights(svdd.encoder), x.double().numpy(), slope=0.01)
    center = []
    for value in outputs.mean(0):
        center.append(value if abs(value) >= 0.1 else 0.1 if value >= 0 else -0.1)
    assert svdd.center.tolist() == pytest.approx(center, abs=1e-5)
    assert (svdd.center.abs() >= 0.1 - 1e-7).all()
    distance = [sum((o - c) ** 2 for o, c in zip(row, center, strict=True)) for row in outputs]
    normal, anomaly = svdd.losses(x)
    assert normal.tolist() == pytest.approx(distance, rel=1e-4)
    assert anomaly.tolist() == pytest.approx([1 / d for d in distance], rel=1e-3)
    assert torch.equal(svdd.score(x), normal)
    assert all(name != "center" for name, _ in svdd.named_parameters())


def test_deep_svdd_on_its_centre_is_finite():
    svdd = DeepSVDD([2, 2])
    with torch.no_grad():
        svdd.encoder[0].weight.copy_(torch.eye(2))
        svdd.center.copy_(torch.tensor([0.5, 0.5]))
    normal, anomaly = svdd.losses(torch.tensor([[0.5, 0.5], [0.5, 0.5001]]))
    anomaly.sum().backward()
    assert normal[0] == 0
    assert torch.isfinite(anomaly).all()
    assert torch.isfinite(svdd.encoder[0].weight.grad).all()


class Fake(nn.Module):
    """L_n and L_a stand in the first two channels."""

    def losses(self, x):
        return x[:, 0], x[:, 1]

    def score(self, x):
        return x[:, 0]

    def start(self, x):
        self.started = x


@pytest.mark.parametrize(("places", "top"), [(10, 0.2), (7, 0.01), (12, 1.0), (128, 0.01), (200, 0.01)])
def test_spatial_pair_is_one_an_image(places, top):
    torch.manual_seed(places)
    x = torch.rand(4, places, 3)
    count = max(1, round(top * places))
    normal, anomaly = Spatial(Fake(), top).losses(x)
    for b in range(4):
        l_n, l_a = x[b, :, 0].tolist(), x[b, :, 1].tolist()
        worst = sorted(range(places), key=lambda i: -(l_n[i] - l_a[i]))[:count]
        assert float(normal[b]) == pytest.approx(sum(l_n) / places, rel=1e-5)
        wanted = sum(l_a[i] if i in worst else l_n[i] for i in range(places)) / places
        assert float(anomaly[b]) == pytest.approx(wanted, rel=1e-5)


def test_spatial_gradients_reach_only_the_places_that_count():
    x = torch.rand(2, 10, 2, requires_grad=True)
    Spatial(Fake(), 0.2).losses(x)[1].sum().backward()
    assert ((x.grad[..., 0] != 0).sum(1) == 8).all()
    assert ((x.grad[..., 1] != 0).sum(1) == 2).all()
    assert torch.allclose(x.grad.sum(dim=(1, 2)), torch.ones(2))


def test_spatial_score_is_the_top_mean_and_the_map_every_place():
    torch.manual_seed(0)
    features = torch.rand(3, 2, 4, 5)
    score, heat = Spatial(Fake(), 0.15).score_and_map(features)
    assert torch.equal(heat, features[:, 0])
    for b in range(3):
        worst = sorted(features[b, 0].flatten().tolist(), reverse=True)[:3]
        assert float(score[b]) == pytest.approx(sum(worst) / 3)


def test_spatial_start_sees_all_places():
    spatial = Spatial(Fake(), 0.1)
    spatial.start(torch.rand(3, 5, 2))
    assert spatial.pair.started.shape == (15, 2)


def test_spatial_map_keeps_places_where_they_are():
    torch.manual_seed(0)
    svdd = DeepSVDD([3, 4, 2])
    features = torch.randn(2, 3, 4, 5)
    svdd.start(features.permute(0, 2, 3, 1).reshape(-1, 3))
    svdd.requires_grad_(False)
    _, heat = Spatial(svdd, 0.1).score_and_map(features)
    for b, i, j in [(0, 0, 0), (1, 2, 4), (0, 3, 1)]:
        assert float(heat[b, i, j]) == pytest.approx(float(svdd.score(features[b, :, i, j][None])), rel=1e-5)


def test_ntl_on_images_has_plain_views_and_the_mean_over_places():
    images, table = (LoeOptions(detector="ntl").for_data(kind) for kind in ("images", "table"))
    assert (images.transform, images.top) == ("plain", 1.0)
    assert table.transform == "residual"
    assert LoeOptions(detector="deep-svdd").for_data("images").top == 0.01
    assert LoeOptions(detector="ntl", transform="residual", top=0.05).for_data("images").top == 0.05
