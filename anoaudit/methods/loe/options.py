"""LOE's options, without torch so that help is fast."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from anoaudit.errors import UsageError
from anoaudit.options import ImageInput, option

Member = Literal["gaussian", "forest", "nearest"]


@dataclass(frozen=True)
class LoeOptions:
    """`--set` options of `--method loe`. None means: by the recipe and the kind of data, as the help says."""

    recipe: Literal["default", "paper", "paper-thyroid", "paper-arrhythmia"] = option(
        "default",
        "where the other options' defaults come from: ours, or the published configuration (of image features and tables, "
        "of thyroid, of arrhythmia; with detector=mhrot: of images)",
    )
    assignment: Literal["soft", "hard", "refine", "blind", "gt"] | None = option(
        None,
        "how the α most anomalous are trained: ½L_n + ½L_a, L_a, left out, as normal, or by --labels; auto is soft, and for "
        "ensemble and gaussian, which have no L_a to minimise, refine",
    )
    detector: str | None = option(
        None,
        "the loss pair: ensemble (tables' default), gaussian (images' default), ntl (recipe=paper), icl, deep-svdd, mhrot "
        "(images, trained from their pixels), autoencoder (images from their pixels, and tables), or module:Class, a loss pair "
        "of your own; for images one at every place of the feature map",
    )
    features: Literal["spatial", "pooled"] | None = option(
        None, "images: maps of features (default), or one pooled vector an image (recipe=paper)"
    )
    strides: tuple[int, ...] = option(
        (8, 16), "images: which stages of the backbone make spatial features, by their stride", 1, 64
    )
    locations: int = option(
        128, "images, other than gaussian: random places of each image trained on (all are scored)", 1, 100_000
    )
    channels: int = option(64, "images, gaussian: random channels of the features that are used", 2, 4096)
    whole: bool = option(
        True,
        "images, gaussian: the score heeds the whole image, by the backbone's deepest stage, beside the worst places; the more, "
        "the less alike the images lie",
    )
    top: float | None = option(
        None,
        "images: share of the places that makes an image's score, the most anomalous ones; auto is 0.01, for ntl 1, their mean",
        1e-4, 1.0,
    )  # fmt: skip
    size: int | None = option(
        None, "mhrot, autoencoder: images are seen at this many pixels a side; auto is 32, 128 for autoencoder", 16, 512
    )
    metric: str | None = option(
        None,
        "autoencoder: the reconstruction error, l1, l2, or of images also dssim, msgms, or several with +; auto is l2",
    )
    scaling: Literal["standard", "robust", "minmax", "unit", "none", "location"] | None = option(
        None,
        "of the features; auto is standard, location (per place) for deep-svdd on maps, none with some paper recipes, for "
        "ensemble robust (median and quartiles), or unit (rows of length one) where a table's columns look like an embedding",
    )
    members: tuple[Member, ...] | None = option(
        None,
        "ensemble: which detectors; auto is all three, without the forest for scaling=unit",
    )
    rounds: int | None = option(
        None, "ensemble, gaussian: how often fit and assignment take turns, at most; auto is 3 and 10", 1, 1000
    )
    epochs: int | None = option(None, "auto: 30, more where an epoch has few batches", 1, 100_000)
    patience: int | None = option(
        None,
        "end after so many epochs without a lower training loss; auto: never, 100 for ntl with recipe=paper",
        1,
        100_000,
    )
    batch_size: int | None = option(
        None,
        "auto: 128 rows, 16 images, 20 for mhrot; recipe=paper: 128 rows for ntl, 64 for icl, 512 images",
        2,
        1_000_000,
    )
    lr: float | None = option(None, "Adam's step; auto is 3e-4 for deep-svdd, else 1e-3", 1e-8, 10.0)
    weight_decay: float | None = option(None, "Adam's weight decay; auto is 0", 0.0, 1.0)
    warmup: int = option(2, "first epochs trained as if all were normal", 0, 10_000)
    transforms: int | None = option(None, "ntl: number K of learned views; auto is 9", 2, 64)
    transform: Literal["residual", "plain"] | None = option(
        None, "ntl: a view is x + MLP(x), auto for tables, or MLP(x), auto for images"
    )
    transform_layers: int | None = option(None, "ntl: linear layers of a transform; auto is 2", 1, 8)
    transform_hidden: int | None = option(
        None, "ntl: width of the transforms' hidden layers; auto is that of their input", 1, 8192
    )
    transform_norm: bool | None = option(None, "ntl: batch normalisation inside the transforms; auto is false")
    window: int | None = option(None, "icl: adjacent columns of a window; auto by the number of features", 1, 8192)
    temperature: float | None = option(None, "τ of the contrast; auto is 0.1 for ntl, 0.01 for icl", 1e-3, 10.0)
    layers: int | None = option(None, "linear layers of the encoder; auto is 4 for ntl, 2 for deep-svdd", 1, 8)
    hidden: int | None = option(
        None, "width of the hidden layers; auto by the number of features, 32 for icl (recipe=paper: 200)", 1, 8192
    )
    out: int | None = option(None, "width of the embedding; auto by the number of features", 1, 8192)

    @property
    def images(self) -> ImageInput:
        """How images are seen."""
        if self.detector == "mhrot":
            return ImageInput("pixels", size=self.size or 32)
        if self.detector == "autoencoder":
            return ImageInput("pixels", size=self.size or 128, encoder=16, fit="pad", strides_option=None)
        return ImageInput("pooled") if self.features == "pooled" else ImageInput("spatial", self.strides)

    def unheeded(self, kind: str) -> set[str]:
        """The options that do nothing with this detector on this kind of data."""
        return _deaf(self, kind)

    def for_data(self, kind: str) -> LoeOptions:
        """With everything filled in that the recipe decides for this kind of data (`table` or `images`).

        Raises UsageError where recipe, detector and kind do not go together.
        """
        ours = "ensemble" if kind == "table" else "gaussian"
        chosen = replace(self, detector=self.detector or (ours if self.recipe == "default" else "ntl"))
        # What is heeded depends on it, where a recipe decides it, too.
        recipe = PAPER.get((chosen.recipe, chosen.detector or "", kind), {})
        chosen = replace(chosen, features=chosen.features or recipe.get("features"))
        _check(chosen, kind)
        deaf = _deaf(chosen, kind)
        values = {name: value for name, value in _values(chosen, kind).items() if name not in deaf}
        return replace(chosen, **{name: value for name, value in values.items() if getattr(chosen, name) is None})


#: The published configurations [code]: METHODS §1.
TABLE: dict[str, Any] = {
    "batch_size": 128, "lr": 1e-3, "weight_decay": 1e-5, "epochs": 300, "patience": 100, "transforms": 9,
    "transform": "residual", "transform_layers": 2, "layers": 4, "temperature": 0.1,
}  # fmt: skip
PAPER: dict[tuple[str, str, str], dict[str, Any]] = {
    # How the authors scaled other tables is not stated; their figures look unscaled, but mixed units need it: our choice.
    ("paper", "ntl", "table"): TABLE | {"scaling": "standard"},
    ("paper-thyroid", "ntl", "table"): TABLE | {"scaling": "none", "transform_hidden": 24, "hidden": 24, "out": 24},
    ("paper-arrhythmia", "ntl", "table"): TABLE | {"scaling": "none", "transform_hidden": 200, "hidden": 64, "out": 32},
    ("paper", "ntl", "images"): {
        "features": "pooled", "scaling": "none", "batch_size": 512, "lr": 4e-4, "weight_decay": 0.0, "epochs": 30, "patience": 100,
        "transforms": 15, "transform": "plain", "transform_layers": 3, "transform_hidden": 2048, "transform_norm": True,
        "layers": 2, "hidden": 512, "out": 256, "temperature": 0.1,
    },
    ("paper", "icl", "table"): {
        "scaling": "standard", "batch_size": 64, "lr": 1e-3, "epochs": 100, "temperature": 0.01, "hidden": 200,
    },
    # The batch is our choice: of 20, α = 0.1 flags a tenth.
    ("paper", "mhrot", "images"): {"size": 32, "epochs": 16, "lr": 1e-3, "batch_size": 20},
}  # fmt: skip
#: Ours. What depends on the number of features or items is decided where those are known.
OURS: dict[str, dict[str, Any]] = {
    "ntl": {"lr": 1e-3, "transforms": 9, "transform": "residual", "transform_layers": 2, "layers": 4, "temperature": 0.1},
    # A sixth of the paper recipe's: better on development tables, in a seventh of the time (tests/benchmarks/cost.py).
    "icl": {"lr": 1e-3, "temperature": 0.01, "hidden": 32},
    # Wider than NTL's rule: on a narrow one the centre swallows the anomalies (by development tables).
    "deep-svdd": {"lr": 3e-4, "layers": 2, "hidden": 128, "out": 64},
    "mhrot": {"lr": 1e-3, "size": 32, "epochs": 16, "batch_size": 20},
    "autoencoder": {"lr": 1e-3},
    "gaussian": {"rounds": 10},
    "ensemble": {"rounds": 3, "scaling": None},  # the scaling needs a look at the columns
}  # fmt: skip

#: What differs on images: the paper's views of image features, and the mean over places (our choice, by the folders developed on:
#: tests/benchmarks/loe_spatial.py).
OURS_OF_IMAGES: dict[str, dict[str, Any]] = {"ntl": {"transform": "plain", "top": 1.0}}

#: The detectors that are refitted, not trained by steps.
REFITTED = ("gaussian", "ensemble")
#: The options that not every detector heeds, and those that do; where none is listed, all that are trained by steps.
HEEDED: dict[str, tuple[str, ...]] = {
    "rounds": REFITTED, "members": ("ensemble",), "channels": ("gaussian",), "whole": ("gaussian",),
    "size": ("mhrot", "autoencoder"), "metric": ("autoencoder",),
    "window": ("icl",),
    **dict.fromkeys(("transforms", "transform", "transform_layers", "transform_hidden", "transform_norm"), ("ntl",)),
    "temperature": ("ntl", "icl"), "layers": ("ntl", "deep-svdd"),
    **dict.fromkeys(("hidden", "out"), ("ntl", "icl", "deep-svdd", "autoencoder")),
    **dict.fromkeys(("epochs", "patience", "batch_size", "lr", "weight_decay", "warmup", "locations"), ()),
}  # fmt: skip
FOR_IMAGES = ("features", "strides", "locations", "channels", "whole", "top", "size")


def _deaf(options: LoeOptions, kind: str) -> set[str]:
    """The options that this detector does not heed on this kind of data."""
    name = options.detector or ""
    deaf = {option for option, heeding in HEEDED.items() if name not in heeding and (heeding or name in REFITTED)}
    deaf |= {"scaling"} if name == "autoencoder" else set()
    if kind == "table":
        deaf |= set(FOR_IMAGES)
    elif name == "mhrot":
        deaf |= {"scaling", "strides", "locations", "top", "features"}
    elif name == "autoencoder":
        deaf |= {"features", "strides", "locations", "hidden"}
    elif options.features == "pooled":
        deaf |= {"strides", "locations", "channels", "whole", "top"}
    return deaf


def unheeded(options: LoeOptions, kind: str) -> list[str]:
    """The options that were given but are not heeded."""
    deaf = _deaf(options, kind)
    return [f.name for f in fields(options) if f.name in deaf and getattr(options, f.name) != f.default]


def _check(options: LoeOptions, kind: str) -> None:
    name = options.detector or ""
    if name not in OURS and ":" not in name:
        raise UsageError(
            f"--set detector={name}: there is no such loss pair", f"it is one of {', '.join(OURS)}, or module:Class"
        )
    if options.recipe != "default" and (options.recipe, name, kind) not in PAPER:
        raise UsageError(
            f"--set recipe={options.recipe} has no configuration of {name} for {'tables' if kind == 'table' else kind}",
            "there are " + ", ".join(f"{r} for {d} on {'tables' if k == 'table' else k}" for r, d, k in PAPER),
        )
    _check_kind(options, kind)
    deaf = unheeded(options, kind)
    if deaf:
        on = "a table" if kind == "table" else "pooled features" if options.features == "pooled" else kind
        raise UsageError(
            f"--set {deaf[0]}: detector={name} on {on} does not heed it", "leave it out; see `anoaudit methods loe`"
        )


def _check_kind(options: LoeOptions, kind: str) -> None:
    name = options.detector
    if name == "mhrot" and kind != "images":
        raise UsageError("--set detector=mhrot turns and shifts images; this is a table", "use another detector")
    if name == "mhrot" and options.features == "pooled":
        raise UsageError("--set detector=mhrot learns from pixels and has no pooled features", "leave features out")
    if name == "ensemble" and kind == "images" and options.features != "pooled":
        raise UsageError("--set detector=ensemble gives images no map", "use gaussian, or add --set features=pooled")
    if kind == "table" and options.scaling == "location":
        raise UsageError("--set scaling=location is for images", "use standard, robust, minmax, unit or none")
    if options.features == "pooled" and options.scaling == "location":
        raise UsageError("--set scaling=location: pooled features have no places", "use standard or none")
    if kind == "images" and options.scaling in ("robust", "minmax", "unit"):
        raise UsageError(f"--set scaling={options.scaling} is for tables", "use location, standard or none")


def _values(options: LoeOptions, kind: str) -> dict[str, Any]:
    name = options.detector or ""
    ours = {
        "top": 0.01, "assignment": "refine" if name in REFITTED else "soft", "features": "spatial",
        "weight_decay": 0.0, "transform_norm": False,
        "scaling": "location" if kind == "images" and name == "deep-svdd" and options.features != "pooled" else "standard",
        **OURS.get(name, {"lr": 1e-3}), **(OURS_OF_IMAGES.get(name, {}) if kind == "images" else {}),
    }  # fmt: skip
    return ours | PAPER.get((options.recipe, name, kind), {})
