"""Where each phrase acts in the picture and which do nothing, judged on the embedded model, beside attention maps.

    python benchmarks/word_maps.py                  # 2 minutes of one thread
    python benchmarks/word_maps.py --only places --scenes 16

`places`: captions within 75 tokens of two to nine objects. Of each object that the picture shows, does the map of its words
have its largest mean in the object's cell, one of nine? Beside `clipcond.explain`: cross-attention as DAAM reads it, heads
and layers averaged, summed over the rows of the object's words, and over those and the rows of all later words. Same
pictures, same latents, same steps.
`dead`: phrases that `explain` names as doing nothing. Words of no meaning to `mini` stand between objects; and
captions beyond 75 tokens are left to the stock pipeline, which never reads their end. What the picture does not show, and a
phrase that token 75 goes through, is neither dead nor alive and not counted.
"""

from __future__ import annotations

import argparse
import random
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from importlib.metadata import version
from typing import Any

import torch
from weighting_effect import phrase, shown  # the benchmark beside this one

import clipcond
from clipcond.diffusion.conditioner import Conditioner
from clipcond.diffusion.explain.denoiser_calls import DenoiserCall, recorded, steps_at
from clipcond.diffusion.explain.effects import cells
from clipcond.diffusion.explain.explain import explain_prompt
from clipcond.diffusion.explain.settings import AT, ExplainSettings
from clipcond.mini import world
from clipcond.prompt.tokenizer import CONTENT, tokenize

NONSENSE = ("zxqv florp", "masterpiece", "brillig toves", "volumetric lighting", "qwop", "award winning", "8k uhd", "snarfle",
            "trending on artstation", "grumbly wumpus", "hyperrealistic", "vexil nork")  # fmt: skip


class Recorder:
    """A plain attention processor that keeps the probabilities of cross-attention, by its module's turn."""

    def __init__(self) -> None:
        self.maps: list[torch.Tensor] = []

    def __call__(
        self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor | None = None, **_: Any
    ) -> torch.Tensor:
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key, value = attn.head_to_batch_dim(attn.to_k(text)), attn.head_to_batch_dim(attn.to_v(text))
        shares = attn.get_attention_scores(query, key)
        if encoder_hidden_states is not None:
            self.maps.append(shares.mean(dim=0))  # (positions, tokens), over heads
        out: torch.Tensor = attn.to_out[0](attn.batch_to_head_dim(torch.bmm(shares, value)))
        return out


@contextmanager
def recording(unet: Any) -> Iterator[Recorder]:
    own, recorder = unet.attn_processors, Recorder()
    unet.set_attn_processor(recorder)
    try:
        yield recorder
    finally:
        unet.set_attn_processor(own)


@torch.no_grad()
def attention(pipe: Any, calls: list[DenoiserCall], states: torch.Tensor) -> torch.Tensor:
    """(T, 24, 24): the mean cross-attention to each token, over heads, layers and the steps of the calls."""
    found = []
    for call in calls:
        args, kwargs = call.with_texts(states[None], None)
        with recording(pipe.unet) as recorder:
            pipe.unet(*args, **kwargs)
        for each in recorder.maps:
            side = round(len(each) ** 0.5)
            fine = torch.nn.functional.interpolate(each.T.reshape(1, -1, side, side), size=(24, 24), mode="bilinear")
            found.append(fine[0])
    return torch.stack(found).mean(dim=0)


def captions(count: int, seed: str) -> Iterator[tuple[world.Scene, str, list[tuple[int, int]]]]:
    """Captions within 75 tokens, with the place of each object's words."""
    rng, made = random.Random(seed), 0
    while made < count:
        scene = world.sample(rng, least=2, most=9)
        caption = world.caption(scene, rng, rng.choice(("terse", "plain")))
        if len(tokenize(caption)) <= CONTENT and world.parse(caption) == scene:
            yield scene, caption, [phrase(caption, scene, at) for at in range(len(scene.objects))]
            made += 1


def places(pipe: Any, conditioner: Conditioner, given: argparse.Namespace) -> list[str]:
    right, count, drawn = Counter[str](), 0, 0
    for number, (scene, caption, spans) in enumerate(captions(given.scenes, f"{given.seed}/places")):
        settings = ExplainSettings(
            phrases=tuple(caption[start:end] for start, end in spans), steps=given.steps, seed=number
        )
        with recorded(pipe, steps_at(AT, given.steps)) as calls:  # those of the drawing, which come first
            made = explain_prompt(pipe, caption, conditioner=conditioner, settings=settings)
        verdicts = world.check(made.pictures[0].image, scene)
        heat = attention(pipe, calls, conditioner(caption).prompt_embeds[0])
        tokens = tokenize(caption)
        drawn += len(verdicts)
        for object_, (start, end), shows in zip(scene.objects, spans, verdicts, strict=True):
            if not shows:
                continue
            count += 1
            own = [1 + n for n, token in enumerate(tokens) if token.start < end and start < token.end]
            later = range(own[0], 1 + len(tokens))
            found = {
                "attention of its own rows": heat[own],
                "attention of its own and all later rows": heat[list(later)],
            }
            for name, several in found.items():
                right[name] += best(several.sum(dim=0)) == object_.cell
            place = next(n for n, each in enumerate(made.phrases) if each.start == start)
            right["`explain`"] += best(made.maps[place]) == object_.cell
    better = max(value for name, value in right.items() if name.startswith("attention"))
    ahead = 100 * (right["`explain`"] - better) / count
    return [
        f"{count} of {drawn} objects that the pictures show, in {given.scenes} scenes.",
        "",
        "| map of an object's words | its largest mean is in the object's cell |",
        "|---|---|",
        *(f"| {name} | {shown(right[name], count)} |" for name in sorted(right)),
        f"| `explain` ahead of the better attention map | {ahead:.0f} points |",
    ]


