"""`manifest.json`: all that a model says about itself, checked field by field before anything is believed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from anoaudit.data.items import InputSpec, TableSpec, spec_from_json
from anoaudit.errors import AuditError

SCHEMA = 1
MAX_BYTES = 64 * 1024 * 1024
MAX_SIDE = 8192  # pixels
#: What a graph gives for each item: its score, and where an image is odd or which columns of a row are.
OUTPUTS = (("score",), ("score", "map"), ("score", "errors"))


@dataclass(frozen=True)
class Manifest:
    """The facts of a model; `files` maps each other file of the directory to its SHA-256."""

    method: str
    options: dict[str, Any]
    input: InputSpec
    outputs: tuple[str, ...]  # one of OUTPUTS
    calibration: dict[str, Any]
    training: dict[str, Any]  # rows, held out, α, seed, device, losses, self-check
    data: dict[str, Any]  # name, fingerprint, rows
    parity: dict[str, Any]
    opset: int
    versions: dict[str, str]
    backbone: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    anoaudit: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types in the order of the file."""
        return {
            "schema": SCHEMA,
            "anoaudit": self.anoaudit,
            "method": self.method,
            "options": self.options,
            "input": self.input.to_json(),
            "outputs": list(self.outputs),
            "backbone": self.backbone,
            "calibration": self.calibration,
            "training": self.training,
            "data": self.data,
            "parity": self.parity,
            "opset": self.opset,
            "versions": self.versions,
            "warnings": list(self.warnings),
            "files": self.files,
        }

    def dumps(self) -> str:
        """The file's text: strict JSON, no NaN; a file name's bytes that are no UTF-8 become JSON's own escapes."""
        text = json.dumps(self.to_json(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def parse_manifest(text: bytes, where: str) -> Manifest:
    """Read a manifest. Raises AuditError with one line on anything that is not one."""
    try:
        values = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
        if not isinstance(values, dict):
            raise ValueError("it is not an object")
        schema = values.get("schema")
        if isinstance(schema, int) and not isinstance(schema, bool) and schema > SCHEMA:
            raise AuditError(
                f"{where} was written by a newer anoaudit (schema {schema})", "upgrade anoaudit to read this model"
            )
        if schema != SCHEMA or isinstance(schema, bool):
            raise ValueError(f"schema is {schema!r}")
        return _checked(values)
    except AuditError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) and error.args else str(error)
        reason = " ".join(what.split())[:160] or type(error).__name__
        raise AuditError(
            f"{where} is not a valid manifest: {reason}", "fit the model again, or copy it again"
        ) from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # 1e999
        raise ValueError(f"{text[:20]} is no double")
    return number


def _checked(values: dict[str, Any]) -> Manifest:
    outputs = tuple(_strings(values["outputs"], "outputs"))
    if outputs not in OUTPUTS:
        raise ValueError(f"outputs are {list(outputs)}")
    spec = _spec(_object(values["input"], "input"))
    if outputs[1:] == (("map",) if isinstance(spec, TableSpec) else ("errors",)):
        raise ValueError(f"outputs are {list(outputs)}: images have maps, a table's columns errors")
    files = _object(values["files"], "files")
    for name, digest in files.items():
        if not isinstance(digest, str) or len(digest) != 64:
            raise ValueError(f"files: the hash of {name!r} is not a SHA-256")
    backbone = values.get("backbone")
    versions = _object(values["versions"], "versions")
    for name, version in versions.items():
        _string(version, f"the version of {name!r}")
    return Manifest(
        method=_line(values["method"], "method"),
        options=_object(values["options"], "options"),
        input=spec,
        outputs=outputs,
        calibration=_calibration(_object(values["calibration"], "calibration")),
        training=_training(values),
        data=_facts(values, "data", name=str, fingerprint=str, rows=int),
        parity=_facts(values, "parity", items=int, max_abs_difference=float, mad=float),
        opset=_whole(values["opset"], "opset"),
        versions=versions,
        backbone=None if backbone is None else _backbone(_object(backbone, "backbone")),
        warnings=tuple(_line(warning, "a warning") for warning in _strings(values.get("warnings", []), "warnings")),
        files=files,
        anoaudit=_line(values.get("anoaudit", ""), "anoaudit"),
    )


def _spec(values: dict[str, Any]) -> InputSpec:
    """The input, its raw values checked before `spec_from_json` makes types of them."""
    if values["kind"] == "images":
        for side in ("height", "width"):
            if not 1 <= _whole(values[side], side) <= MAX_SIDE:
                raise ValueError(f"the input's {side} is {values[side]}")
        if values.get("fit", "stretch") not in ("stretch", "pad"):
            raise ValueError(f"the input's fit is {values['fit']!r}")
        return spec_from_json(values)
    if values["kind"] != "table":
        raise ValueError(f"input is of kind {values['kind']!r}")
    columns = _list(values["columns"], "columns")
    for column in columns:
        _check_column(_object(column, "a column"))
    if not columns:
        raise ValueError("input has no columns")
    if len({column["name"] for column in columns}) != len(columns):
        raise ValueError("a column is named twice")
    for name, reason in _object(values.get("dropped", {}), "dropped").items():
        _string(reason, f"why {name!r} is dropped")
    return spec_from_json(values)


def _check_column(values: dict[str, Any]) -> None:
    name, kind = _string(values["name"], "a column's name"), values["kind"]
    if kind not in ("numeric", "boolean", "datetime", "categorical"):
        raise ValueError(f"column {name!r} is of kind {kind!r}")
    _string(values.get("format", ""), f"format of {name!r}")
    for number in ("median", "mad"):
        _number(values.get(number, 0.0), f"{number} of {name!r}")
    categories = _strings(values.get("categories", []), f"categories of {name!r}")
    if len(set(categories)) != len(categories):
        raise ValueError(f"column {name!r} has a category twice")
    shares = _list(values.get("frequencies", []), f"frequencies of {name!r}")
    if not all(0 <= _number(share, f"a frequency of {name!r}") <= 1 for share in shares):
        raise ValueError(f"column {name!r} has a frequency that is no share")
    if kind == "categorical" and len(shares) != len(categories) + 1:
        raise ValueError(f"column {name!r} has {len(categories)} categories but {len(shares)} frequencies")


def _training(values: dict[str, Any]) -> dict[str, Any]:
    training = _facts(values, "training", items=int, held_out=int, contamination=float, train_on=str, seed=int)
    for name in {"contamination_estimate", "alpha_sensitivity"} & training.keys():
        _object(training[name], f"training.{name}")
    return training


def _calibration(values: dict[str, Any]) -> dict[str, Any]:
    """Read and checked against calibration.parquet in `Calibration.from_json`; what is shown is checked here."""
    _string(values["kind"], "the calibration's kind")
    for name in {"n", "bulk", "smallest_p"} & values.keys():
        _number(values[name], f"the calibration's {name}")
    for fit in _list(values.get("fits", []), "the calibration's fits"):
        for value in _list(fit, "a fit of the calibration"):
            _number(value, "a parameter of the calibration")
    return values | {"note": _line(values["note"], "the calibration's note")} if "note" in values else values


def _backbone(values: dict[str, Any]) -> dict[str, Any]:
    _string(values["name"], "the backbone's name")
    _object(values.get("weights", {}), "the backbone's weights")
    return values


def _facts(values: dict[str, Any], name: str, /, **wanted: type) -> dict[str, Any]:
    """An object that has at least these fields, of these types."""
    facts = _object(values[name], name)
    for key, kind in wanted.items():
        check: Callable[[Any, str], Any] = {int: _whole, float: _number, str: _string}[kind]
        check(facts[key], f"{name}.{key}")
    return facts


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not an object")
    return value


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{name} is not a list")
    return value


def _string(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} is not text")
    return value


def _line(value: Any, name: str) -> str:
    """Text that is printed as it is: one line, without what could steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in _string(value, name))


def _strings(value: Any, name: str) -> list[str]:
    return [_string(item, name) for item in _list(value, name)]


def _whole(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} is not a whole number")
    return value


def _number(value: Any, name: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{name} is not a number")
    return float(value)
