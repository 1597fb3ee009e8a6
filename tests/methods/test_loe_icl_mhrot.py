"""ICL and MHRot against slow, obvious references; the paper's ordering of their views and windows; user's own pairs refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from anoaudit.errors import UsageError
from anoaudit.methods.loe.icl import ICL, window_width
from anoaudit.methods.loe.mhrot import MHRot
from anoaudit.methods.loe.options import LoeOptions
from anoaudit.methods.loe.pairs import loss_pair
from anoaudit.nets.wide_resnet import WideResNet


def unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v)


@pytest.mark.parametrize(("features", "window"), [(6, 2), (12, 5), (3, 2)])
@torch.no_grad()
def test_icl_is_a_softmax_over_windows(features: int, window: int) -> None:
    torch.manual_seed(0)
    pair = ICL(features, window, hidden=8, out=5, temperature=0.2).eval()
    x = torch.randn(4, features)
    normal, anomaly = pair.losses(x)
    count = features - window + 1
    windows = torch.stack([x[:, j : j + window] for j in range(count)], dim=1)
    complements = torch.stack([torch.cat([x[:, :j], x[:, j + window :]], dim=1) for j in range(count)], dim=1)
    f, g = pair.complement_encoder(complements).numpy(), pair.window_encoder(windows).numpy()
    for b in range(4):
        p = []
        for j in range(count):
            h = [math.exp(float(unit(f[b, j]) @ unit(g[b, i])) / 0.2) for i in range(count)]
            p.append(h[j] / sum(h))
        assert float(normal[b]) == pytest.approx(-np.mean(np.log(p)), rel=1e-4)
        assert float(anomaly[b]) == pytest.approx(-np.mean(np.log1p(-np.array(p))), rel=1e-4)
    torch.testing.assert_close(pair.score(x), normal)


def test_icl_stays_finite_where_it_is_sure() -> None:
    torch.manual_seed(0)
    pair = ICL(5)
    x = torch.randn(8, 5) * 100
    optimizer = torch.optim.Adam(pair.parameters(), lr=1e-2)
    for _ in range(60):
        normal, anomaly = pair.losses(x)
        loss = normal[:4].mean() + anomaly[4:].mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in pair.parameters() if p.grad is not None)
        optimizer.step()


@pytest.mark.parametrize(
    ("features", "width"),
    [(6, 2), (40, 2), (41, 10), (160, 10), (161, 11), (240, 90), (241, 41), (480, 280), (481, 81)],
)
def test_the_window_follows_the_authors_rule(features: int, width: int) -> None:
    assert window_width(features) == width


@pytest.mark.parametrize(("features", "window"), [(1, None), (2, None), (4, 4), (4, 9)])
def test_icl_needs_two_windows(features: int, window: int | None) -> None:
    with pytest.raises(UsageError, match="windows of"):
        ICL(features, window)


class Mean(nn.Module):
    """Coarse colours: enough for heads to tell views apart."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


def test_mhrots_views_are_shifts_and_quarter_turns() -> None:
    pair = MHRot(Mean(), 12, 8)
    x = torch.randn(2, 3, 8, 8)
    views = pair.views(x)
    assert views.shape == (2, 36, 3, 8, 8)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect")
    for view, (across, down, quarters) in zip(views.transpose(0, 1), pair.targets.tolist(), strict=True):
        dx, dy = (0, -2, 2)[across], (0, -2, 2)[down]
        moved = padded[:, :, 2 + dy : 10 + dy, 2 + dx : 10 + dx]
        np.testing.assert_allclose(view.numpy(), np.rot90(moved, quarters, (2, 3)))
    assert len({tuple(t) for t in pair.targets.tolist()}) == 36


