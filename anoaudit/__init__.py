"""anoaudit: audit whole data sets for anomalies. The verbs are loaded when first used, so importing this is free."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# onnxruntime keeps a device id in the home folder unless told so before it is first imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
__all__ = ["__version__", "contaminate", "fit", "report", "score"]

if TYPE_CHECKING:
    from anoaudit.api import contaminate, fit, report, score


def __getattr__(name: str) -> Any:
    if name in __all__:
        from anoaudit import api

        return getattr(api, name)
    raise AttributeError(f"module 'anoaudit' has no attribute {name!r}")
