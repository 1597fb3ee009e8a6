"""`manifest.json`: all that a model says about itself, checked field by field before anything is believed."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

from anoaudit.data.items import ImageSpec, InputSpec, spec_from_json
from anoaudit.errors import AuditError

SCHEMA = 1
MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Manifest:
    """The facts of a model; `files` maps each other file of the directory to its SHA-256."""

    method: str
    options: dict[str, Any]
    input: InputSpec
    outputs: tuple[str, ...]  # ("score",) or ("score", "map")
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
        """The file's text: strict JSON, no NaN."""
        return json.dumps(self.to_json(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def parse_manifest(text: bytes, where: str) -> Manifest:
    """Read a manifest. Raises AuditError with one line on anything that is not one."""
    try:
        values = json.loads(text, parse_constant=_refuse_constant)
        if not isinstance(values, dict):
            raise ValueError("it is not an object")
        schema = values.get("schema")
        if isinstance(schema, int) and not isinstance(schema, bool) and schema > SCHEMA:
            raise AuditError(f"{where} was written by a newer anoaudit (schema {schema})", "upgrade anoaudit to read this model")
        if schema != SCHEMA or isinstance(schema, bool):
            raise ValueError(f"schema is {schema!r}")
        return _checked(values)
    except AuditError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) and error.args else str(error)
        reason = " ".join(what.split())[:160] or type(error).__name__
        raise AuditError(f"{where} is not a valid manifest: {reason}", "fit the model again, or copy it again") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _checked(values: dict[str, Any]) -> Manifest:
    outputs = tuple(_strings(values["outputs"], "outputs"))
    if outputs not in (("score",), ("score", "map")):
        raise ValueError(f"outputs are {list(outputs)}")
    spec = spec_from_json(_object(values["input"], "input"))
    _check_spec(spec)
    files = _object(values["files"], "files")
    for name, digest in files.items():
        if not isinstance(digest, str) or len(digest) != 64:
            raise ValueError(f"files: the hash of {name!r} is not a SHA-256")
    backbone = values.get("backbone")
    opset = values["opset"]
    if not isinstance(opset, int):
        raise ValueError("opset is not a number")
    return Manifest(
        method=_string(values["method"], "method"),
        options=_object(values["options"], "options"),
        input=spec,
        outputs=outputs,
        calibration=_object(values["calibration"], "calibration"),
        training=_object(values["training"], "training"),
        data=_object(values["data"], "data"),
        parity=_object(values["parity"], "parity"),
        opset=opset,
        versions=_object(values["versions"], "versions"),
        backbone=None if backbone is None else _object(backbone, "backbone"),
        warnings=tuple(_strings(values.get("warnings", []), "warnings")),
        files=files,
        anoaudit=_string(values.get("anoaudit", ""), "anoaudit"),
    )


def _check_spec(spec: InputSpec) -> None:
    if isinstance(spec, ImageSpec):
        if not (1 <= spec.height <= 8192 and 1 <= spec.width <= 8192):
            raise ValueError(f"input size {spec.height}×{spec.width}")
        return
    if not spec.columns:
        raise ValueError("input has no columns")
    for rule in spec.columns:
        _string(rule.name, "a column's name")
        if rule.kind not in ("numeric", "boolean", "datetime", "categorical"):
            raise ValueError(f"column {rule.name!r} is of kind {rule.kind!r}")
        _strings(list(rule.categories), f"categories of {rule.name!r}")
        _string(rule.format, f"format of {rule.name!r}")
        for number in (rule.median, rule.mad, *rule.frequencies):
            if not isinstance(number, int | float) or not math.isfinite(number):
                raise ValueError(f"column {rule.name!r} has statistics that are not numbers")
    names = [rule.name for rule in spec.columns]
    if len(set(names)) != len(names):
        raise ValueError("a column is named twice")


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not an object")
    return value


def _string(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} is not text")
    return value


def _strings(value: Any, name: str) -> list[str]:
    if not isinstance(value, list):
        raise ValueError(f"{name} is not a list")
    return [_string(item, name) for item in value]
