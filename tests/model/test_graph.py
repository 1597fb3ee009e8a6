from __future__ import annotations

import time
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tiny_models import image_model, model_of, numbers, row_model, row_nodes

from anoaudit.errors import AuditError
from anoaudit.model.graph import check_graph

SCORE = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch"])


def refused(model: onnx.ModelProto | bytes, match: str) -> None:
    data = model if isinstance(model, bytes) else model.SerializeToString()
    with pytest.raises(AuditError, match=match) as caught:
        check_graph(data, ("score",))
    assert "\n" not in caught.value.message


def external(name: str = "weights") -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def branch(*nodes: onnx.NodeProto, tensors: Any = ()) -> onnx.GraphProto:
    out = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    return helper.make_graph(list(nodes), "branch", [], [out], list(tensors))


def conditional(inner: onnx.GraphProto) -> onnx.ModelProto:
    """The row model with an `If` that its score does not need."""
    nodes, tensors = row_nodes()
    node = helper.make_node("If", ["yes"], ["unused"], then_branch=inner, else_branch=inner)
    return model_of([*nodes, node], [*tensors, numbers("yes", True, np.bool_)])


def constant(value: onnx.TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["inner"], value=value)


def with_nodes(*nodes: onnx.NodeProto, tensors: Any = ()) -> onnx.ModelProto:
    own, held = row_nodes()
    return model_of([*own, *nodes], [*held, *tensors])


def test_plain_models_pass() -> None:
    check_graph(row_model().SerializeToString(), ("score",))
    check_graph(image_model().SerializeToString(), ("score", "map"))
    check_graph(conditional(branch(constant(numbers("v", [1.0], np.float32)))).SerializeToString(), ("score",))


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"hello", b"\x08", bytes(range(256)), b"{}", row_model().SerializeToString()[5:]]
)
def test_what_is_no_model(data: bytes) -> None:
    refused(data, "model.onnx")


def test_external_tensors_anywhere() -> None:
    refused(with_nodes(tensors=[external()]), "outside the file")
    refused(with_nodes(constant(external())), "outside the file")
    refused(conditional(branch(constant(external()))), "outside the file")
    refused(conditional(branch(tensors=[external()])), "outside the file")
    deep = conditional(branch(tensors=[external("inner")])).graph.node[-1]
    refused(conditional(branch(deep)), "outside the file")
    without_place = external()
    without_place.data_location = TensorProto.DEFAULT
    refused(with_nodes(tensors=[without_place]), "outside the file")


def test_a_subgraph_whose_attribute_hides_its_type() -> None:
    model = conditional(branch(tensors=[external()]))
    for attribute in model.graph.node[-1].attribute:
        attribute.type = onnx.AttributeProto.INT
    refused(model, "outside the file")


def test_domains() -> None:
    refused(with_nodes(helper.make_node("Evil", ["items"], ["x"], domain="com.evil")), "domain")
    refused(with_nodes(helper.make_node("Gelu", ["items"], ["x"], domain="com.microsoft")), "domain")
    refused(conditional(branch(helper.make_node("Evil", [], ["inner"], domain="evil"))), "domain")
    model = row_model()
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    refused(model, "domain")


def test_functions() -> None:
    model = row_model()
    opsets = [helper.make_opsetid("", 18)]
    body = [helper.make_node("Abs", ["x"], ["y"])]
    model.functions.append(helper.make_function("ai.onnx", "Own", ["x"], ["y"], body, opsets))
    refused(model, "functions")


def test_training_graphs_and_sparse_tensors() -> None:
    model = row_model()
    model.training_info.add().algorithm.CopyFrom(branch(tensors=[external()]))
    refused(model, "training")
    sparse = helper.make_sparse_tensor(numbers("s", [1.0], np.float32), numbers("", [0]), [10**12])
    model = row_model()
    model.graph.sparse_initializer.append(sparse)
    refused(model, "sparse")
    refused(with_nodes(helper.make_node("Constant", [], ["x"], sparse_value=sparse)), "sparse")


@pytest.mark.parametrize("dims", [[10**12], [1 << 62, 1 << 62], [-1], [20]])
def test_declared_sizes(dims: list[int]) -> None:
    tensor = TensorProto(name="big", data_type=TensorProto.FLOAT, dims=dims, raw_data=b"\0" * 8)
    refused(with_nodes(tensors=[tensor]), "declares")
    refused(conditional(branch(constant(tensor))), "declares")


def test_a_size_with_more_digits_than_can_be_shown() -> None:
    tensor = TensorProto(name="big", data_type=TensorProto.FLOAT, dims=[1 << 62] * 300)
    refused(with_nodes(tensors=[tensor]), "declares")
    tensor.dims.extend([1 << 62] * 200_000 + [0])
    start = time.process_time()
    check_graph(with_nodes(tensors=[tensor]).SerializeToString(), ("score",))
    assert time.process_time() - start < 10  # not a speed: a guard against squares


