"""Draw pictures as `mini` itself draws them, errors included, each with what the judge sees in it.

    python recipes/mini/scorer_pictures.py --count 5760 --out runs/mini/scorer-pictures

Two thirds are made by the pipeline in one to five steps, where objects are missing, mixed or misshapen; the others are
decoded from latents half-way between two scenes that differ in one object. A picture of a scene would teach the scorer what
was asked for; what `world.look` sees in it teaches what is there. Shards are pure functions of (seed, number); finished ones
are skipped.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import meeting_code as code
import numpy as np
import torch

import clipcond
from clipcond.mini import world

PER_SHARD = 480
_BATCH = 24


def painted(pipe: Any, conditioner: Any, rng: random.Random) -> list[world.Image.Image]:
    """Pictures of the pipeline in few steps at a guidance that is off, from captions of any length."""
    words = rng.choice(("terse", "terse", "plain", "wordy"))
    captions = [world.caption(world.sample(rng, least=3), rng, words) for _ in range(_BATCH)]
    noise = torch.Generator().manual_seed(rng.getrandbits(32))
    how = {"num_inference_steps": rng.choice((1, 1, 1, 2, 3, 5)), "guidance_scale": rng.uniform(1.0, 2.5)}
    pictures: list[world.Image.Image] = pipe(**conditioner(captions).kwargs, **how, generator=noise).images
    return pictures


@torch.inference_mode()
def mixed(pipe: Any, rng: random.Random) -> list[world.Image.Image]:
    """Pictures between two scenes that differ in one object, with a little noise on their latents."""
    from common import pixels

    scenes = [world.sample(rng) for _ in range(_BATCH)]
    ends = [
        [world.render(scene, rng) for scene in side] for side in (scenes, [world.one_changed(s, rng) for s in scenes])
    ]
    first, second = (pipe.vae.encode(pixels(side)).latent_dist.mean for side in ends)
    share = torch.tensor([rng.choice((0.0, rng.random())) for _ in scenes])[:, None, None, None]
    noise = torch.randn(first.shape, generator=torch.Generator().manual_seed(rng.getrandbits(32)))
    latents = first + share * (second - first) + rng.uniform(0, 0.2) * first.std() * noise
    decoded = pipe.vae.decode(latents).sample.clamp(-1, 1)
    array = ((decoded + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return [world.Image.fromarray(picture) for picture in array]


def labels(scene: world.Scene) -> list[int]:
    """Nineteen numbers: nine colours, nine shapes and the background, UNKNOWN where nothing is."""
    known = code.of_scene(scene)
    return [*known.colours, *known.shapes, known.background]


def known_of(numbers: list[int]) -> code.Known:
    return code.Known(numbers[: code.CELLS], numbers[code.CELLS : 2 * code.CELLS], [], [], numbers[-1])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--count", type=int, default=5760)
    options.add_argument("--seed", type=int, default=6)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--out", type=Path, default=Path("runs/mini/scorer-pictures"))
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    pipe = clipcond.load_pipeline("mini")
    pipe.set_progress_bar_config(disable=True)
    conditioner = clipcond.Conditioner.from_pipeline(pipe)
    for number in range(-(-given.count // PER_SHARD)):
        path = given.out / f"{number:04d}.npz"
        if path.exists():
            continue
        rng, pictures = random.Random(f"{given.seed}/pictures/{number}"), list[world.Image.Image]()
        for turn in range(PER_SHARD // _BATCH):
            pictures += mixed(pipe, rng) if turn % 3 == 2 else painted(pipe, conditioner, rng)
        seen = [labels(world.look(picture)) for picture in pictures]
        temporary = path.with_suffix(".tmp.npz")
        np.savez_compressed(
            temporary, pixels=np.stack([np.asarray(p) for p in pictures]), labels=np.array(seen, dtype=np.int8)
        )
        temporary.replace(path)
        print(f"{path}: {len(pictures)} pictures", flush=True)


if __name__ == "__main__":
    main()
