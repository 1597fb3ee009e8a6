"""What makes the suite faster and changes nothing that it tests."""

from __future__ import annotations

import functools

from torch.onnx._internal.exporter._registration import ONNXRegistry

# Every export reads the translation of all operators anew, half of the time that a small network takes; here once a process.
ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))  # type: ignore[method-assign, assignment]
