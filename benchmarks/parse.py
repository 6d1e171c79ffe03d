"""Seconds to parse what people never type: a million characters of brackets; compel's parser on a few unclosed ones.

The first table gives the fastest of the runs for every text and dialect. The second gives compel's own parser and
clipcond's `compel` dialect the same prompts, with one unclosed bracket more in each row; compel runs in a process of its
own that is stopped at the time limit, after which it gets no more rows. The third is an ordinary prompt.

    python benchmarks/parse.py [--characters 1000000] [--runs 3] [--limit 60] [--brackets 9]
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from clipcond.prompt.dialects.names import DIALECTS
from clipcond.prompt.dialects.parse import parse

UNITS = ("(", ")", "()", "[", "[]", "([", "([)]", "((]", '("', "(a", "[a:1]", "\\(", "a BREAK ")
PROMPT = "masterpiece, (red fox:1.3), [autumn:winter:0.5], ((snow)), a cat++ by \\(someone\\), <lora:fur:0.8>, 8k " * 2
COMPEL = """
import importlib.util, sys, time
spec = importlib.util.spec_from_file_location("own", sys.argv[1])
own = importlib.util.module_from_spec(spec)
spec.loader.exec_module(own)
parser = own.PromptParser()
parser.parse_conjunction("a (fox)++")
began = time.perf_counter()
parser.parse_conjunction(sys.argv[2])
print(time.perf_counter() - began)
"""


def fastest(call: Callable[[], object], runs: int) -> float:
    """The time of the run that was disturbed least."""
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def compels_parser() -> Path | None:
    """The file of compel's parser, which needs pyparsing and nothing else of compel."""
    package = importlib.util.find_spec("compel")
    if package is None or not package.submodule_search_locations or importlib.util.find_spec("pyparsing") is None:
        return None
    return Path(package.submodule_search_locations[0]) / "prompt_parser.py"


def compels_time(parser: Path, prompt: str, limit: float) -> float | None:
    """What compel's parser takes for a prompt; None where it is stopped at the limit."""
    command = [sys.executable, "-c", COMPEL, str(parser), prompt]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=limit, check=True)
    except subprocess.TimeoutExpired:
        return None
    return float(done.stdout)


def brackets(characters: int, runs: int) -> None:
    """The first table."""
    print(f"Seconds for {characters:,} characters\n\n| text | {' | '.join(DIALECTS)} |\n|---|{'---|' * len(DIALECTS)}")
    for unit in UNITS:
        prompt = (unit * (characters // len(unit) + 1))[:characters]
        times = [fastest(lambda: parse(prompt, dialect), runs) for dialect in DIALECTS]  # noqa: B023 - called at once
        print(f"| `{unit}` again and again | {' | '.join(f'{taken:.2f}' for taken in times)} |", flush=True)


def unclosed(most: int, runs: int, limit: float) -> None:
    """The second table."""
    parser = compels_parser()
    if parser is None:
        print("\ncompel is not installed: no second table")
        return
    print("\nSeconds for a prompt with unclosed brackets\n\n| brackets | compel | clipcond |\n|---|---|---|")
    stopped = False
    for count in range(1, most + 1):
        prompt = "a " + "(" * count + "red fox in the snow"
        taken = None if stopped else compels_time(parser, prompt, limit)
        stopped = taken is None
        own = fastest(lambda: parse(prompt, "compel"), runs)  # noqa: B023 - called at once
        print(f"| {count} | {f'over {limit:g}' if taken is None else f'{taken:.3f}'} | {own:.6f} |", flush=True)


def ordinary(runs: int) -> None:
    """The third table."""
    print(f"\nMicroseconds for an ordinary prompt of {len(PROMPT)} characters\n\n| dialect | µs |\n|---|---|")
    for dialect in DIALECTS:
        taken = fastest(lambda: [parse(PROMPT, dialect) for _ in range(200)], runs)  # noqa: B023 - called at once
        print(f"| {dialect} | {taken / 200 * 1e6:.0f} |")


def installed(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"no {package}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--characters", type=int, default=1_000_000)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--limit", type=float, default=60, help="seconds that compel's parser may take for a prompt")
    options.add_argument("--brackets", type=int, default=9, help="unclosed brackets in the last row")
    chosen = options.parse_args()
    print(
        f"{datetime.date.today()}, Python {platform.python_version()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    )
    print(", ".join(map(installed, ("clipcond", "compel", "pyparsing"))), "\n")
    parse("warm (up)", "a1111")
    brackets(chosen.characters, chosen.runs)
    unclosed(chosen.brackets, chosen.runs, chosen.limit)
    ordinary(chosen.runs)


if __name__ == "__main__":
    main()
