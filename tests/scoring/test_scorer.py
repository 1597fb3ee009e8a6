from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from PIL import Image
from tiny_models import IMAGES, TABLE, image_model, row_model

from anoaudit.data.images import ImageFolder, scan
from anoaudit.data.items import UNLABELLED, Chunk, InputSpec, Kind
from anoaudit.data.source import open_dataset
from anoaudit.errors import AuditError
from anoaudit.model import session as sessions
from anoaudit.model.calibration import Calibration, conformal, fit_null
from anoaudit.model.session import CPU, Session
from anoaudit.scoring.decisions import Rule, make_rule
from anoaudit.scoring.scorer import Limit, finished_table, score_dataset
from anoaudit.scoring.table import ScoreTable, ScoreTableWriter, Summary, schema

N = 230


class Rows:
    """A table in memory; every tenth row is unreadable, its ids in no order."""

    kind: Kind = "table"
    source, name, ignored, timed = "rows", "rows", 7, False

    def __init__(self, n: int = N, bad: int = 10, extreme: float = 50.0) -> None:
        rng = np.random.default_rng(1)
        self.values = rng.normal(size=(n, 3))
        self.values[5 : 5 + 3] += extreme
        self.reasons = [f"bad {i}" if bad and i % bad == 3 else None for i in range(n)]
        self.truth = np.where(np.arange(n) % 4 == 0, UNLABELLED, np.arange(n) % 2).astype(np.int8)
        self.ids = [f"r{i * 7919 % n}" for i in range(n)]

    def __len__(self) -> int:
        return len(self.ids)

    def chunks(self, spec: InputSpec, size: int, only: npt.NDArray[np.bool_] | None = None) -> Iterator[Chunk]:
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            reasons = self.reasons[part]
            readable = np.array([reason is None for reason in reasons])
            groups = [f"g{i % 3}" if i % 3 else None for i in range(len(self))][part]
            yield Chunk(
                start, self.ids[part], groups, reasons, self.values[part][readable], self.truth[part], self.truth[part]
            )

    def label_notes(self) -> tuple[str, ...]:
        return ()

    def outline(self) -> str:
        return "outline"

    def fingerprint(self) -> str:
        return "fingerprint"


def session() -> Session:
    return Session(row_model().SerializeToString(), "cpu")


def score(dataset: Any, out: Path, rule: Rule | None = None, truth: bool = False, **more: Any) -> ScoreTable:
    images = dataset.kind == "images"
    return score_dataset(
        dataset,
        more.pop("session", None) or (Session(image_model().SerializeToString(), "cpu") if images else session()),
        IMAGES if images else TABLE,
        out,
        more.pop("calibrate", fit_null),
        rule or Rule(),
        ["truth"] if truth else [],
        {"name": "m", "hash": "0"},
        **more,
    )


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go, to see that none stays."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_one_row_per_input_in_order(tmp_path: Path, scratch: Path) -> None:
    data = Rows()
    table = score(data, tmp_path / "s.parquet")
    frame = table.lazy().collect()
    assert dict(frame.schema) == schema()
    assert frame["id"].to_list() == data.ids
    assert frame["reason"].to_list() == data.reasons
    readable = np.array([reason is None for reason in data.reasons])
    assert (frame["status"] == "ok").to_list() == readable.tolist()
    expected = np.abs(data.values).sum(axis=1).astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(frame["score"].filter(pl.Series(readable)), expected[readable], rtol=1e-6)
    unreadable = frame.filter(pl.Series(~readable))
    for name in ("score", "p_value", "rank", "why"):
        assert unreadable[name].null_count() == unreadable.height
        assert frame[name].null_count() == unreadable.height
    assert not unreadable["flagged"].any()
    assert frame["flagged"].null_count() == 0
    ok = frame.filter(pl.Series(readable)).sort("rank")
    assert ok["rank"].to_list() == list(range(1, ok.height + 1))
    assert ok["score"].is_sorted(descending=True)
    assert ok["p_value"].is_sorted()
    assert ok["flagged"].to_list()[:3] == [True] * 3
    assert frame["group"].to_list()[:4] == [None, "g1", "g2", None]
    assert os.listdir(scratch) == []
    assert sorted(os.listdir(tmp_path)) == ["s.parquet", "scratch"]


