"""LOE's reconstruction detectors: LAMP's networks and errors, trained with L_n the error and L_a its inverse (METHODS §1)."""

from __future__ import annotations

from torch import nn

from anoaudit.data.items import TableSpec
from anoaudit.methods.lamp.heads import RowReconstruction, image_head
from anoaudit.methods.lamp.options import LampOptions
from anoaudit.methods.loe.options import LoeOptions
from anoaudit.nets.pixels import UnitPixels
from anoaudit.nets.table_input import TableInput
from anoaudit.training.detectors import ColumnDetector, SpatialDetector


def row_detector(spec: TableSpec, inlet: TableInput, options: LoeOptions) -> ColumnDetector:
    """Scores and columns' errors of rows; the inlet has scaling=interval."""
    chosen = LampOptions(metric=options.metric, hidden=options.hidden, latent=options.out).for_data("table")
    return ColumnDetector(inlet, RowReconstruction(spec, inlet, chosen))


def image_detector(pixels: nn.Module, options: LoeOptions) -> SpatialDetector:
    """Scores and maps of images."""
    chosen = LampOptions(metric=options.metric, size=options.size, top=options.top, latent=options.out).for_data(
        "images"
    )
    return SpatialDetector(UnitPixels(), nn.Identity(), image_head(pixels, chosen))
