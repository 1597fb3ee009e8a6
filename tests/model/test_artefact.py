from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_models import IMAGES, TABLE, WIDTH, facts, image_model, row_model, tiny_scores, write_tiny

from anoaudit.errors import AuditError
from anoaudit.model.artefact import load_model, write_model
from anoaudit.model.calibration import Calibration, conformal, fit_null
from anoaudit.model.card import render_card
from anoaudit.model.session import Session


def refused(path: Path, match: str = r"\S") -> None:
    with pytest.raises(AuditError, match=match) as caught:
        load_model(path)
    assert caught.value.exit_code == 3
    assert "\n" not in caught.value.message


def one_line(error: AuditError) -> None:
    assert "\n" not in error.message


def rehash(path: Path, **changes: Any) -> None:
    """A manifest that fits the files, as somebody who means harm would write it."""
    file = path / "manifest.json"
    values = json.loads(file.read_text())
    values["files"] = {
        name: hashlib.sha256((path / name).read_bytes()).hexdigest()
        for name in values["files"]
        if (path / name).exists()
    }
    file.write_text(json.dumps(values | changes))


def entries(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_round_trip(model: Path) -> None:
    loaded = load_model(model)
    assert loaded.graph == row_model().SerializeToString()
    assert sorted(os.listdir(model)) == [
        "README.md",
        "calibration.parquet",
        "manifest.json",
        "model.onnx",
        "scores.parquet",
    ]
    assert loaded.hash == hashlib.sha256(loaded.graph).hexdigest()
    assert loaded.identity() == {"name": "m.anoaudit", "method": "loe", "hash": loaded.hash}
    expected = fit_null(tiny_scores())
    np.testing.assert_array_equal(loaded.calibration.reference, expected.reference)
    np.testing.assert_array_equal(loaded.calibration.p_values(tiny_scores()), expected.p_values(tiny_scores()))
    assert Session(loaded.graph, "cpu").run(np.ones((2, WIDTH)))[0].tolist() == [3.0, 3.0]


@pytest.mark.parametrize(
    "calibration", [Calibration(kind="none", note="few"), conformal(tiny_scores(30)), fit_null(tiny_scores())]
)
def test_every_calibration_is_read_back(tmp_path: Path, calibration: Calibration) -> None:
    loaded = write_tiny(tmp_path / "m", IMAGES, calibration=calibration)
    assert loaded.calibration.to_json() == calibration.to_json() == loaded.manifest.calibration
    assert "p-values" in render_card(loaded.manifest, "m")


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "calibration.parquet"])
def test_missing_files(model: Path, name: str) -> None:
    (model / name).unlink()
    refused(model, f"{name} is missing")


def test_optional_files_may_be_deleted_but_not_changed(model: Path) -> None:
    (model / "scores.parquet").write_bytes(b"other")
    refused(model, "hash differs")
    (model / "scores.parquet").unlink()
    (model / "README.md").unlink()
    load_model(model)
    (model / "README.md").write_text("# card\n")
    load_model(model)
    (model / "README.md").write_text("# cart\n")
    refused(model, "hash differs")


def test_an_optional_file_the_manifest_does_not_know(tmp_path: Path) -> None:
    write_tiny(tmp_path / "m")
    (tmp_path / "m" / "README.md").write_text("x")
    refused(tmp_path / "m", "hash differs")


@pytest.mark.parametrize("name", ["extra.txt", ".DS_Store", "model.onnx.data", "a\nb"])
def test_extra_files(model: Path, name: str) -> None:
    (model / name).write_text("x")
    refused(model, "does not belong")


def test_folders_and_pipes_inside(model: Path) -> None:
    (model / "README.md").unlink()
    (model / "README.md").mkdir()
    refused(model, "not a file")
    (model / "README.md").rmdir()
    os.mkfifo(model / "README.md")
    refused(model, "not a file")
    os.unlink(model / "README.md")
    (model / "sub").mkdir()
    refused(model, "does not belong")


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "calibration.parquet", "README.md"])
def test_links_inside_are_refused(model: Path, name: str) -> None:
    (model / name).rename(model.parent / "elsewhere")
    (model / name).symlink_to(model.parent / "elsewhere")
    refused(model, "is a link")


