"""Mini-batch training, the same for every method: epochs, best state, checkpoint and resume, back-off when memory runs out."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from anoaudit.errors import AuditError
from anoaudit.progress import Reporter
from anoaudit.training.checkpoint import Checkpoints, pack_optimizer, unpack_optimizer
from anoaudit.training.device import epoch_generator, seed_noise


class Batches(Protocol):
    """Training items by index, already on the device: `x` float32[B, …] and labels int8[B] (-1 unknown)."""

    @property
    def labels(self) -> Tensor:
        """int8[N], -1 unknown."""
        ...

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """The items at these indices."""
        ...


SMALLEST_BATCH = 2  # contrasts need two


class Part:
    """Some of the items of other batches."""

    def __init__(self, data: Batches, rows: Tensor) -> None:
        self._data, self._rows = data, rows

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, indices: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """See Batches."""
        return self._data.batch(self._rows[indices], device)

    @property
    def labels(self) -> Tensor:
        """See Batches."""
        return self._data.labels[self._rows]

    @property
    def vectors(self) -> Tensor | None:
        """Those of these items, where the data has vectors of whole images."""
        found: Tensor | None = getattr(self._data, "vectors", None)
        return None if found is None else found[self._rows]

    @property
    def alignment(self) -> float:
        """That of all items, where the data has one."""
        return float(getattr(self._data, "alignment", 0.0))


#: (x, labels, epoch) → scalar loss; None where a batch has nothing to learn from: then no step is taken.
Objective = Callable[[Tensor, Tensor, int], Tensor | None]
#: (epoch just finished) → whether it stands; one that does not is taken back, and training ends before it.
Accept = Callable[[int], bool]
#: (random generator of the epoch, batch size) → indices of each batch of the epoch, for methods that compose their batches.
Sampler = Callable[[torch.Generator, int], Iterable[Tensor]]


@dataclass(frozen=True)
class Schedule:
    """How to optimise. `warmup` epochs come before the best (lowest training loss) epoch is looked for.

    With `patience` training ends after so many epochs without a better one. With `final_lr` the step falls to it along half a
    cosine, epoch by epoch. `sgd` has Nesterov's momentum, 0.9.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float = 0.0
    warmup: int = 0
    keep_best: bool = True
    patience: int | None = None
    optimizer: Literal["adam", "rmsprop", "sgd"] = "adam"
    final_lr: float | None = None

    def lr_at(self, epoch: int) -> float:
        """The step in this epoch, from 0."""
        if self.final_lr is None:
            return self.lr
        return self.final_lr + (self.lr - self.final_lr) * (1 + math.cos(math.pi * epoch / self.epochs)) / 2


@dataclass
class History:
    """What happened: the mean loss of each epoch, the epoch kept, the batch size in the end."""

    losses: list[float] = field(default_factory=list)
    best_epoch: int = -1
    batch_size: int = 0
    weight_change: float = 0.0  # largest absolute change of any weight


