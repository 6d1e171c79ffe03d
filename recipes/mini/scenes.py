"""Draw the pairs that the dual encoder is trained on: WebDataset tars of pictures and captions.

    python recipes/mini/scenes.py --count 200000 --seed 3 --out runs/mini/scenes

A sample is a 64×64 PNG and a JSON with six captions: three terse ones, a plain and a wordy one, and one of these
without its first tokens, because the later chunks of a long prompt start in mid-caption. `held-out.tar` holds 2,000
other scenes, no two with the same content, with one caption each that fits 75 tokens. Every shard is a pure function of
(seed, number); finished ones are skipped.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import tarfile
import time
from pathlib import Path

from common import HELD_OUT_SEED

from clipcond.mini import world
from clipcond.prompt.tokenizer import CONTENT, token_ids, tokenize

PER_SHARD = 10_000
LEAST_LEFT = 12  # tokens of a fragment: about two objects


def fragment(caption: str, rng: random.Random) -> str:
    """The caption without its first n tokens, n at random; whole if it is short."""
    tokens = tokenize(caption, "openai")
    if len(tokens) <= LEAST_LEFT:
        return caption
    return caption[tokens[rng.randint(1, len(tokens) - LEAST_LEFT)].start :]


def captions(scene: world.Scene, rng: random.Random) -> list[str]:
    said = [world.caption(scene, rng, words) for words in ("terse", "terse", "terse", "plain", "wordy")]
    return [*said, fragment(rng.choice(said), rng)]


def fitting(scene: world.Scene, rng: random.Random) -> str:
    """One caption of at most 75 tokens: plain or wordy where it fits, else terse."""
    said = world.caption(scene, rng, rng.choice(("terse", "plain", "wordy")))
    while len(token_ids(said, "openai")) > CONTENT:
        said = world.caption(scene, rng, "terse")
    return said


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def write(path: Path, samples: int, seed: int | str, *, held_out: bool = False) -> None:
    """One tar, complete or not at all."""
    rng = random.Random(f"{seed}/{path.stem}")
    seen: set[object] = set()
    temporary = path.with_suffix(".tmp")
    with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        number = 0
        while number < samples:
            scene = world.sample(rng)
            content = (scene.background, frozenset(scene.objects))
            if held_out and content in seen:
                continue
            seen.add(content)
            picture = io.BytesIO()
            world.render(scene, rng).save(picture, "PNG", compress_level=1)
            said = [fitting(scene, rng)] if held_out else captions(scene, rng)
            add(tar, f"{number:06d}.png", picture.getvalue())
            add(tar, f"{number:06d}.json", json.dumps({"captions": said}).encode())
            number += 1
    temporary.replace(path)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=Path("runs/mini/scenes"))
    options.add_argument("--count", type=int, default=200_000)
    options.add_argument("--held-out", type=int, default=2_000)
    options.add_argument("--seed", type=int, default=3)
    given = options.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    held_out = given.out / "held-out.tar"
    if not held_out.exists():
        write(held_out, given.held_out, HELD_OUT_SEED, held_out=True)
    start = time.monotonic()
    for shard, first in enumerate(range(0, given.count, PER_SHARD)):
        path = given.out / f"train-{shard:04d}.tar"
        if not path.exists():
            write(path, min(PER_SHARD, given.count - first), given.seed)
            print(f"{path} · {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
