"""From options to a loss pair, the program's own or a user's.

A loss pair of your own is `--set detector=package.module:Class`: an nn.Module made as `Class(features)` that offers what
`detectors.LossPair` lists: `losses(x) -> (normal_B, anomaly_B)` with gradients, `score(x) -> score_B` and `start(x)`, for
x float32[B, features]. It must export to ONNX and score each item by itself. tests/training/own_pair.py is an example.
"""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor, nn

from anoaudit.errors import UsageError
from anoaudit.methods.loe.alternate import Head
from anoaudit.methods.loe.detectors import NTL, DeepSVDD, Spatial
from anoaudit.methods.loe.ensemble import Ensemble
from anoaudit.methods.loe.forest import IsolationForest
from anoaudit.methods.loe.gaussian import GaussianMap, GaussianVector
from anoaudit.methods.loe.icl import ICL
from anoaudit.methods.loe.mhrot import MHRot
from anoaudit.methods.loe.nearest import NearestSamples
from anoaudit.methods.loe.options import LoeOptions
from anoaudit.methods.loe.whole import GaussianImage

# In an ensemble the Gaussian is there for broken correlations; extreme columns are what the others see (our choice, by
# development tables).
LIMIT = 3.0


def loss_pair(width: int, options: LoeOptions, seed: int = 0) -> nn.Module:
    """The pair for vectors of `width` features; `options` are filled in (`LoeOptions.for_data`).

    `seed` draws the rows that forests and nearest samples are made of.

    NTL's widths are the authors' fallback rule for tables [code]: under 32 features 2D, up to 300 64/32, above 256/64.
    """
    name = options.detector or "gaussian"
    if name == "gaussian":
        return GaussianVector(width)
    if name == "ensemble":
        return _ensemble(width, options, seed)
    if name == "icl":
        return ICL(width, options.window, options.hidden, options.out, options.temperature or 0.01)
    if name == "deep-svdd":
        return DeepSVDD(_sizes(width, options.layers or 2, options.hidden or 128, options.out or 64))
    if ":" in name:
        return _foreign(name, width)
    hidden, out = (2 * width, 2 * width) if width < 32 else (64, 32) if width <= 300 else (256, 64)
    encoder = _sizes(width, options.layers or 4, options.hidden or hidden, options.out or out)
    transform = _sizes(width, options.transform_layers or 2, options.transform_hidden or width, width)
    return NTL(
        options.transforms or 9, transform, encoder, options.transform != "plain", options.temperature or 0.1,
        norm=bool(options.transform_norm),
    )  # fmt: skip


def _ensemble(width: int, options: LoeOptions, seed: int) -> Ensemble:
    members: dict[str, Head] = {}
    names = options.members or ("gaussian", "forest", "nearest")
    for member in names:
        if member == "gaussian":
            alone = len(names) == 1 or options.scaling == "unit"
            members[member] = GaussianVector(width, None if alone else LIMIT)
        elif member == "forest":
            members[member] = IsolationForest(seed)
        else:
            members[member] = NearestSamples(width, seed)
    return Ensemble(members)


def image_pair(backbone: Any, kept: Tensor | None, options: LoeOptions, seed: int = 0) -> nn.Module:
    """The pair for a backbone's maps or pooled vectors; a map of Gaussians uses the channels `kept`."""
    grid: tuple[int, int] | None = backbone.grid
    top = options.top or 0.01
    if options.detector == "mhrot":
        net, features = backbone.network()
        return MHRot(net, features, backbone.height)
    if options.detector == "gaussian" and grid is not None and kept is not None:
        if options.whole and backbone.vector_channels:
            return GaussianImage(kept, grid, top, backbone.vector_channels, seed)
        return GaussianMap(kept, grid, top)
    pair = loss_pair(backbone.channels, options, seed)
    return pair if grid is None else Spatial(pair, top)


def _sizes(width: int, layers: int, hidden: int, out: int) -> list[int]:
    return [width, *[hidden] * (layers - 1), out]


def _foreign(name: str, width: int) -> nn.Module:
    module, _, attribute = name.partition(":")
    try:
        made = getattr(importlib.import_module(module), attribute)(width)
    except Exception as error:  # it is not our code
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"--set detector={name}: {reason}",
            "give module:Class of an importable class that takes the number of features",
        ) from error
    missing = [part for part in ("losses", "score", "start") if not callable(getattr(made, part, None))]
    if missing or not isinstance(made, nn.Module):
        what = f"has no {missing[0]}()" if missing else "is no torch.nn.Module"
        raise UsageError(f"--set detector={name}: it {what}", "see the documentation of a loss pair in the README")
    return made
