"""Pretrained weights: from a local safetensors file, the hub's cache, or the hub; never a retry loop, never a pickle."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from anoaudit.errors import AuditError, UsageError
from anoaudit.options import parse_value

CONNECT_SECONDS = 3.0


@dataclass
class Weights:
    """Tensors and where they come from. `arguments` and `inputs` are what the file says the architecture needs."""

    tensors: dict[str, Tensor]
    source: str
    sha256: str
    metadata: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    license: str = "unknown"

    def load_into(self, net: nn.Module, name: str) -> None:
        """Copy the weights; a classifier's may be left over, nothing may be missing. Raises AuditError."""
        expected = net.state_dict()
        for key, tensor in expected.items():
            if key not in self.tensors:
                raise AuditError(
                    f"{self.source} does not fit {name}: it has no {key}", "check --backbone and --backbone-arg"
                )
            if self.tensors[key].shape != tensor.shape:
                raise AuditError(
                    f"{self.source} does not fit {name}: {key} is {list(self.tensors[key].shape)}, not {list(tensor.shape)}",
                    "check --backbone and --backbone-arg",
                )
        net.load_state_dict({key: self.tensors[key] for key in expected})


def read_weights(path: Path) -> Weights:
    """A safetensors file; its metadata `arch`, `kwargs` (k=v,k=v) and `license` are used. Raises AuditError."""
    if path.suffix.lower() in (".pth", ".pt", ".bin", ".ckpt", ".pkl"):
        raise UsageError(f"{path} is a pickle, which can run code when loaded", "convert it to safetensors first")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        with path.open("rb") as raw:
            digest = hashlib.file_digest(raw, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise AuditError(f"{path} does not exist", "give a safetensors file with --weights") from error
    except (SafetensorError, OSError) as error:
        raise AuditError(
            f"{path} is not a readable safetensors file: {error}", "give a safetensors file with --weights"
        ) from error
    pairs = [item.partition("=") for item in metadata.get("kwargs", "").split(",") if "=" in item]
    inputs = _input_facts(metadata)
    return Weights(
        tensors, path.name, digest, metadata, {k.strip(): parse_value(v.strip()) for k, _, v in pairs}, inputs,
        str(metadata.get("license") or metadata.get("licence") or "unknown"),
    )  # fmt: skip


def _input_facts(metadata: dict[str, str]) -> dict[str, Any]:
    """mean, std and size as metadata keys of their own, or within `input`: `RGB 224 scaled to [-1,1] (mean=std=0.5)`."""
    inputs: dict[str, Any] = {key: parse_value(metadata[key]) for key in ("mean", "std", "size") if key in metadata}
    text = metadata.get("input", "")
    both = re.search(r"mean\s*=\s*std\s*=\s*([0-9.]+)", text)
    if both:
        inputs = {"mean": float(both[1]), "std": float(both[1])} | inputs
    size = re.search(r"\b([1-9][0-9]{1,3})\b", text)
    if size:
        inputs.setdefault("size", int(size[1]))
    return inputs


def is_cached(name: str) -> bool:
    """Whether the hub cache holds this timm model's weights."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        return False
    return isinstance(try_to_load_from_cache(config.hf_hub_id, "model.safetensors"), str)


def hub_reachable() -> bool:
    """One short attempt to connect; the hub client's own would retry for most of a minute."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return False
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    target = urlparse(proxy or os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    try:
        with socket.create_connection((target.hostname or "", target.port or 443), timeout=CONNECT_SECONDS):
            return True
    except OSError:
        return False


def fetch_weights(name: str, net: nn.Module, config: dict[str, Any], ways_out: str) -> Weights:
    """Weights from the hub cache or the hub, within seconds or not at all. Raises AuditError naming the ways out."""
    from huggingface_hub import hf_hub_download

    unavailable = AuditError(f"the weights of backbone {name} are neither in the hub cache nor reachable", ways_out)
    repository = config.get("hf_hub_id")
    if not repository:
        raise AuditError(f"timm knows no pretrained weights for {name}", ways_out)
    cached = is_cached(name)
    if not cached and not hub_reachable():
        raise unavailable
    try:
        file = hf_hub_download(repository, "model.safetensors", local_files_only=cached, etag_timeout=CONNECT_SECONDS)
    except Exception as error:  # the hub client raises its own, requests' and httpx's types
        raise unavailable from error
    weights = read_weights(Path(file))
    weights.source = f"{repository} (hub)"
    weights.license = str(config.get("license") or "unknown")
    return weights
