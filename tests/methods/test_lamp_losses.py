"""LAMP's amplifier and reconstruction errors against slow references."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from anoaudit.data.items import ColumnRule, TableSpec
from anoaudit.methods.lamp.amplifier import LARGEST, amplify, training_loss
from anoaudit.methods.lamp.heads import ImageReconstruction, Reconstruction, RowReconstruction
from anoaudit.methods.lamp.metrics import C1, C2, GMS_C, SIGMA, TINY, Metric
from anoaudit.methods.lamp.options import PIXELS, LampOptions
from anoaudit.nets.autoencoders import ConvAutoencoder, Tiled
from anoaudit.nets.table_input import TableInput


def pictures(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_the_amplifier_is_the_formula() -> None:
    ell = torch.tensor([0.0, 0.0025, 0.05, 0.5, 0.999])
    assert amplify(ell, "log").tolist() == pytest.approx([-math.log(1 - v) for v in ell.tolist()], rel=1e-4)
    assert amplify(ell, "odds").tolist() == pytest.approx([v / (1 - v) for v in ell.tolist()], rel=1e-4, abs=1e-7)
    assert torch.equal(amplify(ell, "none"), ell)


@pytest.mark.parametrize(("kind", "power"), [("none", 0), ("log", 1), ("odds", 2)])
@pytest.mark.parametrize("ell", [0.0, 0.0025, 0.04, 0.5, 0.99])
def test_small_errors_are_hardly_amplified_and_large_ones_are(kind, power, ell) -> None:
    error = torch.tensor([ell], requires_grad=True)
    amplify(error, kind).sum().backward()
    assert error.grad is not None
    assert float(error.grad) == pytest.approx((1 - ell) ** -power, rel=1e-4)


@pytest.mark.parametrize("kind", ["log", "odds"])
def test_errors_near_nothing_are_not_lost(kind) -> None:
    for ell in (1e-9, 3e-7, 1e-5):
        assert float(amplify(torch.tensor([ell]), kind)) == pytest.approx(ell, rel=2e-5)


@pytest.mark.parametrize("kind", ["log", "odds"])
def test_an_error_of_one_is_finite_in_every_precision(kind) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        error = torch.tensor([1.0, 0.9999, 1.5], dtype=dtype, requires_grad=True)
        loss = amplify(error, kind)
        assert loss.dtype == torch.float32
        loss.sum().backward()
        assert torch.isfinite(loss).all()
        assert error.grad is not None
        assert torch.isfinite(error.grad.float()).all()
    assert np.float32(1) - np.float32(LARGEST) > 0  # 1 - 1e-12 would be 1


def test_bfloat16_autocast_does_not_reach_the_logarithm() -> None:
    net = torch.nn.Conv2d(3, 3, 3, padding=1)
    x = pictures(0, 2, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = torch.sigmoid(200 * net(x))  # saturated: errors of exactly 1
        assert y.dtype == torch.bfloat16
        error = Metric("l1+dssim")((x > 0.5).float(), y)
        loss = training_loss(error, "log")
    assert error.dtype == loss.dtype == torch.float32
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    in_float = training_loss(Metric("l1+dssim")((x > 0.5).float(), y.float()), "log")
    assert float(loss.detach()) == pytest.approx(float(in_float.detach()), rel=1e-6)


def test_the_level_says_what_is_averaged_first() -> None:
    error = pictures(1, 3, 3, 4, 4) * 0.9
    rows = error.flatten(1).double().numpy()
    assert float(training_loss(error, "log", "element")) == pytest.approx(-np.log1p(-rows).mean(), rel=1e-5)
    assert float(training_loss(error, "log", "sample")) == pytest.approx(-np.log1p(-rows.mean(1)).mean(), rel=1e-5)
    assert float(training_loss(error, "log", "batch")) == pytest.approx(-np.log1p(-rows.mean()), rel=1e-5)
    assert len({round(float(training_loss(error, "none", level)), 5) for level in ("element", "sample", "batch")}) == 1


def test_l1_and_l2_and_their_mean() -> None:
    x, y = pictures(2, 2, 3, 5, 5), pictures(3, 2, 3, 5, 5)
    assert torch.equal(Metric("l1")(x, y), (x - y).abs())
    assert torch.equal(Metric("l2")(x, y), (x - y) ** 2)
    assert torch.allclose(Metric("l1+l2")(x, y), ((x - y).abs() + (x - y) ** 2) / 2)
    assert Metric("l1")(x[:, 0, 0], y[:, 0, 0]).shape == (2, 5)


def slow_dssim(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(1 − SSIM)/2 of two greys, place by place."""
    weights = np.array([math.exp(-(k**2) / (2 * SIGMA**2)) for k in range(-5, 6)])
    weights = np.outer(weights, weights)
    weights /= weights.sum()
    a, b = (np.pad(v, 5, mode="reflect") for v in (x, y))
    out = np.empty(x.shape)
    for i, j in itertools.product(*map(range, x.shape)):
        p, q = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
        mp, mq = (weights * p).sum(), (weights * q).sum()
        vp, vq = (weights * (p - mp) ** 2).sum(), (weights * (q - mq) ** 2).sum()
        cov = (weights * (p - mp) * (q - mq)).sum()
        out[i, j] = 0.5 - 0.5 * (2 * mp * mq + C1) * (2 * cov + C2) / ((mp**2 + mq**2 + C1) * (vp + vq + C2))
    return out


