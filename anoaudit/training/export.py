"""The trained detector to ONNX: one file, symbolic batch, nothing in it that tells of the machine it was made on."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import onnx
import torch
from onnx import GraphProto
from torch import Tensor, nn

from anoaudit.errors import AuditError

INPUT = "items"


def export(detector: nn.Module, example: Tensor, outputs: tuple[str, ...]) -> bytes:
    """ONNX bytes of `detector` in eval mode. `example` has at least two rows: one row would be baked in as a constant.

    Raises AuditError with the exporter's first line when the detector cannot be exported.
    """
    detector = detector.cpu().eval()
    try:
        with _quiet(), _not_in_place(detector), torch.no_grad():
            program = torch.onnx.export(
                detector,
                (example,),
                input_names=[INPUT],
                output_names=list(outputs),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter raises dozens of types
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise AuditError(
            f"this detector cannot be exported to ONNX: {line}", "choose another backbone or detector"
        ) from error
    assert program is not None
    model = program.model_proto
    _strip(model)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def outputs_of(result: Tensor | tuple[Tensor, Tensor]) -> tuple[str, ...]:
    """The names of what a detector returns: score_B, and a map [B, h, w] of images or the columns' errors [B, D] of rows."""
    if isinstance(result, Tensor):
        return ("score",)
    return ("score", "map" if result[1].dim() == 3 else "errors")


def opset_of(graph: bytes) -> int:
    """The opset of the standard domain."""
    model = onnx.load_model_from_string(graph)
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _strip(model: onnx.ModelProto) -> None:
    """Stack traces, doc strings and the builder's paths do not belong in a file that travels."""
    del model.metadata_props[:]
    model.doc_string = ""
    model.producer_name, model.producer_version = "anoaudit", ""
    pending: list[GraphProto] = [model.graph]
    while pending:
        graph = pending.pop()
        graph.doc_string = ""
        graph.name = "detector"
        del graph.metadata_props[:]
        for value in [*graph.input, *graph.output, *graph.value_info]:
            value.doc_string = ""
            del value.metadata_props[:]
        for tensor in graph.initializer:
            tensor.doc_string = ""
            del tensor.metadata_props[:]
        for node in graph.node:
            node.doc_string = ""
            del node.metadata_props[:]
            for attribute in node.attribute:
                attribute.doc_string = ""
                if attribute.type == onnx.AttributeProto.GRAPH:
                    pending.append(attribute.g)


@contextlib.contextmanager
def _not_in_place(detector: nn.Module) -> Iterator[None]:
    """Activations that overwrite their input give the same graph, but the exporter takes nearly twice as long over them."""
    overwriting = [module for module in detector.modules() if getattr(module, "inplace", False) is True]
    try:
        for module in overwriting:
            module.inplace = False  # type: ignore[assignment]
        yield
    finally:
        for module in overwriting:
            module.inplace = True  # type: ignore[assignment]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports its steps on stdout and through several loggers; stdout is for results."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
