"""Device and seeds."""

from __future__ import annotations

import torch

from anoaudit.errors import AuditError


def choose_device(name: str) -> torch.device:
    """`auto`, `cpu` or `cuda`; an explicit cuda that is not there raises AuditError."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise AuditError("--device cuda: torch finds no CUDA device", "run `anoaudit doctor`, or use --device cpu")
    return torch.device("cuda")


def seed_everything(seed: int, device: torch.device) -> None:
    """Seeds torch; deterministic kernels where they exist (on the CPU results are then repeatable bit for bit)."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = False
        # TensorFloat-32 keeps 10 bits of the features; calibration on the CPU and an audit on the GPU must see the same ones.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """The order of an epoch follows from (seed, epoch) alone, so a resumed run needs no generator state."""
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch * 7919 + 12345) % (2**63 - 1))


def seed_noise(seed: int, device: torch.device) -> None:
    """Seed the generators that training on `device` draws from.

    torch.manual_seed seeds every kind of device, and where there is none notes it for later, with a traceback, each time.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)
