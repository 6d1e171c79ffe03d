"""Teach the scorer's image tower to say all that a picture shows: the code of `meeting_code.py`, from pixels.

    python recipes/mini/scorer_image.py --image clipcond/mini/weights/clip --pictures runs/mini/scorer-pictures

Starts from the image tower of the first dual encoder. Pictures are drawn on the spot, some of them blurred or with noise, and
a share comes from `scorer_pictures.py`, where the label is what the judge sees. A second reading, cell by cell from the
patches after three blocks, is thrown away at the end: it gives each cell's shape a short way to the weights that must tell
shapes apart. Small batches: what counts is the number of steps. Starts again where it stopped; the result is `<out>/final`.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import meeting_code as code
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from clipcond.runtime.torchvision_repair import repair

repair()

from common import HELD_OUT_SEED, Average, Run, pixels, warmup_cosine
from PIL import ImageFilter
from scorer_pictures import known_of

from clipcond.mini import world
from clipcond.models.open_clip_folder import read_config, read_open_clip_folder, write_open_clip_folder

READ_AFTER = 2  # number of the block whose patches the second reading sees


def overlap(patches: int = 8) -> Tensor:
    """(9, patches²) float32: the share of each patch in each cell; rows sum to one."""
    cells, tiles = (np.linspace(0, world.SIZE, count + 1) for count in (world.GRID, patches))
    shared = np.minimum(cells[1:, None], tiles[None, 1:]) - np.maximum(cells[:-1, None], tiles[None, :-1])
    along = np.clip(shared, 0, None) / (world.SIZE / world.GRID)
    return torch.from_numpy(np.einsum("rp,cq->rcpq", along, along).reshape(9, -1)).float()


class CellReading(nn.Module):
    """Colour and shape of each cell from the patches that lie in it."""

    def __init__(self, visual: nn.Module, width: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, len(code.COLOURS) + len(code.SHAPES))
        self.register_buffer("shares", overlap(), persistent=False)
        self.states: Tensor | None = None
        block: nn.Module = visual.transformer.resblocks[READ_AFTER]
        block.register_forward_hook(self._keep)

    def _keep(self, _block: nn.Module, _given: object, states: Tensor) -> None:
        self.states = states

    def loss(self, known: Sequence[code.Known]) -> Tensor:
        """Cross-entropy of the last forward pass's patches."""
        cells = self.head(torch.einsum("cp,npd->ncd", self.shares, self.states[:, 1:].float()))
        colours, shapes = cells.split([len(code.COLOURS), len(code.SHAPES)], dim=-1)
        return code.cross(colours, torch.tensor([each.colours for each in known])) + code.cross(
            shapes, torch.tensor([each.shapes for each in known])
        )


class Pool:
    """The pictures of `scorer_pictures.py` that are there by now."""

    def __init__(self, folder: Path | None) -> None:
        files = sorted(path for path in folder.glob("[0-9]*.npz") if ".tmp" not in path.name) if folder else []
        self.shards = [(data["pixels"], data["labels"]) for data in map(np.load, files)]

    def draw(self, rng: random.Random) -> tuple[world.Image.Image, code.Known]:
        pictures, labels = rng.choice(self.shards)
        at = rng.randrange(len(pictures))
        return world.Image.fromarray(pictures[at]), known_of([int(number) for number in labels[at]])


def degraded(picture: world.Image.Image, rng: random.Random) -> world.Image.Image:
    """As it is, or slightly blurred, noisy, darker or of less contrast."""
    if rng.random() < 0.5:
        return picture
    if rng.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.9)))
    array = np.asarray(picture, dtype=np.float32)
    noise = np.random.default_rng(rng.getrandbits(32)).standard_normal(array.shape, dtype=np.float32)
    array = rng.uniform(0.93, 1.05) * array + rng.uniform(-6, 6) + rng.uniform(0, 10) * noise
    return world.Image.fromarray(array.clip(0, 255).astype(np.uint8))


