"""Images as they are, for networks that are trained from scratch instead of looking through a frozen backbone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from anoaudit.errors import UsageError
from anoaudit.nets.backbones import BackboneOptions, TimmBackbone, cannot_take, create, make_backbone
from anoaudit.nets.wide_resnet import WideResNet
from anoaudit.options import ImageInput


class Pixels(nn.Module):
    """The pixels as "features": uint8[B, H, W, 3] → float32[B, 3, H, W] in [−1, 1].

    `network()` makes the untrained network for them and says how many features it gives; `encoder` is a pretrained one that the
    method's own network shall stand on.
    """

    channels = 3

    def __init__(
        self,
        size: int,
        network: Callable[[], tuple[nn.Module, int]] | None = None,
        encoder: TimmBackbone | None = None,
    ) -> None:
        super().__init__()
        self.height = self.width = size
        self.grid = (size, size)
        self.network, self.encoder = network, encoder

    def forward(self, images: Tensor) -> Tensor:
        """In half precision, as the feature cache has them, they are exact to a sixteenth of a grey level."""
        return images.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def unit_pixels(images: Tensor) -> Tensor:
    """uint8[B, H, W, 3] → float32[B, 3, H, W] in [0, 1]."""
    return images.permute(0, 3, 1, 2).float() / 255.0


class UnitPixels(nn.Module):
    """`unit_pixels` as the first part of a detector."""

    def forward(self, images: Tensor) -> Tensor:
        """Channels first."""
        return unit_pixels(images)


def make_encoder(wanted: ImageInput, asked: BackboneOptions) -> tuple[Pixels, dict[str, Any]]:
    """Pixels for a network that the method makes from scratch, or around a map of the timm network named.

    That sees a tile where there are tiles. And what the manifest says of it. Raises AuditError and UsageError as `make_backbone`
    does.
    """
    size, stride = wanted.size, wanted.encoder
    assert size is not None
    assert stride is not None
    if asked.from_scratch or (asked.name is None and asked.weights is None):
        if asked.weights is not None or asked.arguments:
            raise UsageError("--weights and --backbone-arg are for a named --backbone", "leave them out, or name one")
        return Pixels(size), {"name": "none", "recipe": "autoencoder", "size": [size, size], "channels": 3}
    _refuse_size(wanted, asked)
    side = wanted.tile or size
    made = make_backbone(replace(asked, arguments={**asked.arguments, "size": side}), [stride], wanted=wanted)
    assert made is not None  # None is for the default's weights
    return Pixels(size, encoder=made[0]), made[1]


def make_pixels(wanted: ImageInput, asked: BackboneOptions) -> tuple[Pixels, dict[str, Any]]:
    """Pixels with an untrained Wide ResNet 16-4, or the timm network named; and what the manifest says of it.

    Raises UsageError for weights (nothing is pretrained here), names that timm does not know, and sizes that a network does not
    take.
    """
    size = wanted.size
    assert size is not None
    if asked.weights is not None:
        raise UsageError("this detector trains its network from scratch and takes no --weights", "leave them out")
    facts: dict[str, Any] = {"name": "wide-resnet-16-4", "recipe": "from scratch", "size": [size, size], "channels": 3}
    if asked.name is None or asked.from_scratch:
        if asked.arguments:
            raise UsageError("--backbone-arg is for a named --backbone", "leave it out")
        return Pixels(size, _wide_resnet), facts
    _refuse_size(wanted, asked)
    name, arguments = asked.name, asked.arguments

    def network() -> tuple[nn.Module, int]:
        import timm  # not at the top: tables never pay for it

        net = create(timm, name, arguments)
        return net, int(net.num_features)

    net = network()[0].eval()  # what does not go is said before the data is read
    try:
        with torch.no_grad():
            net(torch.zeros(1, 3, size, size))
    except Exception as error:  # a size that the architecture cannot take shows in many ways
        raise cannot_take(f"backbone {name}", net, size, size, wanted, error) from error
    return Pixels(size, network), facts | {"name": name, "arguments": arguments}


def _refuse_size(wanted: ImageInput, asked: BackboneOptions) -> None:
    if "size" in asked.arguments:
        instead = "" if wanted.tile else f"; --set size={asked.arguments['size']} does what it would"
        raise UsageError("--backbone-arg size: here the side of the images is --set size", f"leave it out{instead}")


def _wide_resnet() -> tuple[nn.Module, int]:
    net = WideResNet()
    return net, net.num_features
