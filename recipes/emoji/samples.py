"""Put pictures that show the model at work into one folder: a tenth of a set in a style that training never saw, by name.

    python recipes/emoji/samples.py --data runs/emoji/data --out docs/images/emoji

Fluent Emoji High Contrast, in 16 greys each so that the folder stays small; its licence (MIT) is written beside them. Emoji that
training saw from no vendor are left out.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from pathlib import Path

from command_line import check_data, run
from names import share_of
from PIL import Image

SET, SHARE, GREYS = "fluent-emoji-high-contrast", 0.1, 16


def file_name(label: str) -> str:
    """Return a label as the name of a file: `face with head-bandage` is `face-with-head-bandage.png`."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-") + ".png"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, default=Path("runs/emoji/data"))
    options.add_argument("--out", type=Path, default=Path("docs/images/emoji"))
    given = options.parse_args()
    check_data(options, given.data)
    given.out.mkdir(parents=True, exist_ok=True)
    with (given.data / "labels.csv").open(newline="", encoding="utf-8") as file:
        some = [
            row for row in csv.DictReader(file) if row["unseen"] == "0" and share_of(f"{row['code']}/sample") < SHARE
        ]
    count = 0
    for row in some:
        source = given.data / "pictures" / SET / f"{row['code']}.png"
        if source.exists():
            with Image.open(source) as image:
                image.convert("L").quantize(GREYS).save(given.out / file_name(row["label"]), optimize=True)
            count += 1
    licences = json.loads((given.data / "licences.json").read_text("utf-8"))
    (licence,) = [each for each in licences if each["set"] == SET]
    text = f"{licence['title']} by {licence['author']}, {licence['licence']} ({licence['url']}), rendered at 64×64.\n"
    (given.out / "LICENCE.txt").write_text(text, "utf-8")
    size = sum(path.stat().st_size for path in given.out.iterdir())
    print(f"{count} pictures, {size / 2**20:.2f} MiB in {given.out}")


if __name__ == "__main__":
    run(main)
