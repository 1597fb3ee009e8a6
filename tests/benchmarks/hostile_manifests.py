"""Documents that are, or look like, a manifest: hypothesis strategies for attacks.py."""

from __future__ import annotations

import json
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))
from test_manifest import JSON

#: Stands in a document for text that json.dumps would not write.
RAW = {f"@{i}@": text for i, text in enumerate([
    "NaN", "-Infinity", "1e999", "-0", "1E400", "9" * 4200, "9" * 5000, "[" * 900 + "]" * 900, "[" * 10**5, "0x1", "'a'",
    '{"a":1,"a":[]}',
])}  # fmt: skip
HOSTILE: st.SearchStrategy[Any] = st.sampled_from([
    "../x", "/etc/passwd", "C:\\x", "a\0b", "\x1b[2J\x9b31m", "\u202etxt.\u2066", "\ud800", "x" * 100_000, "\n\r\u2028",
    "%", "%s%n{0}", "{}", "^.*$", "model.onnx", True, False, None, -1, 0, 1, 2**31, 2**63, 2**64, 10**30, -(10**400), 1e308,
    -1e308, 5e-324, 0.5, [], {}, "%Y%Q%!", "%s", "%+", "%" * 99, "%H%p", "%Y-%m-%dT%H:%M:%S%.999f%z", [[]] * 2000,
    {str(i): i for i in range(2000)}, *RAW,
])  # fmt: skip


def place(data: st.DataObject, values: dict[str, Any]) -> tuple[Any, Any]:
    """A container and a key in it. Found by walking down, else the numbers of the calibration would be nearly all places."""
    parent: Any = values
    while True:
        key = data.draw(st.sampled_from(sorted(parent) if isinstance(parent, dict) else range(len(parent))))
        inner = parent[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            return parent, key
        parent = inner


def changed(data: st.DataObject, values: dict[str, Any]) -> None:
    """One node of the document replaced, deleted, renamed, copied, repeated or put elsewhere."""
    parent, last = place(data, values)
    new = deepcopy(data.draw(HOSTILE | JSON))  # a later change would change the strategy
    how = data.draw(st.sampled_from(["replace", "replace", "delete", "rename", "copy", "repeat", "nest"]))
    if how == "replace":
        parent[last] = new
    elif how == "repeat":
        parent[last] = [parent[last]] * data.draw(st.integers(0, 1001))
    elif how == "nest":
        parent[last] = {"a": parent[last]}
    elif isinstance(parent, dict):
        kept = parent[last] if how == "copy" else parent.pop(last)
        if how != "delete":
            parent[new if isinstance(new, str) else str(last) + "2"] = kept
    elif how == "delete":
        del parent[last]
    else:
        parent.append(parent[last] if how == "copy" else new)


def text_of(data: st.DataObject, values: dict[str, Any]) -> bytes:
    """The document's bytes, as JSON or as what looks like it."""
    text = json.dumps(values, ensure_ascii=data.draw(st.booleans()))
    for mark, raw in RAW.items():
        text = text.replace(f'"{mark}"', raw)
    key = data.draw(st.sampled_from(sorted(values) or ["a"]))
    how = data.draw(st.sampled_from(["as it is"] * 15 + ["twice", "cut", "bytes", "utf-16", "mark"]))
    if how == "twice":
        text = "{" + f"{json.dumps(key)}: {json.dumps(data.draw(HOSTILE))}, " + text[1:]
    content = text.encode("utf-8" if how != "utf-16" else "utf-16", "surrogatepass")
    at = data.draw(st.integers(0, len(content)))
    if how == "cut":
        return content[:at]
    if how == "bytes":
        return content[:at] + data.draw(st.binary(max_size=8)) + content[at + data.draw(st.integers(0, 4)) :]
    return (b"\xef\xbb\xbf" if how == "mark" else b"") + content
