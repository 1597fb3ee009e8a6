"""LAMP's options, without torch so that help is fast."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from anoaudit.errors import UsageError
from anoaudit.options import ImageInput, option

METRICS = ("l1", "l2", "dssim", "msgms")
OF_ROWS = ("l1", "l2")
PIXELS = 16 * 512 * 512  # in a step, at most (our choice): about 1.5 GiB with the default network


@dataclass(frozen=True)
class LampOptions:
    """`--set` options of `--method lamp`. None means: by the kind of data, as the help says."""

    metric: str | None = option(
        None,
        "the reconstruction error: l1, l2, dssim, msgms, or several with + (their mean); auto is l2; tables know l1 and l2",
    )
    amplifier: Literal["log", "odds", "none"] = option(
        "log", "what training makes of an error e: −ln(1 − e), e/(1 − e), or e itself; scores are never amplified"
    )
    level: Literal["element", "sample", "batch"] = option(
        "element", "amplify each pixel's (column's) error, each item's mean, or the batch's mean"
    )
    top: float | None = option(
        None,
        "share of the pixels (columns), the worst ones, whose mean error is the score; auto is 0.01 for images, 1 for tables; "
        "0 is the worst alone",
        0.0,
        1.0,
    )
    smooth: int | None = option(
        None,
        "images: the map is the mean error of so many pixels squared, an odd number; auto is 9, 1 is the bare error",
        1,
        255,
    )
    size: int | None = option(None, "images: squares of so many pixels a side enter the model; auto is 128", 16, 4096)
    fit: Literal["pad", "stretch"] | None = option(
        None, "images: keep their proportions with a grey margin (auto), or stretch them to the square"
    )
    tile: int | None = option(
        None,
        "images: the network sees tiles of so many pixels a side, of which size is a multiple; auto: no tiles",
        16,
        1024,
    )
    width: int | None = option(
        None, "images: filters of the first stage, doubled at each; auto is 16, published is 64", 1, 256
    )
    depth: int | None = option(
        None,
        "images: stages of the encoder, each halves the sides (of a backbone, the map of that stride); auto is 4",
        1,
        8,
    )
    encoder: Literal["frozen", "trained"] | None = option(
        None, "images, with --backbone: whether its weights stay as they are (auto) or are trained along"
    )
    hidden: int | None = option(None, "tables: width of the hidden layers; auto is 64", 1, 8192)
    latent: int | None = option(
        None,
        "width of the bottleneck: its channels for images, auto is 16; its numbers for tables, auto by the number of features",
        1,
        8192,
    )
    epochs: int | None = option(None, "auto: as many as make 1,500 steps, from 20 to 300", 1, 100_000)
    batch_size: int | None = option(
        None,
        "auto: 128 rows, 16 images, fewer where they (or their tiles) are larger than 512 pixels a side",
        2,
        1_000_000,
    )
    optimizer: Literal["adam", "rmsprop", "sgd"] = option("adam", "the optimiser")
    lr: float = option(1e-3, "the optimiser's step", 1e-8, 10.0)
    weight_decay: float = option(0.0, "the optimiser's weight decay", 0.0, 1.0)

    @property
    def images(self) -> ImageInput:
        """How images are seen."""
        return ImageInput(
            "pixels", size=self.size or 128, encoder=1 << (self.depth or 4), fit=self.fit or "pad", tile=self.tile,
            strides_option="depth",
        )  # fmt: skip

    def for_data(self, kind: str) -> LampOptions:
        """With everything filled in for this kind of data (`table` or `images`). Raises UsageError where options do not fit."""
        for name in FOR_IMAGES if kind == "table" else FOR_TABLES:
            if getattr(self, name) is not None:
                raise UsageError(
                    f"--set {name}: lamp on {'a table' if kind == 'table' else kind} does not heed it",
                    "leave it out; see `anoaudit methods lamp`",
                )
        usual = USUAL[kind] | ({} if kind == "table" else {"batch_size": self._batch()})
        chosen = replace(self, **{name: value for name, value in usual.items() if getattr(self, name) is None})
        _check(chosen, kind)
        return chosen

    def _batch(self) -> int:
        return min(16, max(2, PIXELS // (self.tile or self.images.size or 1) ** 2))


FOR_IMAGES, FOR_TABLES = ("smooth", "size", "fit", "tile", "width", "depth", "encoder"), ("hidden",)
USUAL: dict[str, dict[str, Any]] = {
    "table": {"metric": "l2", "top": 1.0, "hidden": 64, "batch_size": 128},
    "images": {
        "metric": "l2", "top": 0.01, "smooth": 9, "size": 128, "fit": "pad", "width": 16, "depth": 4, "latent": 16,
        "encoder": "frozen",
    },
}  # fmt: skip
assert {name for values in USUAL.values() for name in values} <= {f.name for f in fields(LampOptions)}


def _check(options: LampOptions, kind: str) -> None:
    known = OF_ROWS if kind == "table" else METRICS
    parts = (options.metric or "").split("+")
    for part in parts:
        if part not in known:
            raise UsageError(
                f"--set metric={options.metric}: {part!r} is no error of {'rows' if kind == 'table' else 'images'}",
                f"it is one of {', '.join(known)}, or several with +",
            )
    if len(set(parts)) < len(parts):
        raise UsageError(f"--set metric={options.metric} names an error twice", "name it once")
    if kind == "table":
        return
    if (options.smooth or 0) % 2 == 0:
        raise UsageError(
            f"--set smooth={options.smooth} has no middle", f"for example smooth={(options.smooth or 0) + 1}"
        )
    size = options.tile or options.size or 0
    if options.tile and (options.size or 0) % options.tile:
        raise UsageError(
            f"--set size={options.size} is no multiple of tile={options.tile}", f"for example size={4 * options.tile}"
        )
    if size < 1 << (options.depth or 0):
        raise UsageError(f"--set depth={options.depth} halves {size} pixels to less than one", "use a smaller depth")
