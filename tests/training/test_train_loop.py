"""The training loop: best epoch, resume bit by bit, back-off, divergence; checkpoints; the self-check."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_items import CPU, Notes, Rows, trainer_in
from torch import nn

from anoaudit.errors import AuditError, UsageError
from anoaudit.methods.loe.assignment import Assignment
from anoaudit.training import checkpoint
from anoaudit.training.checkpoint import Checkpoints, discard, discard_if_fresh, pack_optimizer, unpack_optimizer
from anoaudit.training.differences import differences
from anoaudit.training.loop import Batches, History, Schedule, train

X: Batches = Rows(torch.randn(41, 3, generator=torch.Generator().manual_seed(0)))
SCHEDULE = Schedule(epochs=6, batch_size=8, lr=1e-2, weight_decay=1e-3, warmup=2)


def network() -> nn.Module:
    """With dropout and batch normalisation: random numbers and buffers must come back as well."""
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 2))


def run(
    module,
    objective,
    folder,
    *,
    resume=False,
    schedule=SCHEDULE,
    data=X,
    memory=None,
    notes=None,
    settings=None,
    sampler=None,
    accept=None,
):
    checkpoints = Checkpoints(folder, settings or {"a": 1}, resume)
    return train(
        module,
        objective,
        data,
        schedule,
        device=CPU,
        seed=3,
        checkpoints=checkpoints,
        reporter=notes or Notes(),
        memory=memory,
        sampler=sampler,
        accept=accept,
    )


def squares(module):
    return lambda x, labels, epoch: module(x).square().sum(1).mean()


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


@pytest.fixture
def always_due(monkeypatch):
    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN", 0.0)


def test_it_learns_and_repeats_bit_by_bit(tmp_path):
    first, second = network(), network()
    history = run(first, squares(first), tmp_path / "a")
    run(second, squares(second), tmp_path / "b")
    assert same(first, second)
    assert history.losses[-1] < history.losses[0]
    assert len(history.losses) == 6
    assert history.weight_change > 0
    assert not first.training


def test_the_steps_are_adams(tmp_path):
    """Against a bare loop with the same order."""
    from anoaudit.training.device import epoch_generator

    module, other = nn.Linear(3, 1), nn.Linear(3, 1)
    other.load_state_dict(module.state_dict())
    schedule = Schedule(2, 8, 1e-2, keep_best=False)
    history = run(module, squares(module), tmp_path, schedule=schedule)
    optimizer = torch.optim.Adam(other.parameters(), lr=1e-2)
    for epoch in range(2):
        order, losses = torch.randperm(41, generator=epoch_generator(3, epoch)), []
        for start in range(0, 40, 8):  # the last batch would hold one item
            loss = other(X.batch(order[start : start + 8], CPU)[0]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert history.losses[epoch] == pytest.approx(sum(losses) / 5, rel=1e-6)
    assert same(module, other)


def test_the_best_epoch_after_the_warm_up_is_kept(tmp_path):
    module = nn.Linear(1, 1, bias=False)
    wanted = [0.0, 9.0, 5.0, 3.0, 7.0]
    after = []

    def objective(x, labels, epoch):
        if len(after) <= epoch:
            after.append([])
        after[epoch].append(module.weight.item())
        return wanted[epoch] + module.weight.sum() * 1e-3

    data = Rows(torch.zeros(4, 1))
    history = run(module, objective, tmp_path, schedule=Schedule(5, 4, 1e-2, warmup=2), data=data)
    assert history.best_epoch == 3
    assert module.weight.item() == after[4][0]  # what epoch 5 started from


def test_batches_of_the_methods_own(tmp_path):
    """The sampler gets the epoch's generator and the batch size; where the objective says None, no step is taken."""
    module, seen = nn.Linear(3, 1), []

    def sampler(generator, batch_size):
        return [torch.randint(41, (batch_size,), generator=generator) for _ in range(3)]

    def objective(x, labels, epoch):
        seen.append(x)
        return None if epoch else module(x).square().mean()

    after = []
    schedule = Schedule(2, 5, 1e-2, keep_best=False)
    run(
        module,
        lambda *a: (after.append(module.weight.tolist()), objective(*a))[1],
        tmp_path / "a",
        schedule=schedule,
        sampler=sampler,
    )
    first = list(seen)
    assert [len(x) for x in seen] == [5] * 6
    assert not torch.equal(seen[0], seen[3])
    assert after[3] == after[4] == after[5] == module.weight.tolist() != after[2]
    seen.clear()
    run(module, objective, tmp_path / "b", schedule=schedule, sampler=sampler)
    assert all(torch.equal(a, b) for a, b in zip(first, seen, strict=True))


