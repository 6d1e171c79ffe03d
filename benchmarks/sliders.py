"""Sliders and seeded variation, judged on the embedded model.

    python benchmarks/sliders.py                  # 3 minutes of one thread
    python benchmarks/sliders.py --scenes 6 --only sliders

Scenes of three objects. `sliders`: one word of one object, or of the background, goes from one value to another. Counted are
the pictures in which the judge sees the first value, the second one, and all other objects as they were. In the prompt's own
words (`clipcond.prompt.operations.Slider`), and for comparison along the mean difference of the bare words, added to every
token of the prompt. `variation`: objects that are still right when the embeddings are varied, and pixels that change.
"""

from __future__ import annotations

import argparse
import random
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from weighting_effect import shown  # the benchmark beside this one

import clipcond
from clipcond.mini import world
from clipcond.prompt.operations import Vary, slider
from clipcond.prompt.tokenizer import tokenize

STRENGTHS = (-0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
VARIATIONS = (0.0, 0.1, 0.2, 0.4, 0.8)
ATTRIBUTES = {"colour": ("red", "blue"), "shape": ("circle", "star"), "background": ("gray", "pink")}
Steered = Callable[[str, str, str, float], torch.Tensor]  # prompt, low, high, strength → (1, T, D)


def scenes(given: argparse.Namespace, attribute: str) -> Iterator[tuple[world.Scene, world.Scene, str]]:
    """Scenes with the first value, the same with the second one, and the prompt of the first."""
    rng = random.Random(f"{given.seed}/{attribute}")
    low, high = ATTRIBUTES[attribute]
    for _ in range(given.scenes):
        scene = world.sample(rng, least=3, most=3)
        first, *others = scene.objects
        others = [_apart(each, attribute, low, high, rng) for each in others]
        if attribute == "background":
            before, after = (world.Scene(ground, (first, *others)) for ground in (low, high))
        else:
            before, after = (
                world.Scene(scene.background, (replace(first, **{attribute: value}), *others)) for value in (low, high)
            )
        yield before, after, prompt_of(before)


def _apart(thing: world.Object, attribute: str, low: str, high: str, rng: random.Random) -> world.Object:
    """An object without the words of the slider."""
    values = list(world.COLOURS) if attribute == "colour" else list(world.LAYOUTS)
    while getattr(thing, attribute, "") in (low, high):
        thing = replace(thing, **{attribute: rng.choice(values)})
    return thing


def prompt_of(scene: world.Scene) -> str:
    said = [f"a {each.colour} {each.shape} in the {each.cell}" for each in scene.objects]
    return ", ".join([*said, f"on a {scene.background} background"])


def in_context(conditioner: clipcond.Conditioner) -> Steered:
    return lambda prompt, low, high, t: conditioner(prompt, operations=[slider(low, high, t)]).prompt_embeds


def bare_words(conditioner: clipcond.Conditioner) -> Steered:
    def steered(prompt: str, low: str, high: str, t: float) -> torch.Tensor:
        ends = conditioner([low, high]).prompt_embeds[:, 1 : 1 + len(tokenize(low))].mean(dim=1)
        states = conditioner(prompt).prompt_embeds.clone()
        states[:, 1 : 1 + len(tokenize(prompt))] += t * (ends[1] - ends[0])
        return states

    return steered


def draw(pipe: Any, conditioner: clipcond.Conditioner, states: torch.Tensor, given: argparse.Namespace) -> list[Any]:
    """One picture for each row, of the row's own seed."""
    negative = conditioner("", "").negative_prompt_embeds
    images: list[Any] = pipe(
        prompt_embeds=states,
        negative_prompt_embeds=negative.expand(len(states), -1, -1),
        num_inference_steps=given.steps,
        guidance_scale=given.guidance,
        generator=[torch.Generator().manual_seed(number) for number in range(len(states))],
    ).images
    return images


def sliders(pipe: Any, conditioner: clipcond.Conditioner, given: argparse.Namespace) -> list[str]:
    rows = ["| slider | strength | first value | second value | others as they were |", "|---|---|---|---|---|"]
    kinds = {"": in_context(conditioner), ", bare words": bare_words(conditioner)}
    for attribute, (low, high) in ATTRIBUTES.items():
        made = list(scenes(given, attribute))
        for kind, steered in kinds.items():
            for t in STRENGTHS:
                images = draw(pipe, conditioner, torch.cat([steered(text, low, high, t) for *_, text in made]), given)
                first = sum(has(image, before, attribute) for image, (before, _, _) in zip(images, made, strict=True))
                second = sum(has(image, after, attribute) for image, (_, after, _) in zip(images, made, strict=True))
                others = sum(
                    sum(world.check(image, before)[attribute != "background" :])
                    for image, (before, _, _) in zip(images, made, strict=True)
                )
                count = sum(len(before.objects) - (attribute != "background") for before, _, _ in made)
                rows.append(
                    f"| {attribute}{kind} | {t:g} | {first} of {len(made)} | {second} of {len(made)} | {shown(others, count)} |"
                )
    return rows


def has(image: Any, scene: world.Scene, attribute: str) -> bool:
    if attribute == "background":
        return world.look(image).background == scene.background
    return world.check(image, scene)[0]


def variation(pipe: Any, conditioner: clipcond.Conditioner, given: argparse.Namespace) -> list[str]:
    rows = ["| strength | objects right | mean change of a pixel, of 255 |", "|---|---|---|"]
    made = [before for before, _, _ in scenes(given, "colour")]
    plain: list[Any] = []
    for strength in VARIATIONS:
        states = [
            conditioner(prompt_of(each), operations=[Vary(strength, at)]).prompt_embeds for at, each in enumerate(made)
        ]
        images = draw(pipe, conditioner, torch.cat(states), given)
        plain = plain or images
        right = sum(sum(world.check(image, scene)) for image, scene in zip(images, made, strict=True))
        change = np.mean(
            [np.abs(np.asarray(a, dtype=float) - np.asarray(b)).mean() for a, b in zip(images, plain, strict=True)]
        )
        rows.append(f"| {strength:g} | {shown(right, 3 * len(made))} | {change:.1f} |")
    return rows


PARTS = {"sliders": sliders, "variation": variation}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--scenes", type=int, default=16)
    options.add_argument("--steps", type=int, default=8)
    options.add_argument("--guidance", type=float, default=2.0)
    options.add_argument("--seed", default="sliders", help="names the held-out set")
    options.add_argument("--only", choices=list(PARTS), action="append")
    given = options.parse_args()
    started = time.perf_counter()

    pipe = clipcond.load_pipeline("mini")
    pipe.set_progress_bar_config(disable=True)
    conditioner = clipcond.Conditioner.from_pipeline(pipe)
    told = [PARTS[name](pipe, conditioner, given) for name in given.only or PARTS]
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers"))
    print(
        f"{date.today()}, `{shlex.join(['python', *sys.argv])}`, {torch.get_num_threads()} threads, {versions}, {given.steps} "
        f"steps, guidance {given.guidance:g}, {time.perf_counter() - started:.0f} s; {given.scenes} scenes of three objects."
    )
    for rows in told:
        print("\n" + "\n".join(rows))


if __name__ == "__main__":
    main()
