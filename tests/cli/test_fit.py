"""`anoaudit fit` as a user sees it."""

from __future__ import annotations

import html
import json
import re
import shlex
from pathlib import Path

import numpy as np
import onnx
import polars as pl
import pytest

from .conftest import Fitted, Run, make_images, make_table


def test_the_planted_rows_lead_the_ranking(table: Fitted) -> None:
    scores = pl.read_parquet(table.model / "scores.parquet").sort("rank")
    assert scores["truth"].head(10).sum() >= 9
    assert "Most anomalous" in table.out
    assert "AUROC" in table.out
    assert "\x1b[" not in table.out


def test_what_half_the_rows_have_is_no_reason(table: Fitted) -> None:
    whys = pl.read_parquet(table.model / "scores.parquet")["why"]
    assert whys.str.contains("flow").any()
    assert not whys.str.contains("mode = ").any()
    assert "rare" not in table.out


def test_dropped_columns_are_named(table: Fitted) -> None:
    assert "site (constant)" in table.err


def test_the_model_says_what_it_is(table: Fitted, run: Run) -> None:
    manifest = json.loads((table.model / "manifest.json").read_text())
    assert manifest["schema"] == 1
    assert manifest["method"] == "loe"
    names = [column["name"] for column in manifest["input"]["columns"]]
    assert names == ["load", "flow", "mode", "time"]  # neither truth nor id is a feature
    assert manifest["parity"]["decisions_changed"] == 0
    shown = run("inspect", table.model)
    assert shown.code == 0
    assert manifest["files"]["model.onnx"] in shown.out
    assert json.loads(run("inspect", table.model, "--json").out) == manifest


def test_nothing_of_this_machine_is_in_the_graph(table: Fitted, images: Fitted) -> None:
    for fitted in (table, images):
        graph = (fitted.model / "model.onnx").read_bytes()
        for trace in (b"site-packages", str(Path.home()).encode(), str(fitted.data.parent).encode()):
            assert trace not in graph
        model = onnx.load_model_from_string(graph)
        for tensor in model.graph.initializer:  # among millions of weights some spell ".py"
            tensor.ClearField("raw_data")
        assert b".py" not in model.SerializeToString()


def test_no_checkpoints_stay(table: Fitted) -> None:
    assert sorted(p.name for p in table.model.parent.iterdir()) == ["labels.csv", "pumps.anoaudit", "pumps.parquet"]


def test_blots_lead_the_image_ranking_with_their_place(images: Fitted) -> None:
    document = json.loads(images.out)
    worst = sorted((row for row in document["rows"]), key=lambda row: row["rank"])[:3]
    assert [row["truth"] for row in worst] == [1, 1, 1]
    assert all(row["why"].startswith("peak x") for row in worst)
    assert {row["group"] for row in document["rows"]} == {"left", "right"}
    assert document["summary"]["readable"] == 40
    assert document["metrics"]["auroc"] == 1.0


def test_an_existing_model_is_not_replaced(table: Fitted, run: Run) -> None:
    done = run("fit", table.data, "-o", table.model)
    assert done.code == 2
    assert "--force" in done.err


def test_force_never_replaces_what_is_no_model(table: Fitted, run: Run, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "notes.txt").write_text("keep me")
    done = run("fit", table.data, "-o", tmp_path / "precious", "--force")
    assert done.code == 2
    assert (tmp_path / "precious" / "notes.txt").read_text() == "keep me"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--method", "lo"], "did you mean loe"),
        (["--set", "epoch=5"], "did you mean epochs"),
        (["--set", "assignment=gentle"], "one of soft, hard, refine, blind, gt"),
        (["--set", "epochs"], "name=value"),
        (["--contamination", "0.7"], "between 0 and 0.5"),
        (["--columns", "load,nope"], "nope"),
        (["--truth", "nope"], "neither a column"),
        (["--labels", "mode"], "labels are 1 (anomaly), 0 (normal)"),
        (["--set", "assignment=gt"], "needs a label for every item"),
        (["--train-on", "normal"], "--labels"),
        (["--backbone", "resnet18"], "is a table"),
        (["--fail-on", "count"], "not a clause"),
        (["--fdr", "0.1", "--top-k", "5"], "two rules"),
        (["--seed", "-1"], "negative"),
    ],
)
def test_wrong_use_is_exit_2_with_a_clear_line(
    table: Fitted, run: Run, tmp_path: Path, arguments: list[str], says: str
) -> None:
    done = run("fit", table.data, "-o", tmp_path / "m.anoaudit", *arguments)
    assert (done.code, done.out) == (2, "")
    assert says in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "m.anoaudit").exists()


