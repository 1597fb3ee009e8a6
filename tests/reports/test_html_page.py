"""The HTML report: whole without the network, harmless whatever the ids hold, and small."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from report_rows import NASTY, Maker, row, rows_of

from anoaudit.errors import AuditError
from anoaudit.reports import charts, html
from anoaudit.reports.aggregates import spread
from anoaudit.reports.gallery import DEFAULT, MOST, Card, Gallery, cards, longest_side, shown
from anoaudit.reports.html import Provenance, render, write_html
from anoaudit.reports.timeline import Interval, Strip, Timeline
from anoaudit.scoring.maps import Picture
from anoaudit.scoring.table import ScoreTable, ScoreTableWriter, Summary, schema

EVIL = "<img src=x onerror=alert(1)>.png"
VOID = {"meta", "link", "img", "input", "br", "hr", "wbr", "rect", "line", "stop"}


class Page(HTMLParser):
    """Tags with their attributes, text by the innermost tag, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append((self.open[-1] if self.open else "", data))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def words(self) -> str:
        return " ".join(" ".join(data for tag, data in self.text if tag not in ("style", "script")).split())


def noise(seed: int, side: int = 64) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def pictures(ids: list[str], side: int = 64) -> Iterator[tuple[str, Picture | str]]:
    for i, item in enumerate(ids):
        yield item, Picture(noise(i, side), 600, 600)


@pytest.fixture
def evil(make: Maker) -> ScoreTable:
    ids = [
        *NASTY,
        EVIL,
        '"><script>alert(2)</script>',
        "</script><script>alert(3)",
        "' onmouseover='alert(4)",
        "{{ 7*7 }}",
    ]
    rows = [
        row(item, 1.0 + i, flagged=i > 9, group=EVIL, why=f"{EVIL} +3.0", truth=i % 2) for i, item in enumerate(ids)
    ]
    rows.append(row(EVIL + "2", None, reason="<b>cut</b>", truth=1))
    return make(
        rows,
        source=f"/data/{EVIL}",
        kind="images",
        rule="<i>rule</i>",
        notes=("<script>alert(5)</script>",),
        model={"name": EVIL, "method": "loe", "hash": "<h>"},
        provider="<p>",
        fingerprint="<f>",
        calibration={"kind": "<c>"},
    )


def test_nothing_in_a_value_becomes_markup(evil: ScoreTable) -> None:
    top = evil.top(30)
    gallery = Gallery(top, pictures(top["id"].to_list()), note=EVIL)
    text = render(evil, gallery, Provenance([f"anoaudit {EVIL}"], [(EVIL, EVIL)]))
    page = Page(text)
    assert page.open == []
    assert len(page.named("script")) == 1
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert {str(image["src"])[:23] for image in page.named("img")} == {"data:image/jpeg;base64,"}
    assert not page.named("b") or all("alert" not in data for tag, data in page.text if tag in ("script", "b"))
    assert "{{ 7*7 }}" in page.words()
    assert page.words().count(EVIL) > 5
    assert "\\u202e" in page.words()  # what turns the reading direction is spelt out


