"""Objects drawn into the asked cell by regions, judged on the embedded model.

    python benchmarks/regions.py                  # 5 minutes of one thread
    python benchmarks/regions.py --scenes 16

Scenes of one to four objects. The base prompt names the background; each object is a region of one cell of nine, with a prompt
that does not tell the cell: without a place word, which `mini` was never shown and hardly draws, or with all nine places,
which it draws everywhere. For comparison the prompt that names the cell, and all nine places put together by AND, without
regions. Counted are the objects that the judge sees in their cells, and the pictures in which it sees nothing in any other.
"""

from __future__ import annotations

import argparse
import random
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from typing import Any

import torch
from weighting_effect import shown  # the benchmark beside this one

import clipcond
from clipcond.diffusion.compose_denoiser import Composition, composed
from clipcond.mini import world

Prompt = Callable[[world.Object, world.Scene], str]


def everywhere(thing: world.Object, scene: world.Scene) -> str:
    places = ", ".join(f"{thing.colour} {thing.shape} {cell}" for cell in world.CELLS)
    return f"{places}, on a {scene.background} background"


PROMPTS: dict[str, Prompt] = {
    "all nine places named": everywhere,
    "no place named": lambda thing, scene: f"a {thing.colour} {thing.shape}",
    "the cell named": lambda thing, scene: f"a {thing.colour} {thing.shape} in the {thing.cell}",
}


def regional(conditioner: clipcond.Conditioner, scene: world.Scene, prompt: Prompt, feather: float) -> Composition:
    places = [clipcond.Region(prompt=prompt(each, scene), cell=each.cell, feather=feather) for each in scene.objects]
    return conditioner.regions(f"on a {scene.background} background", places)


def together(conditioner: clipcond.Conditioner, scene: world.Scene) -> Composition:
    """AND of as many parts, without regions."""
    return conditioner.compose(" AND ".join(everywhere(each, scene) for each in scene.objects), dialect="a1111")


def draw(pipe: Any, parts: Composition, seed: int, given: argparse.Namespace) -> Any:
    with composed(pipe, parts):
        return pipe(
            **parts.kwargs,
            num_inference_steps=given.steps,
            guidance_scale=given.guidance,
            generator=torch.Generator().manual_seed(seed),
        ).images[0]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--scenes", type=int, default=100)
    options.add_argument("--steps", type=int, default=10)
    options.add_argument("--guidance", type=float, default=2.0)
    options.add_argument("--seed", default="regions", help="names the held-out set")
    given = options.parse_args()
    started = time.perf_counter()

    pipe = clipcond.load_pipeline("mini")
    pipe.set_progress_bar_config(disable=True)
    conditioner = clipcond.Conditioner.from_pipeline(pipe)
    rng = random.Random(given.seed)
    objects, right, clean, grounds = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for number in range(given.scenes):
        scene = world.sample(rng, least=1, most=4)
        made = {f"regions, {name}": regional(conditioner, scene, prompt, 0.0) for name, prompt in PROMPTS.items()}
        made["regions with a feather of 0.1, all nine places named"] = regional(conditioner, scene, everywhere, 0.1)
        made["AND, all nine places named"] = together(conditioner, scene)
        for name, parts in made.items():
            image = draw(pipe, parts, number, given)
            seen = world.look(image)
            objects[name] += len(scene.objects)
            right[name] += sum(world.check(image, scene))
            clean[name] += {each.cell for each in seen.objects} <= {each.cell for each in scene.objects}
            grounds[name] += seen.background == scene.background
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers"))
    print(
        f"{date.today()}, `{shlex.join(['python', *sys.argv])}`, {torch.get_num_threads()} threads, {versions}, {given.steps} "
        f"steps, guidance {given.guidance:g}, {time.perf_counter() - started:.0f} s; {given.scenes} scenes, "
        f"{next(iter(objects.values()))} objects; counts with Wilson's 95 % intervals.\n"
    )
    print("| prompts | object in its cell | nothing elsewhere | background right |\n|---|---|---|---|")
    for name in objects:
        cells = shown(right[name], objects[name]), shown(clean[name], given.scenes), shown(grounds[name], given.scenes)
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