def test_an_epoch_that_is_not_accepted_is_taken_back_and_ends_training(tmp_path):
    schedule = replace(SCHEDULE, epochs=3, keep_best=False)
    whole, stopped = network(), network()
    run(whole, squares(whole), tmp_path / "a", schedule=schedule)
    history = run(
        stopped,
        squares(stopped),
        tmp_path / "b",
        schedule=replace(schedule, epochs=9),
        accept=lambda epoch: epoch < 3,
    )
    assert len(history.losses) == 3
    assert same(whole, stopped)


def test_the_step_falls_along_half_a_cosine():
    schedule = Schedule(4, 8, 1e-1, final_lr=1e-3)
    assert [schedule.lr_at(e) for e in (0, 2)] == pytest.approx([1e-1, (1e-1 + 1e-3) / 2])
    assert Schedule(4, 8, 1e-1).lr_at(3) == 1e-1


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd"])
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, always_due, stop, optimizer):
    schedule = replace(SCHEDULE, optimizer=optimizer, final_lr=1e-4)
    whole, broken = network(), network()
    history = run(whole, squares(whole), tmp_path / "whole", schedule=schedule)

    def failing(x, labels, epoch):
        if epoch == stop and not failing.calls:
            raise KeyboardInterrupt
        failing.calls -= epoch == stop
        return squares(broken)(x, labels, epoch)

    failing.calls = 2
    with pytest.raises(KeyboardInterrupt):
        run(broken, failing, tmp_path / "part", schedule=schedule)
    again, notes = network(), Notes()
    resumed = run(again, squares(again), tmp_path / "part", resume=True, notes=notes, schedule=schedule)
    assert notes.lines == [f"resuming after epoch {stop}"]
    assert same(whole, again)
    assert resumed == history


def test_the_pool_is_resumed_too(tmp_path, always_due):
    def prepared():
        module = network()
        return module, Assignment("hard", 0.04, warmup=1)

    def objective(module, assignment, stop=-1):
        def loss(x, labels, epoch):
            if epoch == stop:
                raise KeyboardInterrupt
            normal = module(x).square().sum(1)
            return assignment.loss(normal, 1 / (normal + 0.1), labels, epoch)

        return loss

    whole, assignment = prepared()
    run(whole, objective(whole, assignment), tmp_path / "whole", memory=assignment.pool)
    assert len(assignment.pool) == 5 * 40
    broken, assignment = prepared()
    with pytest.raises(KeyboardInterrupt):
        run(broken, objective(broken, assignment, 4), tmp_path / "part", memory=assignment.pool)
    again, assignment = prepared()
    run(again, objective(again, assignment), tmp_path / "part", memory=assignment.pool, resume=True)
    assert same(whole, again)


def test_a_finished_stage_is_not_trained_again(tmp_path, always_due):
    first, second = network(), network()
    run(first, squares(first), tmp_path)

    def never(x, labels, epoch):
        raise AssertionError

    run(second, never, tmp_path, resume=True)
    assert same(first, second)


def test_out_of_memory_halves_the_batch_and_starts_the_epoch_again(tmp_path):
    def with_failure(module, pool):
        def objective(x, labels, epoch):
            pool.append(float(epoch))
            if epoch == 2 and len(x) == 8:
                objective.calls += 1
                if objective.calls == 3:
                    raise torch.OutOfMemoryError("no memory")
            return squares(module)(x, labels, epoch)

        objective.calls = 0
        return objective

    results = []
    for folder in ("a", "b"):
        module, notes, pool = network(), Notes(), Assignment("soft", 0.1).pool
        history = run(module, with_failure(module, pool), tmp_path / folder, notes=notes, memory=pool)
        assert notes.lines == ["out of memory: going on with batches of 4"]
        assert history.batch_size == 4
        assert len(history.losses) == 6
        assert list(pool).count(2.0) == 10  # nothing of the failed attempt
        results.append(module)
    assert same(*results)

    # From the epoch's start: two epochs of eights and the rest of fours give the same bits.
    module, history = network(), None
    start = Checkpoints(tmp_path / "c", {"a": 1}, False)
    start.due = lambda: True  # type: ignore[method-assign]
    train(
        module,
        squares(module),
        X,
        Schedule(2, 8, 1e-2, 1e-3, 2),
        device=CPU,
        seed=3,
        checkpoints=start,
        reporter=Notes(),
    )
    path = tmp_path / "c" / "state.json"
    state = json.loads(path.read_text())
    state["stages"]["train"]["state"]["batch_size"] = 4
    path.write_text(json.dumps(state))
    again = network()
    history = run(again, squares(again), tmp_path / "c", resume=True)
    assert history.batch_size == 4
    assert same(again, results[0])


