"""How a report is made again: the commands that lead to it, as far as table and model know them, and the facts to compare."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from anoaudit.errors import AnoauditError

if TYPE_CHECKING:
    from anoaudit.model.artefact import Model
    from anoaudit.model.manifest import Manifest
    from anoaudit.reporting import Scored
    from anoaudit.reports.html import Provenance


def provenance(given: Scored, out: Path, top: int | None = None) -> Provenance:
    """The commands that lead to this report, as far as table and model know them, and what tells whether all is the same."""
    from anoaudit.reports.html import Provenance

    summary, model = given.table.summary, given.model
    name = str(model.path if model is not None else summary.model.get("name") or "MODEL")
    source, rule = given.data or summary.source or "DATA", _rule_options(summary.rule)
    if given.audit and model is not None:
        made, shown = _fit_command(model, source, rule), [name]
    else:
        made = _words("anoaudit", "score", source, "--model", name, *rule, "-o", given.path.name)
        shown = [given.path.name, *(["--model", name] if model is not None else [])]
    if given.truth is not None:
        shown += ["--truth", given.truth]
    if top is not None:
        shown += ["--top", str(top)]
    commands = [made, _words("anoaudit", "report", *shown, "--html", out.name)]
    return Provenance(commands, [] if model is None else list(_facts(model.manifest)))


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


def _fit_command(model: Model, source: str, rule: Iterable[str]) -> str:
    manifest, training = model.manifest, model.manifest.training
    alpha = "auto" if "contamination_estimate" in training else f"{training['contamination']:g}"
    options = ["--contamination", alpha, "--seed", str(training["seed"])]
    if "alpha_sensitivity" in training:
        options.append("--alpha-sensitivity")
    if training.get("train_on") == "normal":
        options += ["--train-on", "normal"]
    if training.get("train_on") == "normal" or "labelled" in training:
        options += ["--labels", "LABELS"]
    if manifest.backbone is not None:
        options += ["--backbone", str(manifest.backbone["name"])]
        file = str(manifest.backbone.get("weights", {}).get("source") or "")
        if file.endswith(".safetensors"):  # of a hub it is the repository
            options += ["--weights", file]
    if manifest.data.get("id_column"):
        options += ["--id-column", str(manifest.data["id_column"])]
    if manifest.data.get("image_column"):
        options += ["--image-column", str(manifest.data["image_column"])]
    for key, value in _chosen(manifest).items():
        options += ["--set", f"{key}={value}"]
    return _words("anoaudit", "fit", source, "--method", manifest.method, *options, *rule, "-o", str(model.path))


def _chosen(manifest: Manifest) -> dict[str, str]:
    """The method's options that differ from what its recipe fills in; all that are set when this version does not know them."""
    from dataclasses import asdict

    from anoaudit.methods.registry import find_method

    options = manifest.options
    try:
        cls = find_method(manifest.method).options
        kind = str(manifest.input.to_json()["kind"])
        plain_values = asdict(cls()), asdict(cls().for_data(kind))
        usual = {key: plain_values[at][key] for at, key in enumerate(("recipe", "detector")) if key in plain_values[at]}
        filled = asdict(cls(**{key: options[key] for key in usual}).for_data(kind)) | usual
    except (AnoauditError, TypeError, KeyError, AttributeError):
        filled = {}
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in filled.items()}
    return {
        key: ",".join(map(str, value)) if isinstance(value, list) else str(value)
        for key, value in options.items()
        if value is not None and value != plain.get(key)
    }


def _rule_options(rule: str) -> list[str]:
    """The options that asked for a rule, from its words (see `Rule.describe`); none for the default and for unknown words."""
    for pattern, option in (
        (r"Benjamini-Hochberg, \w+ FDR ([0-9.e-]+)", "--fdr"), (r"score ≥ ([0-9.e+-]+)", "--threshold"),
        (r"the (\d+) worst", "--top-k"), (r"the worst ([0-9.e-]+) (%)", "--top-k"),
    ):  # fmt: skip
        found = re.fullmatch(pattern, rule)
        if found and (option, found[1]) != ("--fdr", "0.1"):
            return [option, "".join(found.groups())]
    return []


def _words(*parts: str) -> str:
    return " ".join(shlex.quote(part) for part in parts)
