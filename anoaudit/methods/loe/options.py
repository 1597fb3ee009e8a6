"""LOE's options, without torch so that help is fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


def option(default: Any, help: str, low: float | None = None, high: float | None = None) -> Any:
    """A dataclass field with its help and range."""
    metadata: dict[str, Any] = {"help": help}
    if low is not None or high is not None:
        metadata["range"] = (low, high)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class LoeOptions:
    """`--set` options of `--method loe`. None means: chosen by the kind of data, as the help says."""

    assignment: Literal["soft", "hard", "refine", "blind", "gt"] | None = option(
        None,
        "how the α most anomalous are trained: ½L_n + ½L_a, L_a, left out, as normal, or by --labels; auto is soft, and for "
        "gaussian, which has no L_a to minimise, refine",
    )
    detector: Literal["gaussian", "deep-svdd", "ntl"] = option(
        "gaussian", "the loss pair; for images one at every place of the feature map"
    )
    features: Literal["spatial", "pooled"] = option(
        "spatial", "images: maps of features, or one pooled vector an image"
    )
    strides: tuple[int, ...] = option(
        (8, 16), "images: which stages of the backbone make spatial features, by their stride", 1, 64
    )
    locations: int = option(
        128, "images, deep-svdd and ntl: random places of each image trained on (all are scored)", 1, 100_000
    )
    channels: int = option(64, "images, gaussian: random channels of the features that are used", 2, 4096)
    top: float = option(
        0.01, "images: share of the places that makes an image's score, the most anomalous ones", 1e-4, 1.0
    )
    scaling: Literal["standard", "robust", "minmax", "none", "location"] | None = option(
        None, "of the features; auto is standard, or location (per place) for deep-svdd on spatial features"
    )
    rounds: int = option(10, "gaussian: how often fit and assignment take turns, at most", 1, 1000)
    epochs: int | None = option(None, "auto: 30, more where an epoch has few batches", 1, 100_000)
    patience: int | None = option(
        None, "end after so many epochs without a lower training loss; auto: never", 1, 100_000
    )
    batch_size: int | None = option(None, "auto: 128 rows, 16 images", 2, 1_000_000)
    lr: float | None = option(None, "Adam's step; auto is 3e-4 for deep-svdd, 1e-3 for ntl", 1e-8, 10.0)
    weight_decay: float = option(0.0, "Adam's weight decay", 0.0, 1.0)
    warmup: int = option(2, "first epochs trained as if all were normal", 0, 10_000)
    transforms: int = option(9, "ntl: number K of learned views", 2, 64)
    transform: Literal["residual", "plain"] = option("residual", "ntl: a view is x + MLP(x), or MLP(x)")
    temperature: float = option(0.1, "ntl: τ of the contrast", 1e-3, 10.0)
    hidden: int | None = option(None, "width of the hidden layers; auto by the number of features", 1, 8192)
    transform_hidden: int | None = option(
        None, "ntl: width of the transforms' hidden layer; auto is that of their input", 1, 8192
    )
    out: int | None = option(None, "width of the embedding; auto by the number of features", 1, 8192)
