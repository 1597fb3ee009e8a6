"""The currency of the house: chunks of items. Whatever the input, one input is one item, readable or with a reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

UNLABELLED = -1  #: in label and truth arrays: nothing known
Kind = Literal["images", "table"]


@dataclass(frozen=True)
class Chunk:
    """Consecutive items of a dataset.

    `values` holds the readable items only, in order: float64[R, D] for tables (NaN is missing, categories are codes)
    and uint8[R, H, W, 3] for images. `truth` and `labels` are int8[B] with -1 for null. `times` are float64[B] seconds from the
    start of the item's group, NaN where there is none; None of a source without time.
    """

    start: int
    ids: list[str]
    groups: list[str | None]
    reasons: list[str | None]
    values: npt.NDArray[Any]
    truth: npt.NDArray[np.int8]
    labels: npt.NDArray[np.int8]
    times: npt.NDArray[np.float64] | None = None
    sizes: npt.NDArray[np.int64] | None = None  # int64[R, 2], width and height of the readable images as they were

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """bool[B]: which of the items stand in `values`."""
        return np.array([reason is None for reason in self.reasons], dtype=bool)


@dataclass(frozen=True)
class Picture:
    """An image for the eye: `pixels` are uint8[h, w, 3] in its own proportions, `width` and `height` the original's."""

    pixels: npt.NDArray[np.uint8]
    width: int
    height: int


@dataclass(frozen=True)
class ImageSpec:
    """How images enter a model: the whole picture resized, uint8 RGB.

    It is stretched to the input, or with fit=pad keeps its proportions in the middle of it, with grey margins.
    """

    height: int
    width: int
    fit: Literal["stretch", "pad"] = "stretch"

    def to_json(self) -> dict[str, Any]:
        """The manifest's `input`."""
        values = {"kind": "images", "height": self.height, "width": self.width}
        if self.fit == "pad":
            return {**values, "resize": "bilinear, whole image, proportions kept, grey margin", "fit": "pad"}
        return {**values, "resize": "bilinear, whole image, no crop"}

    def place(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, width and height of a picture of this size within the input."""
        if self.fit == "stretch":
            return 0, 0, self.width, self.height
        scale = min(self.width / width, self.height / height)
        w, h = max(1, round(width * scale)), max(1, round(height * scale))
        return (self.width - w) // 2, (self.height - h) // 2, w, h

    def without_margin(self, values: npt.NDArray[Any], width: int, height: int) -> npt.NDArray[Any]:
        """The part of a map [h, w] of the whole input that lies on a picture of this size."""
        left, top, w, h = self.place(width, height)
        rows, columns = values.shape
        first, last = top * rows // self.height, -(-(top + h) * rows // self.height)
        return values[first:last, left * columns // self.width : -(-(left + w) * columns // self.width)]


@dataclass(frozen=True)
class ColumnRule:
    """How one column becomes one float64: decided at fit, kept in the manifest, applied unchanged at score."""

    name: str
    kind: Literal["numeric", "boolean", "datetime", "categorical"]
    categories: tuple[str, ...] = ()  # code = index; an unseen category has the code len(categories)
    format: str = ""  # of date-times that are text; "," of numbers with a decimal comma
    median: float = 0.0  # of the training rows, for `why`
    mad: float = 0.0  # median absolute deviation × 1.4826, or where that is 0 the standard deviation, for `why`
    frequencies: tuple[
        float, ...
    ] = ()  # shares of the categories or of false and true, then of missing values, for `why`

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; empty fields are left out."""
        values: dict[str, Any] = {"name": self.name, "kind": self.kind, "median": self.median, "mad": self.mad}
        if self.kind == "categorical":
            values["categories"] = list(self.categories)
        if self.frequencies:
            values["frequencies"] = list(self.frequencies)
        if self.format:
            values["format"] = self.format
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ColumnRule:
        """The inverse of `to_json`."""
        return cls(
            name=values["name"],
            kind=values["kind"],
            categories=tuple(values.get("categories", ())),
            format=values.get("format", ""),
            median=float(values.get("median", 0.0)),
            mad=float(values.get("mad", 0.0)),
            frequencies=tuple(values.get("frequencies", ())),
        )


@dataclass(frozen=True)
class TableSpec:
    """How rows enter a model: one float64 a column, in this order."""

    columns: tuple[ColumnRule, ...]
    dropped: dict[str, str] = field(default_factory=dict)  # name → why it is no feature
    notes: tuple[str, ...] = field(default=(), compare=False)  # what the user should know of the columns; not kept

    def to_json(self) -> dict[str, Any]:
        """The manifest's `input`."""
        return {"kind": "table", "columns": [rule.to_json() for rule in self.columns], "dropped": dict(self.dropped)}


InputSpec = ImageSpec | TableSpec


def spec_from_json(values: dict[str, Any]) -> InputSpec:
    """Read the manifest's `input`. Raises KeyError, TypeError or ValueError when it is malformed."""
    if values["kind"] == "images":
        return ImageSpec(int(values["height"]), int(values["width"]), values.get("fit", "stretch"))
    return TableSpec(
        columns=tuple(ColumnRule.from_json(rule) for rule in values["columns"]), dropped=dict(values.get("dropped", {}))
    )


class Dataset(Protocol):
    """Items from one source. `chunks` may be walked any number of times, with the same items in the same order."""

    kind: Kind
    source: str
    name: str
    ignored: int
    timed: bool  # items have a time: chunks carry `times`

    def __len__(self) -> int: ...

    def chunks(self, spec: InputSpec, size: int, only: npt.NDArray[np.bool_] | None = None) -> Iterator[Chunk]:
        """Chunks of at most `size` items; with `only` (bool[N]), just the items that it marks."""
        ...

    def label_notes(self) -> tuple[str, ...]:
        """After a whole pass: one line each on ids of truth or labels that are not in the data."""
        ...

    def outline(self) -> str:
        """A hash of names and sizes: cheap, tells whether `--resume` still sees the same data."""
        ...

    def fingerprint(self) -> str:
        """SHA-256 over the items' names and bytes."""
        ...
