"""What `anoaudit doctor` looks at. A finding with a hint is a problem; a laptop without a GPU has none."""

from __future__ import annotations

import importlib.util
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

SCORING = ("numpy", "polars", "pyarrow", "pillow", "onnx", "typer", "rich", "jinja2")
FITTING = ("torch", "timm", "onnxscript", "safetensors")


def examine() -> Iterator[tuple[str, str, str]]:
    """(what, state, hint); the hint is empty when all is well."""
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}", ""
    for name in SCORING:
        found = _version(name)
        yield name, found or "missing", "" if found else "pip install anoaudit"
    missing = [name for name in FITTING if _version(name) is None]
    if missing:
        yield "fitting", f"slim installation without {', '.join(missing)}: scoring only", ""
    else:
        for name in FITTING:
            yield name, _version(name) or "", ""
    yield "av", _version("av") or "missing: pip install av, if you have videos", ""
    yield from _onnxruntime()
    if not missing:
        yield from _torch()
        yield "weights", _weights(), ""
    free = shutil.disk_usage(".").free >> 30
    yield "disk", f"{free} GiB free here", "" if free >= 1 else "free some space: features are cached on disk"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _onnxruntime() -> Iterator[tuple[str, str, str]]:
    cpu, gpu = _version("onnxruntime"), _version("onnxruntime-gpu")
    if cpu and gpu:
        yield (
            "onnxruntime", f"onnxruntime {cpu} and onnxruntime-gpu {gpu} overwrite each other",
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu[cuda,cudnn]",
        )  # fmt: skip
        return
    if importlib.util.find_spec("onnxruntime") is None:
        yield "onnxruntime", "missing", "pip install anoaudit"
        return
    import onnxruntime

    from anoaudit.model.session import CUDA, gpu_visible

    name = "onnxruntime-gpu" if gpu else "onnxruntime"
    if gpu_visible() and CUDA not in onnxruntime.get_available_providers():
        yield (
            name,
            f"{onnxruntime.__version__}, built for the CPU though a GPU is visible",
            "pip install onnxruntime-gpu[cuda,cudnn]",
        )
    else:
        yield name, f"{onnxruntime.__version__}, {'a GPU is visible' if gpu_visible() else 'CPU'}", ""


def _torch() -> Iterator[tuple[str, str, str]]:
    import torch

    if torch.cuda.is_available():
        yield "training device", torch.cuda.get_device_name(), ""
    else:
        yield "training device", f"CPU, {torch.get_num_threads()} threads", ""


def _weights() -> str:
    from anoaudit.nets.backbones import DEFAULT
    from anoaudit.nets.weights import hub_reachable, is_cached

    if is_cached(DEFAULT):
        return f"default backbone {DEFAULT} is in the hub cache"
    if hub_reachable():
        return f"default backbone {DEFAULT} can be fetched"
    return "no hub and nothing cached: images use the fixed filter bank, or --weights FILE"