def test_the_summary(tmp_path: Path) -> None:
    done: list[int] = []
    table = score(Rows(), tmp_path / "s.parquet", notes=("careful",), progress=done.append)
    summary = table.summary
    frame = table.lazy().collect()
    assert (summary.rows, summary.readable, summary.unreadable, summary.ignored) == (N, 207, 23, 7)
    assert summary.flagged == frame["flagged"].sum()
    assert summary.threshold == frame.filter("flagged")["score"].min()
    assert summary.calibration["kind"] == "fitted-null"
    assert "estimated FDR 0.1" in summary.rule
    assert (summary.source, summary.kind, summary.provider, summary.fingerprint) == (
        "rows",
        "table",
        CPU,
        "fingerprint",
    )
    assert summary.notes == ("careful",)
    assert summary.model == {"name": "m", "hash": "0"}
    assert done == [N]
    assert ScoreTable.open(table.path) == table


@pytest.mark.parametrize("size", [1, 7, 50, 10_000])
@pytest.mark.parametrize(
    "rule", [Rule(), make_rule(None, 3.0, None), make_rule(None, None, "5%")], ids=["fdr", "threshold", "top"]
)
def test_the_batch_size_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, rule: Rule) -> None:
    data = Rows()
    data.reasons[14:28] = ["a whole batch of seven"] * 14
    expected = score(data, tmp_path / "a.parquet", rule)
    monkeypatch.setattr(sessions, "ROWS", size)
    found = score(data, tmp_path / "b.parquet", rule)
    assert found.lazy().collect().equals(expected.lazy().collect())
    assert found.summary == expected.summary


def test_truth(tmp_path: Path) -> None:
    frame = score(Rows(), tmp_path / "s.parquet", truth=True).lazy().collect()
    assert dict(frame.schema) == schema(["truth"])
    assert frame["truth"].to_list()[:5] == [None, 1, 0, 1, None]


def test_a_threshold_ranks_too(tmp_path: Path) -> None:
    table = score(Rows(), tmp_path / "s.parquet", make_rule(None, 100.0, None))
    frame = table.lazy().collect()
    assert frame["rank"].drop_nulls().sort().to_list() == list(range(1, table.summary.readable + 1))
    assert table.summary.threshold == 100.0
    assert table.summary.flagged == 3 == frame["flagged"].sum()
    assert table.top(3)["score"].to_list() == frame["score"].drop_nulls().sort(descending=True).to_list()[:3]


def test_top_k_is_exact(tmp_path: Path) -> None:
    table = score(Rows(), tmp_path / "s.parquet", make_rule(None, None, "4"))
    assert table.summary.flagged == 4
    assert sorted(table.lazy().filter("flagged").collect()["rank"].to_list()) == [1, 2, 3, 4]


def test_known_normals_control_the_rate(tmp_path: Path) -> None:
    clean = np.abs(np.random.default_rng(0).normal(size=(500, 3))).sum(axis=1)
    table = score(Rows(), tmp_path / "s.parquet", calibrate=lambda _: conformal(clean))
    assert "controlled" in table.summary.rule
    assert table.lazy().collect()["p_value"].min() == 1 / 501


@pytest.mark.parametrize("kind", ["table", "images"])
def test_nothing_readable(tmp_path: Path, kind: Kind) -> None:
    data = Rows(60, bad=1)
    data.reasons = ["broken"] * 60
    data.kind = kind
    for rule in (Rule(), make_rule(None, 1.0, None), make_rule(None, None, "10%")):
        table = score(data, tmp_path / "s.parquet", rule)
        frame = table.lazy().collect()
        assert frame["reason"].to_list() == ["broken"] * 60
        assert dict(frame.schema) == schema()
        assert frame["score"].null_count() == frame["rank"].null_count() == 60
        assert (table.summary.readable, table.summary.unreadable, table.summary.flagged) == (0, 60, 0)


