"""What `contaminate --corrupt` does, to look at: a contact sheet of the images' faults and a before and after of the tables'.

usage: python samples/faults.py OUT [IMAGE] [--seed N]

Writes OUT/images.png (a row for each kind, in it the picture and severity 1 to 5; without IMAGE one of samples/parts) and
OUT/tables.md (the first damaged rows of a small made-up table at severity 3, with the labels file's words).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image, ImageDraw

from anoaudit import contaminate
from anoaudit.contamination import image_faults, table_faults

SIDE, HEAD, NAMES = 128, 18, 72  # pixels: of a picture, of the line above all, of the column of names
SHOWN = 3


def sheet(picture: Image.Image, seed: int) -> Image.Image:
    """Every kind at every severity, the picture itself at the left."""
    picture.thumbnail((SIDE, SIDE))
    width, height = picture.size
    page = Image.new("RGB", (NAMES + 6 * (width + 4), HEAD + len(image_faults.FAULTS) * (height + 4)), "white")
    draw = ImageDraw.Draw(page)
    for place, text in enumerate(("before", "1", "2", "3", "4", "5")):
        draw.text((NAMES + place * (width + 4), 3), text, "black")
    for line, (kind, fault) in enumerate(image_faults.FAULTS.items()):
        top = HEAD + line * (height + 4)
        draw.text((4, top + height // 2 - 6), kind, "black")
        page.paste(picture, (NAMES, top))
        for severity in range(1, 6):
            damaged = fault(np.asarray(picture), severity, np.random.default_rng(seed))
            page.paste(Image.fromarray(damaged), (NAMES + severity * (width + 4), top))
    return page


def rows(seed: int) -> pl.DataFrame:
    """Forty rows of numbers, a category and a switch."""
    rng, n = np.random.default_rng(seed), 40
    return pl.DataFrame(
        {
            "load": rng.normal(50, 10, n).round(1),
            "flow": rng.normal(3, 0.2, n).round(2),
            "starts": rng.integers(0, 9, n),
            "mode": rng.choice(["auto", "manual"], n),
            "open": rng.random(n) > 0.5,
        }
    )


def line(cells: Sequence[object]) -> str:
    return f"| {' | '.join('' if cell is None else str(cell) for cell in cells)} |"


def tables(seed: int) -> str:
    """Each kind by itself as a Markdown table: what changed is bold, a dash is missing."""
    before, blocks = rows(seed), []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "before.parquet"
        before.write_parquet(source)
        for kind in table_faults.KINDS:
            made = contaminate(source, Path(folder) / f"{kind}.parquet", ratio=0.2, corrupt=[kind], seed=seed)
            after, labels = pl.read_parquet(made.path), pl.read_csv(made.labels)
            told = labels.filter(pl.col("anomaly") == 1)
            body = [line(["row", "", *before.columns, *labels.columns[1:]]), line(["---"] * (before.width + 5))]
            for entry in told.head(SHOWN).iter_rows():
                old, new = before.row(entry[0]), after.row(entry[0])
                changed = ["—" if b is None else f"**{b}**" if a != b else b for a, b in zip(old, new, strict=True)]
                body += [line([entry[0], "before", *old, "", "", ""]), line(["", "after", *changed, *entry[1:]])]
            count = sum(a != b for a, b in zip(before.rows(), after.rows(), strict=True))
            blocks.append(f"## {kind}\n\n{count} of {after.height} rows differ, {told.height} are labelled.\n")
            blocks.append("\n".join(body) + "\n")
    return "\n".join(blocks)


def main() -> None:
    parser = argparse.ArgumentParser(description="Shows what contaminate --corrupt does.")
    parser.add_argument("out", type=Path)
    parser.add_argument("image", type=Path, nargs="?", default=Path(__file__).parent / "parts/line_a/part_0001.jpg")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with Image.open(options.image) as image:
        sheet(image.convert("RGB"), options.seed).save(options.out / "images.png")
    (options.out / "tables.md").write_text(tables(options.seed), encoding="utf-8")


if __name__ == "__main__":
    main()
