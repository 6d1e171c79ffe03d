"""What chunk borders and unequal lengths do to pictures, judged object by object from pixels on the embedded model.

    python benchmarks/chunking_effect.py            # 22 minutes on one thread of a busy machine
    python benchmarks/chunking_effect.py --only borders --scenes 32

`borders`: captions of four to nine objects with a phrase across token 75 or 150, under each chunking policy; every phrase
stands in brackets of weight 1, `(a red star at the top left:1)`, so that policies that look at groups see one.
`lengths`: prompt and negative prompt of different chunk counts, brought to one length in each of three ways. The U-Net is
given the mask by a hook, since no Stable Diffusion pipeline of diffusers passes one on. Same noise everywhere.
"""

from __future__ import annotations

import argparse
import random
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from math import lcm
from typing import Any

import numpy as np
import torch
from PIL import Image
from weighting_effect import phrase, shown  # the benchmark beside this one

import clipcond
from clipcond.condition.lengths import LENGTHS, mask_to, pad_with, repeat_to
from clipcond.mini import world
from clipcond.prompt.chunking import POLICIES
from clipcond.prompt.plan import plan
from clipcond.prompt.tokenizer import CONTENT, token_ids, tokenize

LEAST, MOST, BATCH = 4, 9, 16  # objects a caption, captions a batch
# chunks of the prompt and of the negative prompt
PAIRS = ((1, 2), (1, 3), (2, 1), (2, 3))


@dataclass(frozen=True)
class Case:
    """A scene, its caption with every phrase in brackets, the places of the phrases, and which of them lie across a border.

    The borders are those of a cut every 75 tokens.
    """

    scene: world.Scene
    prompt: str
    spans: tuple[tuple[int, int], ...]
    straddling: frozenset[int]


def straddling(count: int, seed: str) -> list[Case]:
    """Captions of two or three chunks with a phrase across a border, were they cut every 75 tokens."""
    rng, found = random.Random(f"{seed}/borders"), list[Case]()
    while len(found) < count:
        scene = world.sample(rng, least=LEAST, most=MOST)
        caption = world.caption(scene, rng, "wordy")
        tokens = tokenize(caption)
        spans = [phrase(caption, scene, at) for at in range(len(scene.objects))]
        borders = [tokens[at].start for at in range(CONTENT, len(tokens), CONTENT)]
        if through := crossed(spans, borders):
            prompt, places = bracketed(caption, spans)
            found.append(Case(scene, prompt, places, through))
    return found


def crossed(spans: Sequence[tuple[int, int]], borders: Sequence[int]) -> frozenset[int]:
    """The spans that a border goes through."""
    return frozenset(at for at, (start, end) in enumerate(spans) if any(start < border < end for border in borders))


