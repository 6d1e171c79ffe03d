"""Train both towers of the scorer together, on scenes that differ in one object.

    python recipes/mini/scorer.py --text runs/mini/scorer-text/final --image runs/mini/scorer-image/final

A batch is groups of scenes: one, and others in which one object has another colour, shape or place. Every picture is compared
with every caption both ways, so the hard negatives of a pair stand beside it, as pictures and as captions. A long caption is
what a scorer makes of it: the mean of its chunks of 75 tokens, weighted by their tokens.
The code of `meeting_code.py` stays as a second
target, also for pictures from `scorer_pictures.py`. The temperature is fixed. Starts again where it stopped; the result is
`<out>/final`, an open_clip folder for `pack.py --scorer`.
"""

from __future__ import annotations

import argparse
import math
import random
from pathlib import Path
from typing import Any

import meeting_code as code
import torch
from torch import Tensor, nn

from clipcond.runtime.torchvision_repair import repair

repair()

import scorer_image
import scorer_text
from common import HELD_OUT_SEED, Average, Run, pixels, warmup_cosine
from open_clip import CLIP
from scorer_image import Pool, degraded

from clipcond.mini import world
from clipcond.models.open_clip_folder import read_config, read_open_clip_folder, write_open_clip_folder
from clipcond.prompt.tokenizer import CONTENT, tokenize

LOGIT_SCALE = 30.0


def groups(seed: int | str, step: int, count: int, variants: int) -> tuple[list[world.Scene], random.Random]:
    """`count` scenes, each followed by `variants` − 1 others that differ from it in one object, none twice."""
    rng, scenes = random.Random(f"{seed}/{step}"), list[world.Scene]()
    for _ in range(count):
        first = world.sample(rng)
        others = {(first.background, frozenset(first.objects)): first}
        while len(others) < variants:
            other = world.one_changed(first, rng)
            others[other.background, frozenset(other.objects)] = other
        scenes += others.values()
    return scenes, rng


def encode_captions(model: CLIP, captions: list[str]) -> tuple[Tensor, Tensor, list[code.Known]]:
    """(B, P) vectors as the scorer makes them, (C, P) unit vectors of all chunks, and what these say."""
    rows: list[list[int]] = []
    known: list[code.Known] = []
    owners: list[int] = []
    for number, caption in enumerate(captions):
        tokens = tokenize(caption, "openai")
        starts = range(CONTENT, len(tokens), CONTENT)
        rows += [[token.id for token in tokens[k : k + CONTENT]] for k in (0, *starts)]
        known += code.of_caption(caption, [tokens[k].start for k in starts])
        owners += [number] * (1 + len(starts))
    with torch.autocast("cpu", torch.bfloat16):
        chunks = scorer_text.encode(model, rows)
    chunks = chunks.float()
    weights = torch.zeros(len(captions), len(rows))
    weights[owners, range(len(rows))] = torch.tensor([float(len(row)) for row in rows])
    return (weights / weights.sum(1, keepdim=True)) @ chunks, chunks, known


def contrast(pictures: Tensor, texts: Tensor) -> Tensor:
    """Symmetric cross-entropy of each pair against all others of the batch."""
    scores, truth = LOGIT_SCALE * pictures @ texts.T, torch.arange(len(texts))
    return (nn.functional.cross_entropy(scores, truth) + nn.functional.cross_entropy(scores.T, truth)) / 2


@torch.no_grad()
def measure(model: CLIP, count: int = 60) -> dict[str, float]:
    """Share of held-out captions whose picture is first among 16 that differ in one object, by kind of caption."""
    found = {}
    for words in ("terse", "wordy"):
        scenes, rng = groups(f"{HELD_OUT_SEED}/{words}", 0, count, 16)
        texts, _, _ = encode_captions(model, [world.caption(scene, rng, words) for scene in scenes[::16]])
        pictures = scorer_image.encode(model.visual, pixels([world.render(scene, rng) for scene in scenes]))
        scores = torch.einsum("gvp,gp->gv", pictures.unflatten(0, (count, 16)), texts)
        found[f"first_{words}"] = round(float((scores.argmax(1) == 0).float().mean()), 4)
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--text", type=Path, default=Path("runs/mini/scorer-text/final"))
    options.add_argument("--image", type=Path, default=Path("runs/mini/scorer-image/final"))
    options.add_argument("--pictures", type=Path, help="the folder of scorer_pictures.py")
    options.add_argument("--out", type=Path, default=Path("runs/mini/scorer"))
    options.add_argument("--steps", type=int, default=500)
    options.add_argument("--groups", type=int, default=6)
    options.add_argument("--variants", type=int, default=6)
    options.add_argument("--rate", type=float, default=2e-4)
    options.add_argument("--seed", type=int, default=8)
    options.add_argument("--threads", type=int, default=1)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)

    model, config, pool = read_open_clip_folder(given.text), read_config(given.text), Pool(given.pictures)
    visual: Any = model.visual
    visual.load_state_dict(read_open_clip_folder(given.image).visual.state_dict())
    with torch.no_grad():
        model.logit_scale.fill_(math.log(LOGIT_SCALE))
    own = [*visual.parameters(), *scorer_text.own_parameters(model)]
    optimizer = torch.optim.AdamW(own, lr=given.rate, betas=(0.9, 0.98), weight_decay=0.02)
    average = Average(model, 0.995)
    run = Run(given.out, model=model, optimizer=optimizer, average=average)
    if run.step == 0:
        run.log(start=measure(model))
    total = 0.0
    for step in run.steps(given.steps, save_every=50):
        optimizer.param_groups[0]["lr"] = warmup_cosine(step, given.steps, given.rate, warmup=30)
        scenes, rng = groups(given.seed, step, given.groups, given.variants)
        words = rng.choices(("terse", "plain", "wordy"), (2, 3, 4))[0]
        texts, chunks, said = encode_captions(model, [world.caption(scene, rng, words) for scene in scenes])
        drawn = [degraded(world.render(scene, rng), rng) for scene in scenes]
        shown = [code.of_scene(scene) for scene in scenes]
        more = [pool.draw(rng) for _ in range(len(scenes) // 3)] if pool.shards else []
        unit = scorer_image.encode(visual, pixels([*drawn, *(picture for picture, _ in more)]))
        loss = contrast(unit[: len(scenes)], texts)
        loss = loss + 0.5 * code.reading(unit, [*shown, *(seen for _, seen in more)]).loss()
        loss = loss + 0.5 * code.reading(chunks, said).loss()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(own, 1.0)
        optimizer.step()
        average.update(model)
        total += float(loss.detach())
        if (step + 1) % 50 == 0:
            run.log(loss=round(total / 50, 4), **(measure(model) if (step + 1) % 100 == 0 else {}))
            total = 0.0
    average.copy_to(model)
    run.log(final=measure(model, 200))
    write_open_clip_folder(model, config, given.out / "final")


if __name__ == "__main__":
    main()
