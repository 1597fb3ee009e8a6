"""`k=v` options to typed values: one parser for `--set` and `--backbone-arg`, with suggestions for misspelt names."""

from __future__ import annotations

import difflib
import json
import math
import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Literal, TypeVar

from anoaudit.errors import UsageError

T = TypeVar("T")


def option(default: Any, help: str, low: float | None = None, high: float | None = None) -> Any:
    """A field of a method's options, with its help and range."""
    metadata: dict[str, Any] = {"help": help}
    if low is not None or high is not None:
        metadata["range"] = (low, high)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class ImageInput:
    """How a method sees images; its options say so in a property `images`.

    `spatial`: a frozen backbone's maps of these strides; `pooled`: its vectors, one an image (the method may `unfreeze` it);
    `pixels`: squares of `size` pixels a side, for a network of the method's own, or around the named backbone's maps of stride
    `encoder`; with `tile` both see tiles of so many pixels a side. `fit`: whether a picture is stretched to the size, or keeps its
    proportions with a margin.
    `trainable`: maps of these strides of a CNN that the method trains, untrained at `size` and by the name `network`, or pretrained
    where --backbone or --weights name it.
    `pretrained`: only a pretrained network will do.
    `strides_option` is the `--set` option that names the strides (`depth`: how often two make one), None where none does.
    """

    kind: Literal["spatial", "pooled", "pixels", "trainable"]
    strides: tuple[int, ...] = ()
    size: int | None = None
    encoder: int | None = None
    fit: Literal["stretch", "pad"] = "stretch"
    network: str | None = None
    pretrained: bool = False
    tile: int | None = None
    strides_option: str | None = "strides"

    def side_hint(self, side: int, own: int) -> str:
        """What to do where a network does not take `side` pixels a side; `own` is what it is made for."""
        if side == own:
            return "name another --backbone" if self.network is None else "name another --set encoder"
        if self.tile is not None:
            return f"--set tile={own} --set size={own * max(1, round((self.size or own) / own))}"
        way = "--backbone-arg" if self.size is None and self.network is None else "--set"
        return f"{way} size={own}, which it is made for"

    def strides_hint(self, strides: Sequence[int], has: Sequence[int]) -> str:
        """What to do where a network has no map of one of these strides; it has those of `has`."""
        line = f"it has {', '.join(map(str, has))}: "
        if self.strides_option is None:
            return line + "name another --backbone"
        if self.strides_option == "depth":
            near = min(has, key=lambda stride: abs(math.log2(stride / strides[0])))
            return f"{line}--set depth={round(math.log2(near))}"
        fitting = [stride for stride in strides if stride in has] or [has[len(has) // 2]]
        return f"{line}--set {self.strides_option}={','.join(map(str, fitting))}"


def parse_value(text: str) -> Any:
    """JSON where it is JSON (numbers, true, [1,2]), a list where it has commas, else text."""
    try:
        return json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError):
        pass
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    return [parse_value(part.strip()) for part in text.split(",")] if "," in text else text


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"{text} is no double")
    return float(text)


def parse_share(text: str) -> float:
    """`0.1` or `10%`. Raises ValueError; the range is the caller's business."""
    text = text.strip()
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)


def parse_pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    """`["k=v", …]` → {k: v}. Raises UsageError."""
    pairs: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"{option} {text!r} is not of the form name=value", f"for example {option} epochs=50")
        if key.strip() in pairs:
            raise UsageError(f"{option} {key.strip()} is given twice", "give it once")
        pairs[key.strip()] = value.strip()
    return pairs


def build(cls: type[T], pairs: dict[str, str], owner: str) -> T:
    """An options dataclass from `--set` pairs. Raises UsageError for unknown names and values that do not fit."""
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, text in pairs.items():
        name = key.replace("-", "_")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            guess = f"did you mean {near[0]}? " if near else ""
            raise UsageError(f"{owner} has no option {key!r}", f"{guess}see `anoaudit methods {owner}`")
        if name in values:
            raise UsageError(f"--set {name} is given twice", "give it once")
        values[name] = _convert(hints[name], text, known[name], owner)
    return cls(**values)


def _convert(hint: Any, text: str, field: Field[Any], owner: str) -> Any:
    bad = UsageError(f"--set {field.name}={text}: {_expected(hint, field)}", f"see `anoaudit methods {owner}`")
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        inner = next(arg for arg in typing.get_args(hint) if arg is not type(None))
        if text.lower() in ("auto", "none", "default") and text.lower() not in typing.get_args(inner):
            return None
        return _convert(inner, text, field, owner)
    if typing.get_origin(hint) is Literal:
        choices = {_folded(choice): choice for choice in typing.get_args(hint)}
        if _folded(text) not in choices:
            raise bad
        return choices[_folded(text)]
    try:
        if hint is bool:
            return {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}[text.lower()]
        if typing.get_origin(hint) is tuple:
            inner, parts = typing.get_args(hint)[0], [part.strip() for part in text.split(",") if part.strip()]
            if typing.get_origin(inner) is Literal:
                named = tuple(_convert(inner, part, field, owner) for part in parts)
                if not named or len(set(named)) < len(named):
                    raise bad
                return named
            value = tuple(int(part) for part in parts)
            if not value:
                raise bad
        else:
            value = hint(text)
    except (ValueError, KeyError, OverflowError):
        raise bad from None
    low, high = field.metadata.get("range", (None, None))
    for number in value if isinstance(value, tuple) else (value,):
        finite = not isinstance(number, float) or math.isfinite(number)
        if not finite or (low is not None and number < low) or (high is not None and number > high):
            raise bad
    return value


def _folded(choice: str) -> str:
    return choice.lower().replace("_", "-")


def _expected(hint: Any, field: Field[Any]) -> str:
    return f"expected {describe_type(hint, field)}"


def describe_type(hint: Any, field: Field[Any]) -> str:
    """In a user's words: `one of a, b`, `a whole number from 1`."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(typing.get_args(hint))
    word = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(hint, "a value")
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)[0]
        named = typing.get_origin(inner) is Literal
        word = f"{', '.join(typing.get_args(inner))}, with commas" if named else "whole numbers with commas"
    low, high = field.metadata.get("range", (None, None))
    return word + (f" from {low}" if low is not None else "") + (f" to {high}" if high is not None else "")


def describe(cls: type[Any]) -> list[tuple[str, str, str, str]]:
    """(name, type, default, help) of each option of a dataclass, for `anoaudit methods`."""
    hints = typing.get_type_hints(cls)
    rows = []
    for f in fields(cls):
        default = "auto" if f.default is None else "" if f.default is MISSING else shown(f.default)
        rows.append((f.name, describe_type(hints[f.name], f), default, str(f.metadata.get("help", ""))))
    return rows


def shown(value: Any) -> str:
    """A value as `--set` takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