def train(
    module: nn.Module,
    objective: Objective,
    data: Batches,
    schedule: Schedule,
    *,
    device: torch.device,
    seed: int,
    checkpoints: Checkpoints,
    reporter: Reporter,
    memory: deque[float] | None = None,
    stage: str = "train",
    sampler: Sampler | None = None,
    accept: Accept | None = None,
) -> History:
    """Minimise the objective; bf16 autocast on a GPU. Leaves the best epoch's weights in `module`.

    Without a `sampler` an epoch is a random order of all items, cut into batches. `memory` is what the objective carries from
    batch to batch; it is kept with the checkpoints, like the weights. `accept` judges each epoch.
    Raises AuditError when the loss stops being finite.
    """
    module.to(device).train()
    parameters = [p for p in module.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in parameters]
    optimizer = _optimizer(parameters, schedule)
    history = History(batch_size=min(schedule.batch_size, len(data)))
    memory = deque() if memory is None else memory
    best = _copied(module.state_dict())
    start = 0
    found = checkpoints.load(stage)
    if found is not None:
        state, tensors = found
        module.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        best = {k[5:]: v.to(device) for k, v in tensors.items() if k.startswith("best.")}
        unpack_optimizer(optimizer, state["optimizer"], tensors)
        history = History(state["losses"], state["best_epoch"], state["batch_size"])
        start = state["epoch"]
        memory.clear()
        memory.extend(state["memory"])
        reporter.note(f"resuming after epoch {start}")
    with reporter.phase("training", schedule.epochs) as task:
        epoch = start
        while epoch < schedule.epochs and not _exhausted(history, epoch, schedule.patience):
            saved = _copied((module.state_dict(), optimizer.state_dict())), list(memory)
            for group in optimizer.param_groups:
                group["lr"] = schedule.lr_at(epoch)
            try:
                loss = _epoch(module, objective, data, optimizer, history.batch_size, device, seed, epoch, sampler)
            except (MemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
                if history.batch_size <= SMALLEST_BATCH:
                    raise AuditError(
                        f"out of memory even with batches of {history.batch_size}", "use smaller images or --device cpu"
                    ) from error
                module.load_state_dict(saved[0][0])
                optimizer.load_state_dict(saved[0][1])
                memory.clear()
                memory.extend(saved[1])
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                history.batch_size = max(SMALLEST_BATCH, history.batch_size // 2)
                reporter.note(f"out of memory: going on with batches of {history.batch_size}")
                continue
            if not math.isfinite(loss):
                raise AuditError(
                    f"training diverged: the loss is {loss} in epoch {epoch + 1}", "lower the step with --set lr=1e-4"
                )
            if accept is not None and not accept(epoch):
                module.load_state_dict(saved[0][0])
                break
            history.losses.append(loss)
            epoch += 1
            if epoch > schedule.warmup and (history.best_epoch < 0 or loss < history.losses[history.best_epoch]):
                history.best_epoch = epoch - 1
                best = _copied(module.state_dict())
            task.update(epoch, f"loss {loss:.4g}")
            if checkpoints.due():
                _save(checkpoints, stage, module, best, optimizer, history, list(memory), epoch)
    if schedule.keep_best and history.best_epoch >= 0:
        module.load_state_dict(best)
    history.weight_change = max(
        (float((a - p.detach()).abs().max()) for a, p in zip(before, parameters, strict=True)), default=0.0
    )
    module.eval()
    return history


def _optimizer(parameters: list[nn.Parameter], schedule: Schedule) -> torch.optim.Optimizer:
    lr, decay = schedule.lr, schedule.weight_decay
    if schedule.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=lr, weight_decay=decay)
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=lr, weight_decay=decay, momentum=0.9, nesterov=True)
    return torch.optim.Adam(parameters, lr=lr, weight_decay=decay)


def _copied(state: Any) -> Any:
    """The same nested state with tensors of its own: a tenth of deepcopy's time, which shows where epochs are short."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    return type(state)(map(_copied, state)) if isinstance(state, list | tuple) else state


def _exhausted(history: History, epoch: int, patience: int | None) -> bool:
    return patience is not None and history.best_epoch >= 0 and epoch - 1 - history.best_epoch >= patience


def _out_of_memory(error: BaseException) -> bool:
    """CUDA has a type of its own for it; the CPU's allocator raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        sign in str(error) for sign in ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    )


def _epoch(
    module: nn.Module,
    objective: Objective,
    data: Batches,
    optimizer: torch.optim.Optimizer,
    batch_size: int,
    device: torch.device,
    seed: int,
    epoch: int,
    sampler: Sampler | None,
) -> float:
    """One pass; the mean loss over items. A last batch of one item is left out: contrasts need two."""
    seed_noise((seed * 1_000_003 + epoch) % (2**63 - 1), device)
    generator = epoch_generator(seed, epoch)
    total, count = 0.0, 0
    module.train()
    whole = torch.split(torch.randperm(len(data), generator=generator), batch_size) if sampler is None else ()
    for indices in whole if sampler is None else sampler(generator, batch_size):
        if len(indices) < SMALLEST_BATCH <= len(data):
            continue
        x, labels = data.batch(indices, device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            loss = objective(x, labels, epoch)
        if loss is None:
            continue
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += float(loss.detach()) * len(indices)
        count += len(indices)
    return total / max(count, 1)


def _save(
    checkpoints: Checkpoints,
    stage: str,
    module: nn.Module,
    best: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    history: History,
    memory: list[float],
    epoch: int,
) -> None:
    scalars, tensors = pack_optimizer(optimizer)
    tensors |= {f"model.{k}": v for k, v in module.state_dict().items()} | {f"best.{k}": v for k, v in best.items()}
    state = {
        "epoch": epoch, "losses": history.losses, "best_epoch": history.best_epoch, "batch_size": history.batch_size,
        "optimizer": scalars, "memory": memory,
    }  # fmt: skip
    checkpoints.save(stage, state, tensors)
