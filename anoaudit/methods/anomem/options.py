"""AnoMem's options, without torch so that help is fast."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from anoaudit.errors import UsageError
from anoaudit.options import ImageInput, option

#: What `recipe` decides. METHODS §4; what the paper leaves open is our choice: batch, epochs, lr, weight decay.
RECIPES: dict[str, dict[str, Any]] = {
    "default": {
        "projection": 64, "slots": 256, "match": "points", "whole": False, "augment": "mild", "batch_size": 32,
        "lr": 0.03, "top": 0.1,
    },
    "paper": {
        "projection": 128, "slots": 512, "match": "pooled", "whole": False, "augment": "simclr", "batch_size": 256, "epochs": 200,
        "lr": 0.06, "top": 1.0, "size": 32, "encoder": "resnet18",
    },
}  # fmt: skip


@dataclass(frozen=True)
class AnoMemOptions:
    """`--set` options of `--method anomem`. None means: by the recipe, as the help says."""

    recipe: Literal["default", "paper"] = option(
        "default",
        "where the other options' defaults come from: ours, or the published setting for 32×32 images (on a GPU)",
    )
    encoder: str | None = option(
        None,
        "a CNN trained from scratch: small, tiny (residual networks for a CPU) or a timm name; auto is small, for recipe=paper "
        "resnet18. --backbone begins with pretrained weights instead",
    )
    size: int | None = option(
        None,
        "pixels a side; auto is 128, for recipe=paper 32, for pretrained weights theirs. Up to 64 the stem keeps them",
        16,
        1024,
    )
    scales: tuple[int, ...] = option(
        (8, 16, 32), "stages of the encoder that get a memory, by stride (of its usual stem)", 2, 64
    )
    whole: bool | None = option(
        None,
        "match=points: one more memory, of whole images (the mean of the coarsest map); auto is false, few images mislead it",
    )
    freeze: bool = option(
        False, "a pretrained encoder stays as it is; only what reads and fills the memories is trained"
    )
    projection: int | None = option(
        None,
        "coordinates in which views are contrasted, behind what is remembered; 0: none; auto is 64 (paper: 128)",
        0,
        2048,
    )
    slots: int | None = option(None, "prototypes in each memory; auto is 256 (paper: 512)", 2, 8192)
    beta: float | None = option(
        None,
        "sharpness of retrieval from a memory of unit vectors; auto is the root of the map's channels",
        0.1,
        1000.0,
    )
    temperature: float = option(0.2, "τ of the contrast", 1e-2, 10.0)
    variance: float = option(1.0, "weight of the term that keeps retrieved prototypes apart", 0.0, 1000.0)
    memory: bool = option(
        True, "false: a plain contrast in stage 1, memories of fixed random embeddings (for comparison)"
    )
    match: Literal["points", "pooled"] | None = option(
        None,
        "what is contrasted and scored: places that two views share, or each view's mean; auto is points (paper: pooled)",
    )
    points: int = option(8, "match=points: places of each image in a step", 1, 256)
    augment: Literal["mild", "simclr"] | None = option(
        None, "random crops, flips and colours of the views; auto is mild (paper: simclr, without blur)"
    )
    flip: bool = option(True, "views may be mirrored; false where left and right differ")
    epochs: int | None = option(
        None, "of stage 1; auto: as many as make 40 steps, 20 at least (paper: 200)", 1, 100_000
    )
    batch_size: int | None = option(None, "auto is 32 (paper: 256)", 4, 100_000)
    lr: float | None = option(
        None, "stage 1's first step, SGD, falling to 0 along a cosine; auto is 0.03 (paper: 0.06)", 1e-8, 10.0
    )
    weight_decay: float = option(5e-4, "of stage 1", 0.0, 1.0)
    distance: Literal["network", "norm"] = option(
        "network", "stage 2: distance networks on the deviations, or none, their plain length"
    )
    layers: int = option(2, "of a distance network", 1, 6)
    distance_epochs: int | None = option(None, "of stage 2; auto: as many as make 100 steps, 5 at least", 1, 100_000)
    distance_lr: float = option(1e-3, "stage 2's step, Adam", 1e-8, 1.0)
    assignment: Literal["blind", "soft", "hard", "refine"] = option(
        "blind", "stage 2: what the share --contamination of unlabelled images is taken for (see method loe)"
    )
    warmup: int = option(2, "epochs of stage 2 before anything is assigned", 0, 1000)
    top: float | None = option(
        None, "share of the places that makes a scale's score; auto is 0.1 (paper: 1)", 1e-4, 1.0
    )
    weights: tuple[int, ...] | None = option(
        None,
        "of the memories in the score, the finest first, whole images last; whole numbers; auto: all alike",
        0,
        1000,
    )

    @property
    def images(self) -> ImageInput:
        """How images are seen."""
        return ImageInput("trainable", self.scales, self.size, network=self.encoder, strides_option="scales")

    def unheeded(self, kind: str) -> set[str]:
        """The options of what is not done: places where means are matched, stage 2 or its assignment where there is none."""
        deaf = {"points"} if self.match == "pooled" else set()
        if self.distance == "norm":
            deaf |= {"layers", "distance_epochs", "distance_lr", "assignment", "warmup"}
        return deaf | ({"warmup"} if self.assignment == "blind" else set())

    def for_data(self, kind: str) -> AnoMemOptions:
        """With everything filled in that the recipe decides. Raises UsageError for a table."""
        if kind != "images":
            raise UsageError("anomem is for images; this is a table", "use --method loe")
        if len(set(self.scales)) < len(self.scales) or list(self.scales) != sorted(self.scales):
            raise UsageError(
                f"--set scales={','.join(map(str, self.scales))}: give each stride once, the finest first",
                "for example 8,16,32",
            )
        values = dict(RECIPES[self.recipe])
        if (self.match or values["match"]) == "pooled":
            if self.whole:
                raise UsageError("--set whole=true: match=pooled has whole images at every scale", "leave it out")
            values["whole"] = False
        chosen = replace(self, **{name: value for name, value in values.items() if getattr(self, name) is None})
        count = len(self.scales) + bool(chosen.whole)
        if self.weights is not None and (len(self.weights) != count or not any(self.weights)):
            raise UsageError(
                f"--set weights: give one for each of the {count} memories, not all 0", "for example weights=1,1,1,2"
            )
        return chosen
