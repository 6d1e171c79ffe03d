"""Warm up the text tower: learn to read scenes from captions before a single picture is seen.

    python recipes/mini/text_tower.py --steps 4000 --out runs/mini/text

Contrastive training gives one number per pair; reading gives up to nineteen labels per caption, and needs no picture. Ten learned
queries (nine cells and the background) attend to the token states of one to three chunks, as a U-Net will, and a second head
reads the same from the state at EOS alone, as contrastive training will. Chunks are cut at random sizes, so the tower meets
many fragments that start in mid-caption. The two heads are thrown away; the result is `<out>/final`, an open_clip folder.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from clipcond.runtime.torchvision_repair import repair

repair()

from common import HELD_OUT_SEED, Run, warmup_cosine
from open_clip import CLIP, get_tokenizer
from safetensors.torch import save_file

from clipcond.mini import world

CONFIG = Path(__file__).parent / "clip" / "open_clip_config.json"
BOS, EOS = 49406, 49407
ABSENT = -100
_encode = get_tokenizer("ViT-B-32").encode


def build() -> CLIP:
    return CLIP(**json.loads(CONFIG.read_text())["model_cfg"])


def states(model: CLIP, tokens: Tensor) -> Tensor:
    """(N, L) ids to (N, L, D) token states after the final norm; L may be shorter than 77, the tower is causal."""
    length = tokens.shape[1]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    return model.ln_final(x)


class Readout(nn.Module):
    """Colour, shape and presence of each cell, and the background, by attention over token states or from one state."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(10, width) * 0.5)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.cells, self.background = nn.Linear(width, 15), nn.Linear(width, 4)
        self.single = nn.Linear(width, 9 * 15 + 4)

    def forward(self, rows: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """rows: (B, T, D), hidden: (B, T) true where there is nothing. Gives (B, 9, 15) and (B, 4)."""
        queries = self.queries.expand(len(rows), -1, -1)
        seen, _ = self.attention(queries, rows, rows, key_padding_mask=hidden, need_weights=False)
        return self.cells(seen[:, :9]), self.background(seen[:, 9])

    def from_one(self, state: Tensor) -> tuple[Tensor, Tensor]:
        out = self.single(state)
        return out[:, : 9 * 15].unflatten(1, (9, 15)), out[:, 9 * 15 :]


@dataclass(frozen=True, slots=True)
class Batch:
    tokens: Tensor  # (C, L) chunks of all captions
    owner: Tensor  # (B, K) index of each caption's chunks in `tokens`, -1 where there is none
    colours: Tensor  # (B, 9)
    shapes: Tensor  # (B, 9)
    present: Tensor  # (B, 9)
    background: Tensor  # (B,)


def batch(seed: int | str, step: int, count: int) -> Batch:
    rng = random.Random(f"{seed}/{step}")
    words = rng.choices(("terse", "plain", "wordy"), (4, 4, 3))[0]
    drawn = [world.sample(rng) for _ in range(count)]
    size = 75 if rng.random() < 0.5 else rng.randint(25, 74)
    chunks: list[list[int]] = []
    owner = torch.full((count, 3), -1)
    for row, scene in enumerate(drawn):
        ids = _encode(world.caption(scene, rng, words))
        own_size = max(size, -(-len(ids) // 3))
        for k in range(0, len(ids), own_size):
            owner[row, k // own_size] = len(chunks)
            chunks.append([BOS, *ids[k : k + own_size], EOS])
    length = min(77, max(map(len, chunks)) + rng.randint(0, 8))
    tokens = torch.tensor([chunk + [EOS] * (length - len(chunk)) for chunk in chunks])
    colours, shapes = torch.full((2, count, 9), ABSENT)
    present = torch.zeros(count, 9)
    for row, scene in enumerate(drawn):
        for thing in scene.objects:
            cell = world.CELLS.index(thing.cell)
            colours[row, cell] = list(world.COLOURS).index(thing.colour)
            shapes[row, cell] = world.LAYOUTS.index(thing.shape)
            present[row, cell] = 1
    background = torch.tensor([list(world.BACKGROUNDS).index(scene.background) for scene in drawn])
    return Batch(tokens, owner, colours, shapes, present, background)


def read(model: CLIP, readout: Readout, data: Batch) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor]:
    """Both readings, and the rows (captions of one chunk) that the second one is for."""
    every = states(model, data.tokens)
    own = every[data.owner.clamp(min=0)]  # (B, 3, L, D)
    absent = (data.owner < 0)[:, :, None].expand(-1, -1, every.shape[1])
    by_attention = readout(own.flatten(1, 2), absent.flatten(1))
    single = (data.owner[:, 1] < 0).nonzero().squeeze(1)
    first = data.owner[single, 0]
    at_eos = every[first, (data.tokens[first] == EOS).int().argmax(1)]
    return by_attention, readout.from_one(at_eos), single


def loss_of(reading: tuple[Tensor, Tensor], data: Batch, rows: Tensor) -> Tensor:
    cells, background = reading
    cross, absent = nn.functional.cross_entropy, ABSENT
    return (
        cross(cells[..., :8].flatten(0, 1), data.colours[rows].flatten(), ignore_index=absent)
        + cross(cells[..., 8:14].flatten(0, 1), data.shapes[rows].flatten(), ignore_index=absent)
        + nn.functional.binary_cross_entropy_with_logits(cells[..., 14], data.present[rows])
        + 0.3 * cross(background, data.background[rows])
    )


@torch.no_grad()
def measure(model: CLIP, readout: Readout) -> dict[str, float]:
    """Share of held-out objects read right (colour, shape and presence) by attention and from EOS alone."""
    right = {"attention": [0, 0], "eos": [0, 0]}
    for step in range(6):
        data = batch(HELD_OUT_SEED, step, 100)
        by_attention, at_eos, single = read(model, readout, data)
        for name, (cells, _), rows in (("attention", by_attention, torch.arange(100)), ("eos", at_eos, single)):
            good = (
                (cells[..., :8].argmax(-1) == data.colours[rows])
                & (cells[..., 8:14].argmax(-1) == data.shapes[rows])
                & (cells[..., 14] > 0)
            )[data.present[rows] > 0]
            right[name][0] += int(good.sum())
            right[name][1] += good.numel()
    return {name: round(good / max(1, count), 4) for name, (good, count) in right.items() if count}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, default=Path("runs/mini/text"))
    options.add_argument("--steps", type=int, default=4000)
    options.add_argument("--stop", type=int, help="end here; the learning rate follows --steps all the same")
    options.add_argument("--batch", type=int, default=64)
    options.add_argument("--rate", type=float, default=1.5e-3)
    options.add_argument("--seed", type=int, default=2)
    options.add_argument("--threads", type=int, default=2)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)

    model, readout = build(), Readout()
    text = [
        model.positional_embedding,
        *model.transformer.parameters(),
        *model.ln_final.parameters(),
        *readout.parameters(),
    ]
    optimizer = torch.optim.AdamW(text, lr=given.rate, betas=(0.9, 0.98), weight_decay=0.01)
    # The table is large and a step touches a few hundred rows of it: sparse gradients.
    model.token_embedding.sparse = True
    table = torch.optim.SparseAdam([model.token_embedding.weight], lr=given.rate, betas=(0.9, 0.98))
    run = Run(given.out, model=model, readout=readout, optimizer=optimizer, table=table)
    total = 0.0
    for step in run.steps(given.stop or given.steps):
        for group in (*optimizer.param_groups, *table.param_groups):
            group["lr"] = warmup_cosine(step, given.steps, given.rate)
        data = batch(given.seed, step, given.batch)
        by_attention, at_eos, single = read(model, readout, data)
        loss = loss_of(by_attention, data, torch.arange(given.batch))
        if len(single) > 4:
            loss = loss + 0.5 * loss_of(at_eos, data, single)
        optimizer.zero_grad()
        table.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(text, 1.0)
        optimizer.step()
        table.step()
        total += float(loss.detach())
        if (step + 1) % 100 == 0:
            run.log(loss=round(total / 100, 4), **(measure(model, readout) if (step + 1) % 200 == 0 else {}))
            total = 0.0
    run.log(**measure(model, readout))
    final = given.out / "final"
    final.mkdir(exist_ok=True)
    (final / CONFIG.name).write_text(CONFIG.read_text())
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()}, final / "open_clip_model.safetensors"
    )


if __name__ == "__main__":
    main()
