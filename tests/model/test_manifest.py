from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import IMAGES, TABLE, facts

from anoaudit.data.items import ColumnRule, ImageSpec, TableSpec
from anoaudit.errors import AuditError
from anoaudit.model.manifest import SCHEMA, Manifest, parse_manifest

WORDS = TableSpec(
    columns=(
        ColumnRule(name="größe", kind="numeric", median=1.5, mad=0.5),
        ColumnRule(name="art", kind="categorical", categories=("a", "b"), frequencies=(0.5, 0.25, 0.25)),
        ColumnRule(name="am", kind="datetime", format="%Y-%m-%d", median=1e9, mad=1.0),
    ),
    dropped={"id": "identifier"},
)
DIGEST = "0" * 64


def document(spec: Any = WORDS) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(facts(spec, files={"model.onnx": DIGEST}).dumps())
    return values


def parse(values: Any) -> Manifest:
    return parse_manifest(json.dumps(values).encode(), "manifest.json")


def refusal(values: Any) -> str:
    with pytest.raises(AuditError) as caught:
        parse(values)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 260
    return caught.value.message


@pytest.mark.parametrize("spec", [WORDS, TABLE, IMAGES], ids=["words", "table", "images"])
def test_round_trip(spec: Any) -> None:
    manifest = facts(spec, files={"model.onnx": DIGEST})
    again = parse_manifest(manifest.dumps().encode(), "m")
    assert again == manifest
    assert again.dumps() == manifest.dumps()


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_numbers_that_are_none_are_refused(number: str) -> None:
    text = facts(files={}).dumps().replace("1.5", number)
    assert number in text
    with pytest.raises(AuditError):
        parse_manifest(text.encode(), "m")


def test_nan_is_never_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        facts(training={"loss": float("nan")}).dumps()


def test_names_that_are_no_unicode_are_written_and_read() -> None:
    data = {"name": "a\udcff\nb", "fingerprint": "", "rows": 1}
    again = parse_manifest(facts(data=data).dumps().encode(), "m")
    assert again.data["name"] == "a\udcff\nb"


def test_what_is_printed_cannot_steer_a_terminal() -> None:
    values = document()
    values |= {"warnings": ["a\x1b[31m\nb"], "method": "l\x07oe", "calibration": {"kind": "none", "note": "\x9b"}}
    again = parse(values)
    assert (again.warnings, again.method, again.calibration["note"]) == (("a [31m b",), "l oe", " ")


def test_a_newer_schema_says_so() -> None:
    assert "newer anoaudit" in refusal(document() | {"schema": SCHEMA + 1})


def test_a_schema_of_thousands_of_digits_makes_a_short_message() -> None:
    with pytest.raises(AuditError, match="newer anoaudit") as caught:
        parse(document() | {"schema": 10**4000})
    assert len(caught.value.message) <= 500


@pytest.mark.parametrize("schema", [0, -1, True, "1", None, 1.5, [1]])
def test_other_schemas(schema: Any) -> None:
    assert "schema" in refusal(document() | {"schema": schema})


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"null", b"{", b"\xff\xfe\x00", b"\x80", b"[" * 200_000, b'{"a":' * 100_000]
)
def test_what_is_no_object(text: bytes) -> None:
    with pytest.raises(AuditError, match="not a valid manifest"):
        parse_manifest(text, "m")


REQUIRED = [key for key in document() if key not in ("backbone", "warnings", "anoaudit")]


@pytest.mark.parametrize("key", REQUIRED)
def test_missing_fields(key: str) -> None:
    values = document()
    del values[key]
    assert "schema" in refusal(values) if key == "schema" else f"{key!r} is missing" in refusal(values)


