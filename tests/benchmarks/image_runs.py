"""How the audit board runs the program on images: as a user does, or with the export left out and each image seen once."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from harness import anoaudit
from image_peers import ALPHA
from image_sets import ARGUMENTS, WEIGHTS, backbone
from torch import Tensor, nn

from anoaudit.auditing import audit
from anoaudit.data.source import open_dataset
from anoaudit.data.tables import ColumnOptions
from anoaudit.methods.loe.options import LoeOptions
from anoaudit.methods.registry import find_method
from anoaudit.progress import Reporter
from anoaudit.scoring.decisions import make_rule
from anoaudit.training.fitting import FitSettings, fit_detector

#: Our other ways to fit images without labels: options of `fit`, and whether it looks through the network. The quick ones first.
OTHERS: dict[str, tuple[list[str], bool]] = {
    "autoencoder": (["--set", "detector=autoencoder"], False),
    "lamp": (["--method", "lamp"], False),
    "anomem": (["--method", "anomem"], False),
    "deep-svdd": (["--set", "detector=deep-svdd"], True),
    "ntl": (["--set", "detector=ntl"], True),
    "mhrot": (["--set", "detector=mhrot"], False),
    "ntl paper": (["--set", "recipe=paper"], True),
    "mhrot paper": (["--set", "recipe=paper", "--set", "detector=mhrot"], False),
}


class Memo(nn.Module):
    """A backbone that sees each image once."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net
        self.seen: dict[bytes, tuple[Tensor, Tensor]] = {}
        self.height, self.width, self.channels, self.grid = net.height, net.width, net.channels, net.grid
        self.vector_channels = net.vector_channels

    def forward(self, images: Tensor) -> Tensor:
        return self.maps_and_vector(images)[0]

    def maps_and_vector(self, images: Tensor) -> tuple[Tensor, Tensor]:
        keys = [hashlib.sha256(image.numpy().tobytes()).digest() for image in images]
        new = [i for i, key in enumerate(keys) if key not in self.seen]
        if new:
            self.seen |= dict(
                zip([keys[i] for i in new], zip(*self.net.maps_and_vector(images[new]), strict=True), strict=True)
            )
        maps, vectors = zip(*(self.seen[key] for key in keys), strict=True)
        return torch.stack(maps), torch.stack(vectors)


class TorchSession:
    """The detector itself where the program opens its exported graph."""

    provider, note = "torch", ""
    exported: nn.Module

    def __init__(self, *_: Any, **__: Any) -> None:
        self.outputs = ("score", "map")

    def run(self, batch: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        with torch.inference_mode():
            out = self.exported(torch.from_numpy(batch))
        return (out[0].numpy(), out[1].numpy()) if isinstance(out, tuple) else (out.numpy(), None)


@contextmanager
def without_export(family: str) -> Iterator[None]:
    def export(detector: nn.Module, *_: Any) -> bytes:
        TorchSession.exported = detector.eval()
        return b""

    if family not in MEMO:
        MEMO[family] = Memo(backbone(False))
    place = "anoaudit.training.fitting."
    with (
        mock.patch(place + "export", export), mock.patch("anoaudit.methods.loe.method.export", export),
        mock.patch(place + "Session", TorchSession), mock.patch("anoaudit.auditing.Session", TorchSession),
        mock.patch(place + "check_parity", return_value={}), mock.patch(place + "opset_of", return_value=0),
        mock.patch(place + "image_network", return_value=(MEMO[family], {}, [])),
    ):  # fmt: skip
        yield


MEMO: dict[str, Memo] = {}


def default_table(family: str, folder: Path, seed: int) -> pl.DataFrame:
    """The score table of `fit` with default options."""
    dataset = open_dataset(str(folder), ColumnOptions(), None, None)
    chosen = FitSettings(
        find_method("loe"), LoeOptions().for_data("images"), ALPHA, "cpu", seed, False, "mobilenetv2_100", WEIGHTS
    )
    with tempfile.TemporaryDirectory() as name, without_export(family):
        fitted = fit_detector(dataset, chosen, Path(name, "part"), False, lambda *_: False, Reporter())
        out = Path(name, "scores.parquet")
        audit("m", dataset, chosen, fitted, out, make_rule(None, None, None), (), Reporter())
        return pl.read_parquet(out)


def whole(folder: Path, column: str, seed: int) -> tuple[pl.DataFrame, float, float]:
    """Score table, seconds and peak MiB of the program as a user runs it, with its defaults or in one of the `OTHERS` ways."""
    options, through_network = OTHERS.get(column, ([], True))
    network = ["--backbone", "mobilenetv2_100", "--weights", WEIGHTS]
    network += [part for key, value in ARGUMENTS.items() for part in ("--backbone-arg", f"{key}={value}")]
    with tempfile.TemporaryDirectory() as name:
        _, seconds, peak = anoaudit(
            "fit", folder, "-o", Path(name, "m"), *(network if through_network else []), *options,
            "--device", "cpu", "--seed", seed,
        )  # fmt: skip
        return pl.read_parquet(Path(name, "m", "scores.parquet")), seconds, peak
