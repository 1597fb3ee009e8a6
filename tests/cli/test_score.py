"""`anoaudit score` and `report` as a CI job and a pipe see them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from .conftest import Fitted, Run, make_images, make_table

BLOCKED = """
import sys
from importlib.machinery import ModuleSpec
class Block:
    def find_spec(self, name, path=None, target=None):
        # A spec is found (polars looks for one), but importing it fails.
        return ModuleSpec(name, self) if name.partition(".")[0] in {"torch", "timm", "torchvision"} else None
    def create_module(self, spec):
        raise ImportError(f"{spec.name} must not be imported")
sys.meta_path.insert(0, Block())
from anoaudit.cli import main
main(sys.argv[1:])
"""


def test_scoring_and_reporting_never_import_torch(table: Fitted, images: Fitted, tmp_path: Path) -> None:
    for fitted in (table, images):
        out = tmp_path / "scores.parquet"
        for arguments in (
            ["score", fitted.data, "-m", fitted.model, "-o", out],
            ["report", out],
            ["inspect", fitted.model],
        ):
            command = [sys.executable, "-c", BLOCKED, *map(str, arguments)]
            home = {**os.environ, "HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": ""}
            done = subprocess.run(command, capture_output=True, text=True, env=home)
            assert done.returncode == 0, done.stderr
    assert not (tmp_path / "home").exists()  # no traces: onnxruntime would keep a device id there


def test_help_does_not_load_the_heavy_libraries() -> None:
    code = "import sys; from anoaudit.cli import app; print(sorted({'torch','timm','polars','pyarrow','numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_scores_of_the_same_data_are_the_audits(table: Fitted, run: Run, tmp_path: Path) -> None:
    done = run("score", table.data, "-m", table.model, "--id-column", "key", "-o", tmp_path / "s.parquet")
    assert (done.code, done.out) == (0, "")
    again, audit = pl.read_parquet(tmp_path / "s.parquet"), pl.read_parquet(table.model / "scores.parquet")
    assert again["id"].equals(audit["id"])
    assert np.allclose(again["score"], audit["score"], rtol=1e-5)


def test_new_data_in_another_form_scores_alike(table: Fitted, run: Run, tmp_path: Path) -> None:
    """The same rows as CSV, columns reordered, one more column."""
    frame = pl.read_parquet(table.data).with_columns(extra=pl.lit("x"))
    frame.select("extra", "time", "mode", "flow", "load", "key").write_csv(tmp_path / "new.csv")
    run("score", tmp_path / "new.csv", "-m", table.model, "--id-column", "key", "-o", tmp_path / "s.parquet")
    scores, audit = pl.read_parquet(tmp_path / "s.parquet"), pl.read_parquet(table.model / "scores.parquet")
    assert np.allclose(scores["score"], audit["score"], rtol=1e-6)


def test_every_format_holds_the_same_rows(table: Fitted, run: Run, tmp_path: Path) -> None:
    arguments = ["score", table.data, "-m", table.model, "--truth", "anomaly"]
    document = json.loads(run(*arguments, "--format", "json").out)
    lines = [json.loads(line) for line in run(*arguments, "--format", "ndjson", "-o", "-").out.splitlines()]
    assert document["rows"] == lines
    run(*arguments, "-o", tmp_path / "s.csv")
    run(*arguments, "-o", tmp_path / "s.parquet")
    assert pl.read_parquet(tmp_path / "s.parquet")["score"].to_list() == [row["score"] for row in lines]
    assert pl.read_csv(tmp_path / "s.csv")["score"].to_list() == [row["score"] for row in lines]
    assert document["schema_version"] == 1
    assert set(document["summary"]) >= {
        "rows",
        "readable",
        "unreadable",
        "ignored",
        "flagged",
        "rule",
        "threshold",
        "calibration",
        "model",
    }
    assert document["metrics"]["auroc"] > 0.9


@pytest.mark.parametrize(
    ("clause", "code"),
    [("count>1000", 0), ("count>3", 1), ("rate>0.5%", 1), ("rate>50%", 0), ("score>=0", 1), ("unreadable>0", 0)],
)
def test_fail_on(table: Fitted, run: Run, clause: str, code: int) -> None:
    done = run("score", table.data, "-m", table.model, "--top-k", "4", "--fail-on", clause, "--fail-on", "count>2000")
    assert done.code == code
    assert (clause in done.err) == (code == 1)
    assert "count>2000" not in done.err


def test_rules_change_decisions_not_scores(table: Fitted, run: Run) -> None:
    base = ["score", table.data, "-m", table.model, "--format", "json"]
    by_rule = {}
    for name, rule in {"top": ["--top-k", "1%"], "threshold": ["--threshold", "3.5"], "fdr": ["--fdr", "0.01"]}.items():
        by_rule[name] = json.loads(run(*base, *rule).out)
    assert by_rule["top"]["summary"]["flagged"] == 4
    assert len({tuple(row["rank"] for row in document["rows"]) for document in by_rule.values()}) == 1
    assert all(row["flagged"] == (row["score"] >= 3.5) for row in by_rule["threshold"]["rows"])
    assert len({tuple(row["score"] for row in document["rows"]) for document in by_rule.values()}) == 1


def test_the_head_says_by_which_rule_it_was_decided(table: Fitted, run: Run) -> None:
    """With a threshold or the k worst no false discovery rate has decided anything."""
    for rule, says in (
        ([], "Benjamini-Hochberg, estimated FDR 0.1"),
        (["--threshold", "3.5"], "score ≥ 3.5"),
        (["--top-k", "4"], "the 4 worst"),
        (["--top-k", "1%"], "the worst 1 %"),
    ):
        for form in ("table", "markdown"):
            head = run("score", table.data, "-m", table.model, *rule, "--format", form).out.split("Most anomalous")[0]
            assert says.replace(" ", "") in head.replace(" ", "")
            assert ("FDR" in head) == (not rule)


def test_a_pipe_that_closes_early_is_quiet(table: Fitted) -> None:
    command = f"'{sys.executable}' -m anoaudit score '{table.data}' -m '{table.model}' --format ndjson | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1
    assert "Broken" not in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_and_wrong_columns(table: Fitted, run: Run, tmp_path: Path) -> None:
    frame = pl.read_parquet(table.data)
    frame.drop("flow").write_parquet(tmp_path / "missing.parquet")
    done = run("score", tmp_path / "missing.parquet", "-m", table.model)
    assert done.code == 3
    assert "'flow' is missing" in done.err
    frame.with_columns(flow=pl.lit("wet")).write_parquet(tmp_path / "wrong.parquet")
    done = run("score", tmp_path / "wrong.parquet", "-m", table.model)
    assert done.code == 3
    assert "flow" in done.err


def test_unseen_categories_and_holes_are_scored(table: Fitted, run: Run, tmp_path: Path) -> None:
    frame = pl.read_parquet(table.data).head(5)
    odd = frame.with_columns(
        mode=pl.Series(["run", "warp", None, "idle", "run"]),
        load=pl.Series([50.0, 50.0, 50.0, np.inf, None], strict=False),
    )
    odd.write_parquet(tmp_path / "odd.parquet")
    rows = [
        json.loads(line)
        for line in run("score", tmp_path / "odd.parquet", "-m", table.model, "-f", "ndjson").out.splitlines()
    ]
    assert all(np.isfinite(row["score"]) for row in rows)
    assert "unseen value" in rows[1]["why"]
    assert "missing" in rows[2]["why"]


def test_a_bad_cell_is_an_unreadable_row_with_its_reason(table: Fitted, run: Run, tmp_path: Path) -> None:
    frame = pl.read_parquet(table.data).select("key", "load", "flow", "mode", "time")
    text = frame.write_csv().splitlines()
    text[3] = "row-x,ERR,1,run,1"
    text[4] = "too,short"
    (tmp_path / "dirty.csv").write_text("\n".join(text) + "\n")
    done = run("score", tmp_path / "dirty.csv", "-m", table.model, "-f", "json", "--fail-on", "unreadable>1")
    document = json.loads(done.out)
    assert done.code == 1
    assert document["summary"]["unreadable"] == 2
    assert len(document["rows"]) == frame.height
    bad = document["rows"][2]
    assert (bad["status"], bad["score"], bad["flagged"]) == ("unreadable", None, False)
    assert "'ERR' is not a number" in bad["reason"]


@pytest.fixture
def motley(tmp_path: Path) -> Path:
    """One of each: what people's folders really hold."""
    folder = tmp_path / "motley"
    folder.mkdir()
    make_images(folder / "good", 12, 0)
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8))
    photo.save(folder / "whole.jpg")
    data = (folder / "whole.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(data[: len(data) // 2])
    (folder / "zero.png").write_bytes(b"")
    (folder / "text.jpg").write_text("not an image at all")
    Image.fromarray(rng.integers(0, 65535, (50, 50), dtype=np.uint16)).save(folder / "deep.png")
    photo.convert("CMYK").save(folder / "cmyk.jpg")
    frames = [photo.convert("P"), photo.rotate(90).convert("P")]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(folder / "rotated.jpg", exif=exif)
    photo.resize((1, 1)).save(folder / "dot.png")
    (folder / "notes.txt").write_text("ignored")
    return folder


def test_a_motley_folder_gives_a_row_each(images: Fitted, motley: Path, run: Run) -> None:
    done = run("score", motley, "-m", images.model, "--format", "json")
    document = json.loads(done.out)
    rows = {row["id"]: row for row in document["rows"]}
    assert done.code == 3  # 3 of 21 are above the 5 % that are tolerated; the table is there all the same
    assert "--max-unreadable" in done.err
    unreadable = {name: row["reason"] for name, row in rows.items() if row["status"] == "unreadable"}
    assert set(unreadable) == {"truncated.jpg", "zero.png", "text.jpg"}
    assert "truncated" in unreadable["truncated.jpg"]
    assert "empty" in unreadable["zero.png"]
    assert "not an image" in unreadable["text.jpg"]
    assert len(rows) == 12 + 9
    assert document["summary"]["ignored"] >= 1
    assert run("score", motley, "-m", images.model, "--max-unreadable", "3").code == 0


def test_kinds_do_not_mix(table: Fitted, images: Fitted, run: Run) -> None:
    done = run("score", table.data, "-m", images.model)
    assert done.code == 3
    assert "scores images" in done.err


def test_a_damaged_model_is_refused(table: Fitted, run: Run, tmp_path: Path) -> None:
    shutil.copytree(table.model, tmp_path / "m.anoaudit")
    graph = tmp_path / "m.anoaudit" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    done = run("score", table.data, "-m", tmp_path / "m.anoaudit")
    assert done.code == 3
    assert "hash differs" in done.err
    assert run("score", table.data, "-m", tmp_path / "none.anoaudit").code == 3


def test_cuda_that_is_not_there_is_exit_3(table: Fitted, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = run("score", table.data, "-m", table.model, "--device", "cuda")
    assert done.code == 3
    assert "cannot use a GPU" in done.err


def test_output_that_cannot_be_written_is_exit_3(table: Fitted, run: Run) -> None:
    done = run("score", table.data, "-m", table.model, "-o", "/nonexistent-folder/x.parquet")
    assert done.code == 3
    assert "Traceback" not in done.err


def test_inputs_are_never_overwritten(table: Fitted, run: Run, tmp_path: Path) -> None:
    data, labels = tmp_path / "d.parquet", tmp_path / "labels.csv"
    shutil.copy(table.data, data)
    shutil.copy(table.labels, labels)
    before = data.read_bytes(), labels.read_bytes()
    for out in (data, labels):
        done = run("score", data, "-m", table.model, "--truth", labels, "-o", out)
        assert (done.code, "overwritten" in done.err) == (2, True)
    assert run("report", table.model, "-o", table.model / "r.csv").code == 2
    assert (data.read_bytes(), labels.read_bytes()) == before


def test_the_model_remembers_the_id_column(table: Fitted, run: Run) -> None:
    document = json.loads(run("score", table.data, "-m", table.model, "--truth", table.labels, "-f", "json").out)
    assert document["rows"][0]["id"].startswith("row-")
    assert document["metrics"]["anomalies"] == 12


def test_a_truth_may_name_its_ids_as_the_data_does_and_what_is_not_found_is_told(
    table: Fitted, run: Run, tmp_path: Path
) -> None:
    known = pl.read_csv(table.labels).rename({"id": "key"})
    known.extend(pl.DataFrame({"key": ["row-9998", "row-9999"], "anomaly": [1, 0]}, schema=known.schema))
    known.write_csv(tmp_path / "known.csv")
    scores, truth = tmp_path / "s.json", tmp_path / "known.csv"
    missing = f"2 of the 402 ids in {truth} are not in the data (the first is 'row-9998')"
    for done in (
        run("score", table.data, "-m", table.model, "--truth", truth, "-f", "json"),
        run("score", table.data, "-m", table.model, "-o", scores),
        run("report", scores, "--truth", truth, "-f", "json"),
    ):
        assert done.code == 0, done.err
        if done.out.startswith("{"):
            document = json.loads(done.out)
            assert document["metrics"]["anomalies"] == 12
            assert document["summary"]["notes"].count(missing) == 1
    mixed = tmp_path / "mixed.parquet"
    done = run("contaminate", table.data, "--truth", truth, "--id-column", "key", "--ratio", "0.02", "-o", mixed)
    assert (done.code, f"note: {missing}" in done.err, "left out" in done.err) == (0, True, False)
    known.filter(pl.col("key") < "row-0390").write_csv(truth)
    done = run(
        "contaminate", table.data, "--truth", truth, "--id-column", "key", "--ratio", "0", "-o", mixed, "--force"
    )
    assert "note: left out, as the truth says nothing of them: 10 of 400 items" in done.err
    strange = tmp_path / "strange.csv"
    strange.write_text("id,label\nnowhere,1\n")
    done = run("score", table.data, "-m", table.model, "--truth", strange)
    assert done.code == 2
    assert "the first is 'nowhere', the data's 'row-" in done.err


def test_ids_that_several_rows_have_are_told(table: Fitted, run: Run, tmp_path: Path) -> None:
    frame = pl.read_parquet(table.data)
    twice = frame.with_columns(key=pl.Series([*frame["key"][:-2], "row-0007", "row-0007"]))
    for name, data in (("once", frame), ("twice", twice)):
        data.write_parquet(tmp_path / f"{name}.parquet")
        done = run("score", tmp_path / f"{name}.parquet", "-m", table.model, "-f", "json")
        notes = [note for note in json.loads(done.out)["summary"]["notes"] if "more than one item" in note]
        assert len(notes) == (name == "twice")
        assert all("one id is that of" in note and "'row-0007'" in note for note in notes)


def test_a_label_of_several_rows_is_refused_before_anything_is_done(table: Fitted, run: Run, tmp_path: Path) -> None:
    frame = pl.read_parquet(table.data)
    twice = frame.with_columns(key=pl.Series([*frame["key"][:-2], frame["key"][3], frame["key"][3]]))
    twice.write_parquet(tmp_path / "twice.parquet")
    item = frame["key"][3]
    (tmp_path / "it.csv").write_text(f"key,label\n{item},1\n")
    (tmp_path / "other.csv").write_text(f"key,label\n{frame['key'][5]},1\n{item},\n")
    data, scores = tmp_path / "twice.parquet", tmp_path / "s.parquet"
    given = ("--id-column", "key", "--truth", tmp_path / "it.csv")
    assert run("score", data, "-m", table.model, "-o", scores).code == 0
    for arguments in (
        ("fit", data, *given, "-o", tmp_path / "m.anoaudit"),
        ("fit", data, *given[:2], "--labels", *given[3:], "-o", tmp_path / "m.anoaudit"),
        ("score", data, "-m", table.model, *given, "-o", tmp_path / "new.parquet"),
        ("report", scores, *given[2:]),
        ("contaminate", data, *given, "--ratio", "0.1", "-o", tmp_path / "mixed.parquet"),
    ):
        done = run(*arguments)
        assert (done.code, done.out) == (2, ""), arguments
        assert f"1 id in {tmp_path / 'it.csv'} names several rows of the data (the first is '{item}')" in done.err
        assert "--id-column" in done.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["it.csv", "other.csv", "s.parquet", "twice.parquet"]
    # A truth that says nothing of it has nothing to confuse.
    done = run("score", data, "-m", table.model, "--truth", tmp_path / "other.csv", "-f", "json")
    assert done.code == 0, done.err
    assert "more than one item" in done.err


def test_a_labels_file_without_the_key_is_told_the_way(table: Fitted, run: Run, tmp_path: Path) -> None:
    (tmp_path / "known.csv").write_text("key,label\nrow-0001,1\n")
    done = run("fit", table.data, "--truth", tmp_path / "known.csv", "-o", tmp_path / "m.anoaudit")
    assert done.code == 2
    assert "no column 'id' or 'path'" in done.err
    assert "if 'key' names the rows, give --id-column key" in done.err


@pytest.mark.parametrize("form", ["table", "ndjson"])
def test_a_finding_outlives_its_readers(table: Fitted, form: str) -> None:
    """`2>&1 | head` closes both streams: the clause has fired all the same."""
    gate = f"--fail-on 'count>1' --format {form} 2>&1 | true"
    command = f"'{sys.executable}' -m anoaudit score '{table.data}' -m '{table.model}' {gate}"
    assert subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True).returncode == 1


#: The ways in which nobody hears what goes to stderr: a reader that went away, a full disk, no stderr at all.
UNHEARD = ["2> >(exec 0<&-; true)", "2>/dev/full", "2>&-"]


@pytest.mark.parametrize(("closed", "said"), [(">&-", True), (">&- 2>&-", False)])
def test_an_exit_code_outlives_a_stdout_that_is_not_there(
    table: Fitted, closed: str, said: bool, tmp_path: Path
) -> None:
    for out in ("", f"-o '{tmp_path}/s.parquet'"):
        command = (
            f"'{sys.executable}' -m anoaudit score '{table.data}' -m '{table.model}' --fail-on 'count>1' {out} {closed}"
        )
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
        assert (done.returncode, done.stdout, "failed: count>1" in done.stderr) == (1, "", said)
    assert pl.read_parquet(tmp_path / "s.parquet").height == pl.read_parquet(table.data).height


@pytest.mark.parametrize("unheard", UNHEARD)
@pytest.mark.parametrize(
    ("option", "code"), [("--fail-on 'count>1'", 1), ("--max-unreadable x", 2), ("--fail-on 'count>999'", 0)]
)
def test_an_exit_code_outlives_a_stderr_that_nobody_reads(table: Fitted, option: str, code: int, unheard: str) -> None:
    words = f"score '{table.data}' -m '{table.model}' {option} --format ndjson"
    command = f"'{sys.executable}' -m anoaudit {words} {unheard}"
    done = subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE)
    assert done.returncode == code
    rows = [json.loads(line) for line in done.stdout.splitlines()]  # and no note among them
    assert len(rows) == (0 if code == 2 else pl.read_parquet(table.data).height)


