"""What somebody who means harm would do to a model directory, beside a hostile manifest. For attacks.py."""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto
from onnx.helper import make_node as node
from PIL import Image

from anoaudit.model.calibration import Calibration, conformal

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))
from test_artefact import rehash, table
from test_graph import branch, conditional, constant, external, with_nodes
from test_manifest import WORDS
from tiny_models import IMAGES, TABLE, model_of, numbers, row_model, row_nodes, tiny_scores, write_tiny

Rng = np.random.Generator
FILES = ("manifest.json", "model.onnx", "calibration.parquet", "scores.parquet", "README.md")
Attack = Callable[[Rng, Path, list[Path]], None]  # changes the model, given models of other kinds


def tiny(folder: Path) -> list[Path]:
    """One model of each kind, complete with the optional files, and pictures for the one of images."""
    kinds: dict[str, tuple[Any, Calibration | None]] = {
        "table": (TABLE, None), "words": (WORDS, None), "images": (IMAGES, None),
        "conformal": (TABLE, conformal(tiny_scores(30))), "none": (TABLE, Calibration(kind="none", note="few")),
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    extra = folder / "extra.parquet"
    extra.write_bytes(table(score=[1.0]))
    (folder / "pictures").mkdir()
    for i in range(4):
        Image.new("RGB", (9, 7), (50 * i, 10, 90)).save(folder / "pictures" / f"{i}.png")
    return [write_tiny(folder / name, spec, calibration=calibration, scores=extra, card="# card\n").path
            for name, (spec, calibration) in kinds.items()]  # fmt: skip


def size(rng: Rng) -> int:
    """Of a tensor: modest, or beyond what graph.py lets pass; what lies between is by design up to 2 GiB."""
    return 1 << int(rng.choice([10, 16, 22, 29, 33, 40, 62]))


def truncated(rng: Rng, path: Path, others: list[Path]) -> None:
    file = path / str(rng.choice(FILES))
    file.write_bytes(file.read_bytes()[: rng.integers(file.stat().st_size)])
    if rng.random() < 0.5 and file.name != FILES[0]:
        rehash(path)


def flipped(rng: Rng, path: Path, others: list[Path], names: tuple[str, ...] = FILES, again: bool = False) -> None:
    file = path / str(rng.choice(names))
    data = bytearray(file.read_bytes())
    for at in rng.integers(len(data), size=rng.integers(1, 5)):
        data[at] ^= 1 << int(rng.integers(8))
    file.write_bytes(data)
    if again:
        rehash(path)


def graph_flipped(rng: Rng, path: Path, others: list[Path]) -> None:
    flipped(rng, path, others, ("model.onnx",), again=True)


def calibration_flipped(rng: Rng, path: Path, others: list[Path]) -> None:
    flipped(rng, path, others, ("calibration.parquet",), again=True)


def swapped(rng: Rng, path: Path, others: list[Path]) -> None:
    other = others[rng.integers(len(others))]
    for name in rng.choice(FILES, size=rng.integers(1, 3), replace=False):
        shutil.copy(other / str(rng.choice([name, name, name, *FILES])), path / str(name))
    if rng.random() < 0.7:
        try:
            rehash(path)
        except ValueError:  # the manifest is no longer one
            return


NAMES = ("x", ".hidden", "model.onnx.data", "MODEL.ONNX", "a\nb", "\x1b[2J", "\u202e", "\x01" * 255, "ä" * 127, "-rf")


def extra(rng: Rng, path: Path, others: list[Path]) -> None:
    name = str(rng.choice(NAMES)) if rng.random() < 0.9 else os.fsdecode(b"\xff" * 200)
    if rng.random() < 0.5:
        (path / name).write_bytes(rng.bytes(10))
    else:
        (path / name).mkdir()


def linked(rng: Rng, path: Path, others: list[Path]) -> None:
    file, other = path / str(rng.choice(FILES)), others[rng.integers(len(others))]
    how = rng.integers(4)
    content = file.read_bytes()
    file.unlink()
    if how == 0:
        targets = ["/etc/passwd", "/dev/zero", "nowhere", file.name, str(other / file.name), "/", "/proc/self/mem"]
        file.symlink_to(str(rng.choice(targets)))
    elif how == 1:
        os.link(other / file.name, file)
    elif how == 2:  # a file of the same bytes under two names is only a file
        (path.parent / "twin").write_bytes(content)
        os.link(path.parent / "twin", file)
        (path.parent / "twin").unlink()
    else:
        (path / str(rng.choice(NAMES))).symlink_to(other)


def special(rng: Rng, path: Path, others: list[Path]) -> None:
    file = path / str(rng.choice(FILES))
    file.unlink()
    how = rng.integers(4)
    if how == 0:
        os.mkfifo(file)
    elif how == 1:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(os.path.relpath(file))  # a socket's path may not be long
    elif how == 2:
        file.mkdir()
    else:
        with file.open("wb") as sparse:
            sparse.truncate(int(rng.choice([1 << 20, 1 << 26, (1 << 26) + 1, 1 << 40])))


def used(tensors: list[TensorProto], *nodes: onnx.NodeProto) -> onnx.ModelProto:
    """The row model whose score needs `x`, so that onnxruntime cannot leave it out."""
    own, held = row_nodes()
    tail = [node("Cast", ["x"], ["xd"], to=TensorProto.DOUBLE), node("ReduceMax", ["xd"], ["xm"], keepdims=0),
            node("Mul", ["xm", "zero"], ["x0"]), node("Add", ["sum", "x0"], ["all"]),
            node("Cast", ["all"], ["score"], to=TensorProto.FLOAT)]  # fmt: skip
    built = model_of([*own[:-1], *nodes, *tail], [*held, *tensors])
    built.opset_import[0].version = 20
    return built


def growing(rng: Rng) -> onnx.ModelProto:
    """A large tensor from a few bytes: by a size in the file, in an attribute, or computed."""
    n = size(rng)
    side = math.isqrt(n)
    unseen = 1 << int(rng.integers(23, 30))  # a side that graph.py does not follow: the allocation itself must fail
    one, picture = numbers("one", [1.0], np.float32), numbers("picture", np.ones((1, 1, 2, 2)), np.float32)
    line, square, scales = (
        numbers("s", [n]),
        numbers("s", [1, 1, side, side]),
        numbers("s", [1, 1, side, side], np.float32),
    )
    kernel, index = numbers("w", np.ones((1, 1, 1, 1)), np.float32), numbers("i", np.zeros((1, 1, 2, 2)))
    many = [f"x{i}" for i in range(40)]
    long = numbers("s", [1] * int(rng.integers(16, 80)) + [n])
    cases: list[tuple[list[TensorProto], list[onnx.NodeProto]]] = [
        ([one, line], [node(str(rng.choice(["Expand", "Tile", "Reshape", "CenterCropPad"])), ["one", "s"], ["x"])]),
        ([numbers("s", [side, side])], [node("ConstantOfShape", ["s"], ["x"])]),
        ([long], [node("ConstantOfShape", ["s"], ["x"])]),
        ([numbers("s", n)], [node(str(rng.choice(["HannWindow", "HammingWindow", "BlackmanWindow"])), ["s"], ["x"])]),
        ([numbers("s", [side, side])], [node("ConstantOfShape", ["s"], ["e"]), node("EyeLike", ["e"], ["x"])]),
        ([numbers("a", 0), numbers("b", n), numbers("c", int(rng.integers(0, 2)))], [node("Range", ["a", "b", "c"], ["x"])]),
        ([numbers("i", [1]), numbers("d", n), numbers("v", [0, 1])], [node("OneHot", ["i", "d", "v"], ["x"])]),
        ([one, numbers("s", [n, 0])], [node("Pad", ["one", "s"], ["x"])]),
        ([picture, square], [node("Resize", ["picture", "", "", "s"], ["x"], mode="nearest")]),
        ([picture, scales], [node("Resize", ["picture", "", "s"], ["x"], mode="nearest")]),
        ([numbers("t", np.ones((1, 2, 3)), np.float32), square], [node("AffineGrid", ["t", "s"], ["x"])]),
        ([picture, index, square], [node("MaxUnpool", ["picture", "i", "s"], ["x"], kernel_shape=[1, 1])]),
        ([numbers("r", np.ones((1, 4, 1)), np.float32), numbers("n", n)], [node("DFT", ["r", "n"], ["x"])]),
        ([numbers("s", [1 << 28])], [*(node("ConstantOfShape", ["s"], [x]) for x in many), node("Sum", many, ["x"])]),
        ([picture, kernel], [node("ConvTranspose", ["picture", "w"], ["x"], strides=[unseen, unseen])]),
        ([picture, kernel], [node("Conv", ["picture", "w"], ["x"], pads=[unseen] * 4)]),
        ([numbers("s", [unseen])], [node("Mul", ["s", "s"], ["u"]), node("ConstantOfShape", ["u"], ["x"])]),
    ]  # fmt: skip
    tensors, nodes = cases[rng.integers(len(cases))]
    return used(tensors, *nodes)


def deep(depth: int) -> bytes:
    """The row model and an `If` within an `If`, to any depth: by hand, as protobuf builds no more than a hundred levels."""

    def field(number: int, inner: bytes) -> bytes:
        length, rest = b"", len(inner)
        while rest > 127:
            length, rest = length + bytes([rest & 127 | 128]), rest >> 7
        return bytes([number << 3 | 2]) + length + bytes([rest]) + inner

    graph = branch(constant(numbers("v", [1.0], np.float32))).SerializeToString()
    name, kind = field(1, b"then_branch"), bytes([20 << 3 & 127 | 128, 1, 5])  # of an attribute that holds a graph
    for _ in range(depth):
        graph = field(1, field(2, b"inner") + field(4, b"If") + field(5, name + kind + field(6, graph)))
    return bytes(row_model().SerializeToString() + field(7, graph))  # protobuf merges the two graphs


def odd(rng: Rng) -> Any:
    """What has no place in a detector, or lies about itself."""
    name = str(rng.choice(["x", "\x1b[2J", "n" * 100_000, "a\nb", "\u202e", "/etc/passwd", "a\0b"]))
    dims = [size(rng)] * int(rng.choice([1, 2, 300])) + [0] * int(rng.integers(2))
    lies = TensorProto(name=name, data_type=int(rng.choice([1, 7, 8, 16, 22, 99])), dims=dims, raw_data=b"\0" * 8)
    cases: list[Callable[[], Any]] = [
        lambda: with_nodes(tensors=[external(name)]),
        lambda: with_nodes(constant(external(name))),
        lambda: conditional(branch(constant(external(name)))),
        lambda: with_nodes(node("Evil", ["items"], [name], domain=str(rng.choice(["com.evil", name, "com.microsoft"])))),
        lambda: with_nodes(node(name, ["items"], ["x"], name=name)),
        lambda: used([], node(str(rng.choice(["Sqrt", "Log", "Reciprocal", "Sin"])), ["items"], ["x"], name=name)),
        lambda: used([], node("Reshape", ["items", "axis"], ["x"], name=name)),
        lambda: with_nodes(tensors=[lies]),
        lambda: conditional(branch(constant(lies))),
        lambda: used([lies], node("Identity", [name], ["x"])),
        lambda: deep(int(rng.choice([1, 5, 9, 20, 30, 99, 3000]))),
        lambda: with_nodes(node(str(rng.choice(["Loop", "Scan", "RandomNormal"])), ["items"], ["x"], name=name)),
        lambda: with_nodes(node("Identity", ["x"], ["x"])),  # a cycle
        lambda: with_nodes(*[node("Abs", ["items"], [f"y{i}"]) for i in range(rng.integers(1, 5000))]),
        lambda: used([], node("StringConcat", ["items", "items"], ["x"])),
        lambda: model_of([node("Cast", ["items"], ["score"], to=int(rng.integers(0, 24)))]),
    ]  # fmt: skip
    return cases[rng.integers(len(cases))]()


def graph(rng: Rng, path: Path, others: list[Path]) -> None:
    made = growing(rng) if rng.random() < 0.5 else odd(rng)
    (path / "model.onnx").write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    rehash(path)


def calibration(rng: Rng, path: Path, others: list[Path]) -> None:
    n = int(rng.choice([0, 1, 49, 200, 5000]))
    scores = rng.gamma(4.0, 1.0, n)
    scaled = scores * float(rng.choice([1e300, 1e-320, -1.0, np.nan, np.inf, 0.0]))
    number = pa.float64()
    kinds: list[Callable[[], Any]] = [
        lambda: pa.array(scores), lambda: pa.array(scaled), lambda: pa.array(scores.astype(np.float32)), lambda: pa.nulls(n),
        lambda: pa.array([[s] for s in scores], pa.list_(number)), lambda: pa.array(scores).cast(pa.int64(), safe=False),
        lambda: pa.array([{"a": s} for s in scores], pa.struct([("a", number)])), lambda: pa.array([None] * n, number),
        lambda: pa.array(scores).dictionary_encode(), lambda: pa.array([str(s) for s in scores]), lambda: pa.array(scores > 3),
        lambda: pa.array([b"x" * 10] * n, pa.binary()), lambda: pa.array(np.zeros(2_000_000)),
        lambda: pa.array(np.arange(n), pa.timestamp("us")),
        lambda: pa.array([[("", s)] for s in scores], pa.map_(pa.string(), number)),
    ]  # fmt: skip
    column = kinds[rng.integers(len(kinds))]()
    name = str(rng.choice(["score", "score", "score", "Score", "", "\x1b[2J"]))
    columns = {name: column} if rng.random() < 0.8 else {name: column, "score.x": column, "more": column}
    compression = str(rng.choice(["zstd", "none", "gzip", "brotli"]))
    pq.write_table(pa.table(columns), path / "calibration.parquet", compression=compression)
    given = json.loads((path / "manifest.json").read_text())["calibration"]
    fits = rng.choice([1e-300, 0.0, 1.0, 2.0, 5.0, 1e300, -1e308], size=(rng.integers(1, 30), 3)).tolist()
    kind = str(rng.choice(["fitted-null", "conformal-clean", "none"]))
    rehash(path, calibration=given | {"n": len(column), "kind": kind} | ({"fits": fits} if rng.random() < 0.5 else {}))


ATTACKS: dict[str, tuple[int, Attack]] = {
    "truncated": (300, truncated), "bit flips": (300, flipped), "hashed graph flips": (500, graph_flipped),
    "hashed calibration flips": (300, calibration_flipped), "swapped files": (300, swapped), "extra files": (200, extra),
    "links": (200, linked), "special files": (200, special), "hostile graphs": (500, graph),
    "hostile calibrations": (400, calibration),
}  # fmt: skip