def test_a_link_to_the_directory_is_followed(model: Path) -> None:
    link = model.parent / "link"
    link.symlink_to(model.name)
    assert load_model(link).identity()["name"] == "link"
    write_tiny(link, warnings=("second",))
    assert link.is_symlink()
    assert load_model(model).manifest.warnings == ("second",)
    assert sorted(os.listdir(model.parent)) == ["link", "m.anoaudit"]


@pytest.mark.parametrize("path", ["nothing", "file", "empty", "x" * 300, "a\0b", "loop"])
def test_what_is_no_model(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    refused(tmp_path / path)


def test_a_directory_that_may_not_be_listed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(path: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", deny)
    refused(model, "Permission denied")


def test_damaged_graphs(model: Path) -> None:
    graph = (model / "model.onnx").read_bytes()
    for damaged in (b"", graph[:-1], graph[: len(graph) // 2], graph + b"\0", bytes([graph[0] ^ 1]) + graph[1:]):
        (model / "model.onnx").write_bytes(damaged)
        refused(model, "hash differs")


def test_damaged_graphs_with_a_fitting_hash_never_crash(model: Path) -> None:
    graph = (model / "model.onnx").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(graph)
        damaged[rng.integers(len(graph))] ^= 1 << int(rng.integers(8))
        (model / "model.onnx").write_bytes(
            bytes(damaged[: rng.integers(len(graph))] if rng.random() < 0.2 else damaged)
        )
        rehash(model)
        try:
            Session(load_model(model).graph, "cpu").run(np.ones((2, WIDTH)))
        except AuditError as error:
            one_line(error)


def test_swapped_files(tmp_path: Path, model: Path) -> None:
    other = write_tiny(tmp_path / "other", IMAGES).path
    shutil.copy(other / "model.onnx", model)
    refused(model, "hash differs")
    rehash(model)
    refused(model, "differ in their outputs")
    shutil.copy(model / "calibration.parquet", model / "model.onnx")
    rehash(model)
    refused(model, "cannot be parsed")


@pytest.mark.parametrize(
    ("spec", "graph"),
    [(TABLE, row_model(WIDTH + 1)), (IMAGES, row_model()), (TABLE, image_model())],
    ids=["width", "images", "table"],
)
def test_the_graph_fits_the_input(tmp_path: Path, spec: Any, graph: Any) -> None:
    with pytest.raises(AuditError, match="differ in their"):
        write_tiny(tmp_path / "m", spec, graph=graph.SerializeToString(), outputs=("score",))
    assert os.listdir(tmp_path) == []


def table(**columns: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return sink.getvalue()


@pytest.mark.parametrize(
    "data",
    [b"", b"PAR1", table(other=[1.0]), table(score=["a"]), table(score=[1.0, None]), table(score=[1.0, float("nan")]),
     table(score=[float("inf")]), table(score=[1.0] * 199), table(score=pa.array([1, 2])), table(score=np.zeros(1_200_000))],
    ids=["empty", "magic", "column", "text", "null", "nan", "inf", "count", "integers", "bomb"],
)  # fmt: skip
def test_calibrations_that_do_not_match(model: Path, data: bytes) -> None:
    (model / "calibration.parquet").write_bytes(data)
    refused(model, "hash differs")
    rehash(model)
    refused(model, "does not fit the manifest")


def test_damaged_calibrations_with_a_fitting_hash_never_crash(model: Path) -> None:
    data = (model / "calibration.parquet").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(data)
        for at in rng.integers(len(data) // 2, len(data), 3):
            damaged[at] = rng.integers(256)
        (model / "calibration.parquet").write_bytes(bytes(damaged))
        rehash(model)
        try:
            load_model(model)
        except AuditError as error:
            one_line(error)


@pytest.mark.parametrize(
    "values",
    [{}, {"kind": "magic"}, {"kind": None}, {"kind": "fitted-null"},
     *({"kind": "fitted-null", "fits": fits} for fits in (
         None, [], 3, [[0, 0.0, 0]], [[0, -1, 0]], [[0, 1]], [[0, 1, 0, 0]], [[0, 10**400, 0]], [["x", 1, 0]], [[0, 1, -1]],
         [[0, 1, 400.0]], [[0, 1e300, 2.0]], [[0, 1, 0], [0, 1, True]], [[0, 1, 0]] * 1001))],
)  # fmt: skip
def test_calibrations_that_cannot_be(model: Path, values: dict[str, Any]) -> None:
    rehash(model, calibration={"n": 200, **values})
    refused(model)


@pytest.mark.parametrize(
    "listed",
    [{}, {"model.onnx": "0" * 64}, {"../x": "0" * 64, "model.onnx": "0" * 64, "calibration.parquet": "0" * 64}],
)
def test_wrong_lists_of_files(model: Path, listed: dict[str, str]) -> None:
    values = json.loads((model / "manifest.json").read_text())
    (model / "manifest.json").write_text(json.dumps(values | {"files": listed}))
    refused(model, "wrong files")


def test_files_that_are_too_large(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (model / "README.md").open("wb") as file:
        file.truncate((1 << 20) + 1)
    refused(model, "larger than a model's may be")


def failures() -> list[Any]:
    full = OSError(28, "No space left on device")
    return [
        ("write_bytes", full),
        ("write_text", full),
        ("chmod", OSError(1, "no")),
        ("write_bytes", KeyboardInterrupt()),
    ]


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize(("name", "error"), failures())
def test_a_failure_leaves_all_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool, name: str, error: BaseException
) -> None:
    if exists:
        write_tiny(tmp_path / "m")
    before = entries(tmp_path)

    def fail(*arguments: Any, **named: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Path, name, fail)
        with pytest.raises(AuditError if isinstance(error, OSError) else KeyboardInterrupt):
            write_tiny(tmp_path / "m", warnings=("new",))
    assert entries(tmp_path) == before
    assert os.listdir(tmp_path) == (["m"] if exists else [])


def test_a_failing_rename_brings_the_old_model_back(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, rename = entries(model.parent), Path.rename

    def fail(self: Path, target: Path) -> Path:
        if target == model and not self.name.endswith(".old"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail)
        with pytest.raises(AuditError, match="cannot be written"):
            write_tiny(model)
    assert entries(model.parent) == before


@pytest.mark.parametrize("room", [100, 1500])
def test_a_full_disk(model: Path, full_disk: Callable[[int], None], room: int) -> None:
    before = entries(model.parent)
    full_disk(room)  # the graph does not fit, then the calibration
    with pytest.raises(AuditError, match="cannot be written"):
        write_tiny(model, calibration=fit_null(np.random.default_rng(0).random(1000)))
    full_disk(1 << 30)
    assert entries(model.parent) == before


def test_what_would_not_load_is_not_written(model: Path) -> None:
    before = entries(model.parent)
    with pytest.raises(AuditError):
        write_tiny(model, graph=b"no graph")
    assert entries(model.parent) == before


def test_replacing(model: Path) -> None:
    write_tiny(model, IMAGES)
    assert sorted(os.listdir(model)) == ["calibration.parquet", "manifest.json", "model.onnx"]
    assert os.listdir(model.parent) == ["m.anoaudit"]


def test_long_names_and_new_folders(tmp_path: Path) -> None:
    path = tmp_path / "new" / ("ü" * 120 + "m" * 15)
    write_tiny(path)
    write_tiny(path)
    assert os.listdir(tmp_path / "new") == [path.name]


def test_a_place_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file" / "m", tmp_path / ("x" * 300)):
        with pytest.raises(AuditError, match="cannot be written"):
            write_tiny(place)
    assert os.listdir(tmp_path) == ["file"]


def test_names_that_are_no_unicode(tmp_path: Path) -> None:
    data = {"name": "a\udcff", "fingerprint": "0", "rows": 3}
    manifest = facts(data=data)
    write_model(
        tmp_path / "m",
        manifest,
        row_model().SerializeToString(),
        fit_null(tiny_scores()),
        card=render_card(manifest, "m\udcff"),
    )
