"""Give the scorer's text tower two layers more, and teach its EOS state to say all that a text names.

    python recipes/mini/scorer_text.py --text clipcond/mini/weights/clip --out runs/mini/scorer-text

The first four layers stay as they are: the pipeline reads their states, and the tower stays one tower that a pipeline reads
before its last layers, as Stable Diffusion 2 does. What is learned is to bring what the states say to the end: the target is
the code of `meeting_code.py` for whole captions, chunks of long ones, phrases, and texts that name no place. No picture is
needed. Starts again where it stopped; the result is `<out>/final`, an open_clip folder.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import meeting_code as code
import torch
from torch import Tensor, nn

from clipcond.runtime.torchvision_repair import repair

repair()

from common import HELD_OUT_SEED, Run, warmup_cosine
from open_clip import CLIP
from text_tower import BOS, EOS

from clipcond.mini import world
from clipcond.models.open_clip_folder import read_config, read_open_clip_folder, write_open_clip_folder
from clipcond.prompt.tokenizer import CONTENT, token_ids, tokenize
from clipcond.rerank.phrases import split_phrases

READ_BY_THE_PIPELINE = 4  # layers; those behind them are the scorer's own
KINDS = {"terse": 4, "plain": 5, "wordy": 6, "phrases": 3, "no place": 2}  # of a training step's texts
_LOOSE = ("{c} {s}", "a {c} {s}", "there is a {c} {s}", "a {s} in {c}", "a nice {c} {s}", "the {s} is {c}")
_LOOSE_GROUND = ("on a {g} background", "{g} background", "a {g} backdrop", "in front of {g}")

Piece = tuple[list[int], code.Known]


def build(folder: Path, layers: int) -> tuple[CLIP, dict[str, Any]]:
    """The folder's model with text layers up to `layers` that change nothing yet, and its config."""
    small, config = read_open_clip_folder(folder), read_config(folder)
    config["model_cfg"]["text_cfg"]["layers"] = layers
    model = CLIP(**config["model_cfg"])
    model.load_state_dict(small.state_dict(), strict=False)
    for block in model.transformer.resblocks[len(small.transformer.resblocks) :]:
        for last in (block.attn.out_proj, block.mlp.c_proj):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
    return model, config


def in_pieces(caption: str, rng: random.Random) -> list[Piece]:
    """A caption as the scorer cuts it, or cut at a random size; each piece with what it says."""
    tokens = tokenize(caption, "openai")
    size = CONTENT if rng.random() < 0.7 else rng.randint(10, CONTENT)
    starts = range(size, len(tokens), size)
    ids, known = [token.id for token in tokens], code.of_caption(caption, [tokens[k].start for k in starts])
    return [(ids[k : k + size], said) for k, said in zip([0, *starts], known, strict=True)]


def in_phrases(caption: str, _rng: random.Random) -> list[Piece]:
    return [(token_ids(phrase, "openai"), code.of_caption(phrase, [])[0]) for phrase in split_phrases(caption)]


def without_places(scene: world.Scene, rng: random.Random) -> list[Piece]:
    """A text that names up to three objects, or a colour or shape of one, and no place."""
    known, parts = code.Known.nothing(), []
    for thing in scene.objects[: rng.choice((1, 1, 1, 2, 3))]:
        said = world.caption(world.Scene(scene.background, (thing,)), rng, "plain")
        words = {kind: said[place] for kind, _, place in world.mentions(said)}
        pattern = rng.choice(_LOOSE) if rng.random() < 0.85 else rng.choice(("{c}", "a {s}", "{s}", "something {c}"))
        parts.append(pattern.format(c=words["colour"], s=words["shape"]))
        known.add(thing.colour if "{c}" in pattern else None, thing.shape if "{s}" in pattern else None, None)
        if rng.random() < 0.25:
            parts.append(rng.choice(_LOOSE_GROUND).format(g=words["background"]))
            known.background = code.GROUNDS.index(scene.background)
            break
    return [(token_ids(", ".join(parts), "openai"), known)]


def pieces(seed: int | str, step: int, count: int) -> list[Piece]:
    """`count` texts of one kind: a pure function of (seed, step)."""
    rng = random.Random(f"{seed}/{step}")
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    cut: Callable[[str, random.Random], list[Piece]] = in_phrases if kind == "phrases" else in_pieces
    if kind in ("phrases", "no place"):
        count *= 3  # they are short
    found: list[Piece] = []
    while len(found) < count:
        scene = world.sample(rng)
        if kind == "no place":
            found += without_places(scene, rng)
        else:
            found += cut(
                world.caption(scene, rng, rng.choice(("terse", "plain", "wordy")) if kind == "phrases" else kind), rng
            )
    return [piece for piece in found[:count] if len(piece[0]) <= CONTENT]