def _write(path: Path, frame: pl.DataFrame) -> Path:
    frame.write_parquet(path)
    return path


def test_unusable_tables_are_exit_3(run: Run, tmp_path: Path) -> None:
    frame = make_table(60)
    cases = {
        "empty": (frame.head(0), "no rows"),
        "one": (frame.head(1), "one row only"),
        "ten": (frame.head(10), "at least 20"),
        "constant": (pl.DataFrame({"a": [1.0] * 60, "b": ["x"] * 60}), "no usable column"),
        "same": (pl.DataFrame({"a": [1.0] * 59 + [2.0]}), "self-check"),
    }
    for name, (data, says) in cases.items():
        done = run("fit", _write(tmp_path / f"{name}.parquet", data), "-o", tmp_path / f"{name}.anoaudit")
        assert done.code == 3, (name, done.err)
        assert says in done.err
        assert "Traceback" not in done.err
        assert not (tmp_path / f"{name}.anoaudit").exists()
    assert run("fit", tmp_path / "missing.parquet").code == 3
    (tmp_path / "line.csv").write_text("1.5,2.5\n")
    done = run("fit", tmp_path / "line.csv", "-o", tmp_path / "m.anoaudit")
    assert (done.code, "has no rows, only a header line" in done.err) == (3, True)
    (tmp_path / "ragged.csv").write_text("a,b\n" + "1,2,3\n" * 30)
    done = run("fit", tmp_path / "ragged.csv", "-o", tmp_path / "m.anoaudit")
    assert done.code == 3
    assert "no row can be read: 3 fields where the header has 2" in done.err


def test_what_flags_are_worth_where_all_columns_move_as_one(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 1)) + 0.1 * rng.normal(size=(400, 3))
    data = _write(tmp_path / "line.parquet", pl.DataFrame(rows, schema=["a", "b", "c"]))
    for more, warned in (([], 1), (["--set", "detector=gaussian"], 0)):
        done = run("fit", data, "-o", tmp_path / "m.anoaudit", "--force", "--format", "json", *more)
        summary = json.loads(done.out)["summary"]
        notes = summary["notes"]
        assert warned or summary["flagged"] == 0  # what the warning recommends
        assert (
            sum("all columns move as one: up to a tenth of the rows may be flagged" in note for note in notes) == warned
        )
        assert run("inspect", tmp_path / "m.anoaudit").out.count("all columns move as one") == warned


def test_under_fifty_rows_nothing_is_flagged_and_it_says_so(run: Run, tmp_path: Path) -> None:
    data = _write(tmp_path / "few.parquet", make_table(40, 3).drop("anomaly"))
    done = run("fit", data, "-o", tmp_path / "few.anoaudit")
    assert done.code == 0
    assert "50 are needed" in done.out
    assert pl.read_parquet(tmp_path / "few.anoaudit" / "scores.parquet")["p_value"].null_count() == 40


def test_an_audit_that_flags_nothing_says_what_that_means(table: Fitted, run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 3)) + 3 * (np.arange(300) % 2)[:, None]  # half of it is another thing
    pl.DataFrame(values, schema=["a", "b", "c"]).write_parquet(tmp_path / "half.parquet")
    done = run("fit", str(tmp_path / "half.parquet"), "-o", str(tmp_path / "m"))
    assert done.code == 0
    assert "flagged      0 of 300" in done.out
    assert "nothing is flagged: the least p-value of 300 items is" in done.err
    assert "--top-k N flags its first N" in done.err
    assert "nothing is flagged" not in table.err


def test_many_columns_left_out_for_one_reason_are_not_all_named(run: Run, tmp_path: Path) -> None:
    rows = make_table(117, 3).drop("anomaly").with_columns(pl.lit(1.0).alias(f"c{j:02}") for j in range(100))
    texts = [[f"word {(i + k) % (66 + k)}" for i in range(rows.height)] for k in range(30)]
    rows = rows.with_columns(pl.Series(f"t{k:02}", text) for k, text in enumerate(texts))
    rows = rows.with_columns(pl.Series("\x1b[31m", ["x"] * rows.height))
    done = run("fit", _write(tmp_path / "wide.parquet", rows), "-o", tmp_path / "m.anoaudit")
    assert done.code == 0
    (line,) = (line for line in done.err.splitlines() if "not used as features" in line)
    assert "c10 and 90 more (constant)" in line
    assert "t11 and 18 more (text of more than 64 different values)" in line
    assert "\x1b" not in done.err