def bracketed(caption: str, spans: Sequence[tuple[int, int]]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The caption with `(…:1)` around each span, and where the spans are now."""
    prompt, at, places = "", 0, []
    for start, end in spans:
        prompt += caption[at:start] + "("
        places.append((len(prompt), len(prompt) + end - start))
        prompt += caption[start:end] + ":1)"
        at = end
    return prompt + caption[at:], tuple(places)


def cut(case: Case, chunking: str) -> tuple[int, frozenset[int]]:
    """How many chunks the prompt has under a policy, and the objects whose phrase a border goes through."""
    chunks = plan(case.prompt, dialect="a1111", chunking=chunking).encoders["clip_l"].chunks
    return len(chunks), crossed(case.spans, [chunk.tokens[0].start for chunk in chunks[1:]])


def borders(pipe: Any, conditioner: Any, given: argparse.Namespace) -> list[str]:
    chosen = straddling(given.scenes, given.seed)
    across = sum(len(case.straddling) for case in chosen)
    rest = sum(len(case.scene.objects) for case in chosen) - across
    rows = [
        "| chunking | chunks a caption | phrases cut | their objects: right"
        " | objects across token 75 or 150: right | all others: right |",
        "|---|---|---|---|---|---|",
    ]
    for chunking in POLICIES:
        laid = [cut(case, chunking) for case in chosen]
        ordered = sorted(
            range(len(chosen)), key=lambda number: laid[number][0]
        )  # of one length together: none is repeated
        right = Counter[str]()
        for some in batches(ordered):
            prompts = [chosen[number].prompt for number in some]
            asked = conditioner(prompts, dialect="a1111", weighting="none", chunking=chunking).kwargs
            for number, image in zip(some, pictures(pipe, asked, some, given), strict=True):
                for at, verdict in enumerate(world.check(image, chosen[number].scene)):
                    right["cut"] += verdict and at in laid[number][1]
                    right["across" if at in chosen[number].straddling else "rest"] += verdict
        count = sum(len(through) for _, through in laid)
        rows.append(
            f"| `{chunking}` | {sum(chunks for chunks, _ in laid) / len(laid):.2f} | {count} |"
            f" {shown(right['cut'], count) if count else '–'} | {shown(right['across'], across)} | {shown(right['rest'], rest)} |"
        )
        told(chunking)
    return [
        f"{len(chosen)} captions of {LEAST} to {MOST} objects;"
        f" {across} of their {across + rest} phrases lie across token 75 or 150.",
        "",
        *rows,
    ]


def captions(chunks: int, count: int, seed: str) -> list[tuple[world.Scene, str]]:
    """Scenes with a caption of so many chunks."""
    rng, found = random.Random(f"{seed}/{chunks}"), list[tuple[world.Scene, str]]()
    while len(found) < count:
        scene = world.sample(rng, least=LEAST, most=MOST)
        caption = world.caption(scene, rng, "plain" if chunks == 1 else "wordy")
        if -(-len(token_ids(caption)) // CONTENT) == chunks:
            found.append((scene, caption))
    return found


def lengths(pipe: Any, conditioner: Any, given: argparse.Namespace) -> list[str]:
    columns = [f"`{way}`: objects right" for way in LENGTHS] + [f"`{way}`: away from `lcm`" for way in LENGTHS[1:]]
    rows = ["| chunks of prompt, negative prompt | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]

    def states(texts: list[str]) -> torch.Tensor:
        embeds: torch.Tensor = conditioner(texts, negative_prompt="").kwargs["prompt_embeds"]
        return embeds

    empty = states([""])[0]
    for pair in PAIRS:
        chosen = captions(pair[0], given.scenes, given.seed)
        against = [text for _, text in captions(pair[1], given.scenes, f"{given.seed}/negative")] if pair[1] > 1 else []
        right, away = Counter[str](), Counter[str]()
        for numbers in batches(range(len(chosen))):
            prompt = states([chosen[number][1] for number in numbers])
            negative = states([against[number] if against else "" for number in numbers])
            exact: list[Image.Image] = []
            for way in LENGTHS:
                asked, mask = equal(prompt, negative, empty, way)
                with masked(pipe.unet, mask) if mask is not None else nullcontext():
                    images = pictures(pipe, asked, numbers, given)
                exact = exact or images
                right[way] += sum(
                    sum(world.check(image, chosen[at][0])) for at, image in zip(numbers, images, strict=True)
                )
                away[way] += sum(apart(image, other) for image, other in zip(images, exact, strict=True))
        seen = sum(len(scene.objects) for scene, _ in chosen)
        cells = [shown(right[way], seen) for way in LENGTHS] + [
            f"{away[way] / given.scenes:.3f}" for way in LENGTHS[1:]
        ]
        rows.append(f"| {pair[0]}, {pair[1]} ({seen} objects) | " + " | ".join(cells) + " |")
        told(f"{pair[0]} against {pair[1]} chunks")
    return [
        f"{given.scenes} captions a row, of {LEAST} to {MOST} objects; a negative prompt of one chunk is empty, longer ones",
        "describe other scenes. Away: mean absolute difference of the pictures' pixels, of 255.",
        "",
        *rows,
    ]


def apart(image: Image.Image, other: Image.Image) -> float:
    """The mean absolute difference of two pictures' pixels."""
    return float(np.abs(np.asarray(image, dtype=float) - np.asarray(other, dtype=float)).mean())


def equal(
    prompt: torch.Tensor, negative: torch.Tensor, empty: torch.Tensor, way: str
) -> tuple[dict[str, Any], torch.Tensor | None]:
    """What the pipeline takes for (prompt, negative prompt) states (B, T, D) at one length, and the U-Net's mask."""
    masks, sides = None, (prompt, negative)
    if way == "lcm":
        length = lcm(*(side.shape[1] for side in sides))
        prompt, negative = (repeat_to(side, length) for side in sides)
    elif way == "mask":
        length = max(side.shape[1] for side in sides)
        (prompt, visible), (negative, negative_visible) = (mask_to(side, length) for side in sides)
        masks = torch.cat([negative_visible, visible])  # the order of the pipeline
    else:
        length = max(side.shape[1] for side in sides)
        prompt, negative = (pad_with(side, empty, length) for side in sides)
    return {"prompt_embeds": prompt, "negative_prompt_embeds": negative}, masks


@contextmanager
def masked(unet: torch.nn.Module, mask: torch.Tensor) -> Iterator[None]:
    """Give the U-Net an encoder_attention_mask on every call."""

    def add(
        _: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, kwargs | {"encoder_attention_mask": mask}

    handle = unet.register_forward_pre_hook(add, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def batches(cases: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for at in range(0, len(cases), BATCH):
        yield cases[at : at + BATCH]


def pictures(pipe: Any, asked: dict[str, Any], numbers: Sequence[int], given: argparse.Namespace) -> list[Image.Image]:
    """One picture a prompt; its noise depends on the number of its case alone."""
    images: list[Image.Image] = pipe(
        **asked, **given.how, generator=[torch.Generator().manual_seed(number) for number in numbers]
    ).images
    return images


def told(what: str) -> None:
    print(f"{what}: {time.perf_counter() - STARTED:.0f} s", file=sys.stderr, flush=True)


PARTS = {"borders": borders, "lengths": lengths}
STARTED = time.perf_counter()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--scenes", type=int, default=96, help="captions of each kind")
    options.add_argument("--steps", type=int, default=10)
    options.add_argument("--seed", default="chunking effect", help="names the held-out set")
    options.add_argument("--only", choices=list(PARTS), action="append")
    given = options.parse_args()

    from clipcond.diffusion.pipelines import advice

    pipe = clipcond.load_pipeline("mini")
    pipe.set_progress_bar_config(disable=True)
    given.how = {"num_inference_steps": given.steps, "guidance_scale": advice(pipe).guidance_scale}
    conditioner = clipcond.Conditioner.from_pipeline(pipe)
    told_rows = {name: PARTS[name](pipe, conditioner, given) for name in given.only or PARTS}
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers"))
    print(
        f"{date.today()}, `{shlex.join(['python', *sys.argv])}`, {torch.get_num_threads()} threads, {versions},"
        f" {given.steps} steps, guidance {given.how['guidance_scale']:g}, "
        f"{time.perf_counter() - STARTED:.0f} s; counts with Wilson's 95 % intervals."
    )
    for rows in told_rows.values():
        print("\n" + "\n".join(rows))


if __name__ == "__main__":
    main()