def test_dssim_is_the_formula() -> None:
    x, y = pictures(4, 2, 3, 14, 12), pictures(5, 2, 3, 14, 12)
    y[:, 1] = 0.8 * x[:, 1] + 0.1  # alike but not the same
    found = Metric("dssim")(x, y).numpy()
    for b, c in itertools.product(range(2), range(3)):
        expected = slow_dssim(x[b, c].double().numpy(), y[b, c].double().numpy())
        assert found[b, c] == pytest.approx(expected, abs=2e-5)


def slow_gms(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    def magnitude(v: np.ndarray) -> np.ndarray:
        p = np.pad(v, 1, mode="edge")
        out = np.empty(v.shape)
        for i, j in itertools.product(*map(range, v.shape)):
            w = p[i : i + 3, j : j + 3]
            across, down = (w[:, 0] - w[:, 2]).sum() / 3, (w[0] - w[2]).sum() / 3
            out[i, j] = math.sqrt(across**2 + down**2 + TINY)
        return out

    a, b = magnitude(x), magnitude(y)
    return 1 - (2 * a * b + GMS_C) / (a**2 + b**2 + GMS_C)


def test_msgms_is_the_mean_over_scales() -> None:
    x, y = pictures(6, 1, 3, 8, 8), pictures(7, 1, 3, 8, 8)
    greys = [v[0].double().mean(0).numpy() for v in (x, y)]
    halves = [v.reshape(4, 2, 4, 2).mean((1, 3)) for v in greys]
    coarse = torch.nn.functional.interpolate(
        torch.from_numpy(slow_gms(*halves))[None, None], size=(8, 8), mode="bilinear", align_corners=False
    )[0, 0]
    found = Metric("msgms")(x, y)
    assert found.shape == (1, 1, 8, 8)
    assert found[0, 0].numpy() == pytest.approx((slow_gms(*greys) + coarse.numpy()) / 2, abs=1e-5)


@pytest.mark.parametrize("name", ["l1", "l2", "dssim", "msgms", "l1+dssim", "l2+msgms+dssim"])
def test_errors_lie_between_nothing_and_one(name) -> None:
    metric = Metric(name)
    x = pictures(8, 2, 3, 16, 16)
    black, white = torch.zeros_like(x), torch.ones_like(x)
    assert float(metric(x, x).max()) < 1e-6
    for a, b in ((x, 1 - x), (black, white), (x, black), (x, pictures(9, 2, 3, 16, 16))):
        error = metric(a, b)
        assert 0 <= float(error.min()) <= float(error.max()) <= 1
        b.requires_grad_().grad = None
        training_loss(metric(a, b), "log").backward()
        assert b.grad is not None
        assert torch.isfinite(b.grad).all()
        b.requires_grad_(False)


def test_a_metric_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="ssim"):
        Metric("l1+ssim")


