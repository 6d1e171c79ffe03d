"""Train the denoiser: an 8×8 latent U-Net that reads one to three chunks of token states.

    python recipes/mini/denoiser.py --autoencoder runs/mini/autoencoder/final --text runs/mini/text/final --out runs/mini/denoiser

The text tower is frozen and the pictures are cheap to describe, so captions and pictures are encoded once, into a pool that
training draws from. The v-prediction loss is taken at high noise more often at first: there the U-Net learns what stands
where, and only then how it looks. Starts again where it stopped; the result is the averaged U-Net, `<out>/final`.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from torch import Tensor

from clipcond.runtime.torchvision_repair import repair

repair()

from autoencoder import images
from common import HELD_OUT_SEED, Average, Run, pixels, warmup_cosine
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file, save_file
from text_tower import BOS, EOS, _encode, states
from text_tower import build as build_text

from clipcond.mini import world

SHARES = {1: 0.55, 2: 0.27, 3: 0.18}  # of training batches, by number of chunks


def build() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=12,
        out_channels=12,
        block_out_channels=(128, 160),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=128,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,
    )


def chunked(ids: list[int]) -> list[list[int]]:
    """Chunks of 75 content ids, each with its BOS, EOS and padding, as the Conditioner cuts them."""
    pieces = [ids[k : k + 75] for k in range(0, len(ids), 75)] or [[]]
    return [[BOS, *piece, *[EOS] * (76 - len(piece))] for piece in pieces]


def draw(rng: random.Random, chunks: int) -> tuple[world.Scene, list[list[int]]]:
    """A scene and its caption in exactly `chunks` chunks."""
    while True:
        scene = world.sample(rng)
        words = rng.choices(("terse", "plain", "wordy"), {1: (4, 4, 3), 2: (0, 2, 3), 3: (0, 0, 1)}[chunks])[0]
        cut = chunked(_encode(world.caption(scene, rng, words)))
        if len(cut) == chunks:
            return scene, cut


class Encoders:
    def __init__(self, autoencoder: Path, text: Path) -> None:
        self.vae = AutoencoderKL.from_pretrained(autoencoder).eval().requires_grad_(False)
        self.text = build_text().eval().requires_grad_(False)
        self.text.load_state_dict(load_file(text / "open_clip_model.safetensors"))

    @torch.inference_mode()
    def latents(self, pictures: Tensor) -> Tensor:
        return self.vae.encode(pictures).latent_dist.mean * self.vae.config.scaling_factor

    @torch.inference_mode()
    def read(self, captions: list[list[list[int]]]) -> Tensor:
        """Captions of K chunks each to (B, K·77, D)."""
        flat = torch.tensor([chunk for caption in captions for chunk in caption])
        return states(self.text, flat).unflatten(0, (len(captions), -1)).flatten(1, 2)

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> list[world.Image.Image]:
        return images(self.vae.decode(latents / self.vae.config.scaling_factor).sample)


def pool(folder: Path, seed: int, size: int, encoders: Encoders) -> dict[int, dict[str, Tensor]]:
    """`size` encoded pairs, by number of chunks: latents (N, 12, 8, 8) and states (N, K·77, D), both float16."""
    result = {}
    for chunks, share in SHARES.items():
        file, count = folder / f"pool-{chunks}-{seed}.safetensors", int(size * share)
        if not file.exists():
            rng = random.Random(f"{seed}/pool/{chunks}")
            latents, rows = [], []
            for _ in range(0, count, 100):
                pairs = [draw(rng, chunks) for _ in range(100)]
                latents.append(encoders.latents(pixels([world.render(scene, rng) for scene, _ in pairs])).half())
                rows.append(encoders.read([caption for _, caption in pairs]).half())
            save_file({"latents": torch.cat(latents).contiguous(), "states": torch.cat(rows)}, file)
            print(f"pool: {count} captions of {chunks} chunks", flush=True)
        result[chunks] = load_file(file)
    return result


@torch.inference_mode()
def paint(
    model: UNet2DConditionModel, rows: Tensor, nothing: Tensor, *, guidance: float, steps: int = 20, seed: int = 0
) -> Tensor:
    """Latents (B, 12, 8, 8) for token states (B, T, D); `nothing`: (1, 77, D), repeated to T."""
    plan = scheduler()
    plan.set_timesteps(steps)
    x = torch.randn(len(rows), 12, 8, 8, generator=torch.Generator().manual_seed(seed))
    both = torch.cat([nothing.repeat(len(rows), rows.shape[1] // 77, 1), rows])
    for t in plan.timesteps:
        without, given = model(torch.cat([x, x]), t, both).sample.float().chunk(2)
        x = plan.step(without + guidance * (given - without), t, x).prev_sample
    return x


def measure(
    model: UNet2DConditionModel, encoders: Encoders, folder: Path, count: int = 40, guidance: float = 2.5
) -> dict[str, float]:
    """Share of objects right in held-out scenes, by number of chunks; leaves a sheet of pictures in the folder."""
    model.eval()
    nothing = encoders.read([chunked([])])
    result = {}
    for chunks in SHARES:
        rng = random.Random(f"{HELD_OUT_SEED}/{chunks}")
        pairs = [draw(rng, chunks) for _ in range(count)]
        rows = encoders.read([caption for _, caption in pairs])
        with torch.autocast("cpu", torch.bfloat16):
            painted = paint(model, rows, nothing, guidance=guidance)
        pictures = encoders.decode(painted.float())
        verdicts = [ok for p, (scene, _) in zip(pictures, pairs, strict=True) for ok in world.check(p, scene)]
        result[f"right_{chunks}"] = round(sum(verdicts) / len(verdicts), 4)
        sheet = world.Image.new("RGB", (64 * 8, 64 * 2))
        for k, (picture, (scene, _)) in enumerate(zip(pictures[:8], pairs, strict=False)):
            sheet.paste(world.render(scene, random.Random(0)), (k * 64, 0))
            sheet.paste(picture, (k * 64, 64))
        sheet.save(folder / f"sheet-{chunks}.png")
    model.train()
    return result


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--autoencoder", type=Path, default=Path("runs/mini/autoencoder/final"))
    options.add_argument("--text", type=Path, default=Path("runs/mini/text/final"))
    options.add_argument("--out", type=Path, default=Path("runs/mini/denoiser"))
    options.add_argument("--steps", type=int, default=7000)
    options.add_argument("--batch", type=int, default=32)
    options.add_argument("--pool", type=int, default=50000)
    options.add_argument("--rate", type=float, default=8e-4)
    options.add_argument("--seed", type=int, default=4)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--measure-every", type=int, default=1000)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)

    given.out.mkdir(parents=True, exist_ok=True)
    encoders = Encoders(given.autoencoder, given.text)
    pairs = pool(given.out, given.seed, given.pool, encoders)
    nothing = encoders.read([chunked([])])
    alphas = scheduler().alphas_cumprod

    model = build()
    model.set_attn_processor(AttnProcessor())  # a step with torch's fused CPU kernel takes half as long again
    optimizer = torch.optim.AdamW(model.parameters(), lr=given.rate, betas=(0.9, 0.99), weight_decay=0.01)
    average = Average(model, 0.9990)
    run = Run(given.out, model=model, optimizer=optimizer, average=average)
    total = 0.0
    for step in run.steps(given.steps):
        optimizer.param_groups[0]["lr"] = warmup_cosine(step, given.steps, given.rate)
        rng = random.Random(f"{given.seed}/{step}")
        noise = torch.Generator().manual_seed(rng.getrandbits(32))
        chosen = pairs[rng.choices(list(SHARES), list(SHARES.values()))[0]]
        index = torch.tensor(rng.sample(range(len(chosen["latents"])), given.batch))
        x0, rows = chosen["latents"][index].float(), chosen["states"][index].float()
        drop = torch.rand(given.batch, generator=noise) < 0.1
        rows[drop] = nothing.repeat(1, rows.shape[1] // 77, 1)
        # Early on t is drawn with density rising towards pure noise; the density flattens to the end.
        power = 0.5 + 0.4 * step / given.steps
        t = (torch.rand(given.batch, generator=noise) ** power * 1000).long().clamp(max=999)
        a = alphas[t].view(-1, 1, 1, 1)
        eps = torch.randn(x0.shape, generator=noise)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = model(a.sqrt() * x0 + (1 - a).sqrt() * eps, t, rows).sample
        loss = (predicted.float() - (a.sqrt() * eps - (1 - a).sqrt() * x0)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(model)
        total += float(loss.detach())
        if (step + 1) % 100 == 0:
            extra = {}
            if (step + 1) % given.measure_every == 0:
                own = {name: p.detach().clone() for name, p in model.named_parameters()}
                average.copy_to(model)
                extra = measure(model, encoders, given.out)
                model.load_state_dict(own, strict=False)
            run.log(loss=round(total / 100, 4), **extra)
            total = 0.0
    average.copy_to(model)
    run.log(final=measure(model, encoders, given.out, 100))
    model.save_pretrained(given.out / "final")


if __name__ == "__main__":
    main()
