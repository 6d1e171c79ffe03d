"""Texts per second where only the pooled vector is wanted: padded, length-sorted and packed batches of one encoder.

The encoder has the size of CLIP-L's text tower (12 layers of width 768) and random weights: speed does not depend on
what it has learnt. Captions of coloured shapes and prompts of random length are encoded by each way in turn, so that a
busy moment of the machine hits all of them; the table gives the fastest of the runs, as the one that was disturbed
least, and the largest difference to the padded pass. On one CPU thread, seconds are those the processor worked.

- padded: every text has 77 positions, as the pipelines have it.
- sorted: texts of similar length together, each batch cut behind its longest text.
- packed: no padding at all, and beginnings that several texts share are computed once. On CUDA with xformers attention
  goes block by block (`BlockDiagonalCausalMask`), elsewhere through gathered batches.

    python benchmarks/pooled.py [--count 256] [--runs 3] [--threads 1] [--device cpu] [--dtype float32]
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec

import torch
from torch import Tensor

from clipcond.encode.packed.attention import xformers_ops
from clipcond.encode.packed.prefix_tree import prefix_tree
from clipcond.encode.rows import TokenSequence, first_eos
from clipcond.encode.text import TextTower
from clipcond.mini.world import caption, sample
from clipcond.prompt.tokenizer import BOS, EOS, batch_ids
from clipcond.runtime.torchvision_repair import repair

CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
BATCH = 16
Way = Callable[[TextTower, Sequence[TokenSequence]], Tensor]


def encoder(device: str, dtype: str) -> TextTower:
    """A CLIP-L-size text tower of random weights."""
    repair()
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    return TextTower.from_transformers(CLIPTextModel(CLIPTextConfig(**CLIP_L)).eval().to(device, getattr(torch, dtype)))


def captions(count: int) -> list[TokenSequence]:
    """Different captions, which begin alike now and then."""
    rng = random.Random(0)
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts[caption(sample(rng), rng, "terse")] = None
    return [row(ids[:75]) for ids in batch_ids(list(texts))]


def random_lengths(count: int) -> list[TokenSequence]:
    """Random words, 3 to 75 of them, half of the texts with fewer than 20: nothing but BOS is shared."""
    rng = random.Random(0)
    longest = [20 if number % 2 else 75 for number in range(count)]
    return [row([rng.randrange(1000, 40000) for _ in range(rng.randint(3, most))]) for most in longest]


def row(ids: Sequence[int]) -> TokenSequence:
    return TokenSequence((BOS, *ids, *[EOS] * (76 - len(ids))))


def padded(tower: TextTower, rows: Sequence[TokenSequence]) -> Tensor:
    ids = torch.tensor([each.ids for each in rows])
    return pooled_of(tower, ids)


def length_sorted(tower: TextTower, rows: Sequence[TokenSequence]) -> Tensor:
    ends = first_eos(rows)
    order = sorted(range(len(rows)), key=ends.__getitem__)
    parts = []
    for at in range(0, len(rows), BATCH):
        some = order[at : at + BATCH]
        parts.append(pooled_of(tower, torch.tensor([rows[number].ids[: ends[some[-1]] + 1] for number in some])))
    return torch.cat(parts)[torch.argsort(torch.tensor(order))]


def packed(tower: TextTower, rows: Sequence[TokenSequence]) -> Tensor:
    pooled = tower.pool_rows(rows).pooled
    assert pooled is not None
    return pooled


def pooled_of(tower: TextTower, ids: Tensor) -> Tensor:
    pooled = tower.encode(ids, max_batch=BATCH).pooled
    assert pooled is not None
    return pooled


WAYS: dict[str, Way] = {"padded": padded, "sorted": length_sorted, "packed": packed}


def seconds(way: Way, tower: TextTower, rows: Sequence[TokenSequence]) -> float:
    alone = tower.device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    start = clock()
    way(tower, rows).float().cpu()  # on a GPU, this waits for the result
    return clock() - start


def compare(tower: TextTower, name: str, rows: Sequence[TokenSequence], runs: int) -> None:
    """One table: all ways in turn, `runs` times."""
    results = {way: call(tower, rows).float().cpu() for way, call in WAYS.items()}
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(runs):
        for way, call in WAYS.items():
            times[way].append(seconds(call, tower, rows))
    ends = [end + 1 for end in first_eos(rows)]
    mean, nodes = statistics.mean(ends), prefix_tree(rows, ends).size
    print(f"\n{name}: {len(rows)} texts of {mean:.1f} positions in the mean; packed computes {nodes / len(rows):.1f}\n")
    print("| way | texts/s | median | times padded | largest difference |")
    print("|---|---|---|---|---|")
    for way, taken in times.items():
        difference = (results[way] - results["padded"]).abs().max()
        ratio = min(times["padded"]) / min(taken)
        speeds = f"{len(rows) / min(taken):.1f} | {len(rows) / statistics.median(taken):.1f}"
        print(f"| {way} | {speeds} | {ratio:.2f} | {difference:.1e} |")


def describe(tower: TextTower) -> None:
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} of {os.cpu_count()} threads, {packages}"
    )
    print(f"CLIP-L-size text encoder, {tower.dtype}, on {tower.device}; batches of {BATCH}")
    if tower.device.type != "cuda":
        print("no CUDA device in use: attention of packed batches is gathered; xformers' blocks were not measured")
    elif find_spec("xformers") is None:
        print("xformers is not installed: attention of packed batches is gathered")
    elif xformers_ops(tower.device, tower.dtype, 64) is None:
        print("xformers has no kernel for this GPU, dtype or torch: attention of packed batches is gathered")
    else:
        print(f"attention of packed batches: blocks of xformers {version('xformers')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tower = encoder(options.device, options.dtype)
    describe(tower)
    for name, rows in (("Captions", captions(options.count)), ("Random", random_lengths(options.count))):
        compare(tower, name, rows, options.runs)


if __name__ == "__main__":
    main()