@torch.no_grad()
def test_mhrots_losses_are_cross_entropies() -> None:
    torch.manual_seed(1)
    pair = MHRot(Mean(), 12, 8).eval()
    x = torch.randn(3, 3, 8, 8)
    normal, anomaly = pair.losses(x)
    h = pair.net(pair.views(x).flatten(0, 1)).reshape(3, 36, -1)
    for b in range(3):
        true, uniform = [], []
        for v, targets in enumerate(pair.targets.tolist()):
            for head, target in zip(pair.heads, targets, strict=True):
                log_p = torch.log_softmax(head(h[b, v]), dim=0)
                true.append(-float(log_p[target]))
                uniform.append(-float(log_p.mean()))
        assert float(normal[b]) == pytest.approx(np.mean(true), rel=1e-4)
        assert float(anomaly[b]) == pytest.approx(np.mean(uniform), rel=1e-4)
    cached = x.flatten(2).transpose(1, 2)  # [B, H·W, 3], as the feature cache holds it
    torch.testing.assert_close(pair.losses(cached), pair.losses(x))


def test_wide_resnet_has_the_published_size() -> None:
    net = WideResNet()
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 256)
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(2.75e6, rel=0.01)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("torch.nn:Identity", "it has no losses()"),
        ("no_such:Thing", "No module named"),
        ("json:Nothing", "no attribute"),
    ],
)
def test_pairs_of_ones_own_are_checked(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("(", r"\(").replace(")", r"\)")):
        loss_pair(4, LoeOptions(detector=name).for_data("table"))


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [({"detector": "ntll"}, "table", "no such loss pair"), ({"detector": "mhrot"}, "table", "this is a table"),
     ({"recipe": "paper", "detector": "deep-svdd"}, "table", "no configuration"),
     ({"recipe": "paper-thyroid"}, "images", "no configuration"), ({"scaling": "location"}, "table", "for images"),
     ({"scaling": "robust"}, "images", "for tables"), ({"detector": "mhrot", "features": "pooled"}, "images", "no pooled"),
     ({"epochs": 5}, "table", "epochs: detector=ensemble on a table does not heed it"),
     ({"recipe": "paper", "top": 0.5}, "images", "top: detector=ntl on pooled features does not heed it"),
     ({"detector": "ensemble"}, "images", "gives images no map"),
     ({"detector": "gaussian", "members": ("forest",)}, "table", "members: detector=gaussian"),
     ({"detector": "icl", "transforms": 5}, "images", "transforms: detector=icl on images"),
     ({"detector": "ntl", "top": 0.5}, "table", "top: detector=ntl on a table"),
     ({"features": "pooled", "strides": (4,)}, "images", "strides: detector=gaussian on pooled features"),
     ({"features": "pooled", "scaling": "location"}, "images", "no places"),
     ({"detector": "mhrot", "scaling": "none"}, "images", "scaling")],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(options: dict[str, str], kind: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        LoeOptions(**options).for_data(kind)  # type: ignore[arg-type]


def test_a_recipe_fills_in_what_is_not_given() -> None:
    paper = LoeOptions(recipe="paper", lr=0.5).for_data("images")
    assert (paper.detector, paper.features, paper.transforms, paper.transform) == ("ntl", "pooled", 15, "plain")
    assert (paper.lr, paper.batch_size, paper.epochs) == (0.5, 512, 30)
    net = loss_pair(2048, paper)
    assert [tuple(w.shape) for w in net.transforms.weights] == [(15, 2048, 2048), (15, 2048, 2048), (15, 2048, 2048)]
    assert [layer.out_features for layer in net.encoder if isinstance(layer, nn.Linear)] == [512, 256]
    assert len(net.transforms.norms) == 2
    thyroid = LoeOptions(recipe="paper-thyroid").for_data("table")
    assert (thyroid.hidden, thyroid.out, thyroid.transform_hidden, thyroid.scaling, thyroid.patience) == (
        24,
        24,
        24,
        "none",
        100,
    )
    default = LoeOptions().for_data("table")
    assert (default.detector, default.assignment, default.scaling) == ("ensemble", "refine", None)
    assert LoeOptions(detector="ntl").for_data("table").assignment == "soft"
