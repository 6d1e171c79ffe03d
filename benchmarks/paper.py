"""The findings of the CLIP paper, done again on emoji: what holds in the small, with intervals.

    python benchmarks/paper.py pack --data runs/emoji/data --out runs/emoji/packed.npz
    python benchmarks/paper.py train --data runs/emoji/packed.npz --device cuda --jobs 6 --out runs/emoji/paper
    python benchmarks/paper.py measure --data runs/emoji/packed.npz --runs runs/emoji/paper --model emoji --write

`pack` puts the pictures and captions of recipes/emoji into one file. `train` trains small models that differ in one thing
each (benchmarks/paper_training.py) and writes a JSON file of each; what is there already is not trained again. It takes
some minutes of a GPU, or hours of a CPU; `--smoke` shows in seconds that it works. `measure` takes a minute or two of a CPU:
it embeds the pictures with a model, tries what the paper says of templates, names, few examples, weaknesses and bias, reads
what was trained, and prints the tables; `--write` puts them into docs/emoji.md, with the plots beside it.

Intervals are percentile bootstraps over emoji, 95 %; of trainings over the pictures, not over seeds.
"""

from __future__ import annotations

import argparse
import datetime
import math
import platform
import time
from importlib.metadata import version
from pathlib import Path

from clipcond.errors import ClipCondError

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes" / "emoji"
PAGE = ROOT / "docs" / "emoji.md"
PLOT = "![Robustness, objectives, batches and few examples](images/emoji-paper.webp)"
SHEET = (
    "What it finds among pictures in a style that training never saw: names, tags and kinds of its captions find what they "
    "name, descriptions in other words seldom do.\n\n"
    "![Seven searches and their first eight pictures](images/emoji-search.webp)\n\n"
    "Pictures of Fluent Emoji High Contrast (MIT)."
)
QUERIES = (
    "fish", "rice", "a sad face", "rain", "heart", "animal in the sea", "person in the water",
)  # fmt: skip


def pack(given: argparse.Namespace) -> None:
    import paper_data

    paper_data.pack(given.data, given.out, given.colours)


def train(given: argparse.Namespace) -> None:
    from paper_training import RUNS, SMOKE, Settings, train_all

    from clipcond.runtime.devices import device_of

    runs = [run for run in (SMOKE if given.smoke else RUNS) if not given.only or run.name in given.only]
    settings = Settings(
        data=given.data, config=given.config, out=given.out, device=str(device_of(given.device)),
        samples=32 if given.smoke else given.samples, deadline=time.time() + given.budget,
        tests=32 if given.smoke else 0,
    )  # fmt: skip
    train_all(runs, settings, given.jobs)


def measure(given: argparse.Namespace) -> None:
    import paper_trained
    from paper_data import PackedEmoji
    from paper_measures import World, few_shots, found_by, numbers
    from paper_page import details, plot, put, sheet, verdicts

    from clipcond.files import write_file
    from clipcond.rerank.scorer import Scorer

    data = PackedEmoji.read(given.data)
    world = World(data, Scorer.load(given.model, device="cpu"))
    trained = paper_trained.Trained(given.runs, data) if given.runs and given.runs.is_dir() else None
    curve = few_shots(world)
    cards = numbers(world)
    findings = [*(paper_trained.findings(trained) if trained else ()), *_of_model(world, curve, cards)]
    made = {
        "numbers": _numbers(world, cards, given), "paper": f"{verdicts(findings)}\n\n{PLOT}", "details": details(findings),
        "uses": f"{_uses(world)}\n\n{SHEET}", "trainings": _trainings(trained),
    }  # fmt: skip
    if not given.write:
        print("\n\n".join(made.values()))
        return
    put(PAGE, made)
    images = PAGE.parent / "images"
    write_file(images / "emoji-paper.webp", plot(curve, trained), overwrite=True)
    write_file(images / "emoji-search.webp", sheet(world, found_by(world, QUERIES)), overwrite=True)
    print(f"{PAGE} and its two pictures are new")


