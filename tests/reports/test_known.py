"""Known anomalies that the model does not flag stand in every report."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from report_rows import Maker, row
from rich.console import Console

from anoaudit.reports import html
from anoaudit.reports.document import document
from anoaudit.reports.known import known_anomalies
from anoaudit.reports.markdown import markdown
from anoaudit.reports.reader import read
from anoaudit.reports.terminal import render
from anoaudit.reports.writers import write

ROWS: list[dict[str, Any]] = [
    row("found", 9.0, flagged=True, label=1),
    row("plain", 8.0, flagged=True, label=0),
    row("low<b>", 0.5, label=1, why="width +0.1"),
    row("middle", 3.0, label=1),
    row("unknown", 0.1, label=None),
    row("lost", None, label=1),
]


def shown(table: Any) -> str:
    text = io.StringIO()
    render(table, Console(file=text, width=80))
    return text.getvalue()


def test_counts_and_rows(make: Maker) -> None:
    found = known_anomalies(make(ROWS))
    assert found is not None
    assert found.to_json() == {"labelled": 4, "unreadable": 1, "below_decision": 2}
    assert found.rows["id"].to_list() == ["low<b>", "middle"]
    one = known_anomalies(make(ROWS), 1)
    assert one is not None
    assert (one.below, one.rows["id"].to_list()) == (2, ["low<b>"])


def test_every_report_lists_them(make: Maker) -> None:
    table = make(ROWS)
    heading = "4 labelled, 1 unreadable, 2 below the decision, the lowest first"
    lines = shown(table).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("Known anomalies"))
    assert heading in " ".join(" ".join(lines[at : at + 2]).split())
    assert [line.split()[2] for line in lines[at + 2 : at + 6] if line.strip() and line.split()[0].isdigit()] == [
        "low<b>",
        "middle",
    ]
    assert heading in markdown(table)
    assert "low&lt;b&gt;" in markdown(table)
    page = html.render(table)
    assert heading in page
    assert '<td class="id">low&lt;b&gt;</td>' in page
    assert document(table)["known_anomalies"] == {"labelled": 4, "unreadable": 1, "below_decision": 2}


@pytest.mark.parametrize("rows", [[row("a", 1.0), row("b", 2.0)], [row("a", 1.0, label=0), row("b", 2.0, label=None)]])
def test_without_known_anomalies_nothing_is_said(make: Maker, rows: list[dict[str, Any]]) -> None:
    table = make(rows)
    assert document(table)["known_anomalies"] is None
    for text in (shown(table), markdown(table), html.render(table)):
        assert "Known anomalies" not in text


def test_all_found_or_nothing_flagged(make: Maker) -> None:
    assert "1 labelled, all flagged" in shown(make(ROWS[:2]))
    text = shown(make([row("a", 1.0, label=1), row("b", 2.0, label=None)]))
    assert "1 labelled, nothing is flagged, the lowest first" in text


@pytest.mark.parametrize("form", ["parquet", "csv", "json", "ndjson"])
def test_labels_survive_every_format(make: Maker, tmp_path: Path, form: str) -> None:
    table = make(ROWS)
    write(table, form, tmp_path / f"s.{form}")
    again = read(tmp_path / f"s.{form}")
    assert again.lazy().collect()["label"].to_list() == [1, 0, 1, 1, None, 1]
    assert json.dumps(document(again)["known_anomalies"]) == json.dumps(document(table)["known_anomalies"])
