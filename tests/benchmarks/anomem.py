"""AnoMem's evidence: CIFAR-10, one class against the rest, and folders of defects.

usage: python tests/benchmarks/anomem.py [--only cifar/1] [--seeds 1] [--budget quick|full] [--minutes N]
Needs CIFAR-10, cubes, piped and mobilenetv2_100's weights beside the checkout.

`cifar/CLASS/VARIANT/GAMMA/SEED`: trained on images of the class and, with γ > 0, labelled anomalies of the other nine (γ of all);
AUROC on test images in the course of stage 1 (the length of the whitened deviations) and after stage 2, and of a Gaussian on the
pooled deepest features of the same encoder at the same moments (epoch 0: untrained). Variants: see VARIANTS; `mhrot` is LOE's
MHRot, blind, on the same images. full, for a GPU: recipe=paper, all ten classes, all images, γ 0, 0.01, 0.05, 0.1. A cell that is
killed goes on from its checkpoint, so several runs add up. quick, for two cores: classes automobile and cat, the `tiny` encoder
(a quarter of resnet18's channels, half its blocks), the first 1,000 images of the class, 16 epochs in batches of 64 (256 steps),
1,000 test images of the class and 50 of each other one; MHRot with a Wide ResNet 16-1, the first 400 images, 5 epochs
(loe_cifar.json has it at 10 % contamination).

`folder/FAMILY/INIT/SETTING/SEED`: cubes and paper types of piped; INIT is scratch (128 px), finetune or frozen (from
mobilenetv2_100's weights). SETTING is `clean`: trained on half of the normals (one class), the others and all anomalies are
scored; or 0.1: audit, trained on a mixture with 10 % anomalies, which is ranked itself, `0.1-soft` with LOE_S in stage 2. AUROC
after stage 1 (length of the whitened deviations) and after stage 2, per scale and together.
"""

from __future__ import annotations

import csv
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from harness import SHARED, Results, print_table, settings
from image_sets import mixed, root_of
from loe_cifar import images, pixels
from loe_tables import Protocol, scores_of, trained
from torch import Tensor

from anoaudit.data.images import ImageFolder
from anoaudit.data.items import ImageSpec
from anoaudit.data.source import open_dataset
from anoaudit.methods.anomem import method
from anoaudit.methods.anomem.deviation import FLOOR, AnoMemDetector
from anoaudit.methods.anomem.options import AnoMemOptions
from anoaudit.methods.loe.mhrot import MHRot
from anoaudit.methods.loe.options import LoeOptions
from anoaudit.nets.backbones import BackboneOptions
from anoaudit.nets.encoder import make_trainable
from anoaudit.nets.pixels import unit_pixels
from anoaudit.nets.wide_resnet import WideResNet
from anoaudit.progress import Reporter
from anoaudit.reports.metrics import auroc
from anoaudit.training.checkpoint import Checkpoints
from anoaudit.training.device import choose_device, seed_everything
from anoaudit.training.pixels import PixelBatches
from anoaudit.training.trainer import Trainer

CACHE = Path(__file__).parent / "cache"
Pictures = npt.NDArray[np.uint8]
TRAIN, OTHERS, EPOCHS, LOOKS = 1000, 50, 16, 2
QUICK_CLASSES = (1, 3)
QUICK: dict[str, Any] = {
    "encoder": "tiny",
    "size": 32,
    "epochs": EPOCHS,
    "batch_size": 64,
    "distance_epochs": 8,
    "top": 1.0,
}
#: Changes to the default recipe.
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "pooled": {"match": "pooled", "augment": "simclr"},  # the paper recipe's way, with this encoder
    "single": {"match": "pooled", "augment": "simclr", "scales": (32,)},  # the deepest scale's memory alone
    "plain": {"match": "pooled", "augment": "simclr", "memory": False},  # stage 1 without memory
    "paper": {"recipe": "paper"},
}
GAMMAS = ("0", "0.01", "0.05", "0.1")
FAMILIES = ("PA_BDP01_TL", "cubes", "PA_BTN01_RL")
WEIGHTS = SHARED / "weights" / "mobilenetv2_100.safetensors"


