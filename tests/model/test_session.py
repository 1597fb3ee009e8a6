from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tiny_models import IMAGES, TABLE, WIDTH, image_model, model_of, numbers, row_model

from anoaudit.data.items import ImageSpec
from anoaudit.errors import AuditError
from anoaudit.model import session as sessions
from anoaudit.model.session import CPU, Session, batch_of

ROWS = np.arange(15.0).reshape(5, WIDTH)


def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "gpu_visible", lambda: False)


def test_rows_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    no_gpu(monkeypatch)
    for device in ("cpu", "auto"):
        session = Session(row_model().SerializeToString(), device, threads=1)
        scores, maps = session.run(ROWS)
        assert (session.provider, session.note, session.outputs, maps) == (CPU, "", ("score",), None)
        assert scores.dtype == np.float32
        assert scores.tolist() == ROWS.sum(axis=1).tolist()
    assert "torch" not in sys.modules or "torch" not in vars(sessions)


def test_images_have_maps() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (4, IMAGES.height, IMAGES.width, 3), dtype=np.uint8)
    session = Session(image_model().SerializeToString(), "cpu")
    scores, maps = session.run(pixels)
    assert maps is not None
    np.testing.assert_allclose(maps, pixels.astype(np.float32).mean(axis=3), rtol=1e-6)
    np.testing.assert_array_equal(scores, maps.max(axis=(1, 2)))


def test_cuda_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    no_gpu(monkeypatch)
    with pytest.raises(AuditError, match="--device cuda") as caught:
        Session(row_model().SerializeToString(), "cuda")
    assert caught.value.exit_code == 3
    assert "\n" not in caught.value.message


def test_auto_falls_back_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "gpu_visible", lambda: True)
    monkeypatch.setattr(sessions, "_try_cuda", lambda data: (None, "no driver"))
    session = Session(row_model().SerializeToString())
    assert session.provider == CPU
    assert "no driver" in session.note
    assert "\n" not in session.note


@pytest.mark.parametrize("value", ["", "-1"])
def test_a_hidden_gpu_is_not_tried(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert not sessions.gpu_visible()


class SmallMemory:
    """Runs at most `room` rows at a time."""

    def __init__(self, room: int, error: Exception, maps: bool = False) -> None:
        self.room, self.error, self.maps = room, error, maps
        self.sizes: list[int] = []

    def run(self, names: None, feeds: dict[str, Any]) -> list[Any]:
        batch = feeds["items"]
        self.sizes.append(len(batch))
        if len(batch) > self.room:
            raise self.error
        scores = batch.sum(axis=1).astype(np.float32)
        return [scores, np.stack([np.outer(row, row) for row in batch]).astype(np.float32)] if self.maps else [scores]


OUT_OF_MEMORY = [
    RuntimeError("Failed to allocate memory for requested buffer of size 1"), RuntimeError("CUDA failure 2: out of memory"),
    RuntimeError("std::bad_alloc"), MemoryError(),
]  # fmt: skip


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
@pytest.mark.parametrize("maps", [False, True])
def test_batches_are_halved_when_memory_runs_out(error: Exception, maps: bool) -> None:
    session = Session(row_model().SerializeToString(), "cpu")
    session._session = fake = SmallMemory(2, error, maps)
    scores, found = session.run(ROWS)
    assert scores.tolist() == ROWS.sum(axis=1).tolist()
    assert fake.sizes == [5, 2, 3, 1, 2]
    assert (found is not None) == maps
    if found is not None:
        np.testing.assert_array_equal(found[3], np.outer(ROWS[3], ROWS[3]).astype(np.float32))


@pytest.mark.parametrize("error", [*OUT_OF_MEMORY, RuntimeError("first\nsecond"), ValueError("")])
def test_other_failures_are_one_line(error: Exception) -> None:
    session = Session(row_model().SerializeToString(), "cpu")
    session._session = SmallMemory(0, error)
    with pytest.raises(AuditError, match="onnxruntime failed") as caught:
        session.run(ROWS)
    assert "\n" not in caught.value.message


def test_data_of_another_shape() -> None:
    with pytest.raises(AuditError, match="onnxruntime failed"):
        Session(row_model().SerializeToString(), "cpu").run(np.ones((2, WIDTH + 1)))


def test_graphs_that_do_not_load() -> None:
    bad = model_of([helper.make_node("NoSuchOperator", ["items"], ["score"])])
    with pytest.raises(AuditError, match="cannot load") as caught:
        Session(bad.SerializeToString(), "cpu")
    assert "\n" not in caught.value.message


def test_onnxruntime_prints_nothing_about_a_bad_graph(capfd: pytest.CaptureFixture[str]) -> None:
    """Its own fall-back does, on stdout, where the results go; so does its default logger."""
    broken = model_of([helper.make_node("Ops", ["items"], ["score"], name="node")]).SerializeToString()
    with pytest.raises(AuditError, match="cannot load"):
        Session(broken.replace(b"node", b"\xffod\xf5"), "cpu")
    giant = [helper.make_node("ConstantOfShape", ["size"], ["score"])]
    with pytest.raises(AuditError, match="onnxruntime"):
        Session(model_of(giant, [numbers("size", [1 << 62])]).SerializeToString(), "cpu").run(ROWS)
    assert capfd.readouterr() == ("", "")


def test_names_in_a_failing_graph_cannot_steer_a_terminal() -> None:
    bad = model_of([helper.make_node("Reshape", ["items", "axis"], ["score"], name="\x1b[2J")], [numbers("axis", [7])])
    with pytest.raises(AuditError, match="onnxruntime") as caught:
        Session(bad.SerializeToString(), "cpu").run(ROWS)
    assert caught.value.message.isprintable()


def lying(*nodes: onnx.NodeProto, tensors: Any = ()) -> Session:
    return Session(
        model_of(nodes, tensors, outputs=[helper.make_empty_tensor_value_info("score")]).SerializeToString(), "cpu"
    )


@pytest.mark.parametrize(
    "session",
    [
        lying(helper.make_node("Cast", ["items"], ["score"], to=TensorProto.FLOAT)),
        lying(
            helper.make_node("ReduceSum", ["items", "axis"], ["s"], keepdims=0),
            helper.make_node("Cast", ["s"], ["score"], to=TensorProto.FLOAT),
            tensors=[numbers("axis", [0, 1])],
        ),
        lying(helper.make_node("ReduceSum", ["items", "axis"], ["score"], keepdims=0), tensors=[numbers("axis", [1])]),
        lying(helper.make_node("Constant", [], ["score"], value_strings=["a", "b", "c", "d", "e"])),
    ],
    ids=["matrix", "one number", "doubles", "text"],
)  # fmt: skip
def test_scores_of_another_shape_or_kind(session: Session) -> None:
    with pytest.raises(AuditError, match="the model's score is"):
        session.run(ROWS)


def test_large_images_are_scored_a_few_at_a_time() -> None:
    assert [batch_of(ImageSpec(side, side)) for side in (64, 384, 1024, 4096)] == [32, 32, 4, 1]
    assert batch_of(TABLE) == 1024