def test_few_rows_are_ranked_but_not_flagged(tmp_path: Path) -> None:
    table = score(Rows(30, bad=0), tmp_path / "s.parquet")
    frame = table.lazy().collect()
    assert frame["p_value"].null_count() == 30
    assert table.summary.flagged == 0
    assert table.summary.threshold is None
    assert any("30 items" in note for note in table.summary.notes)


def test_no_items(tmp_path: Path, scratch: Path) -> None:
    (tmp_path / "s.parquet").write_text("older")
    with pytest.raises(AuditError, match="no items"):
        score(Rows(0), tmp_path / "s.parquet")
    assert (tmp_path / "s.parquet").read_text() == "older"
    assert os.listdir(scratch) == []


class Odd:
    """A session whose scores are not finite for some rows."""

    provider, note = CPU, "a note of the session"

    def run(self, batch: Any) -> Any:
        scores = batch.sum(axis=1).astype(np.float32)
        scores[::5], scores[1::5], scores[2::5] = np.nan, np.inf, -np.inf
        return scores, None


def test_scores_that_are_no_numbers(tmp_path: Path) -> None:
    table = score(Rows(100, bad=0), tmp_path / "s.parquet", session=Odd())
    frame = table.lazy().collect()
    assert (table.summary.readable, table.summary.unreadable) == (40, 60)
    assert frame["score"].drop_nulls().is_finite().all()
    assert set(frame.filter(pl.col("status") == "unreadable")["reason"]) == {"the model gives no finite score"}
    assert frame.filter(pl.col("status") == "unreadable")["why"].null_count() == 60
    assert "a note of the session" in table.summary.notes


@pytest.mark.parametrize("method", ["__init__", "write", "close"])
@pytest.mark.parametrize("which", ["spool", "out"])
@pytest.mark.parametrize("exists", [True, False])
def test_a_full_disk(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, method: str, which: str, exists: bool
) -> None:
    out = tmp_path / "s.parquet"
    if exists:
        out.write_text("older")
    real = getattr(ScoreTableWriter, method)

    def fail(self: ScoreTableWriter, *arguments: Any) -> Any:
        path = arguments[0] if method == "__init__" else self.path
        if (scratch in path.parents) == (which == "spool"):
            raise OSError(28, "No space left on device")
        return real(self, *arguments)

    monkeypatch.setattr(ScoreTableWriter, method, fail)
    with pytest.raises(AuditError, match="No space left") as caught:
        score(Rows(), out)
    assert caught.value.hint
    assert os.listdir(scratch) == []
    assert sorted(os.listdir(tmp_path)) == (["s.parquet", "scratch"] if exists else ["scratch"])
    assert not exists or out.read_text() == "older"


def test_data_that_goes_away(tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(self: Rows) -> str:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(Rows, "fingerprint", gone)
    with pytest.raises(AuditError, match="rows cannot be read again"):
        score(Rows(), tmp_path / "s.parquet")

    def broken(self: Rows, spec: Any, size: int) -> Any:
        yield from ()
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Rows, "chunks", broken)
    with pytest.raises(AuditError, match="rows cannot be read: Input/output error"):
        score(Rows(), tmp_path / "s.parquet")
    assert os.listdir(scratch) == []


def test_a_failing_model_leaves_nothing(tmp_path: Path, scratch: Path) -> None:
    class Failing(Odd):
        def run(self, batch: Any) -> Any:
            raise AuditError("onnxruntime failed: x")

    with pytest.raises(AuditError, match="onnxruntime failed"):
        score(Rows(), tmp_path / "s.parquet", session=Failing())
    assert os.listdir(scratch) == []
    assert os.listdir(tmp_path) == ["scratch"]


def test_places_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AuditError, match="cannot be written"):
        score(Rows(), tmp_path / "no" / "s.parquet")
    (tmp_path / "folder").mkdir()
    with pytest.raises(AuditError, match="cannot be written"):
        score(Rows(), tmp_path / "folder")
    assert os.listdir(tmp_path) == ["folder"]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(AuditError, match="no temporary folder"):
        score(Rows(), tmp_path / "s.parquet")


