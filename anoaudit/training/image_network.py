"""Through which network a method sees images, by what it wants (its options' `images`) and what the user asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from anoaudit.data.items import Dataset
from anoaudit.errors import UsageError
from anoaudit.options import ImageInput
from anoaudit.progress import Reporter

if TYPE_CHECKING:
    from anoaudit.training.fitting import FitSettings


def image_network(
    dataset: Dataset, settings: FitSettings, reporter: Reporter
) -> tuple[nn.Module | None, dict[str, Any] | None, list[str]]:
    """The network, what the manifest says of it, and warnings; None for tables.

    It is a timm network with weights, the fixed filter bank in its place (said in one line), or what the method trains itself.
    Raises AuditError and UsageError for networks and weights that are not to be had, or do not fit the method.
    """
    if dataset.kind == "table":
        if settings.backbone or settings.weights or settings.backbone_arguments:
            raise UsageError(
                f"{dataset.source} is a table; --backbone, --weights and --backbone-arg are for images",
                "leave them out",
            )
        return None, None, []
    from anoaudit.nets.backbones import BackboneOptions, make_backbone
    from anoaudit.nets.encoder import make_trainable
    from anoaudit.nets.filter_bank import FilterBank
    from anoaudit.nets.pixels import make_encoder, make_pixels

    wanted: ImageInput = settings.options.images
    asked = BackboneOptions(settings.backbone, settings.weights, settings.backbone_arguments)
    if wanted.kind == "trainable":
        return *make_trainable(wanted, asked), []
    if wanted.size is not None and wanted.encoder is not None:
        return *make_encoder(wanted, asked), []
    if wanted.size is not None:
        return *make_pixels(wanted, asked), []
    if wanted.pretrained and asked.from_scratch:
        raise UsageError(
            f"--method {settings.method.name} needs a pretrained network",
            "name one with --backbone, and its --weights FILE",
        )
    if not asked.from_scratch:
        made = make_backbone(
            asked, list(wanted.strides) if wanted.kind == "spatial" else None, wanted.pretrained, wanted
        )
        if made is not None:
            return made[0], made[1], []
        warning = "no pretrained weights at hand (no network, empty cache): using the fixed filter bank, as --backbone none does"
        reporter.note(warning)
    if settings.weights or settings.backbone_arguments:
        raise UsageError(
            "--backbone none takes neither --weights nor --backbone-arg", "leave them out, or name a backbone"
        )
    bank = FilterBank(pooled=wanted.kind == "pooled")
    facts = {"name": "none", "recipe": "filter-bank", "size": [bank.height, bank.width], "channels": bank.channels}
    return bank, facts, [] if asked.from_scratch else [warning]
