"""AnoOnly's options, without torch so that help is fast."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from anoaudit.errors import UsageError
from anoaudit.options import ImageInput, option


@dataclass(frozen=True)
class AnoOnlyOptions:
    """`--set` options of `--method anoonly`. None means: by the base and the kind of data, as the help says."""

    base: Literal["devnet", "prenet", "deepsad", "feawad"] | None = option(
        None,
        "the method whose losses are trained: deepsad (default), prenet (worth a try on ordinary tables), devnet or feawad",
    )
    supervision: Literal["anomaly-only", "full"] = option(
        "anomaly-only",
        "anomaly-only: no loss on unlabelled items, which act through the batch normalisation alone (but for prenet's pairs of one "
        "with a known anomaly, and feawad's autoencoder, which learns to reconstruct them first: pretrain=0 leaves that out); "
        "full: the base as published, unlabelled counted normal",
    )
    norm: bool | None = option(
        None,
        "batch normalisation in the network; auto is true, for devnet and prenet with supervision=full false. Without it "
        "anomaly-only knows nothing of normal items (devnet, deepsad) and ranks by chance: for comparison only",
    )
    loss: Literal["hinge", "linear"] | None = option(
        None, "devnet, known anomalies: max(0, 5 − f) (auto), or linear: 5 − f, |5 − f| with supervision=full"
    )
    scaling: Literal["minmax", "standard", "robust", "none"] | None = option(
        None, "of the columns or features, by all items; auto is minmax (to 0 … 1), as published"
    )
    fine_tune: bool = option(
        False,
        "images: train the backbone, too. Slow on a CPU",
    )
    statistics: Literal["pretrained", "batch"] = option(
        "pretrained",
        "fine_tune: the backbone's batch normalisation keeps its pretrained statistics, and that of the base alone carries what is "
        "known of normal images; or batch: it follows the batches, which tears images apart that are all alike",
    )
    epochs: int | None = option(None, "auto: 50, 30 for feawad (as published); 10 with fine_tune", 1, 100_000)
    steps: int | None = option(
        None,
        "batches of an epoch; auto is 20 (as published; 10 with fine_tune). deepsad goes through all items instead, but not with "
        "fine_tune",
        1,
        100_000,
    )
    batch_size: int | None = option(
        None,
        "items of a batch, half of them known anomalies; prenet: pairs; deepsad: shuffled. Auto is 64 for devnet, 512 for "
        "prenet and feawad, 128 for deepsad (as published), 16 with fine_tune",
        4,
        1_000_000,
    )
    lr: float | None = option(
        None,
        "auto: RMSprop's 2e-4 for devnet and 1e-3 for prenet, Adam's 1e-4 for the others and with fine_tune",
        1e-8,
        10.0,
    )
    weight_decay: float | None = option(
        None, "auto is 1e-2 for prenet, 1e-6 for deepsad, else 0; 0 with fine_tune", 0.0, 1.0
    )
    pretrain: int | None = option(None, "feawad: epochs of the autoencoder alone; auto is 100", 0, 100_000)
    partners: int | None = option(
        None, "prenet: stored partners of each kind an item is paired with; auto is 30", 1, 1000
    )

    @property
    def images(self) -> ImageInput:
        """How images are seen: one vector of features each."""
        return ImageInput("pooled")

    def unheeded(self, kind: str) -> set[str]:
        """The option that is for images."""
        return {"fine_tune", "statistics"} if kind == "table" else set()

    def for_data(self, kind: str) -> AnoOnlyOptions:
        """With everything filled in for this kind of data (`table` or `images`). Raises UsageError for what is not heeded."""
        chosen = replace(self, base=self.base or DEFAULT)
        values = _values(chosen)
        deaf = _deaf(chosen, kind)
        given = [f.name for f in fields(self) if f.name in deaf and getattr(self, f.name) != f.default]
        if given:
            on = "a table" if kind == "table" else "images"
            raise UsageError(
                f"--set {given[0]}: base={chosen.base} on {on} does not heed it",
                "leave it out; see `anoaudit methods anoonly`",
            )
        if kind == "images" and self.scaling == "robust":
            raise UsageError("--set scaling=robust is for tables", "use minmax, standard or none")
        return replace(
            chosen, **{name: v for name, v in values.items() if getattr(chosen, name) is None and name not in deaf}
        )


#: By development tables without any tuning: of the four, deepsad gains most where its normal loss is dropped and is ahead on the
#: two tables of embeddings; on ordinary tables prenet is ahead in AUROC and no better in average precision.
DEFAULT: Literal["devnet", "prenet", "deepsad", "feawad"] = "deepsad"
#: As published [code]: METHODS §2.
PUBLISHED: dict[str, dict[str, Any]] = {
    "devnet": {"epochs": 50, "steps": 20, "batch_size": 64, "lr": 2e-4, "weight_decay": 0.0, "loss": "hinge"},
    "prenet": {"epochs": 50, "steps": 20, "batch_size": 512, "lr": 1e-3, "weight_decay": 1e-2, "partners": 30},
    "deepsad": {"epochs": 50, "batch_size": 128, "lr": 1e-4, "weight_decay": 1e-6},
    "feawad": {"epochs": 30, "steps": 20, "batch_size": 512, "lr": 1e-4, "weight_decay": 0.0, "pretrain": 100},
}  # fmt: skip
#: Ours: a pretrained backbone is moved with small steps, and an image costs a thousand times what a row does.
FINE: dict[str, Any] = {"epochs": 10, "steps": 10, "batch_size": 16, "lr": 1e-4, "weight_decay": 0.0}


def _values(options: AnoOnlyOptions) -> dict[str, Any]:
    base = str(options.base)
    norm = base in ("deepsad", "feawad") or options.supervision == "anomaly-only"
    return {"norm": norm, "scaling": "minmax", **PUBLISHED[base], **(FINE if options.fine_tune else {})}


def _deaf(options: AnoOnlyOptions, kind: str) -> set[str]:
    """The options that this base does not heed on this kind of data."""
    deaf = {
        name
        for name, base in (("loss", "devnet"), ("pretrain", "feawad"), ("partners", "prenet"))
        if options.base != base
    }
    if kind == "table":
        deaf.add("fine_tune")
    if not options.fine_tune:
        deaf.add("statistics")
    if options.base == "deepsad" and not options.fine_tune:
        deaf.add("steps")
    return deaf