def test_fit_goes_on_when_nobody_reads_its_notes(run: Run, tmp_path: Path) -> None:
    make_table(200, 10).drop("key", "anomaly").write_parquet(tmp_path / "all.parquet")
    command = f"'{sys.executable}' -m anoaudit fit '{tmp_path}/all.parquet' -o '{tmp_path}/m.anoaudit' --fail-on 'score>=-1e9'"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE, stderr=write)
    os.close(write)
    assert done.returncode == 1
    assert b"Most anomalous" in done.stdout
    assert run("inspect", tmp_path / "m.anoaudit").code == 0


def test_a_closed_pipe_never_looks_like_a_finding(table: Fitted) -> None:
    for words in (f"report '{table.model}' -f ndjson", "methods loe", "--help"):
        command = f"'{sys.executable}' -m anoaudit {words} | head -n 1"
        assert subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True).returncode == 0


def test_report_of_a_model_and_of_every_format(table: Fitted, run: Run, tmp_path: Path) -> None:
    assert "Most anomalous" in run("report", table.model).out
    for suffix in ("csv", "json", "ndjson", "parquet"):
        run("score", table.data, "-m", table.model, "--id-column", "key", "-o", tmp_path / f"s.{suffix}")
        done = run("report", tmp_path / f"s.{suffix}", "--truth", table.labels, "--format", "json")
        assert done.code == 0, done.err
        assert json.loads(done.out)["metrics"]["auroc"] > 0.9
    markdown = run("report", tmp_path / "s.parquet", "--format", "markdown").out
    assert "| rank" in markdown.lower() or "|" in markdown