def encode(model: CLIP, rows: list[list[int]]) -> Tensor:
    """Rows of up to 75 content ids to (N, P) unit vectors; only the scorer's own layers take gradients."""
    length = max(map(len, rows)) + 2
    tokens = torch.tensor([[BOS, *row, *[EOS] * (length - 1 - len(row))] for row in rows])
    mask = model.attn_mask[:length, :length]
    with torch.no_grad():
        x = model.token_embedding(tokens) + model.positional_embedding[:length]
        for block in model.transformer.resblocks[:READ_BY_THE_PIPELINE]:
            x = block(x, attn_mask=mask)
    for block in model.transformer.resblocks[READ_BY_THE_PIPELINE:]:
        x = block(x, attn_mask=mask)
    at_eos = x[torch.arange(len(rows)), torch.tensor([len(row) + 1 for row in rows])]
    return nn.functional.normalize(model.ln_final(at_eos) @ model.text_projection, dim=-1)


def own_parameters(model: CLIP) -> list[nn.Parameter]:
    return [*model.transformer.resblocks[READ_BY_THE_PIPELINE:].parameters(), model.text_projection]


def fit_projection(model: CLIP, seed: int | str, count: int = 4000) -> None:
    """Start from the projection that meets the code best in the least squares: nothing is to be unlearned."""
    with torch.no_grad():
        model.text_projection.copy_(torch.eye(len(model.text_projection)))
        states, wanted, step = [], [], 0
        while sum(map(len, states)) < count:
            some = pieces(f"{seed}/projection", step, 128)
            states.append(encode(model, [ids for ids, _ in some]))
            wanted.append(code.vectors([known for _, known in some]))
            step += 1
        x, y = torch.cat(states).double(), torch.cat(wanted).double()
        model.text_projection.copy_(torch.linalg.solve(x.T @ x + 1e-3 * torch.eye(x.shape[1]), x.T @ y))


@torch.no_grad()
def measure(model: CLIP, steps: int = 12) -> dict[str, float]:
    """Over held-out texts: cosine with the code, and the share of named colours and shapes read right."""
    seen = []
    for step in range(steps):
        some = pieces(HELD_OUT_SEED, step, 64)
        known = [said for _, said in some]
        seen.append(code.reading(encode(model, [ids for ids, _ in some]), known).summary())
    return {name: round(sum(each[name] for each in seen) / steps, 4) for name in seen[0]}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--text", type=Path, default=Path("runs/mini/dual/model"), help="the dual encoder to start from"
    )
    options.add_argument("--out", type=Path, default=Path("runs/mini/scorer-text"))
    options.add_argument("--layers", type=int, default=READ_BY_THE_PIPELINE + 2)
    options.add_argument("--steps", type=int, default=2000)
    options.add_argument("--batch", type=int, default=64)
    options.add_argument("--rate", type=float, default=1.5e-3)
    options.add_argument("--seed", type=int, default=5)
    options.add_argument("--threads", type=int, default=1)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)

    model, config = build(given.text, given.layers)
    own = own_parameters(model)
    optimizer = torch.optim.AdamW(own, lr=given.rate, betas=(0.9, 0.98), weight_decay=0.01)
    run = Run(given.out, model=model, optimizer=optimizer)
    if run.step == 0:
        fit_projection(model, given.seed)
        run.log(start=measure(model))
    total = 0.0
    for step in run.steps(given.steps, save_every=100):
        optimizer.param_groups[0]["lr"] = warmup_cosine(step, given.steps, given.rate, warmup=100)
        some = pieces(given.seed, step, given.batch)
        with torch.autocast("cpu", torch.bfloat16):
            vectors = encode(model, [ids for ids, _ in some])
        loss = code.reading(vectors.float(), [known for _, known in some]).loss()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(own, 1.0)
        optimizer.step()
        total += float(loss.detach())
        if (step + 1) % 100 == 0:
            run.log(loss=round(total / 100, 4), **measure(model))
            total = 0.0
    write_open_clip_folder(model, config, given.out / "final")


if __name__ == "__main__":
    main()
