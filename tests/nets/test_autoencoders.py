"""Autoencoders keep the shape, learn, and export with a batch of any size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from anoaudit.model.session import Session
from anoaudit.nets.autoencoders import ConvAutoencoder, MLPAutoencoder, Tiled, TimmAutoencoder
from anoaudit.nets.backbones import TimmBackbone
from anoaudit.training.export import export


class Scored(nn.Module):
    """A network as a detector, so that it can be exported: the mean error and its map."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        error = (x - self.net(x)).abs().flatten(1)
        return error.mean(1), error[:, None]


def timm_encoder(height: int, width: int, frozen: bool = True) -> TimmAutoencoder:
    import timm

    net = timm.create_model("mobilenetv2_035", num_classes=0, pretrained=False)
    backbone = TimmBackbone(net, height, width, [0.5] * 3, [0.25] * 3, [16])
    return TimmAutoencoder(backbone, height, width, 4, 4, 8, frozen)


NETS = {
    "plain": lambda: (ConvAutoencoder(32, 32, 4, 4, 8), (3, 32, 32)),
    "any size": lambda: (ConvAutoencoder(37, 50, 4, 3, 8), (3, 37, 50)),
    "tiled": lambda: (Tiled(ConvAutoencoder(16, 16, 4, 2, 8), 16), (3, 32, 48)),
    "timm": lambda: (timm_encoder(32, 48), (3, 32, 48)),
    "rows": lambda: (MLPAutoencoder(5, [], [8, 2, 8]), (5,)),
    "categories": lambda: (MLPAutoencoder(2, [3, 4], [8, 2, 8]), (9,)),
}


@pytest.mark.parametrize("name", NETS)
def test_shape_range_and_export(name: str) -> None:
    torch.manual_seed(0)
    net, shape = NETS[name]()
    net.eval()
    x = torch.rand(5, *shape)
    with torch.no_grad():
        y = net(x)
        expected = Scored(net)(x)[0].numpy()
    assert y.shape == x.shape
    assert 0 < float(y.min()) <= float(y.max()) < 1
    session = Session(export(Scored(net), x[:2], ("score", "map")), device="cpu")
    for size in (1, 2, 5):
        assert session.run(x[:size].numpy())[0] == pytest.approx(expected[:size], abs=1e-5)


def test_published_filters() -> None:
    net = ConvAutoencoder(64, 64, width=64)
    assert [conv.out_channels for conv in net.convs] == [64, 128, 256, 512]
    assert [conv.out_channels for conv in net.decoder.convs] == [256, 128, 64, 3]


def test_a_tile_is_seen_by_itself() -> None:
    net = Tiled(ConvAutoencoder(16, 16, 4, 2, 8), 16).eval()
    x = torch.rand(2, 3, 32, 48)
    y = net(x)
    assert torch.allclose(y[:, :, 16:, 32:], net.net(x[:, :, 16:, 32:]), atol=1e-6)
    assert torch.equal(net.tiles(x)[5], x[0, :, 16:, 32:])
    other = x.clone()
    other[:, :, :16, :16] = 0
    assert torch.equal(net(other)[:, :, :, 16:], y[:, :, :, 16:])


def test_categories_come_back_as_shares() -> None:
    y = MLPAutoencoder(2, [3, 4], [8, 2, 8])(torch.rand(6, 9))
    assert torch.allclose(y[:, 2:5].sum(1), torch.ones(6))
    assert torch.allclose(y[:, 5:].sum(1), torch.ones(6))


def test_a_frozen_encoder_stays_as_it_is() -> None:
    net = timm_encoder(32, 32)
    before = {key: value.clone() for key, value in net.net.state_dict().items()}
    step(net, torch.rand(4, 3, 32, 32))
    assert all(torch.equal(value, before[key]) for key, value in net.net.state_dict().items())
    trained = timm_encoder(32, 32, frozen=False)
    before = {key: value.clone() for key, value in trained.net.state_dict().items()}
    step(trained, torch.rand(4, 3, 32, 32))
    assert any(not torch.equal(value, before[key]) for key, value in trained.net.state_dict().items())


def step(net: nn.Module, x: torch.Tensor) -> None:
    net.train()
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 1e-2)
    (net(x) - x).square().mean().backward()
    optimizer.step()


def test_it_learns_to_reconstruct() -> None:
    torch.manual_seed(0)
    waves = np.sin(np.arange(16) / 2 + np.linspace(0, 3, 8)[:, None])
    x = torch.from_numpy(0.5 + 0.4 * np.repeat(waves[:, None, None], 16, axis=2)).float().repeat(1, 3, 1, 1)
    net = ConvAutoencoder(16, 16, 8, 2, 4)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    first = (net(x) - x).abs().mean().item()
    for _ in range(100):
        optimizer.zero_grad()
        (net(x) - x).abs().mean().backward()
        optimizer.step()
    assert (net(x) - x).abs().mean().item() < 0.3 * first
