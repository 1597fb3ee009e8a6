"""The network under fine-tuning: views of few images in, the loss out; and the embeddings of augmented copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anoaudit.methods.coft.collapse import Watch
from anoaudit.methods.coft.losses import contrastive, cross_instance, repelled
from anoaudit.methods.coft.negatives import synthesise
from anoaudit.methods.coft.options import CoftOptions
from anoaudit.nets.pixels import unit_pixels
from anoaudit.training.augment import MILD, Augmentation, view
from anoaudit.training.device import seed_noise
from anoaudit.training.loop import Batches, Schedule
from anoaudit.training.trainer import Trainer

HIDDEN, WIDTH = 512, 128  # of the projector (our choice)
EMBED_BATCH = 32


class UnitLength(nn.Module):
    """Vectors on the unit sphere."""

    def forward(self, x_BC: Tensor) -> Tensor:
        """Same shape."""
        return F.normalize(x_BC, dim=-1)


class Tuned(nn.Module):
    """The backbone and a projector, on which the losses are; the Gaussian is fitted before it (our choice, as SimCLR's probes)."""

    def __init__(self, backbone: nn.Module, projector: bool) -> None:
        super().__init__()
        width = int(backbone.channels)  # type: ignore[arg-type]
        self.backbone = backbone
        self.projector = (
            nn.Identity()
            if not projector
            else nn.Sequential(nn.LayerNorm(width), nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, WIDTH))
        )

    def forward(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """(h_BC, z_BE): unit vectors of views with pixels in [0, 1]."""
        pooled_BC = self.backbone((pixels_BCHW * 255.0).permute(0, 2, 3, 1))
        return F.normalize(pooled_BC.float(), dim=-1), F.normalize(self.projector(pooled_BC).float(), dim=-1)

    def loss(self, images_BHWC: Tensor, options: CoftOptions, watch: Watch) -> Tensor:
        """L of two views of each image, and of a negative made from the first."""
        count = len(images_BHWC)
        pixels = unit_pixels(images_BHWC)
        first = view(pixels, augmentation(options)).pixels
        inputs = [first, view(pixels, augmentation(options)).pixels]
        pushed = options.negatives != "none" and options.push > 0
        if pushed:
            inputs.append(synthesise(first, options.negatives))
        h_NC, z_NE = self(torch.cat(inputs))
        owner_N = torch.arange(count, device=z_NE.device).repeat(2)
        watch.see(h_NC[: 2 * count], owner_N)
        z_NE, negative_BE = z_NE[: 2 * count], z_NE[2 * count :]
        loss = options.contrast * contrastive(z_NE, owner_N, options.temperature)
        loss = loss + options.positives * cross_instance(z_NE, owner_N)
        if pushed:
            loss = loss + options.push * repelled(z_NE, negative_BE, options.temperature, options.push_form)
        return loss


def augmentation(options: CoftOptions) -> Augmentation:
    """Positive views: never turned, for a turned image may be a negative."""
    return replace(MILD, crop=options.crop)


def learns(options: CoftOptions, normals: int) -> bool:
    """Whether any term has a gradient: of a single image there is no other to compare with, only the push is left."""
    pushed = options.negatives != "none" and options.push > 0
    return bool(options.epochs) and (pushed or (normals > 1 and options.contrast + options.positives > 0))


def tune(backbone: nn.Module, data: Batches, options: CoftOptions, trainer: Trainer, stage: str) -> Watch:
    """Fine-tune the backbone in place. The watch tells how it went."""
    watch = Watch()
    seed_noise(trainer.seed, trainer.device)
    tuned = Tuned(backbone, options.projector)

    def sampler(generator: torch.Generator, batch_size: int) -> Iterator[Tensor]:
        """All images in batches of nearly one size, as often as makes `steps` of them."""
        batches = -(-len(data) // batch_size)
        for _ in range(-(-options.steps // batches)):
            yield from torch.randperm(len(data), generator=generator).tensor_split(batches)

    schedule = Schedule(
        options.epochs or 0, options.batch_size, options.lr, options.weight_decay, keep_best=False, optimizer="sgd", final_lr=0.0
    )  # fmt: skip
    trainer.run(
        tuned, lambda x, _labels, _epoch: tuned.loss(x, options, watch), data, schedule, watch.log, stage, sampler, watch.accept
    )  # fmt: skip
    return watch


@torch.no_grad()
def embed_copies(
    backbone: nn.Module,
    data: Batches,
    options: CoftOptions,
    copies: int,
    trainer: Trainer,
    other: int = 0,
    spoil: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """(views_NVC, plain_NC): unit embeddings of V augmented copies of each image, and of the images as they are.

    `spoil` makes a negative of each copy. The seed and `other` decide the views.
    """
    device = trainer.device
    backbone.to(device).eval()
    seed_noise(trainer.seed + other, device)
    every = torch.arange(len(data))
    plain, views = [], []
    for rows in torch.split(every, EMBED_BATCH):
        plain.append(_unit(backbone, data.batch(rows, device)[0]))
    with trainer.reporter.phase("embedding copies", len(data) * copies) as task:
        for k, rows in enumerate(torch.split(every.repeat_interleave(copies), EMBED_BATCH)):
            pixels = view(unit_pixels(data.batch(rows, device)[0]), augmentation(options)).pixels
            pixels = pixels if spoil is None else spoil(pixels)
            views.append(_unit(backbone, (pixels * 255.0).permute(0, 2, 3, 1)))
            task.update(k * EMBED_BATCH + len(rows))
    return torch.cat(views).reshape(len(data), copies, -1), torch.cat(plain)


def _unit(backbone: nn.Module, images_BHWC: Tensor) -> Tensor:
    return F.normalize(backbone(images_BHWC), dim=-1)
