"""Videos as data sets: which frames are items, when they were, and that nothing damaged is lost."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

av = pytest.importorskip("av")

from clip_maker import HEIGHT, WIDTH, render, save_frames, scene, times_at  # noqa: E402

from anoaudit.contamination import pools  # noqa: E402
from anoaudit.data import clips, video  # noqa: E402
from anoaudit.data.items import Chunk, ImageSpec  # noqa: E402
from anoaudit.data.source import open_dataset  # noqa: E402
from anoaudit.data.tables import ColumnOptions  # noqa: E402
from anoaudit.data.video import VideoFiles  # noqa: E402
from anoaudit.errors import AuditError, UsageError  # noqa: E402

SPEC = ImageSpec(24, 32)
EXACT = {"codec": "png", "pixels": "rgb24"}


def whole(data: Any, size: int = 7, only: np.ndarray | None = None, **options: object) -> Chunk:
    """All items of a source in one chunk."""
    dataset = open_dataset(str(data), **options) if isinstance(data, Path | str) else data  # type: ignore[arg-type]
    parts = list(dataset.chunks(SPEC, size, only))
    assert all(len(part) == size for part in parts[:-1])
    return Chunk(
        parts[0].start,
        [item for part in parts for item in part.ids],
        [group for part in parts for group in part.groups],
        [reason for part in parts for reason in part.reasons],
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.truth for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.times for part in parts if part.times is not None]),
    )


def same(a: Chunk, b: Chunk) -> bool:
    return (
        (a.ids, a.groups, a.reasons) == (b.ids, b.groups, b.reasons)
        and np.array_equal(a.values, b.values)
        and a.times is not None
        and b.times is not None
        and np.array_equal(a.times, b.times, equal_nan=True)
    )


def damaged(path: Path, start: float, length: int = 300) -> Path:
    data = bytearray(path.read_bytes())
    at = int(start * len(data))
    data[at : at + length] = bytes(byte ^ 0x5A for byte in data[at : at + length])
    path.write_bytes(data)
    return path


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    return path


def test_frames_are_items_in_the_order_of_files_and_time(tmp_path: Path) -> None:
    render(tmp_path / "cam10.mp4", times_at(10, 0.3))
    render(tmp_path / "cam2.mp4", times_at(10, 0.5))
    render(tmp_path / "yard" / "a.MKV", times_at(10, 0.2))
    (tmp_path / "labels.csv").write_text("id,label\n")
    (tmp_path / "notes.ts").write_text("export {}\n")
    data = open_dataset(str(tmp_path))
    assert isinstance(data, VideoFiles)
    assert (data.kind, data.name, data.ignored, len(data), data.timed) == ("images", tmp_path.name, 2, 10, True)
    items = whole(data)
    first = [f"cam2.mp4#{i:06d}" for i in range(5)] + [f"cam10.mp4#{i:06d}" for i in range(3)]
    assert items.ids == [*first, "yard/a.MKV#000000", "yard/a.MKV#000001"] == data.ids
    assert items.groups == ["cam2.mp4"] * 5 + ["cam10.mp4"] * 3 + ["yard/a.MKV"] * 2
    assert np.allclose(items.times, [0, 0.1, 0.2, 0.3, 0.4, 0, 0.1, 0.2, 0, 0.1])  # type: ignore[arg-type]
    assert items.values.shape == (10, 24, 32, 3)
    assert set(items.reasons) == {None}
    assert [part.start for part in data.chunks(SPEC, 4)] == [0, 4, 8]


def test_a_file_and_a_pattern(tmp_path: Path) -> None:
    render(tmp_path / "a" / "x.mp4", [0.0])
    render(tmp_path / "b" / "y.mp4", [0.0])
    one = open_dataset(str(tmp_path / "a" / "x.mp4"))
    assert (one.name, one.source, whole(one).ids) == ("x", str(tmp_path / "a" / "x.mp4"), ["x.mp4#000000"])
    assert whole(tmp_path / "*" / "*.mp4").ids == ["a/x.mp4#000000", "b/y.mp4#000000"]


def test_images_come_before_videos_and_videos_before_tables(tmp_path: Path) -> None:
    render(tmp_path / "x.mp4", [0.0])
    (tmp_path / "t.csv").write_text("a\n1\n")
    assert isinstance(open_dataset(str(tmp_path)), VideoFiles)
    assert open_dataset(str(tmp_path)).ignored == 1
    list(save_frames(tmp_path, [0.0]))
    assert not isinstance(open_dataset(str(tmp_path)), VideoFiles)
    assert open_dataset(str(tmp_path)).ignored == 2


def test_a_frame_has_the_pixels_of_the_same_picture_in_a_file(tmp_path: Path) -> None:
    times = times_at(10, 1)
    list(save_frames(tmp_path / "frames", times))
    pictures = whole(tmp_path / "frames", fps=10.0)
    exact, lossy = whole(render(tmp_path / "x.mov", times, **EXACT)), whole(render(tmp_path / "x.mp4", times))
    assert np.array_equal(exact.values, pictures.values)
    assert np.array_equal(exact.times, pictures.times)  # type: ignore[arg-type]
    assert np.abs(lossy.values.astype(int) - pictures.values).mean() < 5


@pytest.mark.parametrize(
    ("name", "codec", "b_frames"),
    [("x.mp4", "mpeg4", 2), ("x.mkv", "mpeg4", 2), ("x.avi", "mpeg4", 0), ("x.avi", "mpeg4", 2), ("x.mpg", "mpeg2video", 2),
     ("x.webm", "libvpx", 0), ("x.wmv", "wmv2", 0), ("x.flv", "flv", 0), ("x.m2ts", "mpeg2video", 2), ("x.mp4", "libx264", 2),
     ("x.avi", "libx264", 2)],
)  # fmt: skip
def test_every_container_gives_all_frames_from_zero_on(tmp_path: Path, name: str, codec: str, b_frames: int) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    rate = 25 if codec == "mpeg2video" else 10  # which knows no rate of 10
    times = times_at(rate, 24 / rate)
    path = render(tmp_path / name, times, codec, rate=rate, b_frames=b_frames)
    items = whole(path)
    assert items.reasons == [None] * 24
    assert items.times is not None
    assert items.times[0] == 0
    assert (np.diff(items.times) > 0).all()
    assert np.allclose(items.times, times, atol=0.002)
    expected = [np.asarray(Image.fromarray(scene(t)).resize((32, 24), Image.Resampling.BILINEAR)) for t in times]
    assert np.abs(items.values.astype(int) - np.stack(expected)).mean() < 8, "the frames are in another order"


def test_a_rate_takes_the_first_frame_of_each_slot(tmp_path: Path) -> None:
    path = render(tmp_path / "x.mp4", times_at(10, 2))
    items = whole(path, fps=4.0)
    assert [int(item[-6:]) for item in items.ids] == [0, 3, 5, 8, 10, 13, 15, 18]
    assert np.allclose(items.times, [0, 0.3, 0.5, 0.8, 1.0, 1.3, 1.5, 1.8])  # type: ignore[arg-type]
    everything = whole(path)
    assert np.array_equal(items.values, everything.values[[0, 3, 5, 8, 10, 13, 15, 18]])
    assert same(whole(path, fps=100.0), everything)
    assert len(whole(path, fps=0.1)) == 1


def test_frames_at_uneven_times_keep_them(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.5, 0.51, 1.2, 3.0, 3.04]
    path = render(tmp_path / "x.mkv", times)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 0  # the container does not tell how many there are
    assert np.allclose(whole(path).times, times)  # type: ignore[arg-type]
    assert [int(item[-6:]) for item in whole(path, fps=1.0).ids] == [0, 4, 5]


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.avi"])
def test_of_a_truncated_video_the_frames_that_are_there_are_items(tmp_path: Path, name: str) -> None:
    options = {"movflags": "faststart"} if name == "x.mp4" else {}
    path = render(tmp_path / name, times_at(10, 6), **options)
    sound = whole(path)
    items = whole(cut(path, 0.6))
    readable = items.readable
    assert 10 < readable.sum() < 60
    assert (items.ids[-1], items.groups[-1]) == (name, name)
    assert readable[:-2].all()  # the last frame may be there in part
    assert items.reasons[-1] is not None
    assert "cut off" in items.reasons[-1]
    assert np.isnan(items.times[-1])  # type: ignore[index]
    last = int(readable.sum()) - 1
    assert np.array_equal(items.values[:last], sound.values[:last])
    assert same(items, whole(path))


def test_damage_within_a_video_is_told_and_decodes_the_same_every_time(tmp_path: Path) -> None:
    path = damaged(render(tmp_path / "x.mp4", times_at(10, 6), movflags="faststart"), 0.5)
    items = whole(path)
    bad = [reason for reason in items.reasons if reason is not None]
    assert 0 < len(bad) < 20
    assert all("damaged frame" in reason or "cannot be decoded" in reason for reason in bad)
    assert len(items.values) + len(bad) == len(items)
    for _ in range(3):
        assert same(items, whole(path))


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.avi", "x.mpg"])
def test_random_damage_neither_crashes_nor_loses_the_count(tmp_path: Path, name: str) -> None:
    codec, rate = ("mpeg2video", 25) if name == "x.mpg" else ("mpeg4", 10)
    path = render(tmp_path / name, times_at(rate, 1), codec, rate=rate)
    sound, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(15):
        data = bytearray(sound)
        for at in [*rng.integers(0, len(data), 3), *rng.integers(0, 1500, 2)]:
            data[at : at + 8] = rng.integers(0, 256, len(data[at : at + 8]), dtype=np.uint8).tobytes()
        path.write_bytes(data[: rng.integers(len(data) // 2, 2 * len(data))])
        items = whole(path)
        assert not any("changed" in (reason or "") for reason in items.reasons)
        assert len(items.values) == items.readable.sum()


@pytest.mark.parametrize(
    ("codec", "entry", "reason"), [("libx265", b"hvcC", "11 pieces cannot be decoded"), ("libx264", b"avc1", "codec")]
)
def test_what_has_no_decoder_ends(tmp_path: Path, codec: str, entry: bytes, reason: str) -> None:
    """With garbage for settings every packet fails, and the end of the file, too."""
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    path = render(tmp_path / "x.mp4", times_at(10, 1), codec, movflags="faststart")
    data = bytearray(path.read_bytes())
    at = data.rindex(entry)  # avc1 is also named at the head
    at, size = (at + 26, 40) if codec == "libx265" else (at, 4)
    data[at : at + size] = b"\xff" * size
    path.write_bytes(data)
    items = whole(path)
    assert (items.ids, len(items.values)) == (["x.mp4"], 0)
    assert reason in str(items.reasons[0])


def test_every_unreadable_file_is_one_item_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = render(tmp_path / "good.mp4", [0.0, 0.1])
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video at all " * 100)
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile good.mp4\n")
    (tmp_path / "play.mp4").write_text("#EXTM3U\n#EXTINF:5,\ngood.mp4\n#EXT-X-ENDLIST\n")
    cut(render(tmp_path / "headless.mp4", times_at(10, 6)), 0.5)
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    items = whole(tmp_path)
    reasons = dict(zip(items.ids, items.reasons, strict=True))
    head = "not a video, damaged at its head, or cut off before its index"
    assert reasons == {
        "good.mp4#000000": None,
        "good.mp4#000001": None,
        "empty.mp4": "empty file (0 bytes)",
        "text.mp4": head,
        "list.mp4": head,
        "play.mp4": head,
        "headless.mp4": head,
        "gone.mp4": "file is gone, or a broken link",
        "pipe.mp4": "not a regular file",
        "sound.mp4": "holds no video",
    }
    monkeypatch.setattr(clips, "MAX_PIXELS", WIDTH * HEIGHT - 1)
    assert whole(good).reasons == ["too many pixels: 64×48 (limit 0 megapixels)"]


def test_names_are_never_protocols_or_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["concat:a|b.mp4", "frame%03d #1?.mp4", "größe 日本.mp4", os.fsdecode(b"\xff.mp4")]
    for name in names:
        render(tmp_path / "x.mp4", [0.0]).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert whole(".").reasons == [None] * 4


def test_only_the_marked_frames_are_read(tmp_path: Path) -> None:
    render(tmp_path / "a.mp4", times_at(10, 3))
    cut(render(tmp_path / "b.mp4", times_at(10, 3), movflags="faststart"), 0.6)
    data = open_dataset(str(tmp_path))
    everything = whole(data)
    rng = np.random.default_rng(0)
    for share in (0.02, 0.3, 0.9):
        only = rng.random(len(data)) < share
        only[rng.integers(len(data))] = True
        marked = np.flatnonzero(only)
        part = whole(data, 5, only)
        assert part.start == marked[0]
        assert part.ids == [everything.ids[i] for i in marked]
        assert part.reasons == [everything.reasons[i] for i in marked]
        assert np.array_equal(part.values, everything.values[only[everything.readable]])
    assert list(data.chunks(SPEC, 5, np.zeros(len(data), dtype=bool))) == []


def test_a_file_without_wanted_frames_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        render(tmp_path / f"{name}.mp4", times_at(10, 1))
    data = open_dataset(str(tmp_path))
    opened: list[str] = []
    assert len(data) == 20

    def watched(path: Path, *rest: object) -> object:
        opened.append(path.name)
        return original(path, *rest)  # type: ignore[arg-type]

    original = clips.frames
    monkeypatch.setattr(clips, "frames", watched)
    only = np.zeros(20, dtype=bool)
    only[13] = True
    assert whole(data, 7, only).ids == ["b.mp4#000003"]
    assert opened == ["b.mp4"]


def test_leaving_early_leaves_nothing_behind(tmp_path: Path) -> None:
    data = open_dataset(str(render(tmp_path / "x.mp4", times_at(10, 6))))
    before = threading.active_count()
    walk = data.chunks(SPEC, 4)
    assert len(next(walk)) == 4
    walk.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert len(os.listdir("/proc/self/fd")) < 200
    assert (tmp_path / "x.mp4").read_bytes()


def test_few_frames_are_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_dataset(str(render(tmp_path / "x.mp4", times_at(10, 20))))
    assert len(data) == 200
    decoded, taken, furthest = 0, 0, 0
    original = clips.frames

    def counted(path: Path, *rest: object) -> object:
        nonlocal decoded
        for found in original(path, *rest):  # type: ignore[arg-type]
            decoded += 1
            yield found

    monkeypatch.setattr(clips, "frames", counted)
    for part in data.chunks(SPEC, 8):
        taken += len(part)
        furthest = max(furthest, decoded - taken)
    assert taken == 200
    assert furthest <= (video.AHEAD + 1) * 8 + video.WORKERS


def test_a_video_that_shrinks_meanwhile(tmp_path: Path) -> None:
    path = render(tmp_path / "x.mp4", times_at(10, 2))
    data = open_dataset(str(path))
    assert len(data) == 20
    render(path, times_at(10, 1))
    assert whole(data).reasons == [None] * 10 + ["the file changed while it was being read"] * 10
    path.unlink()
    assert whole(data).reasons == ["file is gone, or a broken link"] * 20


def test_truth_and_labels_join_on_the_frames_ids(tmp_path: Path) -> None:
    render(tmp_path / "cams" / "x.mp4", times_at(10, 1))
    (tmp_path / "truth.csv").write_text("id,label\nx.mp4#000003,1\nx.mp4#000004,0\nx.mp4#000999,1\n")
    (tmp_path / "labels.csv").write_text("path,anomaly\ncams/x.mp4#000007,0\n")
    for data in (tmp_path / "cams", tmp_path / "cams" / "x.mp4"):
        items = whole(data, truth=str(tmp_path / "truth.csv"), labels=str(tmp_path / "labels.csv"))
        assert items.truth.tolist() == [-1, -1, -1, 1, 0, -1, -1, -1, -1, -1]
        assert items.labels.tolist() == [-1, -1, -1, -1, -1, -1, -1, 0, -1, -1]
    (tmp_path / "other.csv").write_text("id,label\nx.mp4#3,1\n")
    with pytest.raises(UsageError, match="none of the 1 ids") as caught:
        open_dataset(str(tmp_path / "cams"), truth=str(tmp_path / "other.csv"))
    assert "clip.mp4#000123" in caught.value.hint


def test_without_pyav_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = render(tmp_path / "x.mp4", [0.0])
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AuditError, match="PyAV") as caught:
        open_dataset(str(path))
    assert (caught.value.exit_code, caught.value.hint) == (3, "pip install av")


def test_outline_and_fingerprint_tell_data_apart(tmp_path: Path) -> None:
    path = render(tmp_path / "x.mp4", times_at(10, 1))
    known = {(d.outline(), d.fingerprint()) for d in (open_dataset(str(path)), open_dataset(str(path)))}
    assert len(known) == 1
    rated = open_dataset(str(path), fps=2.0)
    damaged(path, 0.5, 1)
    changed = open_dataset(str(path))
    known |= {(rated.outline(), rated.fingerprint()), (changed.outline(), changed.fingerprint())}
    assert len({fingerprint for _, fingerprint in known}) == 3
    assert len({outline for outline, _ in known}) == 2


def test_a_turned_video_stands_upright(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "probe.mp4"), "w") as container:
        if not hasattr(container.add_stream("mpeg4"), "set_display_rotation"):
            pytest.skip("this PyAV cannot mark a video as turned")
    spec = ImageSpec(WIDTH, HEIGHT)  # of the upright picture
    path = render(tmp_path / "x.mov", [0.0], rotation=90, **EXACT)
    [chunk] = open_dataset(str(path)).chunks(spec, 4)
    assert np.array_equal(chunk.values[0], np.rot90(scene(0.0)))


def test_clear_parts_lie_over_white(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "x.mov"), "w") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 8, 8, "rgba"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((8, 8, 4), np.uint8), format="rgba")))
        container.mux(stream.encode(None))
    assert (whole(tmp_path / "x.mov").values == 255).all()


def test_pictures_for_the_eye(tmp_path: Path) -> None:
    cut(render(tmp_path / "x.mp4", times_at(10, 6), movflags="faststart"), 0.6)
    data = open_dataset(str(tmp_path))
    assert isinstance(data, VideoFiles)
    only = np.zeros(len(data), dtype=bool)
    only[[2, -1]] = True
    (first, picture), (last, reason) = data.pictures(32, only)
    assert (first, last) == ("x.mp4#000002", "x.mp4")
    assert not isinstance(picture, str)
    assert (picture.pixels.shape, picture.width, picture.height) == ((24, 32, 3), WIDTH, HEIGHT)
    assert isinstance(reason, str)


def frames_in(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)


def test_a_folder_of_frames_is_a_sequence(tmp_path: Path) -> None:
    names = [
        "f10.png",
        "f2.png",
        "f1.png",
        "cam2/b.png",
        "cam10/x9.png",
        "cam10/x10.png",
        "cam2/deep/z.png",
        "cam2/²a.png",
    ]
    frames_in(tmp_path, names)
    (tmp_path / "f3.png").write_text("broken")
    data = open_dataset(str(tmp_path), fps=2.0)
    items = whole(data)
    assert items.ids == [
        "f1.png", "f2.png", "f3.png", "f10.png", "cam2/b.png", "cam2/²a.png", "cam2/deep/z.png", "cam10/x9.png", "cam10/x10.png",
    ]  # fmt: skip
    assert items.times is not None
    assert items.times.tolist() == [0.0, 0.5, 1.0, 1.5, 0.0, 0.5, 0.0, 0.0, 0.5]
    assert items.groups == [None] * 4 + ["cam2"] * 2 + ["cam2/deep"] + ["cam10"] * 2
    assert items.reasons[2] is not None
    [plain] = open_dataset(str(tmp_path)).chunks(SPEC, 20)
    assert plain.times is None
    assert plain.ids == sorted(items.ids)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(tmp_path: Path, rate: float) -> None:
    with pytest.raises(UsageError, match="--fps"):
        open_dataset(str(render(tmp_path / "x.mp4", [0.0])), fps=rate)


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a\n1\n")
    with pytest.raises(UsageError, match="is a table; --fps"):
        open_dataset(str(tmp_path / "t.csv"), fps=2.0)
    path = render(tmp_path / "x.mp4", [0.0])
    with pytest.raises(UsageError, match="holds videos; --columns"):
        open_dataset(str(path), ColumnOptions(id_column="a"))
    with pytest.raises(UsageError, match="contaminate takes folders of images, or tables"):
        pools.two_sources(str(path), str(path))
