"""What differs between the settings of two fits, in the words of the options: why `--resume` does not go on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from anoaudit.options import shown

NAMED = 6
_SPELT = {
    name: "--" + name.replace("_", "-")
    for name in ("method", "contamination", "seed", "backbone", "device", "id_column")
}
_EACH = {"options": "--set ", "backbone_arguments": "--backbone-arg ", "versions": ""}
_DERIVED = {"columns", "items or labels"}  # what follows from data and options
_PLAIN = {"data": "the data (its files' names or sizes)", "weights": "the backbone's weights"}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Each difference with its new and old value, the first few of many; empty where there is none.

    Both are what `fitting` identifies a fit by, in plain JSON types; a setting that it does not know is named as it is.
    """
    odd = {name for name in {**now, **before} if before.get(name) != now.get(name)}
    if "method" in odd:
        odd.discard("options")  # each method has its own
    found = [part for name in now if name in odd - _DERIVED for part in _told(name, before.get(name), now[name])]
    if "columns" in odd:
        found += _columns(before.get("columns") or {}, now.get("columns") or {}, bool(odd - _DERIVED))
    if "items or labels" in odd and not odd & {"data", "seed", "only_normal", "method"}:
        found.append("the labels, or which items can be read")
    left = len(found) - NAMED
    return "; ".join(found[:NAMED]) + (f"; and {left} more" if left > 0 else "")


def _told(name: str, before: Any, now: Any) -> Iterator[str]:
    if name in _PLAIN:
        yield _PLAIN[name]
    elif name == "only_normal":
        yield f"--train-on {'normal' if now else 'all'} (was {'normal' if before else 'all'})"
    elif name in _EACH and isinstance(before, dict) and isinstance(now, dict):
        joint = " " if name == "versions" else "="
        for key in {**now, **before}:
            if before.get(key) != now.get(key):
                yield f"{_EACH[name]}{key}{joint}{_value(now.get(key))} (was {_value(before.get(key))})"
    else:
        yield f"{_SPELT.get(name, name)} {_value(now)} (was {_value(before)})"


def _value(value: Any) -> str:
    return "not given" if value is None else shown(value)


def _columns(before: Mapping[str, Any], now: Mapping[str, Any], explained: bool) -> list[str]:
    """The features that came and went; that they are otherwise the same but not equal only where nothing else explains it."""
    old, new = ([column["name"] for column in spec.get("columns", ())] for spec in (before, now))
    found = []
    for sign, names in (("with", [n for n in new if n not in old]), ("without", [n for n in old if n not in new])):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            found.append(f"{sign} {', '.join(names[:3])}{more} as a feature")
    if found or explained:
        return found
    same = before.get("columns") == now.get("columns")
    return ["the columns that are left out" if same else "the data's values"]