@pytest.mark.parametrize("name", ["n" * 1_000_000, "\x1b[2J\u202e" * 1000])
def test_long_and_hostile_names_make_short_and_plain_messages(name: str) -> None:
    for model in (with_nodes(tensors=[external(name)]), with_nodes(helper.make_node("Evil", [], ["x"], domain=name))):
        with pytest.raises(AuditError) as caught:
            check_graph(model.SerializeToString(), ("score",))
        assert caught.value.message.isprintable()
        assert len(str(caught.value)) <= 500


def test_wrong_inputs_and_outputs() -> None:
    nodes, tensors = row_nodes()
    refused(image_model(), "outputs")
    refused(model_of(nodes, tensors, outputs=[helper.make_tensor_value_info("sum", 11, None)]), "outputs")
    refused(model_of(nodes, tensors, outputs=[]), "outputs")
    refused(model_of(nodes, tensors, inputs=[]), "one input")
    two = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["batch", 3]) for name in ("items", "more")]
    refused(model_of(nodes, tensors, inputs=two), "one input")


def test_loops_and_randomness() -> None:
    body = helper.make_graph([], "body", [], [])
    refused(with_nodes(helper.make_node("Loop", ["", ""], ["x"], body=body)), "'Loop'")
    refused(with_nodes(helper.make_node("Scan", ["items"], ["x"], body=body, num_scan_inputs=1)), "'Scan'")
    refused(with_nodes(helper.make_node("SequenceMap", ["items"], ["x"], body=body)), "'SequenceMap'")
    refused(with_nodes(helper.make_node("RandomNormal", [], ["x"], shape=[3])), "'RandomNormal'")
    refused(conditional(branch(helper.make_node("RandomUniformLike", ["items"], ["inner"]))), "'RandomUniformLike'")


GIANT = [10**6, 10**6]


@pytest.mark.parametrize(
    "make",
    [
        lambda size: with_nodes(helper.make_node("ConstantOfShape", ["s"], ["x"]), tensors=[numbers("s", size)]),
        lambda size: with_nodes(helper.make_node("Expand", ["items", "s"], ["x"]), tensors=[numbers("s", size)]),
        lambda size: with_nodes(helper.make_node("Tile", ["items", "s"], ["x"]), tensors=[numbers("s", size)]),
        lambda size: with_nodes(
            helper.make_node("Constant", [], ["s"], value_ints=size), helper.make_node("ConstantOfShape", ["s"], ["x"])
        ),
        lambda size: with_nodes(
            helper.make_node("Constant", [], ["s"], value=numbers("v", size)), helper.make_node("ConstantOfShape", ["s"], ["x"])
        ),
        lambda size: with_nodes(
            helper.make_node("Range", ["a", "b", "c"], ["x"]),
            tensors=[numbers("a", 0), numbers("b", size[0] * size[1]), numbers("c", 1)],
        ),
    ],
)  # fmt: skip
def test_giant_constant_sizes(make: Any) -> None:
    refused(make(GIANT), "grows its tensors")
    check_graph(make([1000, 1000]).SerializeToString(), ("score",))


@pytest.mark.parametrize(
    ("operator", "inputs", "size"),
    [
        ("ConstantOfShape", ["s"], [1] * 40 + [10**10]), ("ConstantOfShape", ["s"], [1] * 1000),
        ("HannWindow", ["s"], 10**10), ("CenterCropPad", ["items", "s"], [10**10]), ("DFT", ["items", "s"], 10**10),
        ("Pad", ["items", "s"], [0, 0, 0, 10**10]), ("Resize", ["items", "", "", "s"], [10**5, 10**5]),
        ("Resize", ["items", "", "s"], np.full(2, 1e5, dtype=np.float32)), ("AffineGrid", ["items", "s"], [1, 1, 10**5, 10**5]),
    ],
)  # fmt: skip
def test_giant_constant_sizes_of_other_operators(operator: str, inputs: list[str], size: Any) -> None:
    tensor = numbers("s", size, np.asarray(size).dtype)
    refused(with_nodes(helper.make_node(operator, inputs, ["x"]), tensors=[tensor]), "grows its tensors")


def test_many_sizes_that_are_giant_together() -> None:
    nodes = [helper.make_node("ConstantOfShape", ["s"], [f"x{i}"]) for i in range(3)]
    refused(with_nodes(*nodes, tensors=[numbers("s", [10**8])]), "grows its tensors")
    check_graph(with_nodes(*nodes[:2], tensors=[numbers("s", [10**8])]).SerializeToString(), ("score",))
    frame = helper.make_node("Pad", ["items", "s"], ["x"])
    check_graph(with_nodes(frame, tensors=[numbers("s", [0, 0, 500, 500] * 2)]).SerializeToString(), ("score",))


def test_a_range_that_never_ends() -> None:
    node = helper.make_node("Range", ["a", "b", "c"], ["x"])
    refused(with_nodes(node, tensors=[numbers("a", 0), numbers("b", 1), numbers("c", 0)]), "grows its tensors")


def test_many_nodes_are_checked_in_linear_time() -> None:
    nodes = [helper.make_node("Abs", ["items"], [f"x{i}"]) for i in range(20_000)]
    start = time.process_time()
    check_graph(with_nodes(*nodes).SerializeToString(), ("score",))
    assert time.process_time() - start < 10  # not a speed: a guard against squares
