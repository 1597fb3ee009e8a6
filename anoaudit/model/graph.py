"""What an ONNX file may hold, checked before onnxruntime sees it.

onnxruntime resolves external tensors against the working directory even for a model given as bytes, and custom domains load
native code; neither has a place in a detector that `fit` wrote. Nor have loops, random numbers and sizes out of all
proportion: not a sandbox, but the cheap ways to hang or fill a machine are closed, and scores are the same every time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx
import onnx.numpy_helper
from onnx import GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto

from anoaudit.data.items import ImageSpec, InputSpec
from anoaudit.errors import AuditError

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
LOOPS = frozenset({"Loop", "Scan", "SequenceMap"})
RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
#: Operators that make something large out of a small constant, and the places of such constants among their inputs.
GROWING = {
    "ConstantOfShape": (0,), "Expand": (1,), "Tile": (1,), "OneHot": (1,), "Pad": (1,), "Resize": (2, 3), "CenterCropPad": (1,),
    "AffineGrid": (1,), "Col2Im": (1,), "MaxUnpool": (2,), "HannWindow": (0,), "HammingWindow": (0,), "BlackmanWindow": (0,),
    "DFT": (1,), "MelWeightMatrix": (0, 1),
}  # fmt: skip
MAX_GROWN = 1 << 28  # values, of all such operators together
MAX_RANK = 64  # sizes of a shape
HINT = "the model is damaged or was not written by anoaudit; do not use it"


def check_graph(data: bytes, outputs: tuple[str, ...]) -> ModelProto:
    """Parse and check a model. Raises AuditError with one line; returns the parsed proto."""
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf raises its own DecodeError, and others on hostile bytes
        raise AuditError("model.onnx cannot be parsed", HINT) from error
    for entry in model.opset_import:
        if entry.domain not in DOMAINS:
            raise AuditError(f"model.onnx imports the domain {entry.domain!r}", HINT)
    for tensor in _tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise AuditError(f"model.onnx keeps the tensor {tensor.name!r} outside the file", HINT)
        _check_size(tensor)
    if model.training_info or any(True for _ in _sparse(model)):
        raise AuditError("model.onnx is not a detector: it holds training graphs or sparse tensors", HINT)
    for node in _nodes(model):
        if node.domain not in DOMAINS:
            raise AuditError(f"model.onnx uses the operator {node.op_type!r} of the domain {node.domain!r}", HINT)
        if node.op_type in LOOPS or node.op_type in RANDOM:
            raise AuditError(f"model.onnx uses the operator {node.op_type!r}, which no detector needs", HINT)
    _check_growth(model)
    if model.functions or len(model.graph.input) != 1:
        raise AuditError("model.onnx is not a detector: it should have one input and no functions", HINT)
    if tuple(value.name for value in model.graph.output) != outputs:
        raise AuditError("model.onnx and the manifest differ in their outputs", HINT)
    return model


def check_input(model: ModelProto, spec: InputSpec) -> None:
    """The graph's input is what the manifest describes. Raises AuditError with one line."""
    if isinstance(spec, ImageSpec):
        wanted = (TensorProto.UINT8, [spec.height, spec.width, 3])
    else:
        wanted = (TensorProto.DOUBLE, [len(spec.columns)])
    tensor = model.graph.input[0].type.tensor_type
    dims = tensor.shape.dim
    if (tensor.elem_type, [dim.dim_value for dim in dims[1:]]) != wanted or not dims or dims[0].HasField("dim_value"):
        raise AuditError("model.onnx and the manifest differ in their input", HINT)


def _check_growth(model: ModelProto) -> None:
    """Refuse giant sizes that stand in the file as constants; sizes that the graph computes are not followed."""
    constants = {tensor.name: tensor for graph in _graphs(model) for tensor in graph.initializer}
    for node in _nodes(model):
        if node.op_type == "Constant" and len(node.output) == 1 and len(node.attribute) == 1:
            attribute = node.attribute[0]
            if attribute.name == "value":
                constants[node.output[0]] = attribute.t
            elif attribute.name in ("value_int", "value_ints"):
                numbers = [attribute.i] if attribute.name == "value_int" else list(attribute.ints)
                constants[node.output[0]] = onnx.numpy_helper.from_array(np.array(numbers, dtype=np.int64))
    total = 0.0
    for node in _nodes(model):
        operands = [_values(constants[name]) if name in constants else [] for name in node.input]
        grown = 0.0
        if node.op_type in GROWING:
            places = [at for at in GROWING[node.op_type] if at < len(operands)]
            grown = max((_product(node.op_type, operands[at]) for at in places), default=0.0)
        elif node.op_type == "Range" and len(operands) == 3 and all(operands):
            (start, *_), (limit, *_), (step, *_) = operands
            grown = abs((limit - start) / step) if step else math.inf
        total += grown
        if not total <= MAX_GROWN:  # also not a number
            raise AuditError(f"model.onnx grows its tensors to {total:.1e} values ({node.op_type})", HINT)


def _product(operator: str, sizes: list[float]) -> float:
    if operator == "Pad":  # before and behind each axis
        half = len(sizes) // 2
        sizes = [before + behind for before, behind in zip(sizes[:half], sizes[half:], strict=False)]
    return math.prod(max(1.0, size) for size in sizes) if sizes else 0.0


def _values(tensor: TensorProto) -> list[float]:
    """The numbers of a scalar or a shape; infinite when it has more sizes than a tensor has; none when it is neither."""
    if len(tensor.dims) > 1:
        return []
    if sum(tensor.dims) > MAX_RANK:
        return [math.inf]
    try:
        return [float(v) for v in np.ravel(onnx.numpy_helper.to_array(tensor))]
    except (ValueError, TypeError, OverflowError, KeyError):
        return []


def _check_size(tensor: TensorProto) -> None:
    held = max(
        len(tensor.raw_data) * 2,  # two 4-bit values a byte is the densest type
        len(tensor.float_data), len(tensor.int32_data) * 4, len(tensor.int64_data), len(tensor.double_data),
        len(tensor.uint64_data), len(tensor.string_data),
    )  # fmt: skip
    declared = 0 if 0 in tensor.dims else 1
    for dim in (1, *tensor.dims):
        if dim < 0:
            raise AuditError(f"model.onnx declares a negative size for the tensor {tensor.name!r}", HINT)
        declared *= dim
        if declared > held:  # at once: the product of many sizes has more digits than can be computed or shown
            raise AuditError(f"model.onnx declares more values for the tensor {tensor.name!r} than it holds", HINT)


def _graphs(model: ModelProto) -> Iterator[GraphProto]:
    pending = [model.graph]
    while pending:
        graph = pending.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    pending.append(attribute.g)
                pending.extend(attribute.graphs)


def _nodes(model: ModelProto) -> Iterator[NodeProto]:
    for graph in _graphs(model):
        yield from graph.node


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    for graph in _graphs(model):
        yield from graph.initializer
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def _sparse(model: ModelProto) -> Iterator[SparseTensorProto]:
    for graph in _graphs(model):
        yield from graph.sparse_initializer
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("sparse_tensor"):
                    yield attribute.sparse_tensor
                yield from attribute.sparse_tensors
