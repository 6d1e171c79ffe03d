"""Peak memory of real trainings on this CPU beside what `clipcond train --plan` says of them before.

Each training is a process of its own: plain pictures, captions of the scene world, two steps. Its peak is that of its resident
set, once as it is, once with an allocator that gives memory back as soon as it is free (glibc keeps blocks below 32 MiB).

    python benchmarks/train_memory.py [--only NAME]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

RUNS: dict[str, dict[str, Any]] = {
    "mini, batch 256": {"model": "mini", "batch_size": 256},
    "mini, batch 512, bf16": {"model": "mini", "batch_size": 512, "precision": "bf16"},
    "mini, batch 512, grad_cache 64": {"model": "mini", "batch_size": 512, "grad_cache": 64},
    "mini, batch 512, image locked": {"model": "mini", "batch_size": 512, "lock_image": True},
    "ViT-B-32, batch 8": {"model": "ViT-B-32", "batch_size": 8, "init": "random"},
    "ViT-B-32, batch 32": {"model": "ViT-B-32", "batch_size": 32, "init": "random"},
}
GIVING_BACK = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "262144"}  # of glibc


def write_pairs(folder: Path, count: int) -> Path:
    """Write pictures and captions of the scene world; return their table."""
    from clipcond.mini import world

    rng = random.Random(0)
    rows = []
    for number in range(count):
        scene = world.sample(rng)
        Image.fromarray(np.full((64, 64, 3), number % 256, np.uint8)).save(folder / f"{number}.png")
        rows.append(json.dumps({"image": f"{number}.png", "caption": world.caption(scene, rng, "terse")}))
    (folder / "pairs.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder / "pairs.jsonl"


def config_of(name: str, table: Path) -> Any:
    from clipcond.train.config import TrainConfig

    out = table.parent / "run"
    return TrainConfig(data=str(table), out=str(out), steps=2, threads=1, device="cpu", **RUNS[name])


def peak_of(name: str, table: Path) -> None:
    """Train in this process; print the peak of its resident set."""
    import clipcond

    clipcond.train(config_of(name, table))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def measured_peak(name: str, table: Path, environment: dict[str, str]) -> float:
    """Train in a process of its own; return the GiB of its peak."""
    command = [sys.executable, __file__, "--measure", name, str(table)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    shutil.rmtree(table.parent / "run", ignore_errors=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return int(done.stdout.split()[-1]) / 2**30


def planned(name: str, table: Path) -> float:
    """Return the peak that the plan says."""
    from clipcond.workflows.train_plan import PlanOptions, run

    config = config_of(name, table)
    settings = {key: value for key, value in config.to_dict().items() if value is not None}
    return run(PlanOptions(settings=settings)).memory.peak


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(RUNS))
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "TABLE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        peak_of(options.measure[0], Path(options.measure[1]))
        return
    print(f"Python {platform.python_version()}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}\n")
    print(
        "| training | planned GiB | measured GiB | planned / measured | allocator gives back: measured | planned / measured |"
    )
    print("|---" * 6 + "|")
    for name in [options.only] if options.only else RUNS:
        with tempfile.TemporaryDirectory() as folder:
            table = write_pairs(Path(folder), max(16, int(RUNS[name]["batch_size"])))
            measured = [measured_peak(name, table, environment) for environment in ({}, GIVING_BACK)]
            said = planned(name, table) / 2**30
        told = " | ".join(f"{each:.2f} | {said / each:.2f}" for each in measured)
        print(f"| {name} | {said:.2f} | {told} |", flush=True)


if __name__ == "__main__":
    main()
