"""Every detector trained, exported and scored by onnxruntime: one file, no traces, same bytes, same scores in any company."""

from __future__ import annotations

import getpass
import itertools
import os
import socket
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
from tiny_items import items_of, trainer_in
from torch import nn

from anoaudit.data.items import ImageSpec
from anoaudit.errors import AuditError, UsageError
from anoaudit.methods.loe import method
from anoaudit.methods.loe.options import LoeOptions, unheeded
from anoaudit.model.graph import check_graph, check_input
from anoaudit.model.session import Session
from anoaudit.nets.backbones import TimmBackbone
from anoaudit.nets.filter_bank import FilterBank
from anoaudit.nets.pixels import Pixels
from anoaudit.training.export import export, opset_of
from anoaudit.training.fitting import _between
from anoaudit.training.parity import check_parity, median_absolute_deviation

RNG = np.random.default_rng(0)
ROWS = np.column_stack([RNG.normal(1.7e9, 50, 90), RNG.normal(size=(90, 2)), RNG.integers(0, 2, 90)])
ROWS[3, 1], ROWS[4, 3], ROWS[5, 0], ROWS[6, 2] = np.nan, np.nan, np.inf, 1e308
# Stripes of many widths and colours: images of noise alone are all alike, and leave scores no spread to compare errors with.
WAVES = np.sin(np.arange(32)[None, :] * RNG.uniform(0.1, 1.5, (24, 1)))[:, None, :, None] * RNG.uniform(
    0, 60, (24, 1, 1, 3)
)
IMAGES = (RNG.uniform(60, 190, (24, 1, 1, 3)) + WAVES + RNG.normal(0, 2, (24, 32, 32, 3))).clip(0, 255).astype(np.uint8)
DETECTORS = ("ensemble", "gaussian", "deep-svdd", "ntl", "icl", "own_pair:Reconstruction")
INPUTS = ("table", "scratch", "spatial", "pooled")
NO_MAPS = {("scratch", "ensemble"), ("spatial", "ensemble")}
CASES = [case for case in itertools.product(INPUTS, DETECTORS) if case not in NO_MAPS] + [("pixels", "mhrot")]
OPTIONS = LoeOptions(
    epochs=2, rounds=2, warmup=1, hidden=32, out=16, transforms=4, locations=16, channels=8, batch_size=8, top=0.05
)


@pytest.fixture(autouse=True, scope="module")
def deterministic():
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def backbone_of(kind: str) -> nn.Module | None:
    if kind == "table":
        return None
    if kind == "scratch":
        return FilterBank(32)
    if kind == "pixels":
        return Pixels(
            32,
            lambda: (
                nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(8), nn.Flatten()),
                8,
            ),
        )
    torch.manual_seed(5)
    net = timm.create_model("test_resnet", num_classes=0)
    return TimmBackbone(net, 32, 32, [0.5] * 3, [0.25] * 3, [8, 16] if kind == "spatial" else None)


@dataclass
class Made:
    detector: nn.Module
    graph: bytes
    values: np.ndarray
    outputs: tuple[str, ...]
    trainer: object
    spec: object


def heeded(options: LoeOptions, kind: str) -> LoeOptions:
    """Filled in, without what the detector does not heed."""
    defaults = LoeOptions()
    return replace(options, **{name: getattr(defaults, name) for name in unheeded(options, kind)}).for_data(kind)


def make(kind: str, name: str, folder: Path, **options) -> Made:
    values = ROWS if kind == "table" else IMAGES
    items, trainer = items_of(values), trainer_in(folder)
    trainer.backbone = backbone_of(kind)
    features = "pooled" if kind == "pooled" else None
    chosen = replace(OPTIONS, detector=name, features=features, **options)
    detector = method.fit(items, heeded(chosen, "table" if kind == "table" else "images"), trainer)
    outputs = ("score", "map") if kind in ("scratch", "spatial") else ("score",)
    return Made(detector, export(detector, torch.from_numpy(values[:2]), outputs), values, outputs, trainer, items.spec)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_every_detector_exports(kind, name, tmp_path, monkeypatch):
    """One test each for all checks: with several workers a shared fixture would be made by each of them."""
    monkeypatch.setattr(method, "export", lambda *_: b"")  # the pre-flight, which the tests below leave on
    made = make(kind, name, tmp_path)
    the_file_is_alone_and_tells_nothing(made)
    parity_in_every_company(made)
    training_left_its_facts(made)