def test_of_few_images_the_blots_are_flagged_and_nothing_else(run: Run, tmp_path: Path) -> None:
    labels = make_images(tmp_path / "tiles", count=56, anomalies=4)
    done = run("fit", tmp_path / "tiles", "-o", tmp_path / "m.anoaudit", "--backbone", "none", "--format", "json")
    assert done.code == 0
    assert "instead of that first fit five" in done.err
    flagged = {row["id"] for row in json.loads(done.out)["rows"] if row["flagged"]}
    assert flagged == set(pl.read_csv(labels).filter(pl.col("anomaly") == 1)["path"])
    assert json.loads((tmp_path / "m.anoaudit" / "manifest.json").read_text())["training"]["held_out"] == 56


def test_wild_columns_are_survived_and_named(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    n = 200
    wild = pl.DataFrame(
        {
            "value": np.where(np.arange(n) % 50 == 0, np.inf, rng.normal(size=n)),
            "gap": [None if i % 7 == 0 else float(v) for i, v in enumerate(rng.normal(size=n))],
            "huge": rng.normal(size=n) * 1e300,
            "epoch": 1.7e9 + rng.uniform(0, 1e5, n),
            "empty": pl.Series([None] * n, dtype=pl.Float64),
            "same": [7] * n,
            "id": [f"u{i}" for i in range(n)],
            "counter": range(n),
            "flag": rng.choice([True, False], n),
            "kind": ["a", "b", None, "b"] * (n // 4),
            "when": pl.Series(rng.integers(0, 10**9, n)).cast(pl.Datetime("ms")),
        }
    )
    done = run("fit", _write(tmp_path / "wild.parquet", wild), "-o", tmp_path / "w.anoaudit", "--format", "json")
    assert done.code == 0, done.err
    for named in ("empty (all values missing)", "same (constant)", "id, counter (identifier (every value once))"):
        assert named in done.err
    rows = json.loads(done.out)["rows"]
    assert len(rows) == n
    assert all(np.isfinite(row["score"]) for row in rows)


@pytest.mark.parametrize(
    "arguments", [["detector=deep-svdd"], ["detector=ntl", "epochs=3"], ["assignment=blind"], ["assignment=soft"]]
)
def test_every_loss_pair_fits_and_exports(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    data = _write(tmp_path / "t.parquet", make_table(120, 5))
    options = [word for pair in arguments for word in ("--set", pair)]
    done = run("fit", data, "--truth", "anomaly", "--exclude", "key", "-o", tmp_path / "t.anoaudit", *options)
    assert done.code == 0, done.err


def test_labels_as_supervision(run: Run, tmp_path: Path) -> None:
    data = _write(tmp_path / "t.parquet", make_table(400, 12))
    for more in (["--set", "assignment=gt"], ["--train-on", "normal"]):
        done = run("fit", data, "--labels", "anomaly", "-o", tmp_path / "t.anoaudit", "--force", *more)
        assert done.code == 0, done.err
        manifest = json.loads((tmp_path / "t.anoaudit" / "manifest.json").read_text())
        assert manifest["calibration"]["kind"] == "conformal-clean"
        assert "an estimate for the items trained on" in " ".join(done.out.split())
        assert "controlled" in run("score", data, "-m", tmp_path / "t.anoaudit").out
        assert "anomaly" not in [column["name"] for column in manifest["input"]["columns"]]


def test_same_seed_same_model_and_scores(table: Fitted, run: Run, tmp_path: Path) -> None:
    done = run("fit", table.data, "--truth", "anomaly", "--id-column", "key", "-o", tmp_path / "again.anoaudit")
    assert done.code == 0
    for name in ("model.onnx", "calibration.parquet"):
        assert (tmp_path / "again.anoaudit" / name).read_bytes() == (table.model / name).read_bytes()
    columns = ["id", "score", "p_value", "flagged", "rank", "why"]
    first, second = (
        pl.read_parquet(m / "scores.parquet").select(columns) for m in (table.model, tmp_path / "again.anoaudit")
    )
    assert first.equals(second)


def test_the_truth_never_reaches_training(table: Fitted, run: Run, tmp_path: Path) -> None:
    frame = pl.read_parquet(table.data).with_columns(anomaly=pl.col("anomaly").shuffle(seed=1))
    frame.write_parquet(tmp_path / "pumps.parquet")
    done = run(
        "fit", tmp_path / "pumps.parquet", "--truth", "anomaly", "--id-column", "key", "-o", tmp_path / "m.anoaudit"
    )
    assert done.code == 0
    assert (tmp_path / "m.anoaudit" / "model.onnx").read_bytes() == (table.model / "model.onnx").read_bytes()


def test_clean_data_have_next_to_no_findings(run: Run, tmp_path: Path) -> None:
    """Few rows a column: what the fit leaves out as suspect must not be found anomalous for that alone."""
    rng = np.random.default_rng(3)
    pl.DataFrame(rng.normal(size=(300, 60)), schema=[f"c{i}" for i in range(60)]).write_parquet(
        tmp_path / "clean.parquet"
    )
    done = run("fit", tmp_path / "clean.parquet", "-o", tmp_path / "m.anoaudit", "--format", "json")
    assert json.loads(done.out)["summary"]["flagged"] <= 3


def test_an_interrupted_fit_resumes_to_the_same_model(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = _write(tmp_path / "t.parquet", make_table(120, 5))
    arguments = [
        "fit",
        data,
        "--truth",
        "anomaly",
        "--exclude",
        "key",
        "--set",
        "detector=deep-svdd",
        "--set",
        "epochs=12",
    ]
    assert run(*arguments, "-o", tmp_path / "whole.anoaudit").code == 0

    from anoaudit.training import loop

    monkeypatch.setattr("anoaudit.training.checkpoint.SECONDS_BETWEEN", 0.0)
    real, calls = loop._epoch, []

    def interrupted(*positional: object, **named: object) -> object:
        calls.append(1)
        if len(calls) == 18:  # in the final fit, after the one for calibration
            raise KeyboardInterrupt
        return real(*positional, **named)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_epoch", interrupted)
    stopped = run(*arguments, "-o", tmp_path / "part.anoaudit")
    assert stopped.code == 130
    kept = f"a checkpoint is kept in {tmp_path / 'part.anoaudit.part'}: the same command with --resume goes on from it"
    assert stopped.err.endswith(f"interrupted\n  {kept}\n")
    assert not (tmp_path / "part.anoaudit").exists()
    refused = run(*arguments, "--columns", "load,flow", "--seed", "7", "-o", tmp_path / "part.anoaudit", "--resume")
    assert (refused.code, "--seed 7 (was 0); without mode, time as a feature" in refused.err) == (2, True)
    monkeypatch.setattr("anoaudit.training.checkpoint.SECONDS_BETWEEN", 1e9)
    monkeypatch.setattr(loop, "_epoch", stop)
    for more, says in (
        ([], "starting anew, will replace; to go on from it instead, stop now and add --resume"),
        (["--seed", "7"], "starting anew, will replace; its options differ: --seed 7 (was 0)"),
    ):
        forgotten = run(*arguments, *more, "-o", tmp_path / "part.anoaudit")
        assert (forgotten.code, says in forgotten.err) == (130, True)
        assert "no checkpoint yet; an earlier fit's is still in" in forgotten.err
    monkeypatch.setattr(loop, "_epoch", real)
    resumed = run(*arguments, "-o", tmp_path / "part.anoaudit", "--resume")
    assert (resumed.code, "resuming" in resumed.err) == (0, True)
    first, second = ((tmp_path / f"{name}.anoaudit" / "model.onnx").read_bytes() for name in ("whole", "part"))
    assert first == second
    assert not (tmp_path / "part.anoaudit.part").exists()
    monkeypatch.setattr(loop, "_epoch", stop)
    stopped = run(*arguments, "-o", tmp_path / "new.anoaudit")
    assert stopped.err.endswith("interrupted\n  nothing is kept: this fit had no checkpoint yet\n")
    assert not (tmp_path / "new.anoaudit.part").exists()


def test_a_table_with_decimal_commas_is_the_table_with_points(table: Fitted, run: Run, tmp_path: Path) -> None:
    frame = pl.read_parquet(table.data).with_columns(rate=pl.Series([f"{i % 7}%" for i in range(400)]))
    exported = tmp_path / "pumps.csv"
    frame.write_csv(exported, separator=";", decimal_comma=True)
    model = tmp_path / "m.anoaudit"
    done = run("fit", exported, "--truth", "anomaly", "--id-column", "key", "--exclude", "rate", "-o", model)
    assert done.code == 0, done.err
    assert "read with a decimal comma: load, flow, time" in done.err
    assert "taken as text" not in done.err
    for name in ("model.onnx", "calibration.parquet"):
        assert (model / name).read_bytes() == (table.model / name).read_bytes()
    scores = run("score", exported, "-m", table.model, "--id-column", "key")
    assert scores.code == 3
    assert "column 'load' is String" in scores.err
    assert "a number" in scores.err
    done = run("fit", exported, "--columns", "load,rate", "-o", model, "--force", "--format", "json")
    assert "taken as text, not as numbers: rate ('0%')" in done.err
    assert "rate ('0%')" in json.loads(done.out)["summary"]["notes"][0]  # and in every report of the audit
    scored = run("score", exported, "-m", model, "-o", tmp_path / "s.parquet")
    assert scored.code == 0
    assert "taken as text" not in scored.err  # the columns are known by now
    assert "taken as text" in (model / "README.md").read_text(encoding="utf-8")


def test_the_reports_command_makes_the_same_model_again(run: Run, tmp_path: Path) -> None:
    data = _write(tmp_path / "t.parquet", make_table(120, 5))
    options = [
        "--truth", "anomaly", "--id-column", "key", "--columns", "load,flow,time", "--exclude", "time", "--top-k", "5%",
        "--max-unreadable", "3", "--set", "detector=gaussian", "--contamination", "5%", "--fail-on", "count>99",
    ]  # fmt: skip
    model, page = tmp_path / "t.anoaudit", tmp_path / "r.html"
    done = run("fit", data, *options, "-o", model, "--html", page)
    assert done.code == 0, done.err
    line = next(line for line in html.unescape(page.read_text()).split("\n") if "anoaudit fit" in line)
    words = shlex.split(re.sub("<[^>]*>", "", line))
    assert set(options) - {"load,flow,time"} <= set(words)
    files = {path.name: path.read_bytes() for path in model.iterdir()}
    again = run(*words[1:], "--force")
    assert again.code == 0, again.err
    assert {path.name: path.read_bytes() for path in model.iterdir()} == files


def test_fail_on_names_the_clause_and_still_writes_the_model(table: Fitted, run: Run, tmp_path: Path) -> None:
    done = run(
        "fit", table.data, "--truth", "anomaly", "-o", tmp_path / "m.anoaudit", "--top-k", "5", "--fail-on", "count>4"
    )
    assert done.code == 1
    assert "count>4: 5 flagged" in done.err
    assert (tmp_path / "m.anoaudit" / "manifest.json").exists()


def test_a_table_of_images_from_fit_to_report(run: Run, tmp_path: Path) -> None:
    """Pictures in a Parquet column: audited as images, scored again by the columns that fit was told, drawn in the report."""
    labels = pl.read_csv(make_images(tmp_path / "tiles", count=56, anomalies=4))
    rows = labels.with_columns(picture=pl.Series([(tmp_path / "tiles" / name).read_bytes() for name in labels["path"]]))
    rows.write_parquet(tmp_path / "t.parquet")
    model = tmp_path / "t.anoaudit"
    done = run(
        "fit", tmp_path / "t.parquet", "--backbone", "none", "--id-column", "path", "--truth", "anomaly", "-o", model,
        "--format", "json", "--html", tmp_path / "r.html",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "the images are in column 'picture'" in done.err
    document = json.loads(done.out)
    assert document["metrics"]["auroc"] > 0.95
    assert [row["id"] for row in document["rows"]] == labels["path"].to_list()
    page = (tmp_path / "r.html").read_text()
    assert page.count("data:image/jpeg") >= 2
    assert "--image-column picture" in page
    again = run("score", tmp_path / "t.parquet", "-m", model, "--format", "csv", "-o", tmp_path / "s.csv")
    assert again.code == 0, again.err
    assert pl.read_csv(tmp_path / "s.csv")["id"].to_list() == labels["path"].to_list()
    shown = run(
        "report", tmp_path / "s.csv", "-m", model, "--data", tmp_path / "t.parquet", "--maps", tmp_path / "maps"
    )
    assert shown.code == 0, shown.err
    assert "heat maps written" in shown.err
