"""Checkpoints in `<MODEL>.part/`: tensors as safetensors, the rest as JSON; each write is a rename."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from anoaudit.errors import AuditError, UsageError
from anoaudit.training.differences import differences

SECONDS_BETWEEN = 10.0
STATE, LOCK = "state.json", "lock"
#: Nothing to go on from: the last two are files that are not yet renamed when a fit is killed, of scores and of safetensors.
PASSING = (LOCK, "features.f16", "pixels.u8", "scores.parquet", ".anoaudit-*.tmp", ".tmp??????")
OURS = (*PASSING, "state.*", "*.safetensors*")


class Checkpoints:
    """The state of an unfinished `fit`. `settings` must be equal for a resume: data, method, options, seed."""

    def __init__(self, folder: Path, settings: dict[str, Any], resume: bool) -> None:
        self.folder = folder
        self._settings = json.loads(json.dumps(settings))
        self._last = time.monotonic()
        self._found: dict[str, Any] | None = None
        self._earlier: dict[str, Any] | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            left = _left_behind(folder)
            if resume:
                self._found = self._read()
                return
            with contextlib.suppress(AuditError):  # a damaged one is worth nothing
                self._earlier = self._read_any()
            if self._earlier is None:
                _remove(left)
        except OSError as error:
            raise AuditError(
                f"{folder} cannot be written: {error.strerror or error}", "choose another place with -o"
            ) from error

    @property
    def earlier(self) -> str:
        """What to say of the checkpoint of an interrupted fit where this one starts anew; empty where there is none.

        It stays until this fit writes its own, so that who forgot --resume has lost nothing yet.
        """
        if self._earlier is None:
            return ""
        odd = differences(self._earlier["settings"], self._settings)
        way = f"its options differ: {odd}" if odd else "to go on from it instead, stop now and add --resume"
        return f"{self.folder} has the checkpoint of an interrupted fit, which this one, starting anew, will replace; {way}"

    def _read(self) -> dict[str, Any] | None:
        state = self._read_any()
        odd = "" if state is None else differences(state["settings"], self._settings)
        if odd:
            raise UsageError(
                f"--resume: this is not the interrupted fit: {odd}",
                "repeat its command with --resume, or start anew without",
            )
        return state

    def _read_any(self) -> dict[str, Any] | None:
        path = self.folder / STATE
        if not path.exists():
            return None
        try:
            state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            state["settings"], state["stages"] = dict(state["settings"]), dict(state["stages"])
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise AuditError(f"{path} is damaged", "start anew without --resume") from error
        return state

    @property
    def found(self) -> bool:
        """Whether there is an interrupted run to go on from."""
        return self._found is not None

    def load(self, stage: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """State and tensors of an interrupted stage, or None."""
        state = self._found
        if state is None or stage not in state["stages"]:
            return None
        entry = state["stages"][stage]
        try:
            return entry["state"], load_file(self.folder / entry["file"])
        except (SafetensorError, OSError, KeyError) as error:
            raise AuditError(f"{self.folder} holds a damaged checkpoint", "start anew without --resume") from error

    def due(self) -> bool:
        """Whether the last write is long enough ago."""
        return time.monotonic() - self._last >= SECONDS_BETWEEN

    def save(self, stage: str, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Write a stage's state. The tensors come first under a new name: a kill between the two leaves the old pair whole."""
        self._last = time.monotonic()
        path = self.folder / STATE
        name = f"{stage}-{state.get('epoch', 0)}.safetensors"
        plain = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
        try:
            if self._earlier is not None:  # its caches are this fit's by now
                _remove({path, *self.folder.glob("*.safetensors*")})
                self._earlier = None
            save_file(plain, self.folder / (name + ".tmp"))
            (self.folder / (name + ".tmp")).rename(self.folder / name)
            document = self._found or {"settings": self._settings, "stages": {}}
            old = document["stages"].get(stage, {}).get("file")
            document["stages"][stage] = {"state": state, "file": name}
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps(document), encoding="utf-8")
            temporary.rename(path)
            self._found = document
            if old and old != name:
                (self.folder / old).unlink(missing_ok=True)
        except (OSError, SafetensorError) as error:
            raise AuditError(
                f"{self.folder} cannot be written: {error}", "free some space, then go on with --resume"
            ) from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One fit at a time works in the folder; the lock goes with the process. Raises UsageError when another holds it.

    (Windows has no flock: nothing is held there.)
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / LOCK).open("w")
    except OSError as error:
        raise AuditError(
            f"{folder} cannot be written: {error.strerror or error}", "choose another place with -o"
        ) from error
    with handle:
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(
                    f"another fit is working in {folder}", "wait for it, or choose another name with -o"
                ) from error
        yield


def _left_behind(folder: Path) -> set[Path]:
    """What an earlier fit left. Raises UsageError when there is anything else: all of the folder goes after the fit."""
    ours = {path for pattern in OURS for path in folder.glob(pattern)}
    foreign = sorted(path.name for path in folder.iterdir() if path not in ours)
    if foreign:
        raise UsageError(
            f"{folder} holds {foreign[0]!r}, which no fit has written", "move it, or choose another name with -o"
        )
    return ours - {folder / LOCK}


def _remove(left: set[Path]) -> None:
    """The state first: without it the rest is nothing to go on from."""
    for path in sorted(left, key=lambda path: path.name != STATE):
        path.unlink(missing_ok=True)


def stamp(folder: Path) -> tuple[int, int] | None:
    """Tells one checkpoint from another; None where there is none."""
    try:
        info = (folder / STATE).stat()
    except OSError:
        return None
    return info.st_ino, info.st_mtime_ns


def what_is_kept(folder: Path, before: tuple[int, int] | None, resumed: bool) -> str:
    """Of a fit that was interrupted: whether there is something for --resume. `before` is the stamp of when it began."""
    now = stamp(folder)
    if now is None:
        return "nothing is kept: this fit had no checkpoint yet"
    if now != before or resumed:
        return f"a checkpoint is kept in {folder}: the same command with --resume goes on from it"
    return f"this fit had no checkpoint yet; an earlier fit's is still in {folder}, for --resume with its options"


def discard(folder: Path) -> None:
    """After a finished fit nothing stays behind."""
    shutil.rmtree(folder, ignore_errors=True)


def discard_if_fresh(folder: Path) -> None:
    """Remove the folder unless it holds a checkpoint to go on from, or anything that is not ours."""
    ours = {path for name in PASSING for path in folder.glob(name)}
    if folder.is_dir() and set(folder.iterdir()) <= ours:
        discard(folder)


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """An optimiser's state as JSON and tensors."""
    state = optimizer.state_dict()["state"]
    tensors = {f"optimizer.{i}.{k}": v for i, entry in state.items() for k, v in entry.items() if isinstance(v, Tensor)}
    scalars = {str(i): {k: v for k, v in entry.items() if not isinstance(v, Tensor)} for i, entry in state.items()}
    return scalars, tensors


def unpack_optimizer(optimizer: torch.optim.Optimizer, scalars: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """The inverse of `pack_optimizer`."""
    state: dict[int, dict[str, Any]] = {int(i): dict(entry) for i, entry in scalars.items()}
    for key, tensor in tensors.items():
        if key.startswith("optimizer."):
            _, i, name = key.split(".", 2)
            state.setdefault(int(i), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