def the_file_is_alone_and_tells_nothing(made: Made) -> None:
    model = check_graph(made.graph, made.outputs)
    check_input(model, made.spec)
    assert opset_of(made.graph) >= 18
    for word in (
        'File "',
        "site-packages",
        "/home/",
        "/work",
        "/tmp",
        "/opt",
        "pytest",
        "torch.nn",
        "stack_trace",
        str(Path.home()),
    ):
        assert word.encode() not in made.graph, word
    for word in (getpass.getuser(), socket.gethostname(), Path(__file__).stem, os.getcwd()):
        assert len(word) < 4 or word.encode() not in made.graph, word
    assert not model.functions
    assert not model.metadata_props


def parity_in_every_company(made: Made) -> None:
    values = made.values[:24]
    session = Session(made.graph, "cpu")
    score, heat = session.run(values)
    assert np.isfinite(score).all()
    assert len(np.unique(score)) > 12
    bar = _between(score.astype(np.float64), float(np.sort(score)[-3]))
    found = check_parity(made.detector, session, values, median_absolute_deviation(score), lambda s: s >= bar, 0)
    assert found["items"] == 24
    if heat is not None:
        with torch.no_grad():
            wanted = made.detector(torch.from_numpy(values))[1].numpy()
        assert np.allclose(heat, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).mean())


def training_left_its_facts(made: Made) -> None:
    if made.trainer.history is None:
        rounds = made.trainer.facts["rounds"]
        assert min(rounds.values() if isinstance(rounds, dict) else [rounds]) >= 1
        assert made.trainer.facts["assignment"] == "refine"
    else:
        assert made.trainer.history.weight_change > 0
        assert made.trainer.facts["assignment"] == "soft"
        assert made.trainer.facts["epochs"] == 2


@pytest.mark.parametrize(("kind", "name"), [("table", "ntl"), ("spatial", "deep-svdd")])
def test_the_same_seed_gives_the_same_bytes(kind, name, tmp_path, monkeypatch):
    first = make(kind, name, tmp_path / "a").graph
    monkeypatch.setattr(method, "export", lambda *_: b"")  # and the pre-flight leaves no trace
    assert first == make(kind, name, tmp_path / "b").graph


def test_missing_and_huge_values_score_as_in_torch(tmp_path, monkeypatch):
    """float64 constants must not become float32 on the way: 1e308 is large, not infinite and so missing."""
    monkeypatch.setattr(method, "export", lambda *_: b"")
    found = make("table", "gaussian", tmp_path)
    odd = np.array(
        [[np.nan] * 4, [np.inf, -np.inf, 1e308, 2.0], [1.7e9, 1e299, -1e299, 0.0], [1.7e9 + 0.01, 0, 0, 7.0]]
    )
    score = Session(found.graph, "cpu").run(odd)[0]
    with torch.no_grad():
        assert np.allclose(score, found.detector(torch.from_numpy(odd)).numpy(), rtol=1e-4)
    assert np.isfinite(score).all()
    usual = np.array([[1.7e9, 0, 0, 0.0], [1.7e9, 0, 1.7e308, 0.0], [1.7e9, 0, np.inf, 0.0]])
    near, large, infinite = Session(found.graph, "cpu").run(usual)[0]
    assert large > 100 * max(near, infinite)
    near = np.array([[1.7e9 + 80, 0, 0, 0.0], [1.7e9 + 80.01, 0, 0, 0.0]])
    first, second = Session(found.graph, "cpu").run(near)[0]
    assert second > first


def test_gt_needs_every_label_and_uses_them(tmp_path):
    labels = (np.arange(90) % 9 == 0).astype(np.int8)
    items = items_of(ROWS, labels)
    trainer = trainer_in(tmp_path)
    method.fit(
        items,
        heeded(replace(OPTIONS, detector="deep-svdd", assignment="gt", epochs=1, batch_size=90), "table"),
        trainer,
    )
    assert trainer.facts["assignment"] == "gt"
    labels[4] = -1
    with pytest.raises(UsageError, match="1 have none"):
        method.fit(items_of(ROWS, labels), LoeOptions(assignment="gt").for_data("table"), trainer)


