"""Scores over time: strips, intervals, and how every report shows them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_rows import Maker, row, rows_of
from rich.cells import cell_len
from rich.console import Console

from anoaudit.errors import AuditError
from anoaudit.reports.document import document
from anoaudit.reports.markdown import markdown
from anoaudit.reports.reader import read
from anoaudit.reports.terminal import render
from anoaudit.reports.timeline import Interval, Timeline, timeline
from anoaudit.reports.truth import with_truth
from anoaudit.reports.words import clock
from anoaudit.reports.writers import format_for, write
from anoaudit.scoring.table import ScoreTable


def frames(
    scores: dict[int, float] | None = None,
    seconds: float = 20,
    rate: float = 10,
    group: str | None = "a.mp4",
    flag_from: float = 5.0,
) -> list[dict[str, Any]]:
    """A frame at every 1/rate seconds with score 1, but for those named by their number."""
    made = []
    for i in range(round(seconds * rate)):
        score = (scores or {}).get(i, 1.0)
        name = f"{group or 'top'}#{i:06d}"
        made.append(row(name, score, time=i / rate, group=group, flagged=score >= flag_from))
    return made


def found(table: ScoreTable, **options: int) -> Timeline:
    result = timeline(table, **options)
    assert result is not None
    return result


def shown(table: ScoreTable, width: int = 80, **options: Any) -> str:
    file = io.StringIO()
    render(table, Console(file=file, width=width, **options), 3)
    return file.getvalue()


def test_flagged_frames_less_than_a_second_apart_are_one_interval(make: Maker) -> None:
    scores = {20: 6.0, 21: 7.0, 30: 9.0, 50: 8.0, 120: 6.5}
    result = found(make(frames(scores)))
    expected = [(2.0, 3.1, 3.0, 9.0, 3), (5.0, 5.1, 5.0, 8.0, 1), (12.0, 12.1, 12.0, 6.5, 1)]
    for interval, (start, end, peak_time, peak_score, count) in zip(result.intervals, expected, strict=True):
        assert interval.group == "a.mp4"
        assert np.allclose([interval.start, interval.end, interval.peak_time], [start, end, peak_time])
        assert (interval.peak_score, interval.frames) == (peak_score, count)
    assert result.more == 0
    fewer = found(make(frames(scores)), worst=1)
    assert (fewer.intervals, fewer.more) == (result.intervals[:1], 2)
    assert found(make(frames(scores)), worst=0).intervals == []


def test_of_few_frames_a_second_neighbours_are_together(make: Maker) -> None:
    result = found(make(frames({3: 6.0, 5: 7.0, 8: 8.0}, seconds=100, rate=0.1)))
    assert [(i.start, i.end, i.frames) for i in result.intervals] == [(80.0, 90.0, 1), (30.0, 60.0, 2)]


def test_where_nothing_is_flagged_the_worst_hundredth_stands_in(make: Maker) -> None:
    result = found(make(frames({50: 3.0, 51: 2.0, 199: 2.5}, flag_from=99)))
    assert [(i.start, i.frames) for i in result.intervals] == [(5.0, 1), (19.9, 1)]
    assert sum(i.frames for i in found(make(frames({}))).intervals) == 2, "equal scores are no reason to take all"
    assert found(make(frames({}, seconds=0.1))).intervals == [Interval("a.mp4", 0.0, 0.0, 0.0, 1.0, 1)]


def test_strips_hold_the_highest_score_of_equal_parts(make: Maker) -> None:
    for seconds, rate, bins in ((20, 10, 60), (20, 10, 200), (60, 7, 60), (1 / 3, 30, 60), (7, 29.97, 100)):
        rows = frames({3: 9.0}, seconds=seconds, rate=rate)
        [strip] = found(make(rows), bins=bins).strips
        assert len(strip.scores) == min(bins, len(rows))
        assert None not in strip.scores
        assert (strip.start, max(strip.scores)) == (0.0, 9.0)  # type: ignore[type-var]
        assert np.isclose(strip.end, len(rows) / rate)
        assert strip.scores.index(9.0) == int(3 / len(rows) * len(strip.scores) + 1e-6)


def test_a_gap_is_a_gap(make: Maker) -> None:
    rows = [r for r in frames() if not 5 <= r["time"] < 10]
    rows[1] = row("a.mp4#000001", None, time=0.1, group="a.mp4")
    rows.append(row("a.mp4", None, group="a.mp4", reason="cut off"))
    [strip] = found(make(rows), bins=20).strips
    assert [i for i, s in enumerate(strip.scores) if s is None] == [5, 6, 7, 8, 9]
    assert " " * 5 in shown(make(rows)).split("Over time")[1].split("\n")[1].strip()


def test_every_video_has_its_strip_the_worst_first(make: Maker) -> None:
    rows = [*frames({0: 6.0}), *frames({7: 8.0}, group="b.mp4", seconds=5), *frames({}, group=None)]
    rows = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    result = found(make(rows))
    assert [(s.group, round(s.end)) for s in result.strips] == [("b.mp4", 5), ("a.mp4", 20), (None, 20)]
    assert [i.group for i in result.intervals] == ["b.mp4", "a.mp4"]


def test_without_time_there_is_no_timeline(make: Maker) -> None:
    assert timeline(make(rows_of([1.0, 2.0]))) is None
    assert timeline(make([row("a", 1.0, time=None), row("b", None, time=3.0)])) is None
    for table in (make(rows_of([1.0, 2.0])), make([])):
        assert document(table)["timeline"] is None
        assert "Over time" not in shown(table)
        assert "Worst intervals" not in markdown(table)


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_terminal_shows_strips_and_intervals_within_its_width(make: Maker, width: int) -> None:
    scores = {722: 7.0, 724: 8.31, 750: 6.0, 1200: 6.1}
    rows = [*frames(scores, 150), *frames({}, 9, group="a/very/deep/folder/of/a/camera/" + "x" * 80 + ".mp4")]
    text = shown(make(rows, kind="images"), width)
    assert max(cell_len(line) for line in text.split("\n")) <= width
    assert "1,590 frames" in text
    part = text.split("Over time")[1]
    assert "█" in part.split("\n")[1]
    assert part.split("\n")[1].endswith("00:02:30.0")
    assert "00:01:12.2 – 00:01:12.5  peak 8.310 at 00:01:12.4  2 frames  a.mp4" in part
    assert "3, made of flagged frames" in part
    assert " group " not in text.split("Scores")[0], "the ids say it already"


def test_many_videos_are_counted(make: Maker) -> None:
    rows = [r for i in range(9) for r in frames({0: 6.0 + i}, 2, group=f"{i}.mp4")]
    part = shown(make(rows)).split("Over time")[1]
    assert "… and 3 more" in part
    assert "5 of 9, made of flagged frames" in part


def test_an_encoding_without_blocks_gets_ascii(make: Maker) -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    render(make(frames({20: 6.0})), Console(file=file, width=100))
    file.flush()
    part = raw.getvalue().decode("ascii").split("Over time")[1]
    assert "@" in part.split("\n")[1]
    assert "00:00:02.0 - 00:00:02.1  peak 6.000" in part


def test_markdown_lists_the_intervals(make: Maker) -> None:
    text = markdown(make(frames({20: 6.0}, group="a|b.mp4"), kind="images"), 3)
    assert "200 frames" in text
    assert "### Worst intervals" in text
    assert "| 00:00:02.0 | 00:00:02.1 | 6.000 | 00:00:02.0 | 1 | <code>a&#124;b.mp4</code> |" in text


def test_the_document_holds_them_as_plain_json(make: Maker) -> None:
    value = json.loads(json.dumps(document(make(frames({20: 6.0}))), allow_nan=False))["timeline"]
    [interval] = value["intervals"]
    assert set(interval) == {"group", "start", "end", "peak_time", "peak_score", "frames"}
    [strip] = value["strips"]
    assert set(strip) == {"group", "start", "end", "scores"}
    assert value["more"] == 0


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.json", "a.ndjson"])
@pytest.mark.parametrize("truth", [False, True])
def test_time_survives_every_format(make: Maker, tmp_path: Path, name: str, truth: bool) -> None:
    more = {"truth": 1} if truth else {}
    table = make([*({**r, **more} for r in frames({2: 6.0}, 1)), row("a.mp4", None, group="a.mp4", time=None)])
    write(table, format_for(name) or "", tmp_path / name)
    again = read(tmp_path / name)
    assert (again.has_time, again.has_truth) == (True, truth)
    assert again.lazy().collect().equals(table.lazy().collect())
    assert timeline(again) == timeline(table)


def test_truth_joins_beside_the_time(make: Maker, tmp_path: Path) -> None:
    table = make(frames({2: 6.0}, 1))
    joined = with_truth(table, {"a.mp4#000002": 1}, tmp_path / "t.parquet")
    again = read(tmp_path / "t.parquet")
    assert joined == again
    assert again.lazy().collect().columns[-2:] == ["time", "truth"]
    assert timeline(again) == timeline(table)


def test_a_time_that_is_none_is_refused(make: Maker, tmp_path: Path) -> None:
    head = "id,status,reason,score,p_value,flagged,rank,group,why,time\n"
    for bad in ("nan", "inf"):
        (tmp_path / "a.csv").write_text(f"{head}a,ok,,1.0,,true,1,,,{bad}\n")
        with pytest.raises(AuditError, match="a time is not a number"):
            read(tmp_path / "a.csv")


def test_times_read_as_on_a_player() -> None:
    assert [clock(s) for s in (0, 59.96, 72.44, 3599.99, 3725.5, 400_000)] == [
        "00:00:00.0", "00:01:00.0", "00:01:12.4", "01:00:00.0", "01:02:05.5", "111:06:40.0",
    ]  # fmt: skip
