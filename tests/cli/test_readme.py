"""What the README says of the commands is what the program says of itself."""

from __future__ import annotations

import re

import pytest

from .command_reference import COMMANDS, README, with_reference
from .conftest import Run


def test_the_reference_is_the_programs() -> None:
    text = README.read_text(encoding="utf-8")
    assert with_reference(text) == text, "run: python tests/cli/command_reference.py"


def test_every_option_of_help_is_in_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the screen that users see, so that the reference's own reading of the program is checked, too."""
    monkeypatch.setenv("COLUMNS", "200")
    blocks = re.findall(r"<code>anoaudit (\w+)(.*?)</details>", README.read_text(encoding="utf-8"), re.DOTALL)
    assert tuple(name for name, _ in blocks) == COMMANDS
    for name, block in blocks:
        done = run(name, "--help")
        assert done.code == 0
        shown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", re.sub(r"\x1b\[[0-9;]*m", "", done.out)))
        told = set(re.findall(r"`(--[a-z][a-z-]*)`", block))
        assert told <= shown, name
        assert {option for option in shown if option not in block} == {"--help"}, name
