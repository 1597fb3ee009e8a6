"""The command in a report is the one that made it, whatever options there were: nothing is left out by forgetting it."""

from __future__ import annotations

import inspect
import json
import shlex
from collections.abc import Callable
from typing import Any

import pytest
import typer
from typer.models import ArgumentInfo

from anoaudit import api, cli
from anoaudit.cli import fit, score
from anoaudit.provenance import PLACES, asked, options_of

#: Options of the command line that choose how the result is shown, or whether one is replaced.
SHOWN = {"out", "form", "html", "top", "resume", "force", "model"}
OTHER: dict[str, Any] = {
    "method": "lamp", "contamination": "7%", "labels": "labels; rm.csv:label", "train_on": "normal", "truth": "a b.csv",
    "backbone": "resnet18", "weights": "w.safetensors", "backbone_arg": ["a=1", "b='x'"], "device": "cpu", "seed": "7",
    "set_": ["epochs=3", "lr=0.1"], "columns": ["a,b", "c"], "exclude": ["d"], "id_column": "key", "image_column": "picture",
    "fps": "2.5", "max_unreadable": "20%", "fdr": "0.2", "threshold": "-3.5", "top_k": "1%", "fail_on": ["rate>1%"],
}  # fmt: skip


def arguments_of(monkeypatch: pytest.MonkeyPatch, verb: str, words: list[str]) -> dict[str, Any]:
    """What the verb would be called with."""
    seen: dict[str, Any] = {}

    def called(data: str, **named: Any) -> None:
        seen.update(named, data=data)
        raise typer.Exit

    with monkeypatch.context() as patched:
        patched.setattr(api, verb, called)
        cli.app(args=[verb, "DATA", *words], standalone_mode=False)
    return seen


def options(command: Callable[..., int]) -> dict[str, str]:
    """All options of a command and how they are spelt."""
    found = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        info = parameter.annotation.__metadata__[0]
        if not isinstance(info, ArgumentInfo):
            spelt = [info.default, *(info.param_decls or ())]
            long = [name for name in spelt if isinstance(name, str) and name.startswith("--")]
            found[parameter.name] = long[0] if long else "--" + parameter.name.replace("_", "-")
    return found


@pytest.mark.parametrize(
    ("verb", "name", "option"),
    [
        (verb, name, option)
        for verb, module in (("fit", fit), ("score", score))
        for name, option in options(module.command).items()
        if name not in SHOWN
    ],
)
def test_every_option_is_given_again(verb: str, name: str, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = OTHER.get(name)
    words = (
        [option] if value is None else [w for v in (value if isinstance(value, list) else [value]) for w in (option, v)]
    )
    model = ["--model", "m"] if verb == "score" else []
    first = arguments_of(monkeypatch, verb, [*words, *model])
    recorded = json.loads(json.dumps(asked(verb, first)))
    assert len(recorded["options"]) == 1, "the option was not recorded"
    line = shlex.join(options_of(verb, recorded["options"]))
    again = arguments_of(monkeypatch, verb, [*shlex.split(line), *model])
    assert {key: again[key] for key in again.keys() - PLACES} == {key: first[key] for key in first.keys() - PLACES}
