"""COFT-AD's options, without torch so that help is fast."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from anoaudit.errors import UsageError
from anoaudit.options import ImageInput, option

EPOCHS = 20
OF_FINE_TUNING = (
    "steps", "batch_size", "lr", "weight_decay", "temperature", "contrast", "positives", "push", "push_form", "projector",
)  # fmt: skip


@dataclass(frozen=True)
class CoftOptions:
    """`--set` options of `--method coft`."""

    negatives: Literal["cutpaste", "rotate", "none"] = option(
        "none",
        "simulated anomalies that normals are pushed from: cutpaste (pasted pieces, for local defects), rotate (quarter turns, "
        "where a turned object is an anomaly), or none",
    )
    epochs: int | None = option(
        None,
        "of fine-tuning; auto is 20 where negatives are named, else 0, the network as it is, which did better in most benchmarks",
        0,
        10_000,
    )
    steps: int = option(1, "an epoch has at least so many batches: few images are seen again", 1, 1000)
    batch_size: int = option(16, "images of a batch; each is seen in two views, and one negative", 2, 1024)
    lr: float = option(1e-4, "step of SGD with Nesterov's momentum", 1e-8, 10.0)
    weight_decay: float = option(0.0, "of SGD", 0.0, 1.0)
    temperature: float = option(0.25, "τ of the contrast and of the push", 1e-3, 10.0)
    contrast: float = option(1.0, "weight of L_con; 0 leaves it out", 0.0, 1000.0)
    positives: float = option(1.0, "λ_PP, weight of L_PP; 0 leaves it out", 0.0, 1000.0)
    push: float = option(1.0, "λ_NP, weight of L_NP; 0 leaves it out", 0.0, 1000.0)
    push_form: Literal["softplus", "hinge"] = option("softplus", "form of L_NP")
    projector: bool = option(True, "the losses on an MLP's output instead of the embedding that is scored")
    crop: float = option(0.35, "smallest share of the image's area that a view shows", 0.01, 1.0)
    copies: int = option(50, "N_A, augmented copies of each normal in the Gaussian (fewer of many normals)", 2, 1000)

    @property
    def images(self) -> ImageInput:
        """How images are seen."""
        return ImageInput("pooled", pretrained=True)

    def unheeded(self, kind: str) -> set[str]:
        """The options of fine-tuning, where there is none."""
        return set() if self.epochs else set(OF_FINE_TUNING)

    def for_data(self, kind: str) -> CoftOptions:
        """With the epochs filled in. Raises UsageError for tables."""
        if kind != "images":
            raise UsageError("coft is for images; this is a table", "use --method loe")
        epochs = self.epochs if self.epochs is not None else 0 if self.negatives == "none" else EPOCHS
        return replace(self, epochs=epochs)
