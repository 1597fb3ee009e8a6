"""timm backbones with weights from a file made here; nothing reaches for a network."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from anoaudit.errors import AuditError, UsageError
from anoaudit.nets.backbones import BackboneOptions, TimmBackbone, make_backbone
from anoaudit.nets.weights import read_weights

NAME = "test_resnet"  # 0.4 million weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    net = timm.create_model(NAME, num_classes=10)  # the classifier's weights are left over later
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(
        net.state_dict(), path, {"arch": NAME, "kwargs": "in_chans=3", "license": "CC0", "mean": "0.5", "size": "64"}
    )
    return path


def make(path: Path, strides=(8, 16), name=None, **arguments) -> TimmBackbone:
    made = make_backbone(BackboneOptions(name, path, arguments), None if strides is None else list(strides))
    assert made is not None
    return made[0]


IMAGES = torch.randint(0, 256, (3, 64, 64, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_pooled_is_timm_itself(weights):
    backbone = make(weights, None, std=[0.2, 0.3, 0.4])
    assert backbone.grid is None
    net = timm.create_model(NAME, num_classes=0).eval()
    net.load_state_dict({k: v for k, v in load_file(weights).items() if k in net.state_dict()})
    x = IMAGES.permute(0, 3, 1, 2).float() / 255
    wanted = net((x - 0.5) / torch.tensor([0.2, 0.3, 0.4])[:, None, None])
    assert torch.allclose(backbone(IMAGES), wanted, atol=1e-4)
    assert backbone.channels == wanted.shape[1]


def test_spatial_is_the_stages_smoothed_on_the_finest_grid(weights):
    backbone = make(weights, (16, 8))
    assert backbone.grid == (8, 8)
    out = backbone(IMAGES)
    assert out.shape == (3, backbone.channels, 8, 8)
    x = (IMAGES.permute(0, 3, 1, 2).float() / 255 - 0.5) / torch.tensor(backbone.net.pretrained_cfg["std"])[
        :, None, None
    ]
    net = backbone.net
    x = net.maxpool(net.act1(net.bn1(net.conv1(x))))
    eight = net.layer2(net.layer1(x))
    first = eight[0, 5]
    for i, j in [(0, 0), (3, 4), (7, 7)]:
        near = [
            first[a, b].item() for a in range(i - 1, i + 2) for b in range(j - 1, j + 2) if 0 <= a < 8 and 0 <= b < 8
        ]
        assert out[0, 5, i, j].item() == pytest.approx(sum(near) / len(near), rel=1e-3, abs=1e-4)
    assert backbone.channels == eight.shape[1] + net.layer3(eight).shape[1]
    maps, vector = backbone.maps_and_vector(IMAGES)
    assert torch.equal(maps, out)
    assert torch.allclose(vector, net.layer4(net.layer3(eight)).mean((2, 3)), atol=1e-4)
    assert vector.shape[1] == backbone.vector_channels
    deep = make(weights, (8, 32))  # the deepest stage may be one of the maps
    assert torch.allclose(deep.maps_and_vector(IMAGES)[1], vector, atol=1e-5)
    assert torch.equal(deep.maps_and_vector(IMAGES)[0], deep(IMAGES))


def test_size_mean_and_std_come_from_file_arguments_or_timm(weights):
    made = make_backbone(BackboneOptions(None, weights, {"size": [32, 96], "std": 0.25}), [8])
    assert made is not None
    backbone, facts = made
    assert (backbone.height, backbone.width, backbone.grid) == (32, 96, (4, 12))
    assert facts["mean"] == [0.5] * 3
    assert facts["std"] == [0.25] * 3
    assert facts["weights"]["license"] == "CC0"
    assert len(facts["weights"]["sha256"]) == 64
    assert facts["name"] == NAME
    with pytest.raises(UsageError, match="one or three"):
        make(weights, mean=[0.1, 0.2])


def test_it_stays_frozen_in_eval(weights):
    backbone = make(weights)
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    outer = nn.Sequential(backbone).train()
    assert not any(module.training for module in backbone.modules())
    first = outer(IMAGES)
    assert torch.equal(first, backbone(IMAGES))
    assert not first.requires_grad
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())


def test_strides_it_does_not_have(weights):
    with pytest.raises(UsageError, match="no stage of stride 5") as caught:
        make(weights, (5,))
    assert "8, 16" in caught.value.hint


def test_a_plain_transformer_gives_maps_of_one_grid(tmp_path):
    torch.manual_seed(0)
    save_file(
        timm.create_model("test_vit", num_classes=0).state_dict(), tmp_path / "vit.safetensors", {"arch": "test_vit"}
    )
    backbone = make(tmp_path / "vit.safetensors", (8, 16))
    assert backbone.grid == (10, 10)
    assert backbone.maps_and_vector(torch.zeros(2, 160, 160, 3, dtype=torch.uint8))[1].shape == (
        2,
        backbone.vector_channels,
    )
    with pytest.raises(UsageError, match="cannot take 50×50"):
        make(tmp_path / "vit.safetensors", (8, 16), size=50)


def one_line(error: AuditError | UsageError) -> None:
    assert "\n" not in error.message + error.hint
    assert error.hint


def test_weights_that_do_not_fit(weights, tmp_path):
    tensors = load_file(weights)
    fewer = {k: v for k, v in tensors.items() if k != "layer3.0.conv1.weight"}
    save_file(fewer, tmp_path / "fewer.safetensors", {"arch": NAME})
    with pytest.raises(AuditError, match=r"no layer3\.0\.conv1\.weight") as caught:
        make(tmp_path / "fewer.safetensors")
    one_line(caught.value)
    save_file({**tensors, "conv1.0.weight": torch.zeros(2, 3)}, tmp_path / "odd.safetensors", {"arch": NAME})
    with pytest.raises(AuditError, match=r"is \[2, 3\], not") as caught:
        make(tmp_path / "odd.safetensors")
    one_line(caught.value)


def test_files_that_are_no_safetensors(tmp_path):
    for suffix in ("pth", "pt", "bin"):
        with pytest.raises(UsageError, match="pickle") as caught:
            read_weights(tmp_path / f"net.{suffix}")
        one_line(caught.value)
    (tmp_path / "hidden.safetensors").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "long.safetensors").write_bytes(b"\xff" * 64)
    (tmp_path / "folder.safetensors").mkdir()
    for name in ("hidden", "empty", "long", "folder", "missing"):
        with pytest.raises(AuditError, match=name) as caught:
            read_weights(tmp_path / f"{name}.safetensors")
        one_line(caught.value)


@pytest.mark.parametrize("name", ["resnet8", "resnot18", "hf-hub:nobody/nothing"])
def test_an_unknown_backbone_gets_a_suggestion(name, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UsageError) as caught:
        make_backbone(BackboneOptions(name, None), [8])
    one_line(caught.value)
    if name == "resnet8":
        assert "resnet" in caught.value.hint


def test_arguments_it_does_not_take(weights):
    with pytest.raises(UsageError, match="no_such") as caught:
        make(weights, no_such=1)
    one_line(caught.value)


def test_offline_an_explicit_backbone_fails_fast_and_the_default_is_none(tmp_path):
    code = """
