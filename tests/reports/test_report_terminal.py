from __future__ import annotations

import io
import re
from typing import Any

import pytest
from report_rows import Maker, row, rows_of
from rich.cells import cell_len
from rich.console import Console

from anoaudit.reports import html
from anoaudit.reports.aggregates import spread
from anoaudit.reports.markdown import markdown
from anoaudit.reports.terminal import render
from anoaudit.reports.words import calibration, metric, numbers, p_value, share
from anoaudit.scoring.table import ScoreTable, ScoreTableWriter


def shown(table: ScoreTable, width: int = 80, top: int = 20, **options: Any) -> str:
    file = io.StringIO()
    render(table, Console(file=file, width=width, **options), top)
    return file.getvalue()


def test_it_says_what_was_scored_how_and_what_was_found(nasty: ScoreTable) -> None:
    text = shown(nasty, 120)
    for part in (
        "14 images, 1 unreadable, 2 other files ignored",
        "4 of 13 readable (30.8%)",
        "Benjamini-Hochberg, estimated FDR 0.1",
        "estimated p-values (from a null fitted to the bulk)",
        "/data/[red]set[/red]|x",
        "a note with [b]markup[/b]",
        "cut | off\\nhere",
        "threshold 3.1",
        "1 anomaly could not be read",
        "g|0",
        "amount_usd +1.0",
    ):
        assert part in text


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_every_line_fits_and_nothing_escapes(nasty: ScoreTable, width: int) -> None:
    text = shown(nasty, width)
    assert max(cell_len(line) for line in text.split("\n")) <= width
    assert all(line == line.rstrip() for line in text.split("\n"))
    assert "[bold]x[/bold].png" in text
    assert "new\\nline.png" in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\x85\u2028\u202e]", text)
    assert "nan" not in text.lower().replace("unreadable", "")


def test_ids_keep_both_ends(nasty: ScoreTable) -> None:
    assert re.search(r"d/d/.*…x+", shown(nasty))


def test_colour_only_where_it_is_wanted(nasty: ScoreTable, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    coloured = {"force_terminal": True, "color_system": "standard"}
    assert "\x1b[" in shown(nasty, **coloured)
    assert "\x1b" not in shown(nasty)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in shown(nasty, **coloured)
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in shown(nasty, force_terminal=True)


def test_an_encoding_without_blocks_gets_ascii(nasty: ScoreTable) -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    render(nasty, Console(file=file, width=160))
    file.flush()
    text = raw.getvalue().decode("ascii")
    assert "#" in text
    assert "..." in text
    assert "--- threshold" in text
    assert "\\u65e5" in text


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row("a", None), row("b", None)],
        [row("a", 1.0)],
        rows_of([2.0] * 30),
        rows_of([2.0] * 30, flag_from=2.0),
        rows_of([0.0] * 30 + [1e-320, -5.0]),
        rows_of([1.0, 1.0 + 1e-16, 1.0 + 3e-16]),
        rows_of([float(i) for i in range(50)] + [1e12], flag_from=1e12),
        rows_of([-1e200, 0.0, 1e200], flag_from=0.0),
        rows_of([float("inf"), 1.0]),
    ],
)
@pytest.mark.parametrize("top", [0, 20])
def test_the_edges_do_not_crash(make: Maker, rows: list[dict[str, Any]], top: int) -> None:
    table = make(rows)
    for text in (shown(table, top=top), markdown(table, top)):
        assert not re.search(r"\bnan\b", text, re.I)
    if not any(r["status"] == "ok" for r in rows):
        assert "no item is readable" in shown(table)


def test_counts_of_what_is_not_listed(make: Maker) -> None:
    rows = rows_of([float(i) for i in range(30)], flag_from=20) + [row(f"bad-{i}", None) for i in range(13)]
    for text in (shown(make(rows), top=4), markdown(make(rows), 4)):
        assert "… and 6 more flagged" in text
        assert "… and 3 more" in text.split("Unreadable")[1]


