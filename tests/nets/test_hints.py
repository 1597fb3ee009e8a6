"""Networks that do not fit: each error is one line whose next step works. Hints are followed as a user would."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from anoaudit.errors import UsageError
from anoaudit.methods.anomem.options import AnoMemOptions
from anoaudit.methods.coft.options import CoftOptions
from anoaudit.methods.lamp.options import LampOptions
from anoaudit.methods.loe.options import LoeOptions
from anoaudit.options import build, parse_pairs, parse_value
from anoaudit.training.image_network import image_network

METHODS: dict[str, Any] = {"lamp": LampOptions, "loe": LoeOptions, "anomem": AnoMemOptions, "coft": CoftOptions}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of three kinds of networks, none of them pretrained."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for name in ("test_vit", "test_coatnet", "test_convnext"):
        net = timm.create_model(name, num_classes=0)
        facts = {"kwargs": "dynamic_img_size=false"} if name == "test_vit" else {}
        save_file({k: v.contiguous() for k, v in net.state_dict().items()}, folder / f"{name}.safetensors", facts)
    return folder


def network(
    weights: Path, method: str, backbone: str | None, options: dict[str, str], arguments: dict[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    """What `fit --method … --backbone … --set … --backbone-arg …` looks at images through."""
    chosen = build(METHODS[method], options, method).for_data("images")
    scratch = backbone is None or options.get("detector") == "mhrot"
    file = None if scratch else weights / f"{backbone}.safetensors"
    settings: Any = SimpleNamespace(
        options=chosen,
        method=SimpleNamespace(name=method),
        backbone=backbone,
        weights=file,
        backbone_arguments=arguments,
    )
    made, facts, _ = image_network(SimpleNamespace(kind="images"), settings, SimpleNamespace(note=print))  # type: ignore[arg-type]
    assert made is not None
    assert facts is not None
    return made, facts


def given(hint: str, option: str) -> dict[str, str]:
    """The pairs that a hint says to give with this option."""
    return parse_pairs(option, re.findall(rf"{option} (\w+=[\w,]*\w)", hint))


@pytest.mark.parametrize("size", [64, 96, 200, 400])
@pytest.mark.parametrize(
    ("method", "backbone", "options"),
    [
        ("lamp", "test_vit", {}), ("lamp", "test_coatnet", {}), ("lamp", "test_vit", {"tile": "SIZE"}),
        ("loe", "test_vit", {"detector": "autoencoder"}), ("loe", "test_coatnet", {"detector": "mhrot"}),
        ("anomem", "test_vit", {}), ("anomem", None, {"encoder": "test_coatnet"}),
    ],
)  # fmt: skip
def test_the_side_that_a_network_is_made_for(
    weights: Path, method: str, backbone: str | None, options: dict[str, str], size: int
) -> None:
    options = {"size": str(2 * size if "tile" in options else size)} | {
        key: value.replace("SIZE", str(size)) for key, value in options.items()
    }
    with pytest.raises(UsageError, match=f"cannot take {size}×{size} images") as caught:
        network(weights, method, backbone, options, {})
    mended = given(caught.value.hint, "--set")
    assert mended["tile" if "tile" in options else "size"] == "160"
    made, _ = network(weights, method, backbone, options | mended, {})
    assert made.height == int(mended["size"])


@pytest.mark.parametrize(
    ("method", "options"), [("coft", {}), ("loe", {}), ("loe", {"features": "pooled"}), ("anomem", {})]
)
def test_the_side_where_it_is_the_backbones(weights: Path, method: str, options: dict[str, str]) -> None:
    assert network(weights, method, "test_vit", options, {})[0].height == 160
    with pytest.raises(UsageError, match="cannot take 128×128 images") as caught:
        network(weights, method, "test_vit", options, {"size": 128})
    mended = {key: parse_value(value) for key, value in given(caught.value.hint, "--backbone-arg").items()}
    assert network(weights, method, "test_vit", options, mended)[0].height == 160


def test_a_network_made_for_another_side_is_given_that(weights: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = timm.create_model("test_vit", num_classes=0, img_size=32)
    save_file(net.state_dict(), tmp_path / "test_vit.safetensors")
    assert network(tmp_path, "coft", "test_vit", {}, {"img_size": 32, "dynamic_img_size": False})[0].height == 32
    with pytest.raises(UsageError) as caught:
        network(tmp_path, "lamp", "test_vit", {"size": "64"}, {"img_size": 32, "dynamic_img_size": False})
    assert "--set size=32" in caught.value.hint


def test_the_encoder_sees_tiles(weights: Path) -> None:
    made, facts = network(weights, "lamp", "test_vit", {"tile": "160", "size": "480"}, {})
    assert (made.height, facts["size"]) == (480, [160, 160])


@pytest.mark.parametrize(
    ("method", "backbone", "options", "mended"),
    [
        ("lamp", "test_convnext", {"depth": "1"}, {"depth": "2"}),
        ("lamp", "test_convnext", {"depth": "6"}, {"depth": "5"}),
        ("loe", "test_convnext", {"strides": "2,8,16"}, {"strides": "8,16"}),
        ("anomem", "test_convnext", {"scales": "8,16,64"}, {"scales": "8,16"}),
        ("anomem", None, {"scales": "7"}, {"scales": "8"}),
    ],
)
def test_a_stride_that_a_network_has_not(
    weights: Path, method: str, backbone: str | None, options: dict[str, str], mended: dict[str, str]
) -> None:
    with pytest.raises(UsageError, match="no stage of stride") as caught:
        network(weights, method, backbone, options, {})
    assert given(caught.value.hint, "--set") == mended
    network(weights, method, backbone, options | mended, {})


@pytest.mark.parametrize("backbone", [None, "test_vit"])
def test_small_images_do_not_make_a_token_of_every_pixel(weights: Path, backbone: str | None) -> None:
    options = {"size": "32"} | ({} if backbone else {"encoder": "test_vit"})
    made, _ = network(weights, "anomem", backbone, options, {"dynamic_img_size": True} if backbone else {})
    assert made.grids == [(2, 2)] * 3


def test_a_stride_that_nothing_sets() -> None:
    wanted = replace(LoeOptions(detector="autoencoder").images, encoder=16)
    assert wanted.strides_hint([16], [2, 4]) == "it has 2, 4: name another --backbone"


@pytest.mark.parametrize(
    ("method", "options", "arguments", "said"),
    [
        ("lamp", {}, {"size": 160}, "leave it out; --set size=160"),
        ("lamp", {"tile": "160", "size": "320"}, {"size": 160}, "leave it out"),
        ("loe", {"detector": "mhrot"}, {"size": 160}, "leave it out; --set size=160"),
        ("anomem", {"size": "160"}, {"size": 128}, "leave one"),
        ("coft", {}, {"pretrained": False}, "leave it out"),
        ("coft", {}, {"checkpoint_path": "x.pth"}, "leave it out"),
        ("coft", {}, {"in_chans": 1}, "leave it out"),
        ("coft", {}, {"no_such": 1}, "leave no_such out of --backbone-arg"),
    ],
)
def test_arguments_that_are_not_to_be_given(
    weights: Path, method: str, options: dict[str, str], arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        network(weights, method, "test_vit", options, arguments)
    assert said in caught.value.hint