def test_finished_table_goes_through_links(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("older")
    (tmp_path / "link").symlink_to("real")
    with finished_table(tmp_path / "link") as writer:
        writer.close(Summary())
    assert (tmp_path / "link").is_symlink()
    assert ScoreTable.open(tmp_path / "real").summary == Summary()
    assert sorted(os.listdir(tmp_path)) == ["link", "real"]


def test_tables_from_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(rng.normal(size=(120, 3)), schema=["c2", "c0", "c1"], orient="row")
    text = frame.with_columns(pl.all().cast(pl.String), name=pl.Series([f"n{i}" for i in range(120)]), y=pl.lit("1"))
    text[7, "c1"], text[8, "c0"] = "what?", None
    text.write_csv(tmp_path / "t.csv")
    table = score(open_dataset(str(tmp_path / "t.csv"), truth="y"), tmp_path / "s.parquet", truth=True)
    found = table.lazy().collect()
    assert found["id"].to_list() == [str(i) for i in range(120)]
    expected = np.abs(frame.to_numpy()).sum(axis=1)
    np.testing.assert_allclose(found["score"][9:].to_numpy(), expected[9:], rtol=1e-5)
    assert (found["status"][7], found["rank"][7], found["flagged"][7]) == ("unreadable", None, False)
    assert "what?" in found["reason"][7]
    assert "c0 missing" in found["why"][8]
    assert found["truth"].to_list() == [1] * 120
    assert found["group"].null_count() == 120


def test_images_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "in"
    for i in range(60):
        path = folder / ("a" if i % 2 else "") / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((12, 16, 3), i * 4, dtype=np.uint8)).save(path)
    (folder / "a" / "01.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("x")
    paths, ignored = scan(folder, frozenset({".png"}))
    first = score(ImageFolder(folder, paths, ignored), tmp_path / "s.parquet")
    frame = first.lazy().collect()
    assert frame["id"].to_list() == sorted(p.relative_to(folder).as_posix() for p in paths)
    assert (first.summary.kind, first.summary.ignored, first.summary.unreadable) == ("images", 1, 1)
    by_id = {row["id"]: row for row in frame.iter_rows(named=True)}
    assert by_id["a/01.png"]["status"] == "unreadable"
    assert by_id["a/03.png"]["group"] == "a"
    assert by_id["02.png"]["group"] is None
    assert by_id["a/59.png"]["rank"] == 1
    assert by_id["a/59.png"]["score"] == 236.0
    assert by_id["02.png"]["why"].startswith("peak x ")
    monkeypatch.setattr(sessions, "IMAGES", 1)
    assert score(ImageFolder(folder, paths, ignored), tmp_path / "t.parquet").lazy().collect().equals(frame)


def test_a_row_is_scored_the_same_alone(tmp_path: Path) -> None:
    whole = score(Rows(60, bad=0), tmp_path / "a.parquet").lazy().collect()["score"]
    for i in (0, 6, 59):
        data = Rows(60, bad=0)
        data.ids, data.reasons = data.ids[i : i + 1], data.reasons[i : i + 1]
        data.values, data.truth = data.values[i : i + 1], data.truth[i : i + 1]
        none = Calibration(kind="none")
        alone = score(data, tmp_path / "b.parquet", calibrate=lambda _, none=none: none)
        assert alone.lazy().collect()["score"].to_list() == [whole[i]]


def test_limits() -> None:
    assert not Limit(share=5.0).exceeded(1, 20)
    assert Limit(share=5.0).exceeded(2, 20)
    assert Limit(share=0.0).exceeded(1, 10**9)
    assert not Limit(share=0.0).exceeded(0, 10)
    assert not Limit(count=3, share=None).exceeded(3, 3)
    assert Limit(count=3, share=None).exceeded(4, 10**9)
    assert Limit(count=0, share=None).exceeded(1, 10)
    assert (str(Limit(count=3, share=None)), str(Limit(share=2.5))) == ("3", "2.5%")
