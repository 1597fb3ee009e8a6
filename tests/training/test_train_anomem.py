"""AnoMem end to end: export with a map, resume across stages and fits, labels, diagnostics, pretrained weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from tiny_items import Memory, trainer_in

from anoaudit.data.items import ImageSpec
from anoaudit.errors import UsageError
from anoaudit.methods.anomem import method
from anoaudit.methods.anomem.options import AnoMemOptions
from anoaudit.model.session import Session
from anoaudit.nets.backbones import BackboneOptions
from anoaudit.nets.encoder import Encoder, make_trainable
from anoaudit.options import ImageInput
from anoaudit.training import checkpoint
from anoaudit.training.export import export
from anoaudit.training.items import Split, TrainingItems
from anoaudit.training.parity import check_parity, median_absolute_deviation

SIZE = 16
SMALL = {
    "encoder": "tiny", "size": SIZE, "epochs": 2, "distance_epochs": 2, "batch_size": 8, "slots": 8, "projection": 8, "points": 2,
    "warmup": 0,
}  # fmt: skip


def tiles(count: int = 24) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = np.arange(SIZE)
    waves = np.sin(x[None, :] * rng.uniform(0.3, 1.5, (count, 1)))[:, None, :, None] * 60
    return (128 + waves + rng.normal(0, 6, (count, SIZE, SIZE, 3))).clip(0, 255).astype(np.uint8)


def items_with(labels: np.ndarray | None = None, kept_out: int = 8) -> TrainingItems:
    values = tiles()
    n = len(values)
    held = np.arange(n) < kept_out
    labels = np.full(n, -1, dtype=np.int8) if labels is None else labels
    spec = ImageSpec(SIZE, SIZE)
    return TrainingItems(Memory(values), spec, Split(~held, held, labels, False), np.ones(n, dtype=bool))


def encoder_of(options: AnoMemOptions) -> Encoder:
    torch.manual_seed(0)
    return make_trainable(options.images, BackboneOptions("none"))[0]


def fitted(folder: Path, items: TrainingItems | None = None, resume: bool = False, **changes):
    options = AnoMemOptions(**(SMALL | changes)).for_data("images")
    trainer = trainer_in(folder, resume=resume)
    trainer.backbone = encoder_of(options)
    detector = method.fit(items or items_with(), options, trainer)
    return detector.cpu().eval(), trainer


@pytest.fixture(autouse=True)
def deterministic():
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def test_export_with_map_and_diagnostics(tmp_path):
    detector, trainer = fitted(tmp_path)
    values = tiles()
    graph = export(detector, torch.from_numpy(values[:2]), ("score", "map"))
    session = Session(graph, "cpu")
    score, heat = session.run(values)
    assert heat.shape == (24, 8, 8)
    check_parity(detector, session, values, median_absolute_deviation(score), lambda s: s > np.median(s) + 1e-3, 0)
    facts = trainer.facts["memories"]
    assert [entry["grid"] for entry in facts] == [[8, 8], [4, 4], [2, 2]]
    for entry in facts:
        assert 1 <= entry["effective_slots"] <= 8
        assert 0 < entry["used"] <= 1
        assert entry["spread"] > 0
    assert sum(entry["share"] for entry in facts) == pytest.approx(1, abs=0.01)
    assert trainer.held_out_scores.shape == (8,)
    with torch.no_grad():  # standardised on the training items
        assert abs(float(detector(torch.from_numpy(values))[0].median())) < 3


@pytest.mark.parametrize("broken", ["calibration 1", "calibration 2", "train 1", "train 2"])
def test_resume_in_any_stage_ends_alike(tmp_path, monkeypatch, broken):
    monkeypatch.setattr(method, "export", lambda *_: b"")
    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN", 0.0)
    whole, trainer = fitted(tmp_path / "whole")
    saved = checkpoint.Checkpoints.save

    def save(self, stage, *rest):
        saved(self, stage, *rest)
        if stage == broken:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.Checkpoints, "save", save)
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "cut")
    monkeypatch.setattr(checkpoint.Checkpoints, "save", saved)
    resumed, again = fitted(tmp_path / "cut", resume=True)
    assert any("resuming" in line for line in again.reporter.lines)
    theirs = whole.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in resumed.state_dict().items())
    assert np.array_equal(trainer.held_out_scores, again.held_out_scores)
    assert trainer.facts == again.facts


def test_known_anomalies_are_pushed_away_and_not_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(method, "export", lambda *_: b"")
    labels = np.full(24, -1, dtype=np.int8)
    labels[8:12] = 1
    others = labels != 1
    values = torch.from_numpy(tiles())
    ranks = {}
    changes = {"distance_epochs": 30, "distance_lr": 1e-2}
    for name, known in (("none", None), ("some", labels)):
        detector, _ = fitted(tmp_path / name, items_with(known, 0), **changes)
        with torch.no_grad():
            score = detector(values)[0]
        ranks[name] = float((score[8:12, None] > score[None, others]).float().mean())
    assert ranks["some"] > ranks["none"] + 0.4


def test_a_memory_that_averages_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(method, "export", lambda *_: b"")
    _, trainer = fitted(tmp_path, beta=0.1)
    assert [w for w in trainer.warnings if "averages 8 of 8 slots" in w]
    assert len(trainer.warnings) == 1
    assert any(line.startswith("warning: the memory at 8×8") for line in trainer.reporter.lines)


@pytest.mark.parametrize(
    "changes",
    [{"distance": "norm"}, {"scales": (32,), "whole": True}, {"match": "pooled", "augment": "simclr", "projection": 0},
     {"memory": False}, {"assignment": "soft", "weights": (1, 0, 2)}],
)  # fmt: skip
def test_choices(tmp_path, monkeypatch, changes):
    monkeypatch.setattr(method, "export", lambda *_: b"")
    detector, _ = fitted(tmp_path, **changes)
    with torch.no_grad():
        score, _ = detector(torch.from_numpy(tiles()))
    assert torch.isfinite(score).all()
    assert len(torch.unique(score)) == 24


def test_pretrained_weights_are_the_beginning_and_may_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(method, "export", lambda *_: b"")
    torch.manual_seed(7)
    net = timm.create_model("test_resnet", num_classes=0)
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    arguments = {"size": 32, "mean": 0.5, "std": 0.5}
    asked = BackboneOptions("test_resnet", tmp_path / "w.safetensors", arguments)
    options = AnoMemOptions(**(SMALL | {"encoder": None, "size": 32, "freeze": True})).for_data("images")
    encoder, facts = make_trainable(options.images, asked)
    assert facts["weights"]["source"] == "w.safetensors"
    values = tiles()
    values = np.repeat(np.repeat(values, 2, axis=1), 2, axis=2)
    items = TrainingItems(
        Memory(values), ImageSpec(32, 32), items_with(kept_out=0).split, np.ones(len(values), dtype=bool)
    )
    for freeze in (True, False):
        trainer = trainer_in(tmp_path / str(freeze))
        trainer.backbone = encoder
        chosen = AnoMemOptions(**(SMALL | {"encoder": None, "size": 32, "freeze": freeze})).for_data("images")
        detector = method.fit(items, chosen, trainer)
        theirs = net.state_dict()
        same = all(torch.equal(t, theirs[n]) for n, t in detector.scales.encoder.net.state_dict().items())
        assert same == freeze
    with pytest.raises(UsageError, match="takes no --backbone"):
        make_trainable(ImageInput("trainable", (8, 16, 32), 32, network="tiny"), asked)


def test_an_untrained_encoder_is_not_frozen(tmp_path):
    with pytest.raises(UsageError, match="must learn"):
        fitted(tmp_path, freeze=True)


def test_an_unusual_length_deviates_from_the_same_prototype():
    scales = method.make_detector(
        encoder_of(AnoMemOptions(**SMALL)), AnoMemOptions(**SMALL).for_data("images")
    ).scales.eval()
    scales.levels.fill_(2.0)
    vectors = [torch.randn(1, 3, d) for d in scales.widths]
    with torch.no_grad():
        once, thrice = scales.deviations(vectors), scales.deviations([3 * f for f in vectors])
    assert all(torch.allclose(b - a, f, atol=1e-5) for a, b, f in zip(once, thrice, vectors, strict=True))


def test_encoders(tmp_path):
    for size, grids in ((32, [(16, 16), (8, 8), (4, 4)]), (128, [(16, 16), (8, 8), (4, 4)])):
        encoder, facts = make_trainable(ImageInput("trainable", (8, 16, 32), size, network="tiny"), BackboneOptions())
        assert encoder.grids == grids
        assert facts["recipe"] == "tiny, trained from scratch"
    with pytest.raises(UsageError, match="no stage of stride 7"):
        make_trainable(ImageInput("trainable", (7,), 32, network="tiny"), BackboneOptions())
    with pytest.raises(UsageError, match="timm has no model"):
        make_trainable(ImageInput("trainable", (8,), 32, network="no_such_net"), BackboneOptions())