def test_out_of_memory_has_an_end(tmp_path):
    module, sizes = network(), []

    def objective(x, labels, epoch):
        sizes.append(len(x))
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    with pytest.raises(AuditError, match="even with batches of 2"):
        run(module, objective, tmp_path)
    assert sizes == [8, 4, 2]


def test_other_errors_are_not_memory(tmp_path):
    def objective(x, labels, epoch):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        run(network(), objective, tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_divergence_is_an_error(tmp_path, value):
    module = network()
    with pytest.raises(AuditError, match=r"diverged.*epoch 2"):
        run(module, lambda x, labels, epoch: module(x).sum() * (value if epoch else 1.0), tmp_path)


def test_another_run_is_not_resumed(tmp_path, always_due):
    module = network()
    run(module, squares(module), tmp_path, settings={"seed": 1, "lr": 0.1})
    with pytest.raises(UsageError, match=r"--resume: this is not the interrupted fit: lr 0.2 \(was 0.1\)"):
        Checkpoints(tmp_path, {"seed": 1, "lr": 0.2}, resume=True)
    assert Checkpoints(tmp_path, {"seed": 1, "lr": 0.1}, resume=True).load("train") is not None
    assert Checkpoints(tmp_path, {"seed": 1, "lr": 0.1}, resume=True).load("other") is None


def test_a_checkpoint_stays_until_a_new_fit_has_its_own(tmp_path):
    Checkpoints(tmp_path, {"seed": 1}, resume=False).save("train", {"epoch": 3}, {"w": torch.zeros(2)})
    (tmp_path / "features.f16").touch()
    new = Checkpoints(tmp_path, {"seed": 2}, resume=False)
    assert new.load("train") is None
    assert "seed 2 (was 1)" in new.earlier
    assert Checkpoints(tmp_path, {"seed": 1}, resume=True).load("train")[0] == {"epoch": 3}
    new.save("calibration", {"epoch": 1}, {"w": torch.ones(2)})
    assert new.earlier == ""
    names = ["calibration-1.safetensors", "features.f16", "state.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert Checkpoints(tmp_path, {"seed": 2}, resume=True).load("train") is None


BEFORE = {
    "data": "ab", "columns": {"columns": [{"name": "a", "median": 1.0}], "dropped": {}}, "items or labels": "cd",
    "versions": {"torch": "2.11"}, "method": "loe", "options": {"epochs": 12, "strides": [8, 16], "lr": None},
    "contamination": 0.1, "seed": 0, "only_normal": False, "backbone": None, "weights": None, "backbone_arguments": {},
    "device": "auto", "id_column": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"options": {"epochs": 20, "strides": [8], "lr": 0.1}},
         "--set epochs=20 (was 12); --set strides=8 (was 8,16); --set lr=0.1 (was not given)"),
        ({"method": "lamp", "options": {}}, "--method lamp (was loe)"),
        ({"contamination": "auto", "seed": 7, "items or labels": "x"}, "--contamination auto (was 0.1); --seed 7 (was 0)"),
        ({"only_normal": True, "items or labels": "x"}, "--train-on normal (was all)"),
        ({"backbone": "none", "device": "cpu"}, "--backbone none (was not given); --device cpu (was auto)"),
        ({"backbone_arguments": {"size": 64}}, "--backbone-arg size=64 (was not given)"),
        ({"weights": {"sha256": "x"}}, "the backbone's weights"),
        ({"versions": {"torch": "2.12"}}, "torch 2.12 (was 2.11)"),
        ({"data": "x", "items or labels": "x", "columns": {"columns": [{"name": "a", "median": 2.0}]}},
         "the data (its files' names or sizes)"),
        ({"columns": {"columns": [{"name": n} for n in "bcdef"]}}, "with b, c, d and 2 more as a feature; without a as a feature"),
        ({"columns": {"columns": [{"name": "a", "median": 2.0}]}}, "the data's values"),
        ({"columns": {"columns": [{"name": "a", "median": 1.0}], "dropped": {"b": "constant"}}}, "the columns that are left out"),
        ({"items or labels": "x"}, "the labels, or which items can be read"),
        ({"id_column": "key", "columns": {}}, "--id-column key (was not given); without a as a feature"),
        ({"options": {f"o{i}": i for i in range(9)}}, "--set o5=5 (was not given); and 5 more"),
        ({}, ""),
    ],
)  # fmt: skip
def test_what_differs_is_said_in_the_options_words(changed, said):
    assert differences(BEFORE, {**BEFORE, **changed}).endswith(said)
    assert bool(said) == bool(differences(BEFORE, {**BEFORE, **changed}))


