"""The model's README.md: what it is, what it was fitted on, how sure it is, how to use it. Deletable."""

from __future__ import annotations

import shlex
from typing import Any

from anoaudit.data.items import ImageSpec, TableSpec
from anoaudit.errors import AnoauditError
from anoaudit.methods.registry import find_method
from anoaudit.model.alpha import alpha_facts, estimate_line, sensitivity_line
from anoaudit.model.manifest import Manifest
from anoaudit.options import shown

CALIBRATIONS = {
    "conformal-clean": "split-conformal on {n} known normals kept out of training: exact for new normal data, "
    "none below {smallest_p:.2g}",
    "fitted-null": "a null fitted to the bulk of {n} scores of items kept out of training: an estimate, extrapolated in the tail",
    "none": "none: {note}",
}


def render_card(manifest: Manifest, name: str) -> str:
    """Markdown."""
    lines = [
        f"# {name}",
        "",
        f"An anomaly detector written by anoaudit {manifest.anoaudit} (`{manifest.method}`). Higher scores are more anomalous.",
        "",
        "```",
        f"anoaudit score DATA --model {shlex.quote(name)}",
        "```",
        "",
        *(f"* **{term[:1].upper()}{term[1:]}** {text}" for term, text in card_facts(manifest)),
        "",
        "`scores.parquet` and this file hold or describe training data; both may be deleted.",
        "",
    ]
    return "\n".join("".join(c if c.isprintable() else " " for c in line) for line in lines)


def card_facts(manifest: Manifest) -> list[tuple[str, str]]:
    """What the model says of itself as (term, text); names and values in Markdown's backticks."""
    values = {"n": 0, "smallest_p": 1.0, "note": "", **manifest.calibration}
    training, parity, data = manifest.training, manifest.parity, manifest.data
    found = [
        (
            "fitted on",
            f"{training['items']} of {data['rows']} items of `{data['name']}` (fingerprint `{data['fingerprint'][:16]}`), "
            f"{training['held_out']} kept out of a fit of their own for p-values",
        )
    ]
    if "labelled" in training:
        told = training["labelled"]
        found.append(("labels", f"{told.get('anomaly', 0)} known anomalies, {told.get('normal', 0)} known normals"))
    found += [
        ("assumed α", f"{_alpha(training)}; trained on {training['train_on']} items; seed {training['seed']}"),
        ("input", input_line(manifest)),
    ]
    if manifest.backbone is not None:
        found.append(("backbone", backbone_line(manifest.backbone)))
    if "memories" in training:
        found.append(("memories", memories_line(training["memories"])))
    options = ", ".join(f"`{key}={shown(value)}`" for key, value in heeded_options(manifest).items())
    of_columns = manifest.input.notes if isinstance(manifest.input, TableSpec) else ()  # known while it is written
    return [
        *found,
        ("p-values", CALIBRATIONS[values["kind"]].format(**values)),
        (
            "parity",
            f"torch and onnxruntime differ by at most {parity['max_abs_difference']:.2g} on {parity['items']} items "
            f"(the scores' MAD is {parity['mad']:.3g})",
        ),
        ("options", options or "none"),
        *(("note", note) for note in manifest.warnings + of_columns),
    ]


def heeded_options(manifest: Manifest) -> dict[str, Any]:
    """The method's options without those that do nothing here; all that are set where this version does not know them."""
    options = {key: value for key, value in manifest.options.items() if value is not None}
    try:
        kind = str(manifest.input.to_json()["kind"])
        plain = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
        deaf = find_method(manifest.method).options(**plain).unheeded(kind)
    except (AnoauditError, AttributeError, TypeError):
        return options
    return {key: value for key, value in options.items() if key not in deaf}


def _alpha(training: dict[str, Any]) -> str:
    facts = alpha_facts(training)
    text = f"{facts['assumed']:g}"
    if "estimate" in facts:
        text = estimate_line(facts["assumed"], facts["estimate"])
    if "sensitivity" in facts:
        text += f". The ranking at {sensitivity_line(facts['sensitivity'])}"
    return text


def input_line(manifest: Manifest) -> str:
    """What the model sees, as Markdown."""
    if isinstance(manifest.input, ImageSpec):
        kept = " with their proportions kept, in grey margins" if manifest.input.fit == "pad" else ""
        return f"images, resized whole to {manifest.input.width}×{manifest.input.height}{kept}"
    names = ", ".join(f"`{rule.name}`" for rule in manifest.input.columns[:20])
    more = f" and {len(manifest.input.columns) - 20} more" if len(manifest.input.columns) > 20 else ""
    return f"{len(manifest.input.columns)} columns: {names}{more}"


def memories_line(memories: list[dict[str, Any]]) -> str:
    """How AnoMem's memories are read, a scale each."""
    return "; ".join(
        f"{'×'.join(map(str, m['grid']))}: {m['effective_slots']:.1f} of {m['slots']} slots a query, {m['used']:.0%} in use, "
        f"spread of prototypes {m['spread']:.2f}, {m['share']:.0%} of the score's variance"
        for m in memories
    )


def backbone_line(facts: dict[str, Any] | None) -> str:
    """The backbone and where its weights came from, as Markdown."""
    if facts is None:
        return "none (a table)"
    if facts["name"] == "none":
        return f"none: the fixed filter bank ({facts.get('recipe')})"
    weights = facts.get("weights", {})
    source = f"weights {weights.get('source')} (licence: {weights.get('license')}), SHA-256 `{weights.get('sha256')}`"
    return f"`{facts['name']}`, {source}"
