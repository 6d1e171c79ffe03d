"""Make docs/images/side-by-side.png: one long prompt through the stock pipeline and through clipcond, on the embedded model.

python recipes/readme/side_by_side.py
"""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import clipcond
from clipcond.diffusion.generate import generate
from clipcond.mini import world

OUT = Path(__file__).parents[2] / "docs" / "images" / "side-by-side.png"
SEED, COUNT, SCALE, GAP, LEFT = 21, 5, 2, 12, 230


def long_prompt() -> tuple[world.Scene, str]:
    """A scene of nine objects in wordy captions: about 170 tokens."""
    rng = random.Random(SEED)
    scene = world.sample(rng, least=9)
    return scene, world.caption(scene, rng, "wordy")


def main() -> None:
    scene, prompt = long_prompt()
    pipe = clipcond.load_pipeline("mini")
    pipe.set_progress_bar_config(disable=True)
    size = world.SIZE * SCALE
    sheet = Image.new("RGB", (LEFT + (COUNT + 1) * (size + GAP), 2 * (size + GAP) + 34), "white")
    draw, font, small = ImageDraw.Draw(sheet), ImageFont.load_default(20), ImageFont.load_default(15)
    draw.text((LEFT, 8), "what the prompt says", "#555", small)
    draw.text((LEFT + size + GAP + GAP, 8), "generated, seeds 0 to 4", "#555", small)
    asked = world.render(scene, random.Random(0)).resize((size, size), Image.Resampling.NEAREST)
    for row, (through, name) in enumerate((("stock", "stock pipeline"), ("conditioner", "clipcond"))):
        top = 34 + row * (size + GAP)
        pictures = [each.image for each in generate(pipe, prompt, count=COUNT, through=through)]
        right = sum(sum(world.check(picture, scene)) for picture in pictures)
        draw.text((12, top + size // 2 - 26), name, "black", font)
        draw.text((12, top + size // 2 + 2), f"{right} of {COUNT * 9} objects right", "#555", small)
        sheet.paste(asked, (LEFT, top))
        for column, picture in enumerate(pictures):
            large = picture.resize((size, size), Image.Resampling.NEAREST)
            sheet.paste(large, (LEFT + (column + 1) * (size + GAP) + GAP, top))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(OUT, optimize=True)
    print(f"{OUT}: {prompt}")


if __name__ == "__main__":
    main()
