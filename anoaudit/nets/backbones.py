"""timm networks as frozen feature extractors: pooled vectors or spatial maps, with normalisation inside the graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anoaudit.errors import AuditError, UsageError
from anoaudit.nets.weights import fetch_weights, hub_reachable, is_cached, read_weights
from anoaudit.options import ImageInput

#: ImageNet weights of torchvision (BSD-3): small, without tricks in its training that flatten mid-level features.
DEFAULT = "resnet18.tv_in1k"
WAYS_OUT = "give a local file with --weights FILE, fill the hub cache on a machine with network, or use --backbone none"
WAYS_OUT_REQUIRED = WAYS_OUT.replace(
    "use --backbone none", "use a method that needs no network's weights, --method loe say"
)
INPUT_KEYS = ("mean", "std", "size")
#: Arguments of timm's own that would choose weights or another output: not the user's to give, nor a file's.
RESERVED = (
    "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "features_only", "out_indices",
)  # fmt: skip


@dataclass(frozen=True)
class BackboneOptions:
    """`--backbone`, `--weights`, `--backbone-arg`; `name` None means the default if its weights are to be had."""

    name: str | None = None
    weights: Path | None = None
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def from_scratch(self) -> bool:
        """Whether the user asked for the recipe without a pretrained network."""
        return self.name == "none"


class TimmBackbone(nn.Module):
    """uint8[B, H, W, 3] → float32 features: [B, C] pooled, or [B, C, h, w] spatial.

    Spatial features are the maps of the given strides, each averaged 3×3, brought to the finest grid and concatenated
    (METHODS §1: the mid-level maps that see defects a pooled vector does not). `maps_and_vector` gives the mean of the deepest
    stage over its places as well, [B, vector_channels]: what is in the image, wherever it is.
    """

    def __init__(
        self,
        net: nn.Module,
        height: int,
        width: int,
        mean: list[float],
        std: list[float],
        strides: list[int] | None,
        wanted: ImageInput | None = None,
    ):
        super().__init__()
        self.net = net.eval().requires_grad_(False)
        self.frozen = True
        self.height, self.width = height, width
        self.register_buffer("mean", torch.tensor(mean)[:, None, None] * 255.0)
        self.register_buffer("std", torch.tensor(std)[:, None, None] * 255.0)
        self.stages = None if strides is None else stages_of(net, strides, wanted)
        example = torch.zeros(1, height, width, 3, dtype=torch.uint8)
        with torch.no_grad():
            if self.stages is None:
                probe, self.vector_channels = self(example), 0
            else:
                probe, vector = self.maps_and_vector(example)
                self.vector_channels = int(vector.shape[1])
        self.channels = int(probe.shape[1])
        self.grid = (int(probe.shape[2]), int(probe.shape[3])) if probe.dim() == 4 else None

    def train(self, mode: bool = True) -> TimmBackbone:
        """A frozen backbone stays in eval semantics, whatever trains around it."""
        super().train(mode and not self.frozen)
        return self

    def unfreeze(self, statistics: bool = True) -> None:
        """From now on it is trained with what is around it, and its batch normalisation follows the batches.

        With `statistics` false that keeps the pretrained statistics: those of a few images would be theirs alone.
        """
        self.frozen = not statistics
        self.net.requires_grad_(True)

    def forward(self, images: Tensor) -> Tensor:
        """Features of a batch of images."""
        if self.stages is None:
            pooled: Tensor = self.net(self._normalised(images))
            return pooled
        return self._joined(self._intermediates(images, self.stages))

    def maps_and_vector(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Maps as `forward` gives them, and the mean of the deepest stage; of a backbone with maps only."""
        assert self.stages is not None
        deepest = len(self.net.feature_info) - 1  # type: ignore[arg-type]
        maps = self._intermediates(images, sorted({*self.stages, deepest}))
        return self._joined(maps[: len(self.stages)]), maps[-1].mean(dim=(2, 3))

    def _normalised(self, images: Tensor) -> Tensor:
        return (images.permute(0, 3, 1, 2).float() - self.get_buffer("mean")) / self.get_buffer("std")

    def _intermediates(self, images: Tensor, stages: list[int]) -> list[Tensor]:
        found: list[Tensor] = self.net.forward_intermediates(  # type: ignore[operator]
            self._normalised(images), indices=stages, intermediates_only=True, output_fmt="NCHW"
        )
        return found

    def _joined(self, maps: list[Tensor]) -> Tensor:
        smooth = [F.avg_pool2d(m, 3, stride=1, padding=1, count_include_pad=False) for m in maps]
        size = smooth[0].shape[-2:]
        same = [
            m if m.shape[-2:] == size else F.interpolate(m, size=size, mode="bilinear", align_corners=False)
            for m in smooth
        ]
        return torch.cat(same, dim=1)