class Watched:
    """AUROC of a detector that is being trained: reference images (normal, for the standardisation) and test images."""

    def __init__(self, reference: Pictures, test: Pictures, truth: npt.NDArray[np.int8], device: torch.device) -> None:
        self.reference, self.test, self.truth, self.device = reference, test, truth, device

    @torch.no_grad()
    def look(self, detector: AnoMemDetector, gaussian: bool = True) -> dict[str, Any]:
        """AUROC, in %: each scale's, their standardised sum, the Gaussian on pooled features."""
        was = detector.training
        detector.eval()
        known, known_z = self._scores(detector, self.reference)
        new, new_z = self._scores(detector, self.test)
        center = known.median(0).values
        spread = torch.maximum((known - center).abs().median(0).values * 1.4826, FLOOR * center)
        found: dict[str, Any] = {
            "auroc": self._auroc(((new - center) / spread).sum(1)),
            "scales": [self._auroc(new[:, s]) for s in range(new.shape[1])],
        }
        if gaussian:
            found["gaussian"] = self._auroc(mahalanobis(known_z.double(), new_z.double()))
        detector.train(was)
        return found

    def _scores(self, detector: AnoMemDetector, pictures: Pictures) -> tuple[Tensor, Tensor]:
        scores, pooled = [], []
        for start in range(0, len(pictures), 64):
            items = torch.from_numpy(pictures[start : start + 64]).to(self.device)
            scores.append(detector.scale_scores(detector.distances(items)).cpu())
            pooled.append(detector.scales.encoder(unit_pixels(items))[-1].mean((2, 3)).float().cpu())
        return torch.cat(scores), torch.cat(pooled)

    def _auroc(self, scores: Tensor) -> float:
        found = auroc(self.truth, scores.numpy())
        assert found is not None
        return round(100 * found, 2)


def mahalanobis(known_ND: Tensor, new_ND: Tensor) -> Tensor:
    """Of one Gaussian, its covariance shrunk by a hundredth towards the mean variance."""
    mean = known_ND.mean(0)
    covariance = torch.cov(known_ND.T)
    covariance = 0.99 * covariance + 0.01 * covariance.diagonal().mean() * torch.eye(len(covariance))
    away = new_ND - mean
    found: Tensor = (away * torch.linalg.solve(covariance, away.T).T).sum(1)
    return found


