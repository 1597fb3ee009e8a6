"""How a report is made again: the commands that lead to it, as far as table and model know them, and the facts to compare."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anoaudit.model.manifest import Manifest
    from anoaudit.reporting import Scored
    from anoaudit.reports.html import Provenance


#: Arguments that say where and how often, not what: a command names its places itself.
PLACES = frozenset({"data", "out", "model", "resume", "force", "reporter"})
_SPELT = {"options": "--set", "backbone_args": "--backbone-arg"}


def asked(verb: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a call of the verb was given beyond its defaults, in plain JSON types: the `command` of a score table's summary."""
    options = {}
    for name, parameter in _parameters(verb).items():
        value = arguments[name]
        if isinstance(value, list | tuple):
            value = [str(part) for part in value]
        elif isinstance(value, Path):
            value = str(value)
        if value not in (parameter.default, None, []):
            options[name] = value
    return {"verb": verb, "options": options}


def options_of(verb: str, values: Mapping[str, Any]) -> list[str]:
    """The words of the command line that give these options, in the verb's own order; other names are passed over."""
    found: list[str] = []
    for name in _parameters(verb):
        value = values.get(name)
        option = _SPELT.get(name, "--" + name.replace("_", "-"))
        if isinstance(value, bool):
            found += [option] * value
        elif value is not None:
            for part in value if isinstance(value, list) else [value]:
                found += [option, str(part)]
    return found


def _parameters(verb: str) -> dict[str, inspect.Parameter]:
    from anoaudit import api

    verbs: dict[str, Callable[..., Any]] = {"fit": api.fit, "score": api.score}
    return {name: p for name, p in inspect.signature(verbs[verb]).parameters.items() if name not in PLACES}


def provenance(given: Scored, out: Path, top: int | None = None) -> Provenance:
    """The commands that lead to this report, as far as table and model know them, and what tells whether all is the same."""
    from anoaudit.reports.html import Provenance

    summary, model = given.table.summary, given.model
    name = str(model.path if model is not None else summary.model.get("name") or "MODEL")
    source, command = given.data or summary.source or "DATA", summary.command
    verb = "fit" if given.audit or command.get("verb") == "fit" else "score"
    options = command.get("options") if command.get("verb") == verb else None
    options = options if isinstance(options, dict) else {}
    if verb == "fit":
        known = {} if model is None else _resolved(model.manifest)
        made = _words("anoaudit", "fit", source, *options_of("fit", known | options), "-o", name)
    else:
        made = _words(
            "anoaudit", "score", source, "--model", name, *options_of("score", options), "-o", given.path.name
        )
    beside = ["--model", name] if model is not None else []
    shown = [name] if given.audit else [given.path.name, *beside]
    if given.truth is not None:
        shown += ["--truth", given.truth]
    if top is not None:
        shown += ["--top", str(top)]
    commands = [made, _words("anoaudit", "report", *shown, "--html", out.name)]
    return Provenance(commands, [] if model is None else list(_facts(model.manifest)))


def _resolved(manifest: Manifest) -> dict[str, Any]:
    """Options that may not have been given, as they turned out: another version or machine may choose otherwise."""
    training = manifest.training
    found = {"method": manifest.method, "seed": training["seed"], "image_column": manifest.data.get("image_column")}
    found["contamination"] = f"{training['contamination']:g}"
    if manifest.backbone is not None:
        found["backbone"] = manifest.backbone["name"]
    return found


def _facts(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """How the model was made, as it says itself."""
    from anoaudit.data.items import TableSpec
    from anoaudit.model.card import backbone_line, input_line

    training = manifest.training
    trained = f"{training['items']:,} of {manifest.data['rows']:,} items of {manifest.data['name']}"
    yield (
        "method",
        f"{manifest.method}, α = {training['contamination']:g}, seed {training['seed']}, fitted on {trained}",
    )
    yield "input", input_line(manifest).replace("`", "")
    if isinstance(manifest.input, TableSpec):
        dropped = ", ".join(f"{name} ({why})" for name, why in manifest.input.dropped.items())
        if dropped:
            yield "not used", dropped
    else:
        yield "backbone", backbone_line(manifest.backbone).replace("`", "")
    versions = {"anoaudit": manifest.anoaudit, **manifest.versions}
    yield "fitted with", ", ".join(f"{name} {version}" for name, version in versions.items())


def _words(*parts: str) -> str:
    return " ".join(shlex.quote(part) for part in parts)