def stages_of(net: nn.Module, strides: list[int], wanted: ImageInput | None = None) -> list[int]:
    """Indices of the deepest stages with these strides; for a plain transformer, evenly spaced depths instead.

    Raises UsageError for a stride that the network has not; how another is chosen is for `wanted` to say.
    """
    wanted = wanted or ImageInput("spatial", tuple(strides))
    info = getattr(net, "feature_info", None)
    if info is None or not hasattr(net, "forward_intermediates"):
        way = (
            "use --set features=pooled, or another --backbone" if wanted.kind == "spatial" else "use another --backbone"
        )
        raise UsageError("this backbone offers no intermediate maps", way)
    reductions = [entry["reduction"] for entry in info]
    if len(set(reductions)) == 1:
        return sorted({len(reductions) * k // (len(strides) + 1) for k in range(1, len(strides) + 1)})
    missing = [s for s in strides if s not in reductions]
    if missing:
        raise UsageError(
            f"the backbone has no stage of stride {missing[0]}", wanted.strides_hint(strides, sorted(set(reductions)))
        )
    return sorted(len(reductions) - 1 - reductions[::-1].index(s) for s in set(strides))


def own_side(net: nn.Module) -> int:
    """Pixels a side of the images that the network is made for."""
    size = getattr(getattr(net, "patch_embed", None), "img_size", None)  # follows --backbone-arg img_size=
    return int(size[-1] if size else net.pretrained_cfg["input_size"][-1])  # type: ignore[index]


def make_backbone(
    options: BackboneOptions, strides: list[int] | None, required: bool = False, wanted: ImageInput | None = None
) -> tuple[TimmBackbone, dict[str, Any]] | None:
    """The network with its weights and what the manifest says of it; None when no default weights are to be had.

    `wanted` is what the method said of images: the hints of errors name its options. Raises AuditError when an explicit or
    `required` backbone's weights are missing, UsageError for unknown names or arguments.
    """
    import timm  # not at the top: tables never pay for it

    weights = read_weights(options.weights) if options.weights is not None else None
    name = options.name or (weights.metadata.get("arch") if weights else None) or DEFAULT
    arguments = {**(weights.arguments if weights else {}), **options.arguments}
    inputs = {key: arguments.pop(key) for key in INPUT_KEYS if key in arguments}
    if weights is None and options.name is None and not is_cached(DEFAULT) and not hub_reachable():
        if required:
            raise AuditError(
                f"the weights of backbone {name} are neither in the hub cache nor reachable", WAYS_OUT_REQUIRED
            )
        return None
    net = create(timm, name, arguments)
    config = net.pretrained_cfg
    if weights is None:
        weights = fetch_weights(name, net, config, WAYS_OUT_REQUIRED if required else WAYS_OUT)
    weights.load_into(net, name)
    mean, std = (_three(inputs.get(key, weights.inputs.get(key, config.get(key)))) for key in ("mean", "std"))
    size = inputs.get("size", weights.inputs.get("size", own_side(net)))
    height, width = size if isinstance(size, list | tuple) else (size, size)
    try:
        backbone = TimmBackbone(net, int(height), int(width), mean, std, strides, wanted)
    except UsageError:
        raise
    except Exception as error:  # a size that the architecture cannot take shows in many ways
        raise cannot_take(f"backbone {name}", net, int(height), int(width), wanted, error) from error
    description = {
        "name": name,
        "weights": {"source": weights.source, "sha256": weights.sha256, "license": weights.license},
        "arguments": arguments,
        "mean": mean, "std": std, "size": [int(height), int(width)], "channels": backbone.channels,
    }  # fmt: skip
    return backbone, description


def cannot_take(
    who: str, net: nn.Module, height: int, width: int, wanted: ImageInput | None, error: BaseException
) -> UsageError:
    """That a network does not take images of this size, and which it takes."""
    side = height if height == width else 0
    hint = (wanted or ImageInput("spatial")).side_hint(side, own_side(net))
    return UsageError(f"{who} cannot take {height}×{width} images: {_line(error)}", hint)


def create(timm: Any, name: str, arguments: dict[str, Any]) -> Any:
    """An untrained timm network without classifier. Raises UsageError for names and arguments that timm does not take."""
    if ":" in name:  # timm would fetch the description of an hf-hub: model, retrying for most of a minute
        raise UsageError(
            f"--backbone {name} is no name of a timm model", "name a timm model, and its file with --weights"
        )
    for key in RESERVED:
        if key in arguments:
            raise UsageError(f"--backbone-arg {key} is not to be given", "leave it out; weights are named by --weights")
    if arguments.get("in_chans", 3) != 3:
        raise UsageError(f"--backbone-arg in_chans={arguments['in_chans']}: images enter as RGB", "leave it out")
    try:
        return timm.create_model(name, pretrained=False, **{"num_classes": 0, **arguments})
    except RuntimeError as error:
        bare = name.split(".")[0]
        if not timm.is_model(bare):
            near = timm.list_models(f"*{bare[:6]}*")[:5]
            raise UsageError(
                f"timm has no model {name!r}", f"similar: {', '.join(near) or 'no name; see timm.list_models()'}"
            ) from error
        way = f"--backbone {bare}" if bare != name else _without(arguments, error)
        raise UsageError(f"backbone {name}: {_line(error)}", way) from error
    except (TypeError, ValueError, AssertionError) as error:
        raise UsageError(
            f"backbone {name} does not take {arguments}: {_line(error)}", _without(arguments, error)
        ) from error


def _without(arguments: dict[str, Any], error: BaseException) -> str:
    named = [key for key in arguments if f"'{key}'" in str(error)] or list(arguments)
    return f"leave {' or '.join(named)} out of --backbone-arg" if named else "use another --backbone"


def _three(value: Any) -> list[float]:
    try:
        values = [float(v) for v in value] if isinstance(value, list | tuple) else [float(value)] * 3
    except (TypeError, ValueError):
        raise UsageError(f"mean and std take numbers, not {value!r}", "for example mean=0.5") from None
    if len(values) != 3:
        raise UsageError(f"mean and std take one or three numbers, not {len(values)}", "for example mean=0.5")
    return values


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