def test_scalings_that_are_for_other_data(tmp_path):
    with pytest.raises(UsageError, match="is for images"):
        make("table", "gaussian", tmp_path, scaling="location")
    with pytest.raises(UsageError, match="is for tables"):
        make("scratch", "gaussian", tmp_path, scaling="minmax")


class Linear(nn.Module):
    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return (x.float() * self.factor).sum(1)


class MinusBatchMean(Linear):
    def forward(self, x):
        score = super().forward(x)
        return score - score.mean()


class Unexportable(Linear):
    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else x[:, 0].float()


SAMPLE = RNG.normal(size=(64, 5))


def session_of(detector: nn.Module) -> Session:
    return Session(export(detector, torch.from_numpy(SAMPLE[:2]), ("score",)), "cpu")


@pytest.fixture(scope="module")
def honest() -> Session:
    return session_of(Linear())


def parity(detector, session, decide=lambda s: s > 1.0, mad=1.0, items=SAMPLE):
    return check_parity(detector, session, items, mad, decide, 0)


def test_parity_of_an_honest_detector(honest):
    assert parity(Linear(), honest)["max_abs_difference"] < 1e-4


def test_parity_catches_a_detector_that_depends_on_its_batch():
    with pytest.raises(AuditError, match="one by one"):
        parity(MinusBatchMean(), session_of(MinusBatchMean()))


def test_parity_catches_dependence_on_neighbours_alone(honest):
    """All sizes of batch agree, only the order matters."""

    class Ordered:
        def run(self, batch):
            score, _ = honest.run(batch)
            return score + (0.01 * (np.arange(len(batch)) % 7 == 3) * (batch[0, 0] != SAMPLE[0, 0])).astype(
                np.float32
            ), None

    with pytest.raises(AuditError, match="disagrees"):
        parity(Linear(), Ordered())


def test_parity_catches_what_differs_from_torch(honest):
    with pytest.raises(AuditError, match="disagrees with torch"):
        parity(Linear(1.01), honest)
    with pytest.raises(AuditError, match="disagrees with torch"):
        parity(Linear(), session_of(Linear(1.0 + 1e-3)), mad=1e-3)


class Rough(Linear):
    """Single items come out a ten-thousandth off, as through a network of large weights."""

    def forward(self, x):
        return super().forward(x) * (1.0001 if len(x) == 1 else 1.0)


def test_parity_allows_what_torch_itself_leaves_open_and_no_more():
    far = 100 * SAMPLE
    with pytest.raises(AuditError, match="disagrees"):
        parity(Linear(), session_of(Linear(1.0003)), mad=1e-3, items=far)
    assert parity(Rough(), session_of(Linear(1.0003)), decide=lambda s: s > 1e9, mad=1e-3, items=far)["items"] == 64
    with pytest.raises(AuditError, match="disagrees"):
        parity(Rough(), session_of(Linear(1.003)), mad=1e-3, items=far)


def test_parity_catches_nan_and_changed_decisions(honest):
    class Odd:
        def __init__(self, change):
            self.change = change

        def run(self, batch):
            return self.change(honest.run(batch)[0]), None

    with pytest.raises(AuditError, match="disagrees with torch"):
        parity(Linear(), Odd(lambda s: np.where(s > 2, np.nan, s).astype(np.float32)))
    bar = float(np.sort(Linear()(torch.from_numpy(SAMPLE)).numpy())[32])
    with pytest.raises(AuditError, match="decides 1 of 64"):
        parity(Linear(), Odd(lambda s: s + np.float32(1e-5)), decide=lambda s: s > bar)


def test_what_cannot_be_exported_is_one_line():
    with pytest.raises(AuditError, match="cannot be exported") as caught:
        export(Unexportable(), torch.from_numpy(SAMPLE[:2]), ("score",))
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_a_graph_written_here_is_checked(honest):
    graph = onnx.load_model_from_string(export(Linear(), torch.from_numpy(SAMPLE[:2]), ("score",)))
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    with pytest.raises(AuditError, match="input"):
        check_input(graph, ImageSpec(4, 4))


def test_mad_where_most_scores_are_equal():
    assert median_absolute_deviation(np.array([1.0, 2.0, 3.0, 4.0, 100.0])) == 1
    assert median_absolute_deviation(np.array([1.0] * 9 + [11.0])) == 1.0
