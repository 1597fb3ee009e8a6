"""The library's door: the same verbs, nothing loaded before it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import anoaudit
from anoaudit.errors import AuditError, UsageError


def test_importing_loads_nothing_heavy() -> None:
    code = "import sys, anoaudit; print(sorted({'torch','timm','polars','numpy','typer','onnxruntime'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_verbs_are_there_and_misspelt_ones_are_not() -> None:
    assert all(callable(getattr(anoaudit, verb)) for verb in ("fit", "score", "contaminate", "report"))
    with pytest.raises(AttributeError):
        anoaudit.fitt  # noqa: B018


def test_errors_are_exceptions_with_an_exit_code(tmp_path: Path) -> None:
    with pytest.raises(AuditError) as missing:
        anoaudit.score(tmp_path / "none.parquet", model=tmp_path / "none.anoaudit")
    assert (missing.value.exit_code, missing.value.hint != "") == (3, True)
    with pytest.raises(UsageError) as wrong:
        anoaudit.fit(tmp_path, method="nope")
    assert wrong.value.exit_code == 2