import time
from anoaudit.errors import AuditError
from anoaudit.nets.backbones import BackboneOptions, make_backbone
import timm
start = time.monotonic()
assert make_backbone(BackboneOptions(), [8]) is None
try:
    make_backbone(BackboneOptions("test_resnet.r160_in1k"), [8])
except AuditError as error:
    print(error.message, "|", error.hint)
print("seconds", time.monotonic() - start)
"""
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("HF_HUB_CACHE", None)
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    message, seconds = done.stdout.splitlines()
    assert "test_resnet.r160_in1k" in message
    assert "--weights" in message
    assert "--backbone none" in message
    assert float(seconds.split()[1]) < 10
    assert time.monotonic() - start < 60


def test_an_unreachable_hub_is_tried_once_and_briefly(monkeypatch):
    from anoaudit.nets import backbones

    calls = []
    monkeypatch.setattr(backbones, "hub_reachable", lambda: calls.append(1) and False)
    monkeypatch.setattr(backbones, "is_cached", lambda name: False)
    assert make_backbone(BackboneOptions(), [8]) is None
    assert len(calls) == 1


def test_unfrozen_it_may_keep_the_pretrained_statistics(weights):
    backbone = make(weights, None)
    backbone.unfreeze(statistics=False)
    around = nn.Sequential(backbone).train()
    before = [m.running_mean.clone() for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    around(IMAGES).sum().backward()
    after = [m.running_mean for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(p.grad is not None for p in backbone.net.parameters())