WRONG: dict[str, list[Any]] = {
    "anoaudit": [None, 1, []],
    "method": [None, 1, ["loe"]],
    "options": [None, [], "x"],
    "input": [None, [], {"kind": "frames", "columns": []}, {}, {"kind": ["table"]}, {"kind": "table"}],
    "outputs": [None, "score", [], ["map"], ["score", 1], [["score"]], ["score", "map"], ["score", "map", "errors"]],
    "backbone": ["resnet", [], 1, {}, {"name": 3}, {"name": "a", "weights": "x"}],
    "calibration": [None, [], {}, {"kind": 1}, *({"kind": "none", **bad} for bad in ({"n": "3"}, {"bulk": [1]}, {"fits": [1]}))],
    "training": [None, {}, {**document()["training"], "items": "80"}, {**document()["training"], "contamination": None}],
    "data": [None, {}, {**document()["data"], "rows": 1.5}, {**document()["data"], "fingerprint": 7}],
    "parity": [None, {}, {**document()["parity"], "mad": "0"}, {**document()["parity"], "mad": True}],
    "opset": [None, "18", 18.0, True],
    "versions": [None, [], {"a": 1}],
    "warnings": [None, "text", [1], {}],
    "files": [None, [], {"model.onnx": 1}, {"model.onnx": "abc"}],
}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_wrong_types(key: str, value: Any) -> None:
    refusal(document() | {key: value})


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "text"}, {"kind": None}, {"kind": ["numeric"]}, {"name": 3}, {"name": None}, {"name": "art"}, {"median": "1"},
        {"median": 10**400}, {"mad": None}, {"mad": [1]}, {"format": 1}, {"categories": "ab"}, {"categories": [1]},
        {"frequencies": "ab"}, {"frequencies": {"a": 1}}, {"kind": "categorical"},
        {"kind": "categorical", "categories": ["a"], "frequencies": [1.0]},
        {"kind": "categorical", "categories": ["a", "a"], "frequencies": [0.5, 0.5, 0.0]},
        {"kind": "categorical", "categories": ["a"], "frequencies": [1.5, 0.0]},
    ],
)  # fmt: skip
def test_wrong_columns(change: dict[str, Any]) -> None:
    values = document()
    values["input"]["columns"][0] |= change
    refusal(values)


def test_a_picture_keeps_its_proportions_or_not() -> None:
    values = document(IMAGES)
    assert parse(values).input == IMAGES
    values["input"]["fit"] = "pad"
    assert parse(values).input == ImageSpec(IMAGES.height, IMAGES.width, "pad")
    for wrong in ("crop", None, 1, ["pad"]):
        values["input"]["fit"] = wrong
        refusal(values)
    values["input"]["fit"] = "stretch"
    refusal(values | {"outputs": ["score", "errors"]})


@pytest.mark.parametrize("side", [0, -1, 8193, 10**30, "128", 128.0, None, True])
def test_wrong_image_sizes(side: Any) -> None:
    values = document(IMAGES)
    values["input"]["height"] = side
    refusal(values)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [place for key, inner in items for place in places(inner, (*at, key))]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.just(10**400)
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)
DOCUMENTS = [document(), document(IMAGES)]
PLACES = [places(each) for each in DOCUMENTS]


def survives(text: bytes) -> None:
    """A manifest, which can be written again, or an AuditError: nothing else."""
    try:
        manifest = parse_manifest(text, "m")
    except AuditError:
        return
    parse_manifest(manifest.dumps().encode(), "m")


@settings(max_examples=1200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_mutated_manifests(data: st.DataObject) -> None:
    which = data.draw(st.integers(0, 1))
    values = json.loads(json.dumps(DOCUMENTS[which]))
    *path, last = data.draw(st.sampled_from(PLACES[which]))
    parent = values
    for key in path:
        parent = parent[key]
    if data.draw(st.booleans()):
        parent[last] = data.draw(JSON)
    else:
        del parent[last]
    survives(json.dumps(values).encode())


@settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=30) | JSON.map(lambda value: json.dumps(value).encode()), st.integers(0, 3000))
def test_random_bytes_and_cuts(inserted: bytes, at: int) -> None:
    text = json.dumps(DOCUMENTS[0]).encode()
    survives(inserted)
    survives(text[:at])
    survives(text[:at] + inserted + text[at + 1 :])
