"""timm CNNs that a method trains itself: maps of several stages, from scratch or from pretrained weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from anoaudit.errors import UsageError
from anoaudit.nets.backbones import BackboneOptions, cannot_take, create, make_backbone, stages_of
from anoaudit.options import ImageInput

#: Residual networks that a CPU can train (our choice): resnet18 with one block a stage and these channels.
SMALL: dict[str, tuple[int, ...]] = {"small": (32, 64, 128, 256), "tiny": (16, 32, 64, 128)}
SMALL_STEM = 64  # at this many pixels a side and less the stem keeps the resolution
SCRATCH = 0.5, 0.25  # mean and standard deviation of pixels in [0, 1]


class Encoder(nn.Module):
    """Pixels in [0, 1], float32[B, 3, H, W] → maps of the chosen stages, finest first: float32[B, C_s, h_s, w_s] each."""

    def __init__(self, net: nn.Module, stages: list[int], height: int, width: int, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.net, self.stages = net, stages
        self.height, self.width = height, width
        self.frozen, self.pretrained = False, False
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        with torch.no_grad():
            maps = self.eval()(torch.zeros(1, 3, height, width))
        self.channels = [int(m.shape[1]) for m in maps]
        self.grids = [(int(m.shape[2]), int(m.shape[3])) for m in maps]

    def freeze(self) -> None:
        """From now on it stays as it is, in eval semantics."""
        self.frozen = True
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Encoder:
        """See `freeze`."""
        super().train(mode and not self.frozen)
        return self

    def forward(self, pixels_BCHW: Tensor) -> list[Tensor]:
        """The maps."""
        x = (pixels_BCHW - self.get_buffer("mean")) / self.get_buffer("std")
        maps: list[Tensor] = self.net.forward_intermediates(  # type: ignore[operator]
            x, indices=self.stages, intermediates_only=True, output_fmt="NCHW"
        )
        return maps


def make_trainable(wanted: ImageInput, asked: BackboneOptions) -> tuple[Encoder, dict[str, Any]]:
    """The encoder and what the manifest says of it: `wanted.network` untrained, or what `--backbone` and `--weights` name.

    Raises AuditError and UsageError as `make_backbone` does.
    """
    if asked.from_scratch or (asked.name is None and asked.weights is None):
        if asked.weights is not None or asked.arguments:
            raise UsageError("--weights and --backbone-arg are for a named --backbone", "leave them out, or name one")
        return _untrained(wanted)
    if wanted.network is not None:
        raise UsageError(
            f"--set encoder={wanted.network} is trained from scratch and takes no --backbone or --weights",
            "leave --backbone and --weights out",
        )
    size = {} if wanted.size is None else {"size": wanted.size}
    if size and asked.arguments.get("size", wanted.size) != wanted.size:
        raise UsageError("--set size and --backbone-arg size are both given, and differ", "leave one of the two out")
    made = make_backbone(replace(asked, arguments={**asked.arguments, **size}), list(wanted.strides), wanted=wanted)
    assert made is not None  # None is for the default's weights
    backbone, facts = made
    assert backbone.stages is not None
    backbone.unfreeze()
    mean, std = (backbone.get_buffer(name) / 255.0 for name in ("mean", "std"))
    if backbone.height <= SMALL_STEM:
        keep_resolution(backbone.net, untrained=False)
    encoder = Encoder(backbone.net, backbone.stages, backbone.height, backbone.width, mean, std)
    encoder.pretrained = True
    return encoder, facts | {"channels": encoder.channels}


def _untrained(wanted: ImageInput) -> tuple[Encoder, dict[str, Any]]:
    import timm  # not at the top: tables never pay for it

    name = wanted.network or "small"
    size = wanted.size or 128
    small = {"channels": SMALL[name], "layers": (1, 1, 1, 1)} if name in SMALL else {}
    net = create(timm, "resnet18" if small else name, small)
    if size <= SMALL_STEM:
        keep_resolution(net, untrained=True)
    mean, std = (torch.full((3, 1, 1), value) for value in SCRATCH)
    try:
        encoder = Encoder(net, stages_of(net, list(wanted.strides), wanted), size, size, mean, std)
    except UsageError:
        raise
    except Exception as error:  # a size that the architecture cannot take shows in many ways
        raise cannot_take(f"encoder {name}", net, size, size, wanted, error) from error
    facts = {
        "name": "none",
        "recipe": f"{name}, trained from scratch",
        "size": [size, size],
        "channels": encoder.channels,
    }
    return encoder, facts


def keep_resolution(net: nn.Module, untrained: bool) -> None:
    """Small images: the stem's first stride becomes 1 and its pooling, where there is one, goes (as is usual at 32 px).

    An untrained 7×7 stem becomes a 3×3 one; a pretrained one keeps its weights. A transformer's patches stay: a patch for every
    pixel would be thousands of tokens.
    """
    if hasattr(net, "patch_embed"):
        return
    name, stem = next((n, m) for n, m in net.named_modules() if isinstance(m, nn.Conv2d))
    if untrained and stem.kernel_size[0] > 3:
        owner, _, last = name.rpartition(".")
        fresh = nn.Conv2d(stem.in_channels, stem.out_channels, 3, 1, 1, bias=stem.bias is not None)
        nn.init.kaiming_normal_(fresh.weight, mode="fan_out", nonlinearity="relu")
        setattr(net.get_submodule(owner), last, fresh)
    else:
        stem.stride = (1, 1)
    if isinstance(getattr(net, "maxpool", None), nn.MaxPool2d):
        net.maxpool = nn.Identity()
