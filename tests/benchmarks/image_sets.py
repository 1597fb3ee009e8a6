"""The image families of the benchmarks, mixed with the program's own `contaminate`, and their features, computed once.

A family is `cubes` or a paper type of `piped`; PU_PNG01_TL, of which there are no defects, gets those of the other types. All
sets have at most 150 images (cubes at 20 %: 145), so nothing is subsampled. Families joined by + are mixed each by itself and
lie in one folder, as a user's folder holds several kinds of things; of CIFAR-10's, no class that is there is another's anomaly.
The data and mobilenetv2_100's weights lie beside the checkout, the features under tests/benchmarks/cache/, which git ignores.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from harness import SHARED
from PIL import Image
from torch import Tensor, nn

from anoaudit import api
from anoaudit.data.images import ImageFolder
from anoaudit.data.items import ImageSpec
from anoaudit.data.source import open_dataset
from anoaudit.nets.backbones import BackboneOptions, make_backbone

DATA, WEIGHTS = SHARED / "data", SHARED / "weights" / "mobilenetv2_100.safetensors"
CACHE = Path(__file__).parent / "cache"
RATIOS = ("0.05", "0.1", "0.2")
ARGUMENTS = {"mean": 0.5, "std": 0.5}
STRIDES = [8, 16]
WITHOUT_DEFECTS = "PU_PNG01_TL"
CIFAR = [f"cifar10_{label}" for label in range(10)]
OF_CIFAR, OTHERS = 120, 12  # images of each class, and those of them that are anomalies of another class
# Developed on; the others confirm. (CIFAR-10's classes 0 and 4 are development data among the tables of embeddings, too.)
DEV = ("cubes", "PA_BDP01_TL", "PA_BRG01_RL", "PA_BTN01_RL", "PA_ZPB01_RL", "cifar10_0", "cifar10_4")
GROUPS = (
    "PA_BDP01_TL+PA_BTN01_RL", "PA_BRG01_RL+PA_ZPB01_RL", "cubes+PA_BRG01_RL",
    "PA_BDP01_TL+PA_BRG01_RL+PA_BTN01_RL+PA_ZPB01_RL", "cifar10_0+cifar10_4",
    # Those of the other families, in the order of their names.
    "PA_BFT01_TL+PA_BRG02_RL+PA_BRG03_TL", "PA_FLR01_TL+PA_FLR02_TL+PA_FVN01_TL", "PA_FVN02_RL+PA_GLA01_TL+PU_PNG01_TL",
    "cifar10_1+cifar10_2", "cifar10_3+cifar10_5", "cifar10_6+cifar10_7", "cifar10_8+cifar10_9",
)  # fmt: skip
HOLDERS: list[tempfile.TemporaryDirectory[str]] = []


def families() -> list[str]:
    return ["cubes", *sorted(path.name for path in (DATA / "piped").iterdir() if path.is_dir())]


def folder(prefix: str) -> Path:
    holder = tempfile.TemporaryDirectory(prefix=prefix)
    HOLDERS.append(holder)  # it lives as long as the process
    return Path(holder.name)


def root_of(family: str) -> Path:
    if family.startswith("cifar10"):
        return cifar() / family.removeprefix("cifar10").removeprefix("_")
    return DATA / "cubes" if family == "cubes" else DATA / "piped" / family


@cache
def mixed(family: str, ratio: str, seed: int) -> tuple[Path, dict[str, int]]:
    """A folder with that share of anomalies, and id → 0 or 1; of several families a folder of such folders."""
    out = folder("mixed-") / family
    parts = tuple(family.split("+"))
    if len(parts) == 1:
        return out, mix(family, out, ratio, seed, parts)
    found: dict[str, int] = {}
    for part in parts:
        found |= {f"{part}/{item}": y for item, y in mix(part, out / part, ratio, seed, parts).items()}
    return out, found


def mix(family: str, out: Path, ratio: str, seed: int, parts: tuple[str, ...]) -> dict[str, int]:
    """`family`, one of the `parts` of a folder, with anomalies that no other part has, written to `out`. Returns id → 0 or 1."""
    out.parent.mkdir(parents=True, exist_ok=True)
    if family == WITHOUT_DEFECTS or family in CIFAR:
        others = foreign_defects(parts) if family == WITHOUT_DEFECTS else other_classes(family, parts)
        api.contaminate(root_of(family), out, ratio=float(ratio), anomalies=str(others), seed=seed)
    else:
        labels = (DATA / ("cubes" if family == "cubes" else "piped")) / "labels.csv"
        prefix = "" if family == "cubes" else f"{family}/"
        with labels.open() as file:
            rows = [row for row in csv.DictReader(file) if row["path"].startswith(prefix)]
        truth = folder("truth-") / "truth.csv"
        lines = [f"{row['path'].removeprefix(prefix)},{row['anomaly']}\n" for row in rows]
        truth.write_text("path,anomaly\n" + "".join(lines))
        api.contaminate(root_of(family), out, ratio=float(ratio), truth=str(truth), seed=seed)
    with (out / "labels.csv").open() as file:
        return {row["path"]: int(row["anomaly"]) for row in csv.DictReader(file)}


@cache
def foreign_defects(parts: tuple[str, ...] = ()) -> Path:
    """Those of all types that are no part."""
    place = folder("defects-")
    for family in families():
        source = root_of(family) / "defect"
        if source.is_dir() and family not in parts:
            shutil.copytree(source, place / family / "defect")
    return place


@cache
def cifar() -> Path:
    """A folder CLASS/NUMBER.png of CIFAR-10's images, beside the features."""
    place = CACHE / "cifar10"
    if not place.exists():
        frame = pl.read_parquet(DATA / "cifar10_test.parquet")
        column = next(name for name, kind in frame.schema.items() if kind == pl.Binary)
        staged = CACHE / f"cifar10.{os.getpid()}"
        for label, name in enumerate(sorted(set(frame["label"].to_list()))):
            (staged / str(label)).mkdir(parents=True)
            for k, data in enumerate(frame.filter(pl.col("label") == name)[column][:OF_CIFAR]):
                Image.open(io.BytesIO(data)).convert("RGB").save(staged / str(label) / f"{k:03}.png")
        staged.rename(place)
    return place