def test_loe_trains_the_error_and_its_inverse_in_units_of_the_datas_spread() -> None:
    head = ImageReconstruction(ConvAutoencoder(16, 16, 4, 2, 4), "l2", 0.01)
    x = pictures(10, 6, 3, 16, 16)
    head.start(x)
    normal, anomaly = head.losses(x)
    spread = ((x - x.mean(0)) ** 2).mean()
    assert torch.allclose(normal, (x - head.net(x)).square().mean((1, 2, 3)) / spread, rtol=1e-4)
    assert torch.allclose(anomaly, 1 / (normal + 0.1))
    assert float(head.unit) == pytest.approx(float(spread))


def test_loe_takes_rows_in_units_of_their_columns_errors() -> None:
    """Against the mean row a number's error is its variance, a category's half the sum of its levels' variances."""
    rng = np.random.default_rng(0)
    rows = np.stack([rng.uniform(0, 1, 200), rng.integers(0, 3, 200).astype(float)], axis=1)
    rules = (ColumnRule("a", "numeric"), ColumnRule("b", "categorical", ("x", "y", "z")))
    spec = TableSpec(rules)
    inlet = TableInput(spec, rows, "interval")
    head = RowReconstruction(spec, inlet, LampOptions().for_data("table"))
    features = inlet(torch.from_numpy(rows))
    head.start(features)
    variance = features.var(0, correction=0)
    assert float(head.unit) == pytest.approx(float((variance[0] + variance[1:].sum() / 2) / 2), rel=1e-4)
    assert torch.allclose(head.losses(features)[0], head.errors(features).mean(1) / head.unit)


def test_the_score_is_the_mean_of_the_worst_share() -> None:
    errors = torch.tensor([[0.1, 0.4, 0.2, 0.3]])
    for top, mean in ((1.0, 0.25), (0.5, 0.35), (0.0, 0.4)):
        assert float(Reconstruction(torch.nn.Identity(), "l1", top).worst(errors)) == pytest.approx(mean)


def test_the_map_is_the_error_of_a_window() -> None:
    x = pictures(11, 2, 3, 12, 12)
    torch.manual_seed(0)
    net = ConvAutoencoder(12, 12, 4, 2, 4)
    bare = ImageReconstruction(net, "l1", 1.0).score_and_map(x)[1].detach()
    smooth = ImageReconstruction(net, "l1", 1.0, 3).score_and_map(x)[1].detach()
    assert torch.allclose(smooth[:, 5, 7], bare[:, 4:7, 6:9].mean((1, 2)))
    assert torch.allclose(smooth[:, 0, 0], bare[:, :2, :2].mean((1, 2)))  # at the border what there is of it


@pytest.mark.parametrize(
    ("given", "batch"),
    [
        ({}, 16), ({"size": 512}, 16), ({"size": 1024}, 4), ({"size": 4096}, 2), ({"size": 1024, "tile": 128}, 16),
        ({"size": 2048, "tile": 1024}, 4), ({"size": 1024, "batch_size": 9}, 9),
    ],
)  # fmt: skip
def test_large_images_are_taken_a_few_at_a_time(given: dict[str, int], batch: int) -> None:
    assert LampOptions(**given).for_data("images").batch_size == batch


def test_large_tiles_are_taken_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    net = Tiled(torch.nn.Identity(), 32)
    head = ImageReconstruction(net, "l2", 0.01)
    monkeypatch.setattr(head.metric, "forward", lambda x, y: seen.append(len(x)) or x)
    for pixels, tiles in ((PIXELS, 64), (9 * 32**2, 9), (32**2, 2)):
        monkeypatch.setattr("anoaudit.methods.lamp.heads.PIXELS", pixels)
        head.training_errors(torch.zeros(2, 3, 192, 192))
        assert seen[-1] == tiles