def best(one: torch.Tensor) -> str:
    return world.CELLS[int(cells(one[None])[0].flatten().argmax())]


def dead(pipe: Any, conditioner: Conditioner, given: argparse.Namespace) -> list[str]:
    rows = ["| phrases that do nothing | alive | dead | named | precision | recall |", "|---|---|---|---|---|---|"]
    for name, verdicts in (
        ("words of no meaning, beside 2 to 6 objects", list(meaningless(pipe, conditioner, given, 2, 6))),
        ("words of no meaning, beside 7 to 9 objects", list(meaningless(pipe, conditioner, given, 7, 9))),
        ("cut off by the stock pipeline", list(cut_off(pipe, given))),
    ):
        truly = sum(is_dead for is_dead, _ in verdicts)
        named = sum(said for _, said in verdicts)
        both = sum(is_dead and said for is_dead, said in verdicts)
        rows.append(
            f"| {name} | {len(verdicts) - truly} | {truly} | {named} | {shown(both, named)} | {shown(both, truly)} |"
        )
    return rows


def meaningless(
    pipe: Any, conditioner: Conditioner, given: argparse.Namespace, least: int, most: int
) -> Iterator[tuple[bool, bool]]:
    """(is dead, was named dead) of each phrase of captions with words of no meaning strewn in."""
    rng = random.Random(f"{given.seed}/dead {least} to {most}")
    for number in range(given.scenes // 2):
        scene = world.sample(rng, least=least, most=most)
        said = [f"a {each.colour} {each.shape} at the {each.cell}" for each in scene.objects]
        phrases = [(text, object_) for text, object_ in zip(said, scene.objects, strict=True)]
        mixed: list[tuple[str, world.Object | None]] = list(phrases)
        for text in rng.sample(NONSENSE, rng.randint(1, 3)):
            mixed.insert(rng.randint(0, len(mixed)), (text, None))
        prompt = ", ".join([text for text, _ in mixed] + [f"on a {scene.background} background"])
        settings = ExplainSettings(steps=given.steps, seed=number)
        made = explain_prompt(pipe, prompt, conditioner=conditioner, settings=settings)
        picture = made.pictures[0].image
        shows = dict(zip(said, world.check(picture, scene), strict=True))
        for each in made.phrases:
            if shows.get(each.text, each.text in NONSENSE or world.look(picture).background == scene.background):
                yield each.text in NONSENSE, each.dead


def cut_off(pipe: Any, given: argparse.Namespace) -> Iterator[tuple[bool, bool]]:
    """(is dead, was named dead) of each phrase of captions beyond 75 tokens, read by the stock pipeline."""
    rng, made = random.Random(f"{given.seed}/cut"), 0
    while made < given.scenes // 2:
        scene = world.sample(rng, least=7, most=9)
        said = [
            f"a {each.colour} {each.shape} placed very carefully in the {each.cell} of the picture"
            for each in scene.objects
        ]
        prompt = ", ".join(said)
        tokens = tokenize(prompt)
        if len(tokens) <= CONTENT:
            continue
        border = tokens[CONTENT].start
        settings = ExplainSettings(steps=given.steps, seed=made, stock=True)
        explained = explain_prompt(pipe, prompt, settings=settings)
        shows = world.check(explained.pictures[0].image, scene)
        made += 1
        for each, text, shown_ in zip(explained.phrases, said, shows, strict=True):
            assert each.text == text
            if each.start >= border or (each.end <= border and shown_):
                yield each.start >= border, each.dead


def told(what: str) -> None:
    print(f"{what}: {time.perf_counter() - STARTED:.0f} s", file=sys.stderr, flush=True)


PARTS = {"places": places, "dead": dead}
STARTED = time.perf_counter()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--scenes", type=int, default=48, help="captions; half of them of each kind of dead phrases")
    options.add_argument("--steps", type=int, default=10)
    options.add_argument("--seed", default="word maps", help="names the held-out set")
    options.add_argument("--only", choices=list(PARTS), action="append")
    given = options.parse_args()

    from clipcond.runtime.quiet import quiet_calls

    pipe = clipcond.load_pipeline("mini")
    pipe.set_progress_bar_config(disable=True)
    conditioner = Conditioner.from_pipeline(pipe)
    told_rows = {}
    with quiet_calls():
        for name in given.only or PARTS:
            told_rows[name] = PARTS[name](pipe, conditioner, given)
            told(name)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers"))
    print(
        f"{date.today()}, `{shlex.join(['python', *sys.argv])}`, {torch.get_num_threads()} threads, {versions}, "
        f"{given.steps} steps, {time.perf_counter() - STARTED:.0f} s; counts with Wilson's 95 % intervals."
    )
    for rows in told_rows.values():
        print("\n" + "\n".join(rows))


if __name__ == "__main__":
    main()
