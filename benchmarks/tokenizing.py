"""Prompts per second from text to ids: clipcond against open_clip, transformers, tokenizers and instant-clip-tokenizer.

All tokenise the same prompts in the same process and take turns, so that a busy moment of the machine hits all of them;
the table gives the fastest of the runs, as the one that was disturbed least, and the median. Before the clock starts
each has seen a warm-up of other prompts. Ids are compared with open_clip's: `equal` is the share of prompts for which
they are the same.

    python benchmarks/tokenizing.py [--prompts FILE] [--count 20000] [--runs 7]

FILE holds a prompt a line, repeated up to the count; generated captions of coloured shapes are the second set.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import random
import runpy
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle, islice
from pathlib import Path

PACKAGES = ("clipcond", "open_clip_torch", "transformers", "tokenizers", "instant-clip-tokenizer", "ftfy", "torch")
Contestant = Callable[[Sequence[str]], list[list[int]]]


def captions(count: int) -> list[str]:
    """Different captions of the scene world, each of its own scene."""
    from clipcond.mini.world import caption, sample

    rng = random.Random(0)
    return [caption(sample(rng), rng, "wordy") for _ in range(count)]


def contestants(folder: Path) -> dict[str, Contestant]:
    """Each takes a list of prompts and gives their content ids; those that are not installed are left out."""
    from clipcond.prompt.plan import plan
    from clipcond.prompt.tokenizer import batch_ids, token_ids
    from clipcond.runtime.torchvision_repair import repair

    repair()
    import open_clip
    from tokenizers import Tokenizer
    from transformers import CLIPTokenizer

    simple = open_clip.get_tokenizer("ViT-L-14")
    write_vocabulary(folder)
    fast = CLIPTokenizer.from_pretrained(folder, model_max_length=10**6)
    fast.save_pretrained(folder)
    bare = Tokenizer.from_file(str(folder / "tokenizer.json"))
    found: dict[str, Contestant] = {
        "open_clip, `encode`": lambda texts: [simple.encode(text) for text in texts],
        "transformers, batch": lambda texts: fast(texts, add_special_tokens=False).input_ids,
        "tokenizers, `encode_batch_fast`": lambda texts: [
            encoding.ids for encoding in bare.encode_batch_fast(texts, add_special_tokens=False)
        ],
    }
    try:
        import instant_clip_tokenizer

        instant = instant_clip_tokenizer.Tokenizer()
        found["instant-clip-tokenizer, `encode`"] = lambda texts: [instant.encode(text) for text in texts]
        # a matrix of numpy, cut at 77: its ids are compared no further
        found["instant-clip-tokenizer, `tokenize_batch`"] = lambda texts: instant.tokenize_batch(texts)
    except ImportError:
        print("instant-clip-tokenizer is not installed: left out\n")
    found |= {
        "**clipcond**, `batch_ids` (openai)": lambda texts: batch_ids(texts, "openai"),
        "**clipcond**, `batch_ids` (transformers)": lambda texts: batch_ids(texts, "transformers"),
        "**clipcond**, `token_ids` (openai)": lambda texts: [token_ids(text, "openai") for text in texts],
        "**clipcond**, the full `plan`": lambda texts: [plan_ids(plan(text)) for text in texts],
        "**clipcond**, the full `plan` (a1111)": lambda texts: [
            plan_ids(plan(text, dialect="a1111")) for text in texts
        ],
    }
    return found


def plan_ids(planned: object) -> list[int]:
    """The content ids of a plan."""
    return [token.id for chunk in planned.encoders["clip_l"].chunks for token in chunk.tokens]  # type: ignore[attr-defined]


def write_vocabulary(folder: Path) -> None:
    """The files that transformers reads, from open_clip's vocabulary."""
    runpy.run_path(str(Path(__file__).with_name("cold_start.py")))["write_tokenizer"](folder)


def measure(found: dict[str, Contestant], prompts: Sequence[str], warm: Sequence[str], runs: int) -> None:
    expected = found["open_clip, `encode`"](prompts)
    equal = {name: share(make(prompts), expected) for name, make in found.items()}
    times: dict[str, list[float]] = {name: [] for name in found}
    for make in found.values():
        make(warm)
    for _ in range(runs):
        for name, make in found.items():
            began = time.perf_counter()
            make(prompts)
            times[name].append(time.perf_counter() - began)
    base = min(times["open_clip, `encode`"])
    print("| | prompts/s | median | times open_clip | equal to open_clip |\n|---|---|---|---|---|")
    for name, taken in times.items():
        best, middle = len(prompts) / min(taken), len(prompts) / statistics.median(taken)
        print(f"| {name} | {best:,.0f} | {middle:,.0f} | {base / min(taken):.1f} | {equal[name]} |")
    print()


def share(ids: object, expected: list[list[int]]) -> str:
    if not isinstance(ids, list):
        return "–"
    same = sum(found == wanted for found, wanted in zip(ids, expected, strict=True))
    return "all" if same == len(expected) else f"{same / len(expected):.2%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=Path, help="a file with a prompt per line")
    parser.add_argument("--count", type=int, default=20_000, help="prompts in a run; those of a file are repeated")
    parser.add_argument("--runs", type=int, default=7, help="measured runs of each")
    options = parser.parse_args()
    sets: dict[str, list[str]] = {}
    if options.prompts:
        lines = [line for line in options.prompts.read_text(encoding="utf-8").splitlines() if line]
        sets[f"{len(lines)} prompts of {options.prompts.name}, repeated"] = list(islice(cycle(lines), options.count))
    sets["generated captions, all different"] = list(dict.fromkeys(captions(options.count)))
    print(f"{datetime.date.today()}, Python {platform.python_version()}, {os.cpu_count()} CPUs, ", end="")
    print(f"load {os.getloadavg()[0]:.1f}, RAYON_NUM_THREADS={os.environ.get('RAYON_NUM_THREADS', 'unset')}")
    print(", ".join(f"{package} {installed(package)}" for package in PACKAGES), "\n")
    with tempfile.TemporaryDirectory() as folder:
        found = contestants(Path(folder))
        for name, prompts in sets.items():
            characters = sum(map(len, prompts)) / len(prompts)
            print(f"{name}: {len(prompts):,}, {characters:.0f} characters each\n")
            measure(found, prompts, captions(200), options.runs)


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