def batch(seed: int | str, step: int, count: int, pool: Pool, share: float) -> tuple[Tensor, list[code.Known]]:
    """Pictures (N, 3, 64, 64) and what they show; `share` of them from the pool."""
    rng = random.Random(f"{seed}/{step}")
    pictures, known = [], []
    for _ in range(count):
        if pool.shards and rng.random() < share:
            picture, seen = pool.draw(rng)
        else:
            scene = world.sample(rng)
            picture, seen = degraded(world.render(scene, rng), rng), code.of_scene(scene)
        pictures.append(picture)
        known.append(seen)
    return pixels(pictures), known


def encode(visual: nn.Module, pictures: Tensor) -> Tensor:
    """(N, P) unit vectors, in bfloat16 but for the end. Plain attention products: the fused kernel is slow on CPUs."""
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        vectors = visual(pictures)
    return nn.functional.normalize(vectors.float(), dim=-1)


@torch.no_grad()
def measure(visual: nn.Module, pool: Pool, steps: int = 4) -> dict[str, float]:
    """On held-out scenes, drawn; cosine with the code and the share of colours and shapes read right."""
    seen = []
    for step in range(steps):
        pictures, known = batch(HELD_OUT_SEED, step, 64, pool, 0.0)
        seen.append(code.reading(encode(visual, pictures), known).summary())
    return {name: round(sum(each[name] for each in seen) / steps, 4) for name in seen[0]}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--image", type=Path, default=Path("runs/mini/dual/model"), help="the dual encoder to start from"
    )
    options.add_argument("--pictures", type=Path, help="the folder of scorer_pictures.py")
    options.add_argument("--share", type=float, default=0.25, help="of the pictures that come from there")
    options.add_argument("--out", type=Path, default=Path("runs/mini/scorer-image"))
    options.add_argument("--steps", type=int, default=9000)
    options.add_argument("--stop", type=int, help="end here; the learning rate follows --steps all the same")
    options.add_argument("--batch", type=int, default=12)
    options.add_argument("--rate", type=float, default=1e-3)
    options.add_argument("--seed", type=int, default=7)
    options.add_argument("--threads", type=int, default=1)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)

    model, config, pool = read_open_clip_folder(given.image), read_config(given.image), Pool(given.pictures)
    visual: Any = model.visual
    nn.init.normal_(visual.proj, std=visual.proj.shape[0] ** -0.5)
    cells = CellReading(visual, visual.proj.shape[0])
    every = [*visual.parameters(), *cells.parameters()]
    optimizer = torch.optim.AdamW(every, lr=given.rate, betas=(0.9, 0.98), weight_decay=0.02)
    average = Average(visual)
    run = Run(given.out, visual=visual, cells=cells, optimizer=optimizer, average=average)
    total = near = 0.0
    for step in run.steps(given.stop or given.steps, save_every=200):
        optimizer.param_groups[0]["lr"] = warmup_cosine(step, given.steps, given.rate, warmup=100)
        pictures, known = batch(given.seed, step, given.batch, pool, given.share)
        loss = code.reading(encode(visual, pictures), known).loss()
        local = cells.loss(known)
        optimizer.zero_grad()
        (loss + local).backward()
        torch.nn.utils.clip_grad_norm_(every, 1.0)
        optimizer.step()
        average.update(visual)
        total, near = total + float(loss.detach()), near + float(local.detach())
        if (step + 1) % 100 == 0:
            found = measure(visual, pool) if (step + 1) % 400 == 0 else {}
            run.log(loss=round(total / 100, 4), cells=round(near / 100, 4), pool=len(pool.shards), **found)
            total = near = 0.0
            pool = Pool(given.pictures)
    average.copy_to(visual)
    run.log(final=measure(visual, pool, 12))
    write_open_clip_folder(model, config, given.out / "final")


if __name__ == "__main__":
    main()
