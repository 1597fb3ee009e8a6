"""What an ONNX file may hold, checked before onnxruntime sees it.

onnxruntime resolves external tensors against the working directory even for a model given as bytes, and custom domains load
native code; neither has a place in a detector that `fit` wrote.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from anoaudit.errors import AuditError

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
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
    for node in _nodes(model):
        if node.domain not in DOMAINS:
            raise AuditError(f"model.onnx uses the operator {node.op_type!r} of the domain {node.domain!r}", HINT)
    if model.functions or len(model.graph.input) != 1:
        raise AuditError("model.onnx is not a detector: it should have one input and no functions", HINT)
    if tuple(value.name for value in model.graph.output) != outputs:
        raise AuditError("model.onnx and the manifest differ in their outputs", HINT)
    return model


def _check_size(tensor: TensorProto) -> None:
    declared = 1
    for dim in tensor.dims:
        if dim < 0:
            raise AuditError(f"model.onnx declares a negative size for the tensor {tensor.name!r}", HINT)
        declared *= dim
    held = max(
        len(tensor.raw_data) * 2,  # two 4-bit values a byte is the densest type
        len(tensor.float_data), len(tensor.int32_data) * 4, len(tensor.int64_data), len(tensor.double_data),
        len(tensor.uint64_data), len(tensor.string_data),
    )  # fmt: skip
    if declared > held:
        raise AuditError(f"model.onnx declares {declared} values for the tensor {tensor.name!r} but holds fewer", HINT)


def _graphs(model: ModelProto) -> Iterator[GraphProto]:
    pending = [model.graph]
    while pending:
        graph = pending.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == AttributeProto.GRAPH:
                    pending.append(attribute.g)
                pending.extend(attribute.graphs)


def _nodes(model: ModelProto) -> Iterator[NodeProto]:
    for graph in _graphs(model):
        yield from graph.node


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    for graph in _graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield sparse.values
            yield sparse.indices
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors
