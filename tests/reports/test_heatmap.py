from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from report_rows import NASTY

from anoaudit.reports.heatmap import COLOURS, Scale, colours, overlay, peak, scale_of, visible
from anoaudit.reports.mapfiles import INDEX, is_map_folder, safe_name, write_maps
from anoaudit.scoring.maps import Mapped, Picture

GREY = np.full((40, 60, 3), 120, dtype=np.uint8)


def hot(y: int, x: int, value: float = 9.0) -> np.ndarray[Any, np.dtype[np.float32]]:
    values = np.random.default_rng(0).uniform(0.9, 1.1, (4, 6)).astype(np.float32)
    values[y, x] = value
    return values


def lightness(colour: tuple[int, ...]) -> float:
    linear = [(c / 255 / 12.92) if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    y = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return 116 * y ** (1 / 3) - 16


def test_colours_grow_lighter_step_by_step() -> None:
    steps = np.diff([lightness(c) for c in COLOURS])
    assert (steps > 1.5).all()
    assert steps.max() < 4 * steps.min()
    assert colours(np.array([-1.0, 2.0])).astype(int).tolist() == [list(COLOURS[0]), list(COLOURS[-1])]


def test_one_scale_from_the_median_to_the_highest_value() -> None:
    scale = scale_of([hot(0, 0), hot(1, 1, 500.0)])
    assert scale.high == 500.0
    assert 0.9 < scale.low < 1.1
    places = scale.place(np.array([0.0, scale.low, 9.0, 500.0, 1e6], dtype=np.float32))
    assert places[0] == places[1] == 0
    assert 0.2 < places[2] < 0.9  # a linear scale would leave nothing of it
    assert places[3] == places[4] == 1
    assert (np.diff(places) >= 0).all()


@pytest.mark.parametrize("value", [0.0, -3.5, 1e-30])
def test_maps_without_any_heat(value: float) -> None:
    flat = np.full((3, 3), value, dtype=np.float32)
    assert (scale_of([flat]).place(flat) == 0).all()
    assert (overlay(GREY, flat, scale_of([flat])) == GREY).all()
    assert scale_of([]).place(flat).tolist() == np.zeros((3, 3)).tolist()


def test_large_maps_are_sampled_but_their_peak_is_not_lost() -> None:
    values = np.zeros((300, 300), dtype=np.float32)
    values[123, 45] = 7.0
    assert scale_of([values]).high == 7.0


def test_the_hottest_place_is_lightest_and_the_rest_is_untouched() -> None:
    values = hot(3, 1)
    drawn = overlay(GREY, values, Scale(1.2, 9.0, 0.0))
    assert drawn.shape == GREY.shape
    assert drawn.dtype == np.uint8
    changed = np.abs(drawn.astype(int) - GREY).sum(axis=2)
    y, x = np.unravel_index(changed.argmax(), changed.shape)
    assert (y // 10, x // 10) == (3, 1)
    assert (drawn[:15] == GREY[:15]).all()


def test_the_peak_in_pixels_of_the_original() -> None:
    assert peak(hot(3, 1), 600, 400) == (150, 350)
    assert peak(hot(0, 0), 1, 1) == (0, 0)


def test_small_pictures_are_enlarged_pixel_by_pixel() -> None:
    small = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    large = visible(small)
    assert large.shape == (258, 258, 3)
    assert (large[::86, ::86] == small).all()
    assert visible(np.zeros((10, 400, 3), dtype=np.uint8)).shape == (10, 400, 3)


@pytest.mark.parametrize(
    "item",
    [
        *NASTY,
        "",
        "..",
        "../../etc/passwd",
        "C:\\con",
        "a/b/c.JPEG",
        "clip.mp4#000123",
        "naïve.png",
        "日" * 90,
        "\udcff",
    ],
)
def test_file_names_are_harmless_everywhere(item: str) -> None:
    name = safe_name(item)
    assert 0 < len(name) <= 80
    assert len(name.encode()) <= 200
    assert not set(name) & set('/\\:*?"<>| \n\t\x1b\u202e\u2028')
    assert name.isprintable()
    assert not name.startswith((".", "-"))


def test_file_names_keep_what_tells_items_apart() -> None:
    assert safe_name("line_a/part_0003.jpg") == "line_a_part_0003"
    assert safe_name("cam/clip.mp4#000123") == "cam_clip.mp4_000123"
    assert safe_name("x" * 300 + "/end.png").endswith("_end")
    assert safe_name("線A/瓶 12.png") == "線A_瓶_12"
    assert safe_name("Щель/дефект-3.jpg") == "Щель_дефект-3"
    assert safe_name("क्षति/बोतल.png") == "क्षति_बोतल"
    assert safe_name("nai\u0308ve.png") == "naïve"  # however the file system spells it
    assert safe_name("x／y:z.png") == "x_y_z"


def test_equal_ranks_and_names_give_files_of_their_own(tmp_path: Path) -> None:
    rows = pl.DataFrame({"id": ["a/b.png", "a b.png"], "rank": [1, 1], "score": [2.0, 2.0]})
    maps = [Mapped("a/b.png", 2.0, hot(0, 5)), Mapped("a b.png", 2.0, hot(3, 1))]
    written, _ = write_maps(tmp_path, rows, maps, ((item, Picture(GREY, 60, 40)) for item in rows["id"]))
    assert (written, len(list(tmp_path.glob("*.npy"))), len(list(tmp_path.glob("*.png")))) == (2, 2, 2)


def test_a_folder_of_maps_and_its_index(tmp_path: Path) -> None:
    ids = ["a/x.png", "b.png", "gone.png", "broken.png", "late.png"]
    rows = pl.DataFrame({"id": ids, "rank": [1, 2, 3, 4, None], "score": [9.0, 5.0, 4.0, 3.0, 2.0]})

    def pictures() -> Iterator[tuple[str, Picture | str]]:
        for item in ("b.png", "a/x.png", "broken.png"):  # the data's order, not the ranking's
            yield item, Picture(GREY, 600, 400)
        yield "late.png", "file is gone, or a broken link"

    maps = [
        Mapped("b.png", 5.0, hot(0, 5, 5.0)),
        Mapped("a/x.png", 9.0, hot(3, 1)),
        Mapped("broken.png", reason="truncated image"),
        Mapped("late.png", 2.0, hot(1, 1)),
    ]
    written, scale = write_maps(tmp_path, rows, maps, pictures())
    assert (written, scale.high) == (2, 9.0)
    assert is_map_folder(tmp_path)
    index = list(csv.DictReader((tmp_path / INDEX).open(encoding="utf-8")))
    assert [row["id"] for row in index] == ids
    assert [row["rank"] for row in index] == ["1", "2", "3", "4", "5"]
    assert [row["reason"] for row in index] == [
        "",
        "",
        "not in the data any more",
        "truncated image",
        "file is gone, or a broken link",
    ]
    assert (index[0]["peak_x"], index[0]["peak_y"], index[0]["width"], index[0]["height"]) == (
        "150",
        "350",
        "600",
        "400",
    )
    names = {INDEX} | {row[kind] for row in index for kind in ("file", "map") if row[kind]}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert index[0]["file"] == "0001_a_x.png"
    assert (np.load(tmp_path / index[0]["map"]) == hot(3, 1)).all()
    with Image.open(tmp_path / index[0]["file"]) as drawn:
        assert drawn.size == (300, 200)
        assert "a/x.png" in drawn.info["anoaudit"]


def test_other_folders_are_not_taken_for_maps(tmp_path: Path) -> None:
    assert not is_map_folder(tmp_path)
    (tmp_path / INDEX).write_bytes(b"\xff\xfe name,price\n")
    assert not is_map_folder(tmp_path)
