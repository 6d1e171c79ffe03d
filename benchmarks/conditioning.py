"""Seconds to condition 40 weighted prompts: clipcond against compel and the stock pipeline, on one CLIP-L-size encoder.

The encoder has CLIP-L's shape (12 layers, width 768, 77 positions, the whole vocabulary) and random weights: time and
rounding do not depend on what a model has learned. All of them are given the same pipeline object in one process and
take turns, so that a busy moment of the machine hits all; the tables give medians, and the ratio to compel with its
least and most over the repeats, each repeat compared with compel's time in that same repeat.

The prompts: number i has 1 + i mod 3 chunks (as compel cuts them, after full stops) and i mod 5 phrases that are weighted
down, to 0.3, 0.5, 0.7 or 0.85 in turn, each in a sentence of its own; sentences about a creature, a place and two lights
are drawn with a fixed seed until no more fit. With a negative prompt, it is one for all.

- compel: `CompelForSD(pipe)`, as its README says, which does not truncate.
- the stock pipeline: `encode_prompt` of the same prompts without their marks; it reads 75 tokens of each and no weights.
- clipcond, compel's arithmetic: the same numbers; the largest difference is printed. ComfyUI's arithmetic: no masked rows.
- cached: the same call again, with everything in the cache. clipcond always returns both sides: without a negative
  prompt it encodes the empty one.

The floating-point operations of each call are counted first, on an encoder of one layer, and multiplied; the machine's
speed in the products of an encoder layer is measured in every repeat, and the best taken: `of the limit` is the time that
the counted operations take at that speed, as a share of the time measured.

    python benchmarks/conditioning.py [--repeats 3] [--threads 2] [--quick] [--single]

With one thread the seconds are those of the processor, which other programs on the machine do not lengthen.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import os
import platform
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from clipcond.prompt.plan import plan
from clipcond.runtime.torchvision_repair import repair

PACKAGES = ("clipcond", "compel", "torch", "transformers", "diffusers")
WIDTH, LAYERS, INNER, CONTEXT = 768, 12, 3072, 77
ONE_LIST, ONE_BY_ONE = "one list of all", "one prompt at a time"
NEGATIVE = "blurry, low quality, deformed hands, extra fingers, watermark, signature, cropped, out of frame"
WEIGHTS = (0.3, 0.5, 0.7, 0.85)
CREATURES = (
    "a small red fox", "an old fisherman", "two playful otters", "a young dancer", "a grey heron", "a tired astronaut",
    "a white horse", "a street musician", "a sleeping tabby cat", "an elderly gardener", "a flock of starlings",
)  # fmt: skip
PLACES = (
    "on a mossy rock in a quiet forest", "beside a frozen lake at the edge of town", "under a stone bridge in autumn",
    "in a crowded market hall with high windows", "on a wooden pier above dark water", "between tall sunflowers",
    "in front of an abandoned railway station", "on a narrow mountain path", "in a greenhouse full of ferns",
)  # fmt: skip
LIGHTS = (
    "golden hour light", "soft morning fog", "neon reflections", "a stormy sky", "dappled shade", "candle light",
    "cold moonlight", "harsh noon sun", "drifting snow",
)  # fmt: skip
COMPEL = {"dialect": "compel", "chunking": "compel-sentences"}  # compel's syntax, cut where compel cuts


@dataclass
class Entry:
    """One line of a table: how to make ready (not timed), and what is timed."""

    name: str
    call: Callable[[Any], Any]
    how: str
    weights: str
    ready: Callable[[], Any] = lambda: None
    kept: bool = False  # what `ready` gives serves all repeats
    flops: float = 0.0
    seconds: list[float] = field(default_factory=list)


def prompts(count: int) -> list[str]:
    """The prompts, in compel's syntax."""
    rng, found = random.Random(0), list[str]()
    for number in range(count):
        chunks, phrases = 1 + number % 3, number % 5
        sentences: list[str] = []
        while chunks_of(" ".join([*sentences, following := sentence(rng)])) <= chunks:
            sentences.append(following)
        for turn, at in enumerate(rng.sample(range(len(sentences)), min(phrases, len(sentences)))):
            place = next(place for place in PLACES if place in sentences[at])
            sentences[at] = sentences[at].replace(place, f"({place}){WEIGHTS[(number + turn) % 4]}")
        found.append(" ".join(sentences))
    return found


