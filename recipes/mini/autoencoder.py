"""Train the autoencoder: 64×64 pictures to 8×8 latents of 12 channels and back.

    python recipes/mini/autoencoder.py --steps 10000 --out runs/mini/autoencoder

Starts again where it stopped. Small batches: sharpness comes with the number of steps, not of pictures. The result is a
diffusers folder, `<out>/final`, with the scaling factor set from the standard deviation of the latents.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from clipcond.runtime.torchvision_repair import repair

repair()

from common import HELD_OUT_SEED, Average, Run, pixels, scenes, warmup_cosine
from diffusers import AutoencoderKL

from clipcond.mini import world


def build() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 48, 64),
        layers_per_block=1,
        latent_channels=12,
        norm_num_groups=8,
        sample_size=world.SIZE,
        mid_block_add_attention=False,
    )


def batch(seed: int | str, step: int, count: int) -> torch.Tensor:
    drawn, rng = scenes(seed, step, count)
    return pixels([world.render(scene, rng) for scene in drawn])


@torch.no_grad()
def measure(model: AutoencoderKL, count: int = 200) -> dict[str, float]:
    """How many objects the judge still recognises after encoding and decoding, with and without noise on the latents."""
    model.eval()
    drawn, rng = scenes(HELD_OUT_SEED, 0, count)
    pictures = pixels([world.render(scene, rng) for scene in drawn])
    latents = model.encode(pictures).latent_dist.mean
    spread = float(latents.std())
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    result = {"latent_std": round(spread, 4)}
    for name, amount in (("plain", 0.0), ("noise10", 0.1), ("noise20", 0.2)):
        decoded = model.decode(latents + amount * spread * noise).sample
        verdicts = [ok for image, scene in zip(images(decoded), drawn, strict=True) for ok in world.check(image, scene)]
        result[f"objects_{name}"] = round(sum(verdicts) / len(verdicts), 4)
        if not amount:
            result["l1"] = round(float((decoded - pictures).abs().mean()), 4)
    model.train()
    return result


def images(tensor: torch.Tensor) -> list[world.Image.Image]:
    array = ((tensor.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    return [world.Image.fromarray(picture) for picture in array]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, default=Path("runs/mini/autoencoder"))
    options.add_argument("--steps", type=int, default=10000)
    options.add_argument("--batch", type=int, default=6)
    options.add_argument("--rate", type=float, default=1e-3)
    options.add_argument("--kl", type=float, default=3e-4)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--threads", type=int, default=2)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)

    model = build().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=given.rate, betas=(0.9, 0.99), weight_decay=0.0)
    average = Average(model)
    run = Run(given.out, model=model, optimizer=optimizer, average=average)
    total = 0.0
    for step in run.steps(given.steps):
        optimizer.param_groups[0]["lr"] = warmup_cosine(step, given.steps, given.rate)
        pictures = batch(given.seed, step, given.batch).contiguous(memory_format=torch.channels_last)
        posterior = model.encode(pictures).latent_dist
        decoded = model.decode(posterior.sample()).sample
        error = decoded - pictures
        divergence = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        loss = error.square().mean() + 0.1 * error.abs().mean() + given.kl * divergence
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(model)
        total += float(loss.detach())
        if (step + 1) % 250 == 0:
            run.log(loss=round(total / 250, 4), **(measure(model, 60) if (step + 1) % 500 == 0 else {}))
            total = 0.0
    average.copy_to(model)
    result = measure(model, 500)
    model.register_to_config(scaling_factor=1 / result["latent_std"])
    run.log(final=result)
    model.save_pretrained(given.out / "final")


if __name__ == "__main__":
    main()
