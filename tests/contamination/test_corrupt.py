"""Damage on purpose: exactly so many items, nothing else touched, the truth beside it with kind and severity."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from anoaudit.contamination import image_faults, table_faults
from anoaudit.contamination.corrupt import damaged_count
from anoaudit.contamination.mix import contaminate
from anoaudit.contamination.table_faults import Columns
from anoaudit.errors import AuditError, UsageError

Tree = Callable[[Path], dict[str, str]]


def scene(side: int = 40, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0 : side + 8]
    base = 120 + 60 * np.sin(x / 3)[..., None] + 20 * np.cos(y / 5)[..., None] + rng.normal(0, 3, (side, side + 8, 3))
    return np.clip(base, 0, 255).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """24 pictures in four formats, and one file that is none."""
    root = tmp_path / "in"
    for i in range(24):
        path = root / ("a" if i % 2 else "b/c") / f"{i:02}.{('png', 'jpg', 'webp', 'bmp')[i % 4]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene(seed=i)).save(path)
    (root / "broken.png").write_bytes(b"nothing")
    return root


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    n = 200
    frame = pl.DataFrame(
        {
            "key": [f"k{i}" for i in range(n)],
            "count": pl.Series(rng.integers(1, 200, n), dtype=pl.UInt8),
            "size": np.round(rng.normal(50, 5, n), 2),
            "kind": rng.choice(["x", "y", "z"], n),
            "on": rng.random(n) < 0.4,
            "when": pl.datetime_range(pl.datetime(2024, 1, 1), pl.datetime(2024, 1, 9, 7), "1h", eager=True)[:n],
            "same": ["s"] * n,
        }
    )
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_csv(tmp_path / "t.csv")
    return tmp_path / "t.parquet"


@pytest.mark.parametrize("kind", list(image_faults.FAULTS))
@pytest.mark.parametrize("severity", [1, 5])
def test_a_fault_changes_a_picture_and_keeps_its_shape(kind: str, severity: int) -> None:
    pixels = scene()
    before = pixels.copy()
    after = image_faults.FAULTS[kind](pixels, severity, np.random.default_rng(1))
    assert (after.shape, after.dtype) == (pixels.shape, np.uint8)
    assert (after != pixels).any()
    assert np.array_equal(pixels, before)
    again = image_faults.FAULTS[kind](pixels, severity, np.random.default_rng(1))
    assert np.array_equal(after, again)


@pytest.mark.parametrize("kind", ["blur", "noise", "colour", "jpeg", "foreign"])
def test_severity_is_severity(kind: str) -> None:
    pixels = scene(160)
    errors = [
        np.mean(
            [
                np.abs(image_faults.FAULTS[kind](pixels, s, np.random.default_rng(r)).astype(float) - pixels).mean()
                for r in range(5)
            ]
        )
        for s in range(1, 6)
    ]
    assert errors == sorted(errors)


def test_a_folder(folder: Path, tmp_path: Path, tree: Tree) -> None:
    before = tree(folder)
    made = contaminate(str(folder), tmp_path / "out", ratio=0.25, corrupt=["noise", "rotation", "cutpaste"], severity=4)
    assert tree(folder) == before
    assert (made.normals, made.anomalies, made.ratio, made.unlabelled) == (18, 6, 0.25, 1)
    labels = {row["path"]: row for row in pl.read_csv(made.labels, infer_schema=False).to_dicts()}
    after = tree(tmp_path / "out")
    changed = {name for name, digest in before.items() if after[name] != digest}
    assert changed == {name for name, row in labels.items() if row["anomaly"] == "1"}
    assert sorted(row["kind"] for row in labels.values() if row["kind"]) == sorted(
        ["noise", "rotation", "cutpaste"] * 2
    )
    assert {row["severity"] for row in labels.values() if row["kind"]} == {"4"}
    assert labels["broken.png"] == {"path": "broken.png", "anomaly": None, "kind": None, "severity": None}
    for name in changed:
        with Image.open(tmp_path / "out" / name) as image, Image.open(folder / name) as old:
            assert (image.format, image.size) == (old.format, old.size)
    manifest = json.loads(made.manifest.read_text())
    assert manifest["corrupt"] == {"kinds": {"noise": 2, "rotation": 2, "cutpaste": 2}, "severity": 4}
    assert {entry["id"] for entry in manifest["anomalies"]} == changed
    other = contaminate(
        str(folder), tmp_path / "again", ratio=0.25, corrupt=["noise", "rotation", "cutpaste"], severity=4
    )
    assert tree(other.path) == after
    third = contaminate(
        str(folder), tmp_path / "third", ratio=0.25, corrupt=["noise", "rotation", "cutpaste"], severity=4, seed=1
    )
    assert tree(third.path) != after


def test_what_a_fault_leaves_as_it_is_is_no_anomaly(tmp_path: Path) -> None:
    """Of ten plain pictures and two others, two can be blurred and three cannot."""
    for i in range(12):
        pixels = scene(seed=i) if i in (3, 8) else np.full((40, 48, 3), 10 * i, np.uint8)
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{i:02}.png")
    made = contaminate(str(tmp_path / "in"), tmp_path / "out", ratio=2 / 12, corrupt=["blur"])
    found = pl.read_csv(made.labels).filter(pl.col("anomaly") == 1)["path"].to_list()
    assert found == ["03.png", "08.png"]
    with pytest.raises(AuditError, match="blur changes too few items"):
        contaminate(str(tmp_path / "in"), tmp_path / "more", ratio=3 / 12, corrupt=["blur"])
    assert not (tmp_path / "more").exists()


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("severity", [1, 5])
def test_a_table(table: Path, tmp_path: Path, suffix: str, severity: int) -> None:
    source = table.with_suffix(suffix)
    read = pl.read_parquet if suffix == ".parquet" else lambda path: pl.read_csv(path, try_parse_dates=True)
    made = contaminate(
        str(source), tmp_path / f"out{suffix}", ratio=0.1, corrupt=list(table_faults.KINDS), severity=severity, seed=3
    )
    old, new, labels = read(source), read(made.path), pl.read_csv(made.labels)
    assert new.schema == old.schema
    assert (made.normals, made.anomalies) == (180, 20)
    differs = pl.DataFrame([(old[name].ne_missing(new[name])).alias(name) for name in old.columns])
    assert not differs["key"].any()  # an identifier and a constant are no features
    assert not differs["same"].any()
    rows = differs.select(pl.any_horizontal(pl.all())).to_series()
    assert rows.to_list() == (labels["anomaly"] == 1).to_list()
    assert labels["kind"].value_counts().filter(pl.col("kind").is_not_null())["count"].to_list() == [4] * 5
    kinds = dict(zip(labels["id"].to_list(), labels["kind"].to_list(), strict=True))
    features = ["count", "size", "kind", "on", "when"]
    for row, kind in kinds.items():
        a, b = old[row, features].row(0), new[row, features].row(0)
        if kind == "duplicate":
            assert old.select(features).rows().count(b) >= 1
        elif kind == "missing":
            assert any(v is None for v in b)
        elif kind in ("gaussian", "scale"):
            assert a[2:] == b[2:]
        elif kind == "shuffle":
            assert all(value in old[name].to_list() for name, value in zip(features, b, strict=True))
    assert (new["size"].drop_nulls().round(2) == new["size"].drop_nulls()).all()  # no digits that tell
    again = contaminate(
        str(source), tmp_path / f"again{suffix}", ratio=0.1, corrupt=list(table_faults.KINDS), severity=severity, seed=3
    )
    assert again.path.read_bytes() == made.path.read_bytes()
    assert again.labels.read_bytes() == made.labels.read_bytes()


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_decimal_commas_stay(tmp_path: Path, suffix: str) -> None:
    text = [f"{1000 + 7 * i}" if i % 3 else f"{1000 + 7 * i},{i % 4}5" for i in range(60)]
    size = [v if len(v) < 7 or i % 2 else f"{v[0]}.{v[1:]}" for i, v in enumerate(text)]
    frame = pl.DataFrame({"size": size, "site": ["north"] * 60})
    source, out = tmp_path / f"t{suffix}", tmp_path / f"out{suffix}"
    frame.write_csv(source, separator=";") if suffix == ".csv" else frame.write_parquet(source)
    made = contaminate(str(source), out, ratio=0.5, corrupt=["gaussian", "scale"], severity=5)
    new = pl.read_csv(out, infer_schema=False, separator=";") if suffix == ".csv" else pl.read_parquet(out)
    assert made.anomalies == 30
    assert not new["size"].str.contains(r"\.\d+$").any()
    changed = new["size"].filter(new["size"] != frame["size"])
    assert changed.len() == 30
    assert changed.str.contains(r"^-?\d+(,\d+)?$").all()
    assert changed.str.contains(",").any()


@pytest.mark.parametrize("kind", table_faults.KINDS)
@pytest.mark.parametrize("ratio", [0.05, 0.3])
def test_each_kind_damages_exactly_what_it_labels(table: Path, tmp_path: Path, kind: str, ratio: float) -> None:
    made = contaminate(str(table), tmp_path / "o.parquet", ratio=ratio, corrupt=[kind], severity=2)
    old, new, labels = pl.read_parquet(table), pl.read_parquet(made.path), pl.read_csv(made.labels)
    differs = [a != b for a, b in zip(old.rows(), new.rows(), strict=True)]
    assert sum(differs) == made.anomalies == round(200 * ratio)
    assert differs == (labels["anomaly"] == 1).to_list()
    told = labels.filter(pl.col("anomaly") == 1)
    assert (told["kind"] == kind).all()
    assert (told["severity"] == 2).all()


def test_the_faults_can_be_looked_at(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "samples" / "faults.py"
    done = subprocess.run([sys.executable, str(script), str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "out" / "images.png") as page:
        assert page.height > 8 * 128
    text = (tmp_path / "out" / "tables.md").read_text()
    assert text.count("8 of 40 rows differ, 8 are labelled.") == len(table_faults.KINDS)


def test_duplicates_come_in_groups(table: Path, tmp_path: Path) -> None:
    made = contaminate(str(table), tmp_path / "out.parquet", ratio=0.08, corrupt=["duplicate"], severity=4)
    frame = pl.read_parquet(made.path).drop("key")
    sizes = frame.group_by(pl.all()).len()["len"]
    assert sorted(sizes.filter(sizes > 1).to_list()) == [9, 9]  # two rows, each with eight copies


def test_only_the_columns_named_are_touched(table: Path, tmp_path: Path) -> None:
    old = pl.read_parquet(table)
    for options in ({"columns": ["size"]}, {"exclude": ["count", "kind", "on", "when", "key", "same"]}):
        made = contaminate(str(table), tmp_path / "o.parquet", ratio=0.1, corrupt=["gaussian"], force=True, **options)
        new = pl.read_parquet(made.path)
        assert new.drop("size").equals(old.drop("size"))
        assert (new["size"] != old["size"]).sum() == 20


def test_every_type_can_be_missing_and_moved(tmp_path: Path) -> None:
    n = 60
    values = pa.table(
        {
            "words": pa.array(["a", "b", "c"] * 20).dictionary_encode(),
            "exact": pa.array([f"{i}.25" for i in range(n)]).cast(pa.float64()).cast(pa.decimal128(10, 2)),
            "small": pa.array(range(n), pa.int8()),
            "never": pa.array([float(i) for i in range(n)], pa.float32()),
        },
        schema=pa.schema([
            ("words", pa.dictionary(pa.int32(), pa.string())), ("exact", pa.decimal128(10, 2)), ("small", pa.int8()),
            pa.field("never", pa.float32(), nullable=False),
        ]),
    )  # fmt: skip
    pq.write_table(values, tmp_path / "t.parquet")
    made = contaminate(
        str(tmp_path / "t.parquet"),
        tmp_path / "o.parquet",
        ratio=0.5,
        corrupt=["missing", "shuffle", "scale"],
        severity=5,
    )
    after = pq.read_table(made.path)
    assert [str(field.type) for field in after.schema] == [str(field.type) for field in values.schema]
    assert after["never"].null_count > 0
    assert len(after) == n


@settings(deadline=None)
@given(st.integers(1, 400), st.floats(0.0, 0.99))
def test_the_count_is_the_nearest(items: int, ratio: float) -> None:
    try:
        count = damaged_count(items, ratio)
    except UsageError:
        assert 0 < ratio * items <= 0.5
        return
    assert abs(count / items - ratio) <= min(abs(k / items - ratio) for k in range(items + 1)) + 1e-12


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(0, 2**32), st.sampled_from(sorted(table_faults.FAULTS)))
def test_no_fault_of_a_wild_row_ends_in_infinity(severity: int, seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    values = rng.choice([0.0, 1.0, -3.5, 1e300, np.nan, np.inf], (9, 4))
    columns = Columns(values, np.array([True, True, False, True]))
    with np.errstate(all="ignore"):
        for edit in table_faults.FAULTS[kind](int(rng.integers(9)), columns, severity, rng):
            assert not columns.changes(edit) or edit.value is None or np.isfinite(edit.value)


def test_bad_requests(folder: Path, table: Path, tmp_path: Path) -> None:
    def refused(match: str, data: Path, out: str, **options: object) -> None:
        with pytest.raises(UsageError, match=match):
            contaminate(str(data), tmp_path / out, **{"ratio": 0.1, **options})  # type: ignore[arg-type]

    refused("there is no such fault of images", folder, "o", corrupt=["shuffle"])
    refused("there is no such fault of tables", table, "o.parquet", corrupt=["blur"])
    refused("names a kind twice", folder, "o", corrupt=["blur", "blur"])
    refused("severity of 6", folder, "o", corrupt=["blur"], severity=6)
    refused("rounds to none", folder, "o", corrupt=["blur"], ratio=0.01)
    refused("has to end in .parquet", table, "o.tsv", corrupt=["scale"])
    refused("one of --with, --truth and --corrupt", folder, "o", corrupt=["blur"], anomalies=str(table))
    refused("no use for --id-column$", table, "o.parquet", corrupt=["scale"], id_column="key")
    refused("no use for --with-replacement$", table, "o.parquet", corrupt=["scale"], with_replacement=True)
    refused("are for --corrupt", table, "o.parquet", truth="kind", columns=["size"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "t.csv", "t.parquet"]


def test_through_the_command_line(folder: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "anoaudit",
        "contaminate",
        str(folder),
        "--corrupt",
        "blur,jpeg",
        "--severity",
        "5",
    ]
    done = subprocess.run([*command, "--ratio", "20%", "-o", str(tmp_path / "o")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "19 normals and 5 anomalies" in done.stderr
    wrong = subprocess.run([*command, "--ratio", "0.2", "-o", str(tmp_path / "o")], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert len(wrong.stderr.strip().splitlines()) <= 2
    wrong = subprocess.run([*command, "--ratio", "ten", "-o", str(tmp_path / "p")], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "no share" in wrong.stderr
