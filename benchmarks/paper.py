"""The findings of the CLIP paper, done again on emoji: what holds in the small, with intervals.

    python benchmarks/paper.py pack --data runs/emoji/data --out runs/emoji/packed.npz
    python benchmarks/paper.py train --data runs/emoji/packed.npz --device cuda --jobs 8 --out runs/emoji/paper

`pack` puts the pictures and captions of recipes/emoji into one file. `train` trains small models that differ in one thing
each (benchmarks/paper_training.py) and writes a JSON file of each; what is there already is not trained again. It takes
some minutes of a GPU, or hours of a CPU; `--smoke` shows in seconds that it works.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes" / "emoji"


def pack(given: argparse.Namespace) -> None:
    import paper_data

    paper_data.pack(given.data, given.out)


def train(given: argparse.Namespace) -> None:
    from paper_training import RUNS, SMOKE, Settings, train_all

    runs = [run for run in (SMOKE if given.smoke else RUNS) if not given.only or run.name in given.only]
    settings = Settings(
        data=given.data, config=given.config, out=given.out, device=given.device,
        samples=32 if given.smoke else given.samples, deadline=time.time() + given.budget,
        tests=32 if given.smoke else 0,
    )  # fmt: skip
    train_all(runs, settings, given.jobs)


def default_config() -> Path:
    """The config that the recipe trains, wherever it keeps it."""
    return next((path for path in (RECIPE / "emoji.json", RECIPE / "clip") if path.exists()), RECIPE / "emoji.json")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = options.add_subparsers(required=True, metavar="COMMAND")
    packing = commands.add_parser("pack", help="the pictures and captions of a folder in one file")
    packing.add_argument("--data", type=Path, default=Path("runs/emoji/data"), help="of recipes/emoji/pictures.py")
    packing.add_argument("--out", type=Path, default=Path("runs/emoji/packed.npz"))
    packing.set_defaults(run=pack)
    training = commands.add_parser("train", help="train what is compared; a JSON file each")
    training.add_argument("--data", type=Path, default=Path("runs/emoji/packed.npz"))
    training.add_argument("--out", type=Path, default=Path("runs/emoji/paper"))
    training.add_argument("--config", type=Path, default=default_config(), help="an open_clip config, or its folder")
    training.add_argument("--device", default="cuda")
    training.add_argument("--jobs", type=int, default=1, help="runs at a time, each in a process of its own")
    training.add_argument("--samples", type=int, default=300_000, help="pictures that a run sees")
    training.add_argument("--budget", type=float, default=math.inf, help="seconds after which no run goes on")
    training.add_argument("--only", action="append", default=[], metavar="NAME", help="this run; may be given again")
    training.add_argument("--smoke", action="store_true", help="a few steps of a few runs")
    training.set_defaults(run=train)
    given = options.parse_args()
    if not given.data.exists():
        options.error(f"there is no {given.data}; recipes/emoji/README.md says how it is made")
    given.run(given)


if __name__ == "__main__":
    main()
