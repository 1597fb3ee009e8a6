"""How much contamination a method bears: known anomalies mixed in at several shares, a fit each, AUROC against the share.

usage: python samples/sweep.py DATA --truth COLUMN|FILE [--ratios 0,0.05,0.1,0.2] [--svg sweep.svg] [--id-column NAME]
       [anything else that `anoaudit fit` takes, for example --method loe --set detector=gaussian]

Every mixture keeps all normal items, so the test is the same throughout: the share of normals that an anomaly outranks. At
share 0 the model is fitted on clean data and the whole DATA, anomalies and all, is scored with it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path


def anoaudit(*arguments: object) -> str:
    done = subprocess.run([sys.executable, "-m", "anoaudit", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def measure(options: argparse.Namespace, rest: list[str], ratio: str, folder: Path) -> tuple[int, float, float]:
    """Anomalies in training, AUROC, average precision."""
    suffix = "" if Path(options.data).is_dir() else Path(options.data).suffix
    mixed, model = folder / f"mixed-{ratio}{suffix}", folder / f"{ratio}.anoaudit"
    named = ["--id-column", options.id_column] if options.id_column else []
    anoaudit(
        "contaminate",
        options.data,
        "--truth",
        options.truth,
        *named,
        "--ratio",
        ratio,
        "-o",
        mixed,
        "--seed",
        options.seed,
    )
    labels = mixed / "labels.csv" if mixed.is_dir() else mixed.with_name(f"{mixed.stem}.labels.csv")
    fitted = anoaudit("fit", mixed, "--truth", labels, "-o", model, "--seed", options.seed, "--format", "json", *rest)
    metrics = json.loads(fitted)["metrics"]
    count = int(metrics["anomalies"])
    if not count:
        metrics = json.loads(
            anoaudit("score", options.data, "--model", model, "--truth", options.truth, *named, "--format", "json")
        )["metrics"]
    return count, metrics["auroc"], metrics["average_precision"]


def chart(ratios: list[float], aurocs: list[float]) -> str:
    """AUROC against the share of anomalies, as a small SVG."""
    width, height, margin = 480, 280, 48
    low = min(0.5, *aurocs)

    def x(ratio: float) -> float:
        return margin + (width - 2 * margin) * ratio / (max(ratios) or 1)

    def y(auroc: float) -> float:
        return height - margin - (height - 2 * margin) * (auroc - low) / (1 - low)

    ticks = [low + (1 - low) * i / 4 for i in range(5)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
    ]
    parts.append(f'<rect width="{width}" height="{height}" fill="white"/>')
    for tick in ticks:
        parts.append(f'<path d="M{margin} {y(tick):.1f}H{width - margin}" stroke="#ddd"/>')
        parts.append(f'<text x="{margin - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.2f}</text>')
    for ratio, auroc in zip(ratios, aurocs, strict=True):
        parts.append(f'<circle cx="{x(ratio):.1f}" cy="{y(auroc):.1f}" r="4" fill="#c2410c"/>')
        parts.append(
            f'<text x="{x(ratio):.1f}" y="{height - margin + 18}" text-anchor="middle">{100 * ratio:g} %</text>'
        )
    line = " ".join(f"{x(ratio):.1f},{y(auroc):.1f}" for ratio, auroc in zip(ratios, aurocs, strict=True))
    parts.append(f'<polyline points="{line}" fill="none" stroke="#c2410c" stroke-width="2"/>')
    parts.append(f'<text x="{margin}" y="24">AUROC against the share of anomalies in training</text></svg>')
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--truth", required=True)
    parser.add_argument("--ratios", default="0,0.05,0.1,0.2")
    parser.add_argument("--id-column")
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--seed", default="0")
    options, rest = parser.parse_known_args()
    ratios, aurocs = options.ratios.split(","), []
    print("  share  anomalies   AUROC  average precision")
    with tempfile.TemporaryDirectory() as folder:
        for ratio in ratios:
            count, auroc, precision = measure(options, rest, ratio, Path(folder))
            aurocs.append(auroc)
            bar = "█" * round(40 * max(0.0, auroc - 0.5))
            print(f"{100 * float(ratio):5.3g} %  {count:9}  {auroc:.4f}  {precision:16.3f}  {bar}", flush=True)
    if options.svg:
        options.svg.write_text(chart([float(ratio) for ratio in ratios], aurocs), encoding="utf-8")
        print(f"chart written to {options.svg}")


if __name__ == "__main__":
    main()