def test_it_needs_nothing_else(evil: ScoreTable) -> None:
    text = render(evil)
    page = Page(text)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", text.replace("</", "<"))
    assert not {"link", "iframe", "object", "base", "form"} & {tag for tag, _ in page.tags}
    policy = next(str(m["content"]) for m in page.named("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        inside = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert inside is not None
        digest = base64.b64encode(hashlib.sha256(inside[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not any("style" in attributes for _, attributes in page.tags)  # the policy would drop it


def test_every_link_leads_somewhere_and_no_anchor_is_there_twice(evil: ScoreTable) -> None:
    page = Page(render(evil))
    anchors = [a["id"] for _, a in page.tags if "id" in a]
    assert len(anchors) == len(set(anchors))
    assert {str(a["href"]) for a in page.named("a")} <= {f"#{name}" for name in anchors}
    assert {str(a["aria-labelledby"]) for a in page.named("section")} <= set(anchors)


def test_what_it_says(make: Maker) -> None:
    scores: list[float | None] = [float(i) for i in range(40)]
    rows = [r | {"p_value": 0.01, "truth": int(i > 35)} for i, r in enumerate(rows_of(scores, flag_from=37))]
    rows += [row("bad.png", None, reason="truncated image", truth=1)]
    table = make(
        rows,
        source="some/parts",
        kind="table",
        rule="the 3 worst",
        calibration={"kind": "fitted-null"},
        notes=("mind it",),
    )
    words = Page(
        render(table, origin=Provenance(["anoaudit fit some/parts"]), written=datetime(2024, 5, 6, tzinfo=UTC))
    ).words()
    for expected in (
        "3 of 40 readable items flagged (7.5%)", "the 3 worst", "estimated p-values (from a null fitted to the bulk)",
        "mind it", "Against the truth", "0.750 recall", "1 anomaly could not be read", "threshold 37", "bad.png truncated image",
        "anoaudit fit some/parts", "2024-05-06", "All readable items.",
    ):  # fmt: skip
        assert expected in words
    assert "Most anomalous" not in words  # a table has no pictures, its list says why


def test_long_lists_say_what_they_leave_out(make: Maker) -> None:
    table = make(rows_of([float(i) for i in range(600)]) + [row(f"u{i}", None) for i in range(250)])
    page = Page(render(table))
    listed = [a for a in page.named("tr") if "data-id" in a]
    assert len(listed) == 500
    assert listed[0]["data-id"] == "item-599"
    assert "The 500 worst; 100 more readable ones are left out here." in page.words()
    assert "… and 50 more" in page.words()


def test_tables_of_nothing(make: Maker) -> None:
    assert "None of 0 items is readable." in Page(render(make([]))).words()
    assert "None of 2 items is readable." in Page(render(make([row("a", None), row("b", None)]))).words()
    assert Page(render(make(rows_of([1.0, 1.0, 1.0])))).open == []


def test_groups_are_compared(make: Maker) -> None:
    rows = [row(f"g{i % 3}/{i}", float(i), group=f"g{i % 3}", flagged=i > 28, truth=int(i > 27)) for i in range(30)]
    words = Page(render(make(rows))).words()
    assert "group items flagged share median score AUROC" in words
    assert re.search(r"g2 10 1 10.0% \d", words)


def test_streamed_ranks_are_counted(make: Maker) -> None:
    table = make(rows_of([3.0, 1.0, 2.0], flag_from=2.5))
    frame = table.lazy().collect().with_columns(rank=pl.lit(None, dtype=pl.UInt32))
    writer = ScoreTableWriter(table.path.with_name("streamed.parquet"))
    writer.write(frame)
    cells = [a["data-v"] for tag, a in Page(render(writer.close(table.summary))).tags if a.get("data-name") == "rank"]
    assert cells == ["1", "2", "3"]


def test_heat_maps_stand_beside_the_pictures_on_one_scale(make: Maker) -> None:
    table = make(rows_of([float(i) for i in range(5)], flag_from=3), kind="images")
    rows = table.top(4)
    maps = {item: np.full((2, 2), float(i), dtype=np.float32) for i, item in enumerate(rows["id"][:2])}

    def some() -> Iterator[tuple[str, Picture | str]]:
        yield rows["id"][0], Picture(noise(0), 64, 64)
        yield rows["id"][1], Picture(noise(1), 64, 64)
        yield rows["id"][2], "truncated image"

    gallery = Gallery(rows, some(), maps)
    page = Page(render(table, gallery))
    assert len(page.named("img")) == 4
    assert "truncated image" in page.words()
    assert "not in the data any more" in page.words()
    assert "one logarithmic scale for all" in page.words()
    data = str(page.named("img")[0]["src"]).partition(",")[2]
    with Image.open(io.BytesIO(base64.b64decode(data))) as first:
        assert first.size == (64, 64)


def test_a_source_that_is_gone_leaves_placeholders(make: Maker) -> None:
    table = make(rows_of([1.0, 2.0]), kind="images")
    page = Page(render(table, Gallery(table.top(2), note="No pictures: parts is not there any more.")))
    assert page.named("img") == []
    assert page.words().count("the source is gone") == 2
    assert "No pictures: parts is not there any more." in page.words()


def test_500_items_with_pictures_stay_under_5_mb(make: Maker) -> None:
    """Noise is the worst that a JPEG can meet."""
    long = "folder/" * 8 + "a-rather-long-name-of-a-file-"
    rows = [row(f"{long}{i:05d}.png", float(i), p_value=0.1, why="peak x 31%, y 55%") for i in range(700)]
    table = make(rows, kind="images")
    top = table.top(shown(700, 10_000))
    assert top.height == MOST
    ids = top["id"].to_list()
    maps = {item: np.random.default_rng(0).random((16, 16), dtype=np.float32) for item in ids}
    same = Picture(noise(0, longest_side(MOST)), 4000, 4000)
    text = render(table, Gallery(top, ((item, same) for item in ids), maps))
    assert text.count("data:image/jpeg") == 2 * MOST
    assert len(text.encode()) < 5_000_000


def test_the_gallery_keeps_within_bounds() -> None:
    assert [shown(n, None) for n in (0, 40, 10**6)] == [DEFAULT[0], 40, DEFAULT[1]]
    assert [shown(5, n) for n in (0, 100, 10**6)] == [0, 100, MOST]
    assert cards(Gallery(pl.DataFrame({"id": ["a"]}), [("a", "damaged")])) == {"a": Card(reason="damaged")}


def test_the_histogram_hides_nothing(make: Maker) -> None:
    table = make(rows_of([1.0] * 50 + [1.5] * 30 + [2.0, 3.0, 400.0], flag_from=3.0))
    found = spread(table, 40)
    assert found is not None
    chart = charts.histogram(found, table.summary.threshold)
    assert sum(items for *_, items, _ in chart.table) == 83
    assert sum(flagged for *_, flagged in chart.table) == 2
    assert all(0 <= bar.x <= bar.x + bar.width <= 100.001 and bar.height >= 2 for bar in chart.bars)
    assert chart.cut is not None
    assert all((bar.x >= chart.cut.at) == bar.flagged for bar in chart.bars)
    assert chart.x[-1].text == "400"
    assert all(b.at - a.at > 10 for a, b in zip(chart.x, chart.x[1:], strict=False))


@pytest.mark.parametrize("scores", [[1.0], [2.0, 2.0], [1.0] * 10_000 + [2.0], [float(i) for i in range(37)]])
def test_histograms_of_odd_tables(make: Maker, scores: list[float | None]) -> None:
    found = spread(make(rows_of(scores)), 40)
    assert found is not None
    chart = charts.histogram(found, None)
    assert chart.cut is None
    assert all(0 <= tick.at <= charts.PLOT + 1e-9 for tick in chart.y)
    assert 2 <= len(chart.y) <= 7


def test_time_is_drawn_where_there_is_one(tmp_path: Path) -> None:
    rows = [
        row(f"clip.mp4#{i:06d}", 1.0 + (30 < i < 40) * 9, group="clip.mp4", flagged=30 < i < 40) for i in range(100)
    ]
    frame = pl.DataFrame([r | {"time": i / 2} for i, r in enumerate(rows)], schema=schema(["time"]))
    writer = ScoreTableWriter(tmp_path / "timed.parquet", ["time"])
    writer.write(frame)
    table = writer.close(Summary(rows=100, readable=100, flagged=9, threshold=10.0))
    words = Page(render(table)).words()
    assert "Over time" in words
    assert "clip.mp4 00:00:15.5 00:00:20.0 00:00:15.5 10.00 9" in words


def test_strips_keep_holes_and_mark_what_is_flagged() -> None:
    chart = charts.time_chart([Strip("a", 0.0, 90.0, [1.0, None, 5.0]), Strip(None, 0.0, 1.0, [2.0])], 4.0)
    assert [round(bar.x) for bar in chart.strips[0].bars] == [0, 67]
    assert [bar.flagged for bar in chart.strips[0].bars] == [False, True]
    assert chart.strips[0].bars[1].height == charts.STRIP
    assert chart.strips[1].name == "(top level)"
    assert chart.cut is not None
    assert charts.time_chart([Strip("a", 0.0, 0.0, [2.0])], None).cut is None
    found = charts.intervals(Timeline([], [Interval("a", 1.0, 3700.0, 75.0, 4.5, 1234)]))
    assert found == [("a", "00:00:01.0", "01:01:40.0", "00:01:15.0", "4.500", "1,234")]


def test_the_file_is_whole_or_not_there(make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, out = make(rows_of([1.0, 2.0])), tmp_path / "report.html"
    write_html(table, out)
    first = out.read_bytes()
    monkeypatch.setattr(html, "render", lambda *_: (_ for _ in ()).throw(RuntimeError("in the middle")))
    with pytest.raises(RuntimeError):
        write_html(table, out)
    assert out.read_bytes() == first
    assert not list(tmp_path.glob(".anoaudit-*"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
def test_a_full_disk_is_one_line(make: Maker) -> None:
    with pytest.raises(AuditError, match="no space is left"):
        write_html(make(rows_of([1.0])), Path("/dev/full"))


def test_the_same_input_gives_the_same_bytes(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    table = make(rows_of([1.0, 2.0]))
    assert render(table) == render(table)
    assert "2023-11-14 22:13 UTC" in render(table)


def test_paths_that_are_no_utf8_can_be_written(make: Maker, tmp_path: Path) -> None:
    table = make(rows_of([1.0]), source="/data/\udcff")
    write_html(table, tmp_path / "r.html")
    assert "\\udcff" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_what_nothing_carries_is_not_offered(make: Maker) -> None:
    none, some = Page(render(make(rows_of([1.0, 2.0])))), Page(render(make(rows_of([1.0, 2.0], flag_from=2.0))))
    assert "None of 2 readable items is flagged." in none.words()
    assert "flagged only" not in none.words()
    assert "flagged not flagged" not in none.words(), "the histogram's legend"
    assert "flagged not flagged" in some.words()
    assert "flagged only" in some.words()


def test_what_why_means_is_said_once_and_its_entries_stay_whole(make: Maker) -> None:
    key = "distance from the training median in robust standard deviations"
    rows = [row("a", 1.0, why="c0 +1.0 (error 0.2), c1 −2.0", label=1), row("b", 2.0)]
    labelled, plain = (Page(render(make(r))).words() for r in (rows, [row("a", 1.0, why="c0 +1.0")]))
    assert labelled.count(key) == plain.count(key) == 1
    assert labelled.index(key) < labelled.index("Items by score"), "where it is met first"
    assert plain.index(key) > plain.index("Items by score")
    assert "c0\xa0+1.0\xa0(error\xa00.2), c1\xa0−2.0" in render(make(rows))
    assert key not in Page(render(make(rows_of([1.0])))).words()


def test_long_names_may_break_after_their_words(make: Maker) -> None:
    table = make([row("line_a/PA_BRG01<b>.png", 1.0)], kind="images")
    text = render(table, Gallery(table.top(1), note="gone"))
    assert "line_<wbr>a/<wbr>PA_<wbr>BRG01&lt;b&gt;.<wbr>png" in text


def test_wider_bins_are_named(make: Maker) -> None:
    text = Page(render(make(rows_of([i / 7 for i in range(200)] + [400.0, 9e9])))).words()
    assert re.search(r"outermost bars stand for wider bins: [\d.]+ to 9e\+09", text)
    assert "wider" not in Page(render(make(rows_of([float(i) for i in range(50)])))).words()
