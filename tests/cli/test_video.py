"""A video from the file to its worst interval, through the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import polars as pl
import pytest

pytest.importorskip("av")

from ..data.clip_maker import ODD, render, save_frames, times_at
from .conftest import Run, make_table

SECONDS = 6


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(tmp_path_factory.mktemp("video") / "line.mp4", times_at(10, SECONDS), movflags="faststart")


@pytest.fixture(scope="module")
def model(clip: Path) -> Path:
    """Fitted on every second frame, without a subprocess: three of them show the odd object."""
    from anoaudit import api

    path = clip.parent / "line.anoaudit"
    api.fit(clip, out=path, backbone="none", fps=5, top_k="3")
    return path


def covers_the_odd_object(interval: dict[str, float]) -> bool:
    return bool(interval["start"] <= ODD[0] + 0.01 and ODD[1] - 0.01 <= interval["end"] <= ODD[1] + 0.2)


def test_the_audit_finds_when_it_happened(model: Path, run: Run) -> None:
    shown = run("report", model)
    assert "30 frames" in shown.out
    assert "Worst intervals  1, made of flagged frames" in shown.out
    assert "00:00:04.0 – 00:00:04.6" in shown.out
    document = json.loads(run("report", model, "--format", "json").out)
    [interval] = document["timeline"]["intervals"]
    assert covers_the_odd_object(interval)
    assert (interval["group"], interval["frames"]) == ("line.mp4", 3)
    assert [row["time"] for row in document["rows"][:3]] == [0.0, 0.2, 0.4]
    assert [row["id"] for row in document["rows"][:2]] == ["line.mp4#000000", "line.mp4#000002"]


def test_all_frames_are_scored_and_those_of_a_folder_alike(model: Path, clip: Path, run: Run, tmp_path: Path) -> None:
    done = run("score", clip, "-m", model, "--top-k", "5", "-o", tmp_path / "video.parquet")
    assert done.code == 0
    assert f"60 frames in {clip} (all of them; --fps takes fewer)" in done.err
    frames = list(save_frames(tmp_path / "frames", times_at(10, SECONDS)))
    assert len(frames) == 60
    arguments = ("-m", model, "--top-k", "5", "--fps", "10")
    document = json.loads(run("score", tmp_path / "frames", *arguments, "--format", "json").out)
    video = pl.read_parquet(tmp_path / "video.parquet")
    assert video.columns[-1] == "time"
    assert video["time"].to_list() == pytest.approx([row["time"] for row in document["rows"]])
    assert video["flagged"].to_list() == [row["flagged"] for row in document["rows"]]
    assert video.filter("flagged")["id"].to_list() == [f"line.mp4#{i:06d}" for i in range(40, 45)]
    assert covers_the_odd_object(document["timeline"]["intervals"][0])
    plain = json.loads(run("score", tmp_path / "frames", "-m", model, "--top-k", "5", "--format", "json").out)
    assert "time" not in plain["rows"][0]
    assert plain["timeline"] is None


def test_a_truncated_video_is_scored_as_far_as_it_goes(model: Path, clip: Path, run: Run, tmp_path: Path) -> None:
    short = tmp_path / "short.mp4"
    short.write_bytes(clip.read_bytes()[: int(clip.stat().st_size * 0.6)])
    truth = tmp_path / "truth.csv"
    truth.write_text("id,label\nshort.mp4#000003,0\nshort.mp4#000004,1\n")
    done = run("score", short, "-m", model, "--truth", truth, "--max-unreadable", "2", "--fail-on", "unreadable>0")
    assert done.code == 1
    assert "cut off" in done.out
    document = json.loads(run("score", short, "-m", model, "--max-unreadable", "2", "--format", "json").out)
    last = document["rows"][-1]
    assert (last["id"], last["status"], last["time"]) == ("short.mp4", "unreadable", None)
    assert 20 < document["summary"]["readable"] < 50


def test_without_pyav_it_says_how_to_get_it(model: Path, clip: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    for arguments in (("score", clip, "-m", model), ("fit", clip, "-o", clip.parent / "other.anoaudit")):
        done = run(*arguments)
        assert (done.code, done.out) == (3, "")
        assert done.err.splitlines() == [
            "error: reading videos needs PyAV, which is not installed",
            "  pip install av",
        ]


def test_rates_that_cannot_be_meant(model: Path, clip: Path, run: Run, tmp_path: Path) -> None:
    make_table(rows=40).write_csv(tmp_path / "t.csv")
    cases = [
        (("score", clip, "-m", model, "--fps", "0"), "--fps 0 is no rate"),
        (("score", clip, "-m", model, "--fps=-2"), "--fps -2 is no rate"),
        (("fit", tmp_path / "t.csv", "--fps", "2"), "is a table; --fps is for videos"),
        (("score", tmp_path / "t.csv", "-m", model, "--fps", "2"), "is a table; --fps is for videos"),
    ]
    for arguments, words in cases:
        done = run(*arguments)
        assert (done.code, done.out) == (2, "")
        assert words in done.err
        assert len(done.err.splitlines()) == 2
