"""The best of many pictures, adaptively: how many come out right, and the denoiser's rows, on the embedded model.

    python benchmarks/adaptive.py                  # 7 minutes of one thread
    python benchmarks/adaptive.py --captions 40

`mini` errs in few steps without guidance, in captions beyond 75 tokens of nine objects. A picture is right when the
judge sees every object of the scene. Best of 16: sixteen pictures to the end, the best by clipcond's score. Adaptive: the
candidates that look worst in the denoiser's prediction are given up at a third and at two thirds of the steps; the best of the
rest by the same score. Same captions, same seeds, same scorer. “Any of 16” is what a judge who knows the answer would find.
"""

from __future__ import annotations

import argparse
import random
import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from typing import Any

import torch
from PIL import Image
from weighting_effect import shown  # the benchmark beside this one

import clipcond
from clipcond.diffusion.adaptive import generate_adaptively
from clipcond.diffusion.generate import PreparedCall, generate, prepared
from clipcond.mini import world

ADAPTIVE: dict[str, tuple[int, tuple[float, float]]] = {  # candidates, shares that go on
    "16, halved twice": (16, (1 / 2, 1 / 4)),
    "13, halved twice": (13, (1 / 2, 1 / 4)),
    "16, to 6 and 2": (16, (3 / 8, 1 / 8)),
}


class Best:
    """The best of pictures by clipcond's score for one text."""

    def __init__(self, scorer: Any, text: str) -> None:
        self.scorer, self.text = scorer, text

    def __call__(self, images: Sequence[Image.Image]) -> list[float]:
        cosine: list[float] = self.scorer.score(list(images), self.text).cosine.tolist()
        return cosine

    def of(self, images: Sequence[Image.Image]) -> Image.Image:
        scores = self(images)
        return images[scores.index(max(scores))]


def call_of(pipe: Any, text: str, given: argparse.Namespace) -> PreparedCall:
    return prepared(
        pipe, text, negative_prompt="", conditioning=None, count=1, steps=given.steps, guidance_scale=given.guidance,
        seed=0, dialect="plain", clip_skip=0, through="conditioner", batch_size=16,
    )  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--captions", type=int, default=120)
    options.add_argument("--steps", type=int, default=3)
    options.add_argument("--guidance", type=float, default=1.0)
    options.add_argument("--seed", default="adaptive", help="names the held-out set")
    given = options.parse_args()
    started = time.perf_counter()

    pipe = clipcond.load_pipeline("mini")
    pipe.set_progress_bar_config(disable=True)
    scorer = clipcond.Scorer.load("mini")
    rng = random.Random(given.seed)
    right, objects, rows = Counter[str](), Counter[str](), Counter[str]()
    named = 0

    def judged(name: str, image: Image.Image, scene: world.Scene) -> None:
        verdicts = world.check(image, scene)
        right[name] += all(verdicts)
        objects[name] += sum(verdicts)

    for number in range(given.captions):
        scene = world.sample(rng, least=9, most=9)
        text = world.caption(scene, rng, "wordy")
        named += len(scene.objects)
        best, call, seed = Best(scorer, text), call_of(pipe, text, given), 1000 * number
        images = [
            each.image
            for each in generate(
                pipe, text, count=16, steps=given.steps, guidance_scale=given.guidance, seed=seed, batch_size=16
            )
        ]
        judged("one picture", images[0], scene)
        judged("best of 16", best.of(images), scene)
        judged("best of 8", best.of(images[:8]), scene)
        judged("any of 16, by the judge", max(images, key=lambda each: sum(world.check(each, scene))), scene)
        for name, (count, left) in ADAPTIVE.items():
            made = generate_adaptively(pipe, call, best, count=count, keep=1, seed=seed, batch_size=16, left=left)
            judged(f"adaptive of {name}", best.of([each.image for each in made.pictures]), scene)
            rows[f"adaptive of {name}"] += made.spent
    for name, count in (("one picture", 1), ("best of 16", 16), ("best of 8", 8), ("any of 16, by the judge", 16)):
        rows[name] = count * given.steps * given.captions * (2 if given.guidance > 1 else 1)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers"))
    print(
        f"{date.today()}, `{shlex.join(['python', *sys.argv])}`, {torch.get_num_threads()} threads, {versions}, {given.steps} "
        f"steps, guidance {given.guidance:g}, {time.perf_counter() - started:.0f} s; {given.captions} captions of {named} "
        "objects; counts with Wilson's 95 % intervals.\n"
    )
    print("| picture | right | objects wrong | rows | of best of 16 |\n|---|---|---|---|---|")
    for name in right:
        share = f"{100 * rows[name] / rows['best of 16']:.0f} %"
        print(f"| {name} | {shown(right[name], given.captions)} | {named - objects[name]} | {rows[name]} | {share} |")


if __name__ == "__main__":
    main()