@cache
def other_classes(family: str, parts: tuple[str, ...] = ()) -> Path:
    """A few images of each class that is no part; each part has its own."""
    place = folder("others-")
    first = OTHERS * parts.index(family) if parts else 0
    for other in CIFAR:
        for path in sorted(root_of(other).iterdir())[first : first + OTHERS] if other not in (family, *parts) else ():
            (place / other).mkdir(exist_ok=True)
            shutil.copyfile(path, place / other / path.name)
    return place


@cache
def backbone(pooled: bool) -> Any:
    made = make_backbone(BackboneOptions("mobilenetv2_100", WEIGHTS, ARGUMENTS), None if pooled else STRIDES)
    assert made is not None
    return made[0].eval()


@cache
def features(family: str, pooled: bool = False) -> tuple[dict[str, int], npt.NDArray[np.float32]]:
    """id → row, and float32[N, C, h, w] (or [N, C]) of all images of a family."""
    path = CACHE / f"images-{family}-{'pooled' if pooled else 'maps'}.npy"
    dataset = open_dataset(str(root_of(family)))
    assert isinstance(dataset, ImageFolder)
    net = backbone(pooled)
    spec = ImageSpec(net.height, net.width)
    if not path.exists():
        with torch.inference_mode():
            found = torch.cat([net(torch.from_numpy(chunk.values)) for chunk in dataset.chunks(spec, 16)])
        CACHE.mkdir(exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.npy")
        np.save(temporary, found.numpy())
        temporary.rename(path)
    return {item: row for row, item in enumerate(dataset.ids)}, np.load(path, mmap_mode="r")


def features_of(family: str, ids: list[str], pooled: bool = False) -> npt.NDArray[np.float32]:
    """The features of these items of a mixture."""
    found = []
    known = {*families(), *CIFAR}
    for item in ids:
        home, name = family, item
        while name.partition("/")[0] in known:  # of several families: the part, and then where its anomaly is from
            home, _, name = name.partition("/")
        rows, values = features(home, pooled)
        found.append(values[rows[name]])
    return np.stack(found)


class Cached:
    """Features in the place of images, as `anoaudit.training.features.extract` reads its items."""

    def __init__(self, values: npt.NDArray[np.float32], labels: npt.NDArray[np.int8]) -> None:
        self.values, self.labels = values, labels

    def __len__(self) -> int:
        return len(self.values)

    def chunks(self, size: int) -> Iterator[Any]:
        for start in range(0, len(self.values), size):
            yield SimpleNamespace(values=self.values[start : start + size])


class Through(nn.Module):
    """The backbone of features that are there already."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.vector_channels = 0
        self.channels, self.grid = shape[1], (shape[2], shape[3]) if len(shape) == 4 else None

    def forward(self, x: Tensor) -> Tensor:
        return x


def nearest_patch(maps: npt.NDArray[np.float32], share: float = 0.1, top: float = 0.01) -> npt.NDArray[np.float64]:
    """score_N: the mean over the `top` share of places of the distance to the nearest patch of the other images.

    The memory is a random `share` of all patches; channels are standardised, an image's own patches left out.
    """
    images, channels = maps.shape[:2]
    places = torch.from_numpy(maps).reshape(images, channels, -1).transpose(1, 2)  # [N, P, C]
    places = (places - places.mean((0, 1))) / places.std((0, 1)).clamp_min(1e-6)
    count = places.shape[1]
    chosen = torch.randperm(images * count, generator=torch.Generator().manual_seed(0))[: int(share * images * count)]
    bank, owner = places.flatten(0, 1)[chosen], chosen // count
    scores = []
    for i in range(images):
        nearest = torch.cdist(places[i], bank[owner != i]).min(1).values
        scores.append(float(nearest.topk(max(1, round(top * count))).values.mean()))
    return np.array(scores)
