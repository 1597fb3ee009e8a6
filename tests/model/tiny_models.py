"""Whole model directories around graphs of a few nodes, so that no test here needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from anoaudit.data.items import ColumnRule, ImageSpec, InputSpec, TableSpec
from anoaudit.model.artefact import Model, write_model
from anoaudit.model.calibration import Calibration, fit_null
from anoaudit.model.manifest import Manifest

WIDTH = 3
TABLE = TableSpec(columns=tuple(ColumnRule(name=f"c{i}", kind="numeric", median=0.0, mad=1.0) for i in range(WIDTH)))
IMAGES = ImageSpec(height=6, width=8)


def numbers(name: str, values: Any, kind: Any = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype=kind), name)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    tensors: Sequence[onnx.TensorProto] = (),
    inputs: Sequence[Any] | None = None,
    outputs: Sequence[Any] | None = None,
) -> onnx.ModelProto:
    if inputs is None:
        inputs = [helper.make_tensor_value_info("items", TensorProto.DOUBLE, ["batch", WIDTH])]
    if outputs is None:
        outputs = [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch"])]
    graph = helper.make_graph(list(nodes), "detector", list(inputs), list(outputs), list(tensors))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def row_nodes() -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """score = Σ|x|, missing values as 0."""
    nodes = [
        helper.make_node("IsNaN", ["items"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "items"], ["filled"]),
        helper.make_node("Abs", ["filled"], ["sizes"]),
        helper.make_node("ReduceSum", ["sizes", "axis"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["score"], to=TensorProto.FLOAT),
    ]
    return nodes, [numbers("zero", 0.0, np.float64), numbers("axis", [1])]


def row_model(width: int = WIDTH) -> onnx.ModelProto:
    return model_of(*row_nodes(), inputs=[helper.make_tensor_value_info("items", TensorProto.DOUBLE, ["batch", width])])


def image_model() -> onnx.ModelProto:
    """map = the channels' mean, score = its maximum."""
    size = [IMAGES.height, IMAGES.width]
    nodes = [
        helper.make_node("Cast", ["items"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "channels"], ["map"], keepdims=0),
        helper.make_node("ReduceMax", ["map", "places"], ["score"], keepdims=0),
    ]
    return model_of(
        nodes,
        [numbers("channels", [3]), numbers("places", [1, 2])],
        [helper.make_tensor_value_info("items", TensorProto.UINT8, ["batch", *size, 3])],
        [
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch"]),
            helper.make_tensor_value_info("map", TensorProto.FLOAT, ["batch", *size]),
        ],
    )


def facts(spec: InputSpec = TABLE, **changed: Any) -> Manifest:
    values: dict[str, Any] = {
        "method": "loe",
        "options": {"epochs": 2, "lr": 1e-3, "strides": [8, 16], "detector": None},
        "input": spec,
        "outputs": ("score", "map") if isinstance(spec, ImageSpec) else ("score",),
        "calibration": {"kind": "none", "n": 0},
        "training": {
            "items": 80,
            "held_out": 20,
            "contamination": 0.1,
            "train_on": "all",
            "seed": 0,
            "self_check": {"a": 1.5},
        },
        "data": {"name": "tiny", "fingerprint": "ab" * 32, "rows": 100},
        "parity": {"items": 64, "max_abs_difference": 1e-6, "mad": 0.5},
        "opset": 18,
        "versions": {"onnx": "1"},
        "backbone": {"name": "none", "recipe": "filter-bank"} if isinstance(spec, ImageSpec) else None,
        "warnings": ("one line",),
        "anoaudit": "0.1.0",
    }
    return Manifest(**{**values, **changed})


def tiny_scores(n: int = 200) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng(5).gamma(4.0, 1.0, n)


def write_tiny(
    path: Path, spec: InputSpec = TABLE, graph: bytes | None = None, calibration: Calibration | None = None, **rest: Any
) -> Model:
    """A complete model directory; `rest` goes to `write_model` or the manifest."""
    if graph is None:
        if isinstance(spec, ImageSpec):
            graph = image_model().SerializeToString()
        else:
            graph = row_model(len(spec.columns)).SerializeToString()
    files = {key: rest.pop(key) for key in ("scores", "card") if key in rest}
    return write_model(path, facts(spec, **rest), graph, calibration or fit_null(tiny_scores()), **files)