def _of_model(world, curve, cards):
    """Return the findings that need no training."""
    import paper_measures as of

    asked = (
        of.templates(world),
        of.names(world),
        of.transfer(cards[2]),
        of.probes(curve),
        of.weaknesses(world),
        of.preferences(world),
    )
    return [found for findings in asked for found in findings]


def _numbers(world, cards, given: argparse.Namespace) -> str:
    from paper_measures import groups
    from paper_page import card_table

    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "open_clip_torch", "scikit-learn"))
    when = f"{datetime.date.today()}, `python benchmarks/paper.py measure --model {given.model} --write`"
    return f"{when}: Python {platform.python_version()}, {packages}.\n\n{card_table(cards, groups(world))}"


def _uses(world) -> str:
    from paper_measures import across_vendors, duplicates, tags
    from paper_page import table

    rows = [
        *duplicates(world, ("noto", "twemoji"), ("openmoji", "noto")), across_vendors(world, "openmoji", "noto"),
        across_vendors(world, "openmoji", "twemoji"), tags(world),
    ]  # fmt: skip
    return table(rows)


def _trainings(trained) -> str:
    """Say what was trained, on what, and how long it took."""
    if trained is None or not trained.runs:
        return "Nothing was trained for comparison yet."
    runs = list(trained.runs.values())
    main, seconds = runs[0], sum(run["seconds"] for run in runs)
    samples = sorted({run["samples"] for run in runs})
    return (
        f"{len(runs)} trainings of {samples[0]:,} to {samples[-1]:,} pictures each, {seconds / 60:.0f} minutes together, several "
        f"side by side, on one {main['device']} with torch {main['torch']}; {main['pictures']:,} pictures of {main['classes']:,} "
        "emoji to train on, a tenth of what their sets draw being left out as the test on seen vendors."
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = options.add_subparsers(required=True, metavar="COMMAND")
    packing = commands.add_parser("pack", help="the pictures and captions of a folder in one file")
    packing.add_argument("--data", type=Path, default=Path("runs/emoji/data"), help="of recipes/emoji/pictures.py")
    packing.add_argument("--out", type=Path, default=Path("runs/emoji/packed.npz"))
    packing.add_argument(
        "--colours", type=int, default=0, help="at the most in a picture: a smaller file, such as 32 for 18 MB"
    )
    packing.set_defaults(run=pack)
    training = commands.add_parser("train", help="train what is compared; a JSON file each")
    training.add_argument("--data", type=Path, default=Path("runs/emoji/packed.npz"))
    training.add_argument("--out", type=Path, default=Path("runs/emoji/paper"))
    training.add_argument("--config", type=Path, default=RECIPE / "clip", help="an open_clip config, or its folder")
    training.add_argument("--device", default="cuda")
    training.add_argument("--jobs", type=int, default=1, help="runs at a time, each in a process of its own")
    training.add_argument("--samples", type=int, default=300_000, help="pictures that a run sees")
    training.add_argument("--budget", type=float, default=math.inf, help="seconds after which no run goes on")
    training.add_argument("--only", action="append", default=[], metavar="NAME", help="this run; may be given again")
    training.add_argument("--smoke", action="store_true", help="a few steps of a few runs")
    training.set_defaults(run=train)
    measuring = commands.add_parser("measure", help="the tables and plots of docs/emoji.md")
    measuring.add_argument("--data", type=Path, default=Path("runs/emoji/packed.npz"))
    measuring.add_argument("--model", default="emoji")
    measuring.add_argument("--runs", type=Path, default=Path("runs/emoji/paper"), help="what `train` wrote")
    measuring.add_argument("--write", action="store_true", help="put the tables into docs/emoji.md")
    measuring.set_defaults(run=measure)
    given = options.parse_args()
    if not given.data.exists():
        options.error(f"there is no {given.data}; recipes/emoji/README.md says how it is made")
    try:
        given.run(given)
    except ClipCondError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