def test_no_setting_differs_unsaid():
    for name, value in BEFORE.items():
        assert differences(BEFORE, {**BEFORE, name: {"x": 1} if isinstance(value, dict) else "x"}), name


def test_nothing_to_resume_starts_anew(tmp_path):
    assert Checkpoints(tmp_path / "new", {}, resume=True).load("train") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"settings": 3, "stages": {}}', '{"settings": {"a": 1}}'])
def test_a_damaged_state_is_one_line(tmp_path, text):
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(AuditError, match="damaged"):
        Checkpoints(tmp_path, {"a": 1}, resume=True)


def test_checkpoints_save_and_load(tmp_path):
    tensors = {"w": torch.randn(3, 4), "view": torch.randn(4, 3).T, "n": torch.tensor(5)}
    checkpoints = Checkpoints(tmp_path, {"a": (1, 2)}, False)
    for epoch in (1, 2):
        checkpoints.save("train", {"epoch": epoch, "x": 0.1 + 0.2}, {k: v * epoch for k, v in tensors.items()})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.json", "train-2.safetensors"]
    state, found = Checkpoints(tmp_path, {"a": [1, 2]}, True).load("train")
    assert state == {"epoch": 2, "x": 0.1 + 0.2}
    assert all(torch.equal(found[k], 2 * v) for k, v in tensors.items())
    (tmp_path / "train-2.safetensors").write_bytes(b"xx")
    with pytest.raises(AuditError, match="damaged"):
        Checkpoints(tmp_path, {"a": [1, 2]}, True).load("train")
    discard_if_fresh(tmp_path)
    assert tmp_path.exists()
    discard(tmp_path)
    assert not tmp_path.exists()


def test_optimiser_state_survives_the_trip():
    module = network()
    optimizer = torch.optim.Adam(module.parameters())
    squares(module)(X.batch(torch.arange(8), CPU)[0], None, 0).backward()
    optimizer.step()
    scalars, tensors = pack_optimizer(optimizer)
    other = torch.optim.Adam(network().parameters())
    unpack_optimizer(other, json.loads(json.dumps(scalars)), tensors)
    for i, entry in optimizer.state_dict()["state"].items():
        assert all(
            torch.equal(torch.as_tensor(v), torch.as_tensor(other.state_dict()["state"][i][k]))
            for k, v in entry.items()
        )


SPREAD = np.linspace(0, 1, 200)


@pytest.mark.parametrize(
    ("scores", "history", "why"),
    [
        (np.append(SPREAD, np.nan), None, "not finite"),
        (np.append(SPREAD, np.inf), None, "not finite"),
        (np.ones(200), None, "1 different scores"),
        (np.repeat([1.0, 2.0], 100), None, "2 different"),
        (SPREAD, History([1.0, 1.0, 1.0], 0, 8, 0.5), "did not move"),
        (SPREAD, History([3.0, 2.0], 1, 8, 0.0), "did not move"),
    ],
)
def test_self_check_fails(tmp_path, scores, history, why):
    trainer = trainer_in(tmp_path)
    trainer.history = history
    with pytest.raises(AuditError, match=why):
        trainer.self_check(scores)


def test_self_check_passes(tmp_path):
    trainer = trainer_in(tmp_path)
    assert trainer.self_check(SPREAD) == {"distinct_scores": 200, "items": 200}
    trainer.history = History([3.0, 2.0], 1, 8, 0.1)
    assert trainer.self_check(SPREAD)["best_epoch"] == 2
    trainer.history = History([3.0], 0, 8, 0.1)  # one epoch has nothing to compare with
    assert trainer.self_check(SPREAD)["epochs"] == 1