def test_a_streamed_table_without_ranks_is_numbered_by_score(make: Maker, tmp_path: Any) -> None:
    table = make(rows_of([1.0, 3.0, 2.0]))
    writer = ScoreTableWriter(tmp_path / "streamed.parquet")
    for frame in table.batches():
        writer.write(frame.with_columns(rank=None))
    ranking = shown(writer.close(table.summary)).split("Most anomalous")[1].split("Scores")[0]
    assert re.findall(r"(\d) +\d\.\d+.* (item-\d)", ranking) == [("1", "item-1"), ("2", "item-2"), ("3", "item-0")]


def test_the_histogram_holds_every_item_and_parts_at_the_threshold(make: Maker) -> None:
    scores = [i / 7 for i in range(200)] + [400.0, 9e9]
    found = spread(make(rows_of(scores, flag_from=21.0)))
    assert found is not None
    assert found.cut is not None
    assert sum(b.items for b in found.bins) == 202
    assert found.bins[found.cut].low == 21.0
    assert all(b.flagged == (b.items if i >= found.cut else 0) for i, b in enumerate(found.bins))
    assert sum(b.items > 0 for b in found.bins) > 8, "far items must not squeeze the bulk into one bin"


def test_a_threshold_that_nothing_reaches_stands_at_the_end(make: Maker) -> None:
    text = shown(make(rows_of([1.0, 2.0, 3.0]), threshold=99.0))
    assert text.index("threshold 99 ") > text.index("Scores")
    assert text.rstrip().endswith("───")


def test_a_group_is_shown_only_where_the_id_does_not_say_it(make: Maker) -> None:
    said = shown(make([row("a/x.png", 1.0, group="a"), row("a/y.png", 2.0, group="a")]))
    unsaid = shown(make([row("x", 1.0, group="a.parquet"), row("y", 2.0, group="a.parquet")]))
    assert "group" not in said
    assert "group" in unsaid


def test_markdown_cells_cannot_be_broken_out_of(nasty: ScoreTable) -> None:
    text = markdown(nasty, 50)
    block = [line for line in text.split("\n") if line.startswith("| ")]
    ranking = [line for line in block if "amount_usd" in line]
    assert len(ranking) == 13
    assert {line.count("|") for line in ranking} == {9}
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "a&#124;b.jpg" in text
    assert "<code>&#96;tick&#96;.png</code>" in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x85\u2028\u202e]", text)


def test_calibrations_claim_no_more_than_is_true() -> None:
    assert "estimated" in calibration({"kind": "fitted-null"})
    assert "exact" not in calibration({"kind": "fitted-null"})
    assert "estimated" in calibration({"kind": "conformal-clean", "n": 40, "exact": False})
    known = calibration({"kind": "conformal-clean", "n": 1400, "smallest_p": 1 / 1401})
    assert known == "exact p-values (split-conformal on 1,400 known normals, smallest p 0.0007138)"
    assert calibration({"kind": "none", "note": "only 12 rows"}) == "none (no p-values); only 12 rows"
    assert calibration({}) == ""


def test_figures_never_round_to_what_they_are_not() -> None:
    assert (share(1, 1_000_000), share(999_999, 1_000_000), share(0, 5), share(0, 0)) == (
        "<0.1%",
        ">99.9%",
        "0.0%",
        "-",
    )
    assert (metric(1.0), metric(0.99999), metric(None)) == ("1.000", ">0.999", "-")
    assert (p_value(1e-300), p_value(1.2e-5), p_value(0.25), p_value(None)) == ("<1e-99", "1.2e-05", "0.250", "-")
    assert numbers([12.3456, 1.0])(1.0) == "1.00"
    assert numbers([float("nan"), None])(float("nan")) == "-"


@pytest.mark.parametrize(
    "scores",
    [
        [0.99991, 0.99992, 0.5],
        [225121.26, 225121.4, 12.0],
        [1e-5, 1.0001e-5],
        [3e8, 3.00001e8],
        [-0.00012, -0.00013, 0.5],
    ],
)
def test_different_scores_read_differently(make: Maker, scores: list[float]) -> None:
    """Ranks 1 and 2 with the same score, as rounded, look like a tie."""
    score, table = numbers(scores), make(rows_of([*scores]))
    assert len({score(value) for value in scores}) == len(scores)
    for text in (shown(table), markdown(table), html.render(table)):
        assert all(score(value) in text for value in scores)


