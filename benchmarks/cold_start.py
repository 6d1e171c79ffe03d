"""Whole-process time of counting the tokens of one prompt: clipcond against transformers and open_clip.

Each run is a fresh process that counts the tokens of the same long prompt and prints the number. The runs take turns,
so that a busy moment of the machine hits all of them; the table gives the median and the spread.

    python benchmarks/cold_start.py [--runs 11] [--tokenizer FOLDER]

FOLDER holds the vocab.json and merges.txt of a CLIP tokenizer for transformers. Without it they are written from
open_clip's vocabulary file into a temporary folder before the clock starts, so that no download is timed.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

PROMPT = "a photo of a small red fox sitting on a mossy rock in a forest at golden hour, volumetric light, " * 4
TRANSFORMERS = """
import sys
from transformers import CLIPTokenizer
print(len(CLIPTokenizer.from_pretrained(sys.argv[2]).tokenize(sys.argv[1])))
"""
OPEN_CLIP = """
import sys
{repair}
import open_clip
print(len(open_clip.get_tokenizer("ViT-L-14").encode(sys.argv[1])))
"""
# what lets a CPU-only torch import torchvision (see clipcond/runtime/torchvision_repair.py); costs nothing elsewhere
REPAIR = "from clipcond.runtime.torchvision_repair import repair; repair()"


def write_tokenizer(folder: Path) -> None:
    """vocab.json and merges.txt as transformers reads them, from open_clip's vocabulary file."""
    from clipcond.prompt import tokenizer

    lines = gzip.decompress(tokenizer.vocabulary_file().read_bytes()).decode("utf-8").split("\n")
    merges = lines[1 : 49152 - 256 - 2 + 1]
    single = tokenizer._byte_characters()
    pieces = [*single, *(one + "</w>" for one in single), *(line.replace(" ", "") for line in merges)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}), "utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}), "utf-8")


def seconds(command: list[str]) -> tuple[float, str]:
    """The wall time of a process and what it printed; its standard error is thrown away unless it fails."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    environment.pop(
        "PYTHONDONTWRITEBYTECODE", None
    )  # an installed package has its bytecode; the first run writes it here
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment)
    elapsed = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{command[0]} failed: {done.stderr.strip().splitlines()[-1:]}")
    return elapsed, done.stdout


def contestants(folder: Path) -> dict[str, list[str]]:
    script = shutil.which("clipcond", path=sysconfig.get_path("scripts")) or sys.exit("install clipcond first")
    return {
        "clipcond tokens": [script, "tokens", PROMPT],
        "clipcond tokens --json": [script, "tokens", PROMPT, "--json"],
        "transformers": [sys.executable, "-c", TRANSFORMERS, PROMPT, str(folder)],
        "open_clip": [sys.executable, "-c", OPEN_CLIP.format(repair=REPAIR), PROMPT],
        "an empty Python": [sys.executable, "-c", "pass"],
    }


def check(outputs: dict[str, str]) -> int:
    """All of them must have counted the same number."""
    document = json.loads(outputs["clipcond tokens --json"])
    count = document["encoders"][0]["content_tokens"]
    assert f"{count}/75" in outputs["clipcond tokens"]
    for name in ("transformers", "open_clip"):
        counted = int(outputs[name].split()[-1])
        assert counted == count, f"{name} counts {counted} tokens, clipcond {count}"
    return int(count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=11, help="measured runs of each, after one that is not counted")
    parser.add_argument("--tokenizer", type=Path, help="a folder with vocab.json and merges.txt")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.tokenizer or Path(temporary)
        if options.tokenizer is None:
            write_tokenizer(folder)
        commands = contestants(folder)
        count = check({name: seconds(command)[1] for name, command in commands.items()})  # also warms the disk cache
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(options.runs):
            for name, command in commands.items():
                times[name].append(seconds(command)[0])
    report(times, count)


def report(times: dict[str, list[float]], count: int) -> None:
    packages = ("clipcond", "tokenizers", "typer", "rich", "transformers", "open_clip_torch", "torch")
    machine = f"Python {platform.python_version()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    print(f"{datetime.date.today()}, {machine}")
    print(", ".join(f"{package} {version(package)}" for package in packages))
    runs = len(next(iter(times.values())))
    print(f"{count} content tokens, {runs} runs each, whole process\n")
    print("| | median s | fastest | slowest | times `clipcond tokens` |\n|---|---|---|---|---|")
    base = statistics.median(times["clipcond tokens"])
    for name, taken in times.items():
        middle = statistics.median(taken)
        print(f"| {name} | {middle:.3f} | {min(taken):.3f} | {max(taken):.3f} | {middle / base:.1f} |")


if __name__ == "__main__":
    main()
