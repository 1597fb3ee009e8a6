"""The exported detector at work: onnxruntime with an explicit provider, never a silent fall-back."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from anoaudit.data.items import ImageSpec, InputSpec
from anoaudit.errors import AuditError

ort.disable_telemetry_events()  # where ORT_DISABLE_TELEMETRY, set by the package, is not known
ort.set_default_logger_severity(4)  # what it logs outside of a session would come between the results
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
ROWS, IMAGES, PIXELS = 1024, 32, 32 * 384 * 384  # in a batch, at most


class Session:
    """Scores batches. `provider` is what onnxruntime really uses, `note` one line when that surprises.

    onnxruntime's own fall-back stays off: it announces itself on stdout, where the results go.
    """

    def __init__(self, data: bytes, device: str = "auto", threads: int = 0) -> None:
        self.note = ""
        self._session = self._open(data, device, threads)
        self.provider = str(self._session.get_providers()[0])
        self._input = self._session.get_inputs()[0].name
        self.outputs = tuple(output.name for output in self._session.get_outputs())

    def _open(self, data: bytes, device: str, threads: int) -> Any:
        if device != "cpu" and (device == "cuda" or gpu_visible()):
            session, reason = _try_cuda(data)
            if session is not None:
                return session
            if device == "cuda":
                raise AuditError(
                    f"--device cuda: onnxruntime cannot use a GPU here ({reason})",
                    "run `anoaudit doctor`, or --device cpu",
                )
            self.note = f"a GPU is there but onnxruntime cannot use it ({reason}); scoring on the CPU"
        try:
            return ort.InferenceSession(data, _options(threads), providers=[CPU], enable_fallback=0)
        except Exception as error:  # onnxruntime's exception types are its own and many
            raise AuditError(
                f"onnxruntime cannot load model.onnx: {_first_line(error)}", "fit the model again"
            ) from error

    def run(self, batch: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        """score float32[B] and what the second of `outputs` names, None where there is none: of images a map float32[B, h, w], of
        rows the columns' errors float32[B, D].

        Halves the batch when memory runs out.
        """
        try:
            results = self._session.run(None, {self._input: batch})
        except Exception as error:
            if len(batch) > 1 and _out_of_memory(error):
                half = len(batch) // 2
                first, second = self.run(batch[:half]), self.run(batch[half:])
                more = None if first[1] is None or second[1] is None else np.concatenate([first[1], second[1]])
                return np.concatenate([first[0], second[0]]), more
            raise AuditError(
                f"onnxruntime failed: {_first_line(error)}", "check that the data fits the model"
            ) from error
        scores, more = results[0], results[1] if len(results) > 1 else None
        _check_result("score", scores, (len(batch),))
        if more is not None:
            name, shape = ("errors", batch.shape[1:]) if self.outputs[1:] == ("errors",) else ("map", (-1, -1))
            _check_result(name, more, (len(batch), *shape))
        return scores, more


def batch_of(spec: InputSpec) -> int:
    """How many items are scored at a time: of images beyond 384 pixels a side fewer than of smaller ones."""
    return min(IMAGES, max(1, PIXELS // (spec.height * spec.width))) if isinstance(spec, ImageSpec) else ROWS


def _out_of_memory(error: Exception) -> bool:
    line = str(error).lower()
    return isinstance(error, MemoryError) or "alloc" in line or "out of memory" in line


def _check_result(name: str, values: Any, shape: tuple[int, ...]) -> None:
    """A graph may declare one shape and return another, which numpy would broadcast. -1 is any size but zero."""
    found = np.shape(values)
    fits = len(found) == len(shape) and all(n == m if m >= 0 else n > 0 for n, m in zip(found, shape, strict=True))
    if not fits or values.dtype != np.float32:
        kind = getattr(values, "dtype", type(values).__name__)
        raise AuditError(f"the model's {name} is {kind}{list(found)} for {shape[0]} items", "fit a new model")


def require_cuda() -> None:
    """Raise AuditError unless onnxruntime can really use a GPU: better before training than after it."""
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "probe", [value("x", 1, [1])], [value("y", 1, [1])])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    session, reason = _try_cuda(model.SerializeToString())
    if session is None:
        raise AuditError(
            f"--device cuda: onnxruntime cannot use a GPU here ({reason})", "run `anoaudit doctor`, or --device cpu"
        )


def gpu_visible() -> bool:
    """Whether a CUDA device may be there: trying costs seconds, and onnxruntime complains loudly without one."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    return Path("/dev/nvidiactl").exists() or (sys.platform == "win32" and CUDA in ort.get_available_providers())


def _options(threads: int) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if threads:
        options.intra_op_num_threads = threads
    return options


def _try_cuda(data: bytes) -> tuple[Any, str]:
    """A session on the GPU, or None and why not."""
    if CUDA not in ort.get_available_providers():
        return None, "this onnxruntime is built for the CPU only"
    if not gpu_visible():
        return None, "no CUDA device is visible"
    try:
        ort.preload_dlls()
        session = ort.InferenceSession(data, _options(0), providers=[(CUDA, {"use_tf32": "0"}), CPU], enable_fallback=0)
    except Exception as error:
        return None, _first_line(error)
    if session.get_providers()[0] != CUDA:
        return None, "the CUDA libraries do not load"
    return session, ""


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