def fit(
    cell: str, train: Pictures, labels: npt.NDArray[np.int8], watched: Watched, options: AnoMemOptions, asked: BackboneOptions,
    seed: int, alpha: float,
) -> dict[str, Any]:  # fmt: skip
    """Both stages as `fit` does them, looked at on the way; goes on where a killed run was."""
    folder = CACHE / "anomem" / cell.replace("/", "~")
    device = choose_device("auto")
    seed_everything(seed, device)
    encoder, _ = make_trainable(options.images, asked)
    data = PixelBatches(train, labels)
    checkpoints = Checkpoints(folder, {"cell": cell, "options": str(options)}, resume=True)
    trainer = Trainer(device, seed, alpha, checkpoints, Reporter())
    path = folder / "curve.json"
    curve: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    torch.manual_seed(seed)
    detector = method.make_detector(encoder, options).to(device)
    plain = method.make_detector(encoder, replace(options, distance="norm")).to(device)
    plain.scales = detector.scales
    if device.type == "cuda":
        detector.to(memory_format=torch.channels_last)
    looks = max(LOOKS, (options.epochs or 0) // EPOCHS)
    moments = [round(k * (options.epochs or 0) / looks) for k in range(looks)]

    def look(epoch: int) -> None:
        if str(epoch) not in curve:
            plain.eval()
            plain.refer(lambda: method.chunks(data, device, 512))
            curve[str(epoch)] = watched.look(plain)
            detector.scales.train(epoch < (options.epochs or 0))
            path.write_text(json.dumps(curve))

    began = time.perf_counter()
    method.learn_memories(
        detector.scales, data, options, trainer, "train 1", lambda epoch: look(epoch) if epoch in moments else None
    )
    detector.scales.freeze()
    look(trainer.facts["stage1"]["epochs"])
    detector.refer(lambda: method.chunks(data, device))
    method.learn_distances(detector, data, options, trainer, "train 2")
    detector.eval()
    detector.settle()
    method.diagnose(detector, detector.standardise(method.chunks(data, device)), data, trainer)
    after = watched.look(detector, gaussian=False)
    shutil.rmtree(folder)
    first = trainer.facts["stage1"]
    return {
        "stage1": curve, "after": after, "memories": trainer.facts["memories"], "warnings": trainer.warnings,
        "loss": [round(first["first_loss"], 3), round(first["last_loss"], 3)], "training_items": len(train),
        "test_items": len(watched.test), "seconds": round(time.perf_counter() - began, 1), "device": device.type,
    }  # fmt: skip


def of_class(part: str, label: int, rows: slice) -> Pictures:
    data, labels = images(part)
    return pixels([data[i] for i in np.flatnonzero(labels == label)[rows]], 32)


def measure_cifar(cell: str, budget: str) -> dict[str, Any]:
    _, label_text, variant, gamma, seed_text = cell.split("/")
    label, seed, quick = int(label_text), int(seed_text), budget == "quick"
    normal = of_class("train", label, slice(TRAIN if quick else None))
    test = [of_class("test", k, slice(OTHERS if quick and k != label else None)) for k in range(10)]
    truth = np.concatenate([np.full(len(part), k != label, dtype=np.int8) for k, part in enumerate(test)])
    if variant == "mhrot":
        return measure_mhrot(normal[:400], np.concatenate(test), truth, seed)
    rng = np.random.default_rng(seed)
    count = round(float(gamma) / (1 - float(gamma)) * len(normal))
    known = [of_class("train", k, slice(count)) for k in range(10) if k != label] if count else [normal[:0]]
    pool = np.concatenate(known)
    train = np.concatenate([normal, pool[rng.permutation(len(pool))[:count]]])
    labels = np.repeat(np.array([-1, 1], dtype=np.int8), [len(normal), count])
    changes = VARIANTS[variant]
    options = AnoMemOptions(**((QUICK if quick else {"recipe": "paper"}) | changes)).for_data("images")
    device = choose_device("auto")
    watched = Watched(normal[:512], np.concatenate(test), truth, device)
    return fit(cell, train, labels, watched, options, BackboneOptions("none"), seed, 0.0) | {"budget": budget}


def measure_mhrot(normal: Pictures, test: Pictures, truth: npt.NDArray[np.int8], seed: int) -> dict[str, Any]:
    """As loe_cifar.py does it, on clean data."""
    options = LoeOptions(recipe="paper", detector="mhrot", assignment="blind", epochs=5).for_data("images")

    def network() -> MHRot:
        net = WideResNet(16, 1)
        return MHRot(net, net.num_features, 32).to(memory_format=torch.channels_last)

    train, held = ((x.astype(np.float32) / 127.5 - 1.0).reshape(len(x), -1, 3) for x in (normal, test))
    began = time.perf_counter()
    sets = Protocol(train, np.zeros(len(train), dtype=np.int8), held, truth)
    pair, _ = trained(sets, options, seed, 0.0, network)
    found = auroc(truth, scores_of(pair, held, 16))
    assert found is not None
    seconds = round(time.perf_counter() - began, 1)
    return {"auroc": round(100 * found, 2), "training_items": len(train), "test_items": len(held), "seconds": seconds}


def measure_folder(cell: str) -> dict[str, Any]:
    _, family, init, setting, seed_text = cell.split("/")
    seed = int(seed_text)
    changes: dict[str, Any] = {} if init == "scratch" else {"freeze": init == "frozen", "lr": 0.005, "size": 128}
    alpha, _, assignment = setting.partition("-")
    if assignment:
        changes["assignment"] = assignment
    options = AnoMemOptions(**changes).for_data("images")
    asked = BackboneOptions("none") if init == "scratch" else BackboneOptions(None, WEIGHTS, {"mean": 0.5, "std": 0.5})
    if alpha == "clean":
        normal, odd = (read(root_of(family), options.size or 128, k) for k in (0, 1))
        order = np.random.default_rng(seed).permutation(len(normal))
        train, rest = normal[order[: len(order) // 2]], normal[order[len(order) // 2 :]]
        test, truth = np.concatenate([rest, odd]), np.repeat(np.array([0, 1], dtype=np.int8), [len(rest), len(odd)])
    else:
        folder, known = mixed(family, alpha, seed)
        train, ids = pictures(folder, options.size or 128)
        test, truth = train, np.array([known[item] for item in ids], dtype=np.int8)
    labels = np.full(len(train), -1, dtype=np.int8)
    watched = Watched(train, test, truth, choose_device("auto"))
    return fit(cell, train, labels, watched, options, asked, seed, 0.0 if alpha == "clean" else float(alpha))


def pictures(folder: Path, size: int) -> tuple[Pictures, list[str]]:
    dataset = open_dataset(str(folder))
    assert isinstance(dataset, ImageFolder)
    found = np.concatenate([chunk.values for chunk in dataset.chunks(ImageSpec(size, size), 64)])
    return found, dataset.ids


def read(folder: Path, size: int, anomalous: int) -> Pictures:
    """A family's normal or anomalous images."""
    found, ids = pictures(folder, size)
    prefix = "" if folder.name == "cubes" else f"{folder.name}/"
    with ((folder if folder.name == "cubes" else folder.parent) / "labels.csv").open() as file:
        truth = {row["path"].removeprefix(prefix): int(row["anomaly"]) for row in csv.DictReader(file)}
    return found[[truth[item] == anomalous for item in ids]]


def main() -> None:
    given = settings("AnoMem on CIFAR-10 and folders of defects", seeds=1)
    quick = given.budget == "quick"
    gammas = ("0",) if quick else GAMMAS
    cells = [
        f"cifar/{label}/{variant}/{gamma}/{seed}"
        for seed in range(given.seeds) for gamma in gammas for label in (QUICK_CLASSES if quick else range(10))
        for variant in ((*VARIANTS, "mhrot") if quick else ("paper",))
        if variant != "paper" or not quick
    ]  # fmt: skip
    cells += [
        f"folder/{family}/{init}/{setting}/{seed}"
        for seed in range(given.seeds) for family in FAMILIES for init in ("scratch", "finetune", "frozen")
        for setting in ("clean", "0.1", "0.1-soft")
    ]  # fmt: skip
    results = Results("anomem", given)

    def measure(cell: str) -> dict[str, Any]:
        return measure_cifar(cell, given.budget) if cell.startswith("cifar") else measure_folder(cell)

    results.run(filter(given.wants, cells), measure, cells)
    rows = []
    for name, cell in results.cells.items():
        if "auroc" in cell:
            rows.append([name, f"{cell['auroc']:.1f}"])
            continue
        curve = sorted(cell["stage1"].items(), key=lambda pair: int(pair[0]))
        course = " ".join(f"{epoch}:{look['auroc']:.1f}" for epoch, look in curve)
        gauss = " ".join(f"{look['gaussian']:.1f}" for _, look in curve)
        scales = " ".join(f"{value:.1f}" for value in cell["after"]["scales"])
        rows.append([name, course, gauss, f"{cell['after']['auroc']:.1f}", scales, f"{cell['seconds']:.0f}"])
    print_table(["cell", "stage 1", "Gaussian", "stage 2", "its scales", "s"], rows)


if __name__ == "__main__":
    main()
