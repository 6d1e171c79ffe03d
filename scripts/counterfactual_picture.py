"""Draw the picture of docs/weighting.md: one prompt on the embedded model, then a phrase taken out, and one replaced.

    python scripts/counterfactual_picture.py docs/images/counterfactual.webp

The same call writes the same picture.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image

import clipcond
from clipcond.diffusion.conditioner import Conditioner
from clipcond.files import write_file

SCENE = "a red circle at the top left, {}, a green square at the bottom right, on a pink background"
PHRASE, OLD, NEW = "a blue star in the center", "green square", "yellow ring"
SIZE, GAP, STEPS = 192, 8, 20


def main(path: str) -> None:
    import torch

    pipe = clipcond.load_pipeline("mini")
    pipe.set_progress_bar_config(disable=True)
    steering = Conditioner.from_pipeline(pipe).counterfactual(SCENE.format(f"({PHRASE}:0)"), dialect="a1111")
    noise = torch.Generator("cpu").manual_seed(1)
    without = clipcond.draw_steered(pipe, steering, generator=noise, num_inference_steps=STEPS, guidance_scale=2.0)
    other = clipcond.replace(pipe, SCENE.format(PHRASE), {OLD: NEW}, seed=1, steps=STEPS, guidance_scale=2.0)
    images = [without.before[0], without.images[0], other.image]
    sheet = Image.new("RGB", (len(images) * (SIZE + GAP) - GAP, SIZE), "white")
    for number, image in enumerate(images):
        sheet.paste(image.resize((SIZE, SIZE), Image.Resampling.LANCZOS), (number * (SIZE + GAP), 0))
    file = io.BytesIO()
    sheet.save(file, "WEBP", quality=90, method=6)
    write_file(Path(path), file.getvalue(), overwrite=True)
    print(f"{path}: {len(file.getvalue()) / 1024:.0f} KiB")


if __name__ == "__main__":
    main(sys.argv[1])