def test_no_colour_codes_unless_asked(table: Fitted) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "NO_COLOR")}
    command = [sys.executable, "-m", "anoaudit", "report", str(table.model)]
    assert "\x1b[" not in subprocess.run(command, capture_output=True, text=True, env=environment).stdout
    forced = subprocess.run(command, capture_output=True, text=True, env=environment | {"FORCE_COLOR": "1"})
    assert "\x1b[" in forced.stdout


def test_contaminate_fit_and_report_together(run: Run, tmp_path: Path) -> None:
    make_table(300, 40).drop("key").write_parquet(tmp_path / "all.parquet")
    out = tmp_path / "mixed.parquet"
    done = run("contaminate", tmp_path / "all.parquet", "--truth", "anomaly", "--ratio", "0.05", "-o", out)
    assert done.code == 0, done.err
    frame = pl.read_parquet(out)
    assert frame.height == 260 + 14
    assert "anomaly" not in frame.columns
    done = run("fit", out, "--truth", tmp_path / "mixed.labels.csv", "-o", tmp_path / "m.anoaudit", "--format", "json")
    assert json.loads(done.out)["metrics"]["anomalies"] == 14


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fit"], "missing argument 'DATA'"),
        (["scor"], "no such command 'scor'. Did you mean 'score'"),
        (["fit", "d", "--top", "x"], "invalid value for '--top'"),
        (["score", "d", "-m"], "option '-m' requires an argument"),
        (["score", "d"], "missing option '--model'"),
        (["report", "s", "--nope"], "no such option: --nope"),
        (["contaminate", "d", "--ratio", "\x1b[31m", "-o", "o", "e\x1b[2J"], "got unexpected extra argument"),
    ],
)
def test_a_misspelt_command_is_answered_like_any_other_error(run: Run, arguments: list[str], says: str) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (2, "")
    line, hint = done.err.splitlines()
    assert line.startswith(f"error: {says}")
    assert hint == f"  see anoaudit {'' if arguments == ['scor'] else arguments[0] + ' '}--help"
    assert "\x1b" not in done.err


def test_bugs_are_exit_3_without_a_traceback(table: Fitted, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("anoaudit.api.score", broken)
    done = run("score", table.data, "-m", table.model)
    assert done.code == 3
    assert "this is a bug" in done.err
    assert "Traceback" not in done.err
    monkeypatch.setattr("anoaudit.api.score", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt()))
    assert run("score", table.data, "-m", table.model).code == 130