def chunks_of(prompt: str) -> int:
    """How many chunks compel makes of a prompt."""
    return len(plan(prompt, **COMPEL).encoders["clip_l"].chunks)


def sentence(rng: random.Random) -> str:
    return f"{rng.choice(CREATURES)} {rng.choice(PLACES)}, {rng.choice(LIGHTS)}, {rng.choice(LIGHTS)}."


def plain(prompt: str) -> str:
    """Without compel's marks."""
    return re.sub(r"\(([^)]*)\)[\d.]+", r"\1", prompt)


def pipeline(folder: Path, layers: int) -> Any:
    """A Stable Diffusion 1 pipeline with CLIP-L's text encoder; the other parts are as small as they can be."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    shape = CLIPTextConfig(
        hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=layers, num_attention_heads=12,
        projection_dim=WIDTH, bos_token_id=49406, eos_token_id=49407, pad_token_id=49407,
    )  # fmt: skip
    pipe = StableDiffusionPipeline(
        text_encoder=CLIPTextModel(shape).eval(),
        tokenizer=tokenizer(folder),
        unet=UNet2DConditionModel(
            sample_size=8, block_out_channels=(32,), down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",), layers_per_block=1, cross_attention_dim=WIDTH,
            attention_head_dim=8, norm_num_groups=8,
        ),
        vae=AutoencoderKL(block_out_channels=(8,), norm_num_groups=4),
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tokenizer(folder: Path) -> Any:
    """transformers' CLIP tokenizer over open_clip's vocabulary file, without a network."""
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPTokenizer

    source, special = SimpleTokenizer(), {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    merges = sorted(source.bpe_ranks, key=source.bpe_ranks.__getitem__)
    vocabulary = {special.get(piece, piece): number for piece, number in source.encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges)]), "utf-8")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=CONTEXT)


def in_bfloat16(pipe: Any) -> Any:
    """The pipeline with a text encoder of the same weights, rounded."""
    other = copy.copy(pipe)
    other.register_modules(text_encoder=copy.deepcopy(pipe.text_encoder).to(torch.bfloat16))
    return other


def entries(pipes: dict[str, Any], texts: Sequence[str], ways: Sequence[str] = (ONE_LIST, ONE_BY_ONE)) -> list[Entry]:
    """All that is measured."""
    found: list[Entry] = []
    for way in ways:
        for negative in (None, NEGATIVE):
            how = way + (", a negative prompt" if negative else "")
            for weights, pipe in pipes.items():
                given = partial(Entry, how=how, weights=weights)
                found.append(
                    given("compel", call=partial(compels, texts, negative, way), ready=partial(compel_of, pipe))
                )
                found.append(given("stock pipeline", call=partial(stock, pipe, texts, negative, way)))
                ours = partial(clipconds, texts, negative, way)
                for weighting, name in (("compel", "compel's"), ("comfy", "ComfyUI's")):
                    call = partial(ours, weighting)
                    found.append(given(f"clipcond, {name} arithmetic", call=call, ready=partial(conditioner_of, pipe)))
                ready = partial(conditioner_of, pipe, partial(ours, "compel"))
                found.append(given("clipcond, cached", call=partial(ours, "compel"), ready=ready, kept=True))
    return found


def compel_of(pipe: Any) -> Any:
    from compel import CompelForSD

    return CompelForSD(pipe)


def compels(texts: Sequence[str], negative: str | None, way: str, compel: Any) -> Any:
    given = {"negative_prompt": negative} if negative else {}
    return compel(list(texts), **given) if way == ONE_LIST else [compel(text, **given) for text in texts]


@torch.no_grad()
def stock(pipe: Any, texts: Sequence[str], negative: str | None, way: str, _: Any) -> Any:
    device, bare = torch.device("cpu"), [plain(text) for text in texts]
    if way == ONE_LIST:
        return pipe.encode_prompt(bare, device, 1, negative is not None, negative and [negative] * len(bare))
    return [pipe.encode_prompt(text, device, 1, negative is not None, negative) for text in bare]


def conditioner_of(pipe: Any, before: Callable[[Any], Any] | None = None) -> Any:
    """A Conditioner with a cache that holds nothing, or what the call `before` leaves in it."""
    from clipcond.condition.cache import Cache
    from clipcond.diffusion.conditioner import Conditioner

    conditioner = Conditioner.from_pipeline(pipe, cache=Cache())
    conditioner("warm up")  # takes the encoder's fingerprint, which is needed once
    if before is not None:
        before(conditioner)
    return conditioner


def clipconds(texts: Sequence[str], negative: str | None, way: str, weighting: str, conditioner: Any) -> Any:
    options = {**COMPEL, "weighting": weighting}
    if way == ONE_LIST:
        return conditioner(list(texts), negative, **options)
    return [conditioner(text, negative, **options) for text in texts]


def _clock() -> float:
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def measure(found: Sequence[Entry], repeats: int, dtypes: Sequence[str]) -> dict[str, float]:
    """Fill in the seconds of all entries, in turns; gives the operations a second of each dtype."""
    speeds = dict.fromkeys(dtypes, 0.0)
    kept: dict[int, Any] = {}
    for repeat in range(repeats):
        speeds = {weights: max(best, speed(getattr(torch, weights))) for weights, best in speeds.items()}
        for number, entry in enumerate(found):
            argument = kept[number] if number in kept else entry.ready()
            began = _clock()
            entry.call(argument)
            entry.seconds.append(_clock() - began)
            if entry.kept:
                kept[number] = argument
        print(f"repeat {repeat + 1} of {repeats} is done, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    return speeds


def operations(entry: Entry) -> float:
    """The floating-point operations of one call, two for a multiplication and its addition."""
    argument = entry.ready()
    with FlopCounterMode(display=False) as counter:
        entry.call(argument)
    return float(counter.get_total_flops())


def speed(dtype: torch.dtype, rows: int = 32) -> float:
    """Operations a second in the six products of an encoder layer over 32 sequences, the fastest of many runs."""
    shapes = [(WIDTH, WIDTH)] * 4 + [(INNER, WIDTH), (WIDTH, INNER)]
    matrices = [torch.randn(shape, dtype=dtype) * 0.02 for shape in shapes]
    states = {width: torch.randn(rows * CONTEXT, width, dtype=dtype) for width in (WIDTH, INNER)}
    times = []
    with torch.no_grad():
        for _ in range(30):
            began = _clock()
            for matrix in matrices:
                functional.linear(states[matrix.shape[1]], matrix)
            times.append(_clock() - began)
    return 2 * rows * CONTEXT * sum(a * b for a, b in shapes) / min(times)


def difference(pipe: Any, texts: Sequence[str]) -> tuple[float, float]:
    """The largest difference between compel's numbers and ours, and compel's largest number."""
    from compel import CompelForSD

    from clipcond.diffusion.conditioner import Conditioner

    compel, conditioner = CompelForSD(pipe), Conditioner.from_pipeline(pipe)
    most = largest = 0.0
    for text in texts:
        theirs = compel([text]).embeds.float()
        mine = conditioner(text, text, **COMPEL, weighting="compel").prompt_embeds.float()  # equal sides: equal lengths
        most = max(most, float((theirs - mine).abs().max()))
        largest = max(largest, float(theirs.abs().max()))
    return most, largest


def report(found: Sequence[Entry], speeds: dict[str, float]) -> None:
    """A table for each way of calling; ratios are to compel called in that way."""
    by = {(entry.name, entry.how, entry.weights): entry.seconds for entry in found}
    for how in dict.fromkeys(entry.how for entry in found):
        print(f"\n{how[0].upper()}{how[1:]}\n")
        print("| | weights | seconds | × compel, float32 | × compel, same weights | TFLOP | of the limit |")
        print("|---|---|---|---|---|---|---|")
        for entry in (entry for entry in found if entry.how == how):
            middle = statistics.median(entry.seconds)
            ratios = [spread(by["compel", how, weights], entry.seconds) for weights in ("float32", entry.weights)]
            share = f"{100 * entry.flops / speeds[entry.weights] / middle:.0f} %" if entry.flops else "–"
            numbers = f"{middle:.3f} [{min(entry.seconds):.3f}, {max(entry.seconds):.3f}] | {' | '.join(ratios)}"
            print(f"| {entry.name} | {entry.weights} | {numbers} | {entry.flops / 1e12:.2f} | {share} |")


def spread(theirs: Sequence[float], mine: Sequence[float]) -> str:
    """How many times faster: the median and, in brackets, the least and the most of the repeats."""
    ratios = [a / b for a, b in zip(theirs, mine, strict=True)]
    return f"{statistics.median(ratios):.1f} [{min(ratios):.1f}, {max(ratios):.1f}]"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeats", type=int, default=3, help="measured turns of all, after one that is not counted")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--prompts", type=int, default=40)
    options.add_argument(
        "--quick", action="store_true", help="six prompts, two layers, one repeat: does it run at all?"
    )
    options.add_argument("--single", action="store_true", help="one prompt at a time in float32 only")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    repair()

    from clipcond.runtime.quiet import quiet_calls

    count, layers, repeats = (6, 2, 1) if chosen.quick else (chosen.prompts, LAYERS, chosen.repeats)
    texts = prompts(count)
    with tempfile.TemporaryDirectory() as folder:
        pipe = pipeline(Path(folder), layers)
    pipes = {"float32": pipe} if chosen.single else {"float32": pipe, "bfloat16": in_bfloat16(pipe)}
    ways = (ONE_BY_ONE,) if chosen.single else (ONE_LIST, ONE_BY_ONE)
    head(chosen.threads, layers, repeats, texts)
    with quiet_calls():
        found = entries(pipes, texts, ways)
        small = entries({"float32": of_one_layer(pipe)}, texts, ways)
        counted = {(entry.name, entry.how): layers * operations(entry) for entry in small}
        for entry in found:
            entry.flops = counted[entry.name, entry.how]
        for entry in entries(pipes, texts[:2], ways):  # a turn that is not counted
            entry.call(entry.ready())
        for weights, each in pipes.items():
            most, largest = difference(each, texts)
            print(f"{weights}: largest difference from compel {most:.1e}; compel's largest number is {largest:.1f}")
        speeds = measure(found, repeats, list(pipes))
    print(", ".join(f"{weights} products: {each / 1e9:.0f} GFLOP/s" for weights, each in speeds.items()))
    report(found, speeds)


def of_one_layer(pipe: Any) -> Any:
    """The pipeline with the first layer of its text encoder only."""
    other = copy.copy(pipe)
    config = copy.deepcopy(pipe.text_encoder.config)
    config.num_hidden_layers = 1
    other.register_modules(text_encoder=type(pipe.text_encoder)(config).eval())
    return other


def head(threads: int, layers: int, repeats: int, texts: Sequence[str]) -> None:
    plans = [plan(text, **COMPEL).encoders["clip_l"] for text in texts]
    chunks = [len(each.chunks) for each in plans]
    tokens = sorted(sum(len(chunk.tokens) for chunk in each.chunks) for each in plans)
    phrases = sum(text.count(")0.") for text in texts)
    machine = f"Python {platform.python_version()}, {cpu()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    print(f"{datetime.date.today()}, {machine}")
    print(f"{', '.join(f'{package} {version(package)}' for package in PACKAGES)}; device cpu, {threads} threads")
    print(
        f"{len(texts)} prompts, {sum(chunks)} chunks ({', '.join(f'{chunks.count(k)} of {k}' for k in (1, 2, 3))}), "
        f"{tokens[0]} to {tokens[-1]} tokens, {phrases} phrases weighted down; {layers} layers; {repeats} repeats"
    )


def cpu() -> str:
    try:
        return next(
            line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").open() if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.machine()


if __name__ == "__main__":
    main()