def test_digits_have_an_end() -> None:
    """What differs less than single precision can tell reads the same; ties do; nothing grows for nothing."""
    assert numbers([0.3, 0.3 + 1e-12, 0.1])(0.1) == "0.100"
    assert numbers([0.3, 0.3, 0.1])(0.3) == "0.300"
    assert numbers([225121.0, 206997.0])(225121.0) == "225121"
    assert numbers([2512288.5, 1.23451, 1.23452])(2512288.5) == "2512288"
    assert numbers([2512288.5, 1.2, 1.3])(2512288.5) == "2512288.5"


def test_why_is_cut_between_its_entries_and_before_it_the_bars_go(make: Maker) -> None:
    whole = "vibration_mm_s +20.8, motor_temp_c +3.2, load −1.0"
    table = make([row(f"R{i:05d}", 100.0 + i, p_value=0.001, why=whole) for i in range(20)])
    narrow, wide = shown(table, 80).split("Scores")[0], shown(table, 120).split("Scores")[0]
    assert narrow.count(f"  {whole}\n") == wide.count(f"  {whole}\n") == 20
    assert "█" not in narrow
    assert "█" in wide
    longer = make([row("a", 1.0, why=f"{whole}, a_column_of_a_longer_name +1.1")])
    assert f"  {whole} …\n" in shown(longer, 80)


def test_a_peak_is_whole_at_80_columns(make: Maker) -> None:
    for item, peak in (("line_a/part_0119.jpg", "peak x 30%, y 61%"), ("d/" * 20 + "0119.jpg", "x 30%, y 61%")):
        rows = [row(item + str(i), 1.0 + i, p_value=1e-9, truth=1, why="peak x 30%, y 61%") for i in range(3)]
        assert f"  {peak}\n" in shown(make(rows), 80)


@pytest.mark.parametrize(
    ("why", "key"),
    [
        ("c0 +1.0", "robust standard deviations (1.48 MAD; plain ones where that is 0)\n"),
        ("c0 +1.0, mode = 'boost'", "a category or a gap where such are rare (at most 5% of the training rows)\n"),
        ("c0 +1.0, door = true", "where such are rare"),
        ("c0 missing, c1 +1.0", "where such are rare"),
        ("c0 +1.0 (error 0.2), mode = 'run' (error 0.1)", "is 0); error: what the model cannot rebuild\n"),
        ("peak x 2%, y 98%", "peak: where the heat map is highest"),
        (None, None),
    ],
)
def test_the_figures_in_why_are_explained(make: Maker, why: str | None, key: str | None) -> None:
    text = shown(make([row("a", 1.0, why=why)]), 200)
    assert key in text if key else "why" not in text
    assert ("rare" in text) == (key is not None and "rare" in key)
    assert "robust standard deviations (1.48 MAD" in markdown(make([row("a", 1.0, why="c0 +1.0")]))


def test_bins_that_are_wider_say_where_they_end(make: Maker) -> None:
    far = make(rows_of([i / 7 for i in range(200)] + [400.0, 9e9]))
    for text in (shown(far, 80), markdown(far)):
        assert re.search(r"█ 2 in a wider bin, to 9e\+09$", text, re.MULTILINE)
        assert text.count("wider") == 1
    below = shown(make(rows_of([-500.0] + [i / 7 for i in range(200)])))
    assert re.search(r"-500.*█ 1 in a wider bin, to 0$", below, re.MULTILINE)
    assert "wider" not in shown(make(rows_of([float(i) for i in range(50)])))


def test_what_the_calibration_says_is_not_said_again(make: Maker) -> None:
    table = make(rows_of([1.0]), calibration={"kind": "none", "note": "too few"}, notes=("too few", "another"))
    for text in (shown(table), markdown(table)):
        assert text.count("too few") == 1
        assert "another" in text


def test_groups_of_which_nothing_is_flagged_go_by_their_median(make: Maker) -> None:
    rows = [
        row(f"{g}/{i}", i + (g == "high"), group=g, truth=int(g == "high")) for g in ("a", "high") for i in range(4)
    ]
    text = shown(make(rows)).split("Groups")[1].split("Against")[0]
    assert "2, the highest median score first" in text
    assert re.findall(r"^  (a|high) ", text, re.MULTILINE) == ["high", "a"]
    assert "AUROC" not in text, "of groups with one class it is undefined"
