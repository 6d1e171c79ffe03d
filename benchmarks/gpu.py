"""What clipcond adds to, or saves of, a GPU's time: encoding prompts, embedding pictures and training, each beside a plain loop.

All models are of published sizes with random weights: time does not depend on what a model has learned. The two of a row take
turns, `--repeats` times after two turns that do not count; the ratio is the median of the turns' own, with the least and most.

- encode: SDXL's two text encoders in float16; prompts of one chunk and a negative prompt for all. Beside clipcond the pipeline's
  own `encode_prompt`. Three chunks with weights stand alone: the pipeline reads 75 tokens and no weights.
- embed: files to vectors, float16 weights, JPEGs of 512x384. Beside clipcond: Pillow, open_clip's own preprocessing and
  `encode_image`, one file after the other, and with as many threads as clipcond decodes in. `tensors` leaves files out.
- train: a ViT-B/32, bfloat16, a batch of 256 that is in memory: forward, InfoNCE, backward, clipping, AdamW. Beside clipcond: a
  plain loop over the same open_clip model, texts padded to 77. Captions of 10 to 20 tokens, as collections have them, and of 77.

    python benchmarks/gpu.py [--device cuda] [--repeats 7] [--json FILE] [--small]

`--small` takes small models, to try the script on a CPU.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

import clipcond
from clipcond.diffusion.conditioner import Conditioner
from clipcond.encode.image import ImageTower
from clipcond.images.decode import workers
from clipcond.rerank.embedding import embed_files
from clipcond.runtime.torchvision_repair import repair

repair()

PACKAGES = ("torch", "transformers", "diffusers", "open_clip_torch")
WORDS = (
    "red", "blue", "green", "old", "young", "small", "large", "fox", "bird", "house", "river", "snow", "forest", "castle",
    "light", "fog", "morning", "quiet", "bright",
)  # fmt: skip
NEGATIVE = "blurry, low quality, deformed hands, watermark"
WARM = 2
BASE, SMALL = "ViT-B-32", "ViT-S-32-alt"
PREPROCESS = {
    "size": 224,
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
Row = dict[str, Any]


def turns(
    ours: Callable[[], object], theirs: Callable[[], object] | None, items: int, options: Any, most: int = 100
) -> Row:
    """Items a second of both, and the ratio of ours to theirs, turn by turn; at most `most` turns count."""
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for turn in range(WARM + min(most, options.repeats)):
        for name, run in (("ours", ours), ("theirs", theirs)) if turn % 2 else (("theirs", theirs), ("ours", ours)):
            if run is None:
                continue
            wait(options.device)
            since = time.perf_counter()
            run()
            wait(options.device)
            if turn >= WARM:
                seconds[name].append(time.perf_counter() - since)
    row: Row = {"clipcond": round(items / statistics.median(seconds["ours"]), 1)}
    if seconds["theirs"]:
        ratios = [b / a for a, b in zip(seconds["ours"], seconds["theirs"], strict=True)]
        row |= {"plain": round(items / statistics.median(seconds["theirs"]), 1)}
        row |= {
            "ratio": round(statistics.median(ratios), 2),
            "least": round(min(ratios), 2),
            "most": round(max(ratios), 2),
        }
    return row


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


# encode


def sdxl(options: Any) -> Any:
    """A pipeline with SDXL's text encoders at their sizes; what draws is small, as no picture is drawn."""
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    folder = clipcond.mini.path() / "tokenizer"
    sizes = ((768, 12, 12, "quick_gelu"), (1280, 32, 20, "gelu"))
    if options.small:
        sizes = ((64, 2, 4, "quick_gelu"), (128, 2, 4, "gelu"))
    encoders = []
    with torch.device(options.device):
        for (width, layers, heads, act), kind in zip(sizes, (CLIPTextModel, CLIPTextModelWithProjection), strict=True):
            config = CLIPTextConfig(
                hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=heads,
                hidden_act=act, projection_dim=width, bos_token_id=0, eos_token_id=2, pad_token_id=1,
            )  # fmt: skip
            encoders.append(kind(config).eval())
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 16), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), layers_per_block=1, cross_attention_dim=sum(s[0] for s in sizes),
        attention_head_dim=8, norm_num_groups=8, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=48 + sizes[1][0],
    )  # fmt: skip
    pipe = diffusers.StableDiffusionXLPipeline(
        text_encoder=encoders[0], tokenizer=CLIPTokenizer.from_pretrained(folder), text_encoder_2=encoders[1],
        tokenizer_2=CLIPTokenizer.from_pretrained(folder, pad_token="!"), unet=unet, scheduler=diffusers.DDIMScheduler(),
        vae=diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4), add_watermarker=False,
    )  # fmt: skip
    return pipe.to(options.device, torch.float32 if options.device == "cpu" else torch.float16)


def prompts(count: int, words: int, rng: random.Random) -> list[str]:
    return [" ".join(rng.choices(WORDS, k=words)) for _ in range(count)]


def encoding(options: Any) -> Iterator[Row]:
    pipe, rng = sdxl(options), random.Random(0)
    conditioner = Conditioner.from_pipeline(pipe)

    @torch.no_grad()
    def stock(texts: list[str]) -> None:
        pipe.encode_prompt(texts, negative_prompt=[NEGATIVE] * len(texts))

    for count, rounds in ((1, 20), (8, 5), (64, 1)):
        texts = prompts(count * rounds, 20, rng)
        parts = [texts[at : at + count] for at in range(0, len(texts), count)]
        row = turns(
            lambda parts=parts: [conditioner(part, NEGATIVE) for part in parts],  # type: ignore[misc]
            lambda parts=parts: [stock(part) for part in parts],  # type: ignore[misc]
            len(texts), options,
        )  # fmt: skip
        yield {"what": f"encode, {count} prompts a call", "unit": "prompts/s", **row}
    long = [
        f"{first}, (a red fox:1.3), {rest}"
        for first, rest in zip(prompts(16, 100, rng), prompts(16, 80, rng), strict=True)
    ]
    row = turns(lambda: conditioner(long, NEGATIVE, dialect="a1111"), None, len(long), options)
    yield {"what": "encode, 16 weighted prompts of three chunks", "unit": "prompts/s", **row}


# embed


def write_pictures(folder: Path, count: int) -> list[Path]:
    rng, paths = np.random.default_rng(0), []
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8))
        paths.append(folder / f"{number:04d}.jpg")
        small.resize((512, 384), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def embedding(options: Any, folder: Path) -> Iterator[Row]:
    paths = write_pictures(folder, 8 if options.small else 512)
    yield from of_model(SMALL if options.small else BASE, paths, 128, options)
    if not options.small:
        yield from of_model("ViT-L-14", paths[:256], 64, options)


def of_model(name: str, paths: list[Path], batch: int, options: Any) -> Iterator[Row]:
    import open_clip

    dtype = torch.float32 if options.device == "cpu" else torch.float16
    model, _, prepare = open_clip.create_model_and_transforms(name, pretrained=None, device=options.device)
    model.eval().visual.to(dtype)
    tower = ImageTower.from_open_clip(model, PREPROCESS)
    parts = [paths[at : at + batch] for at in range(0, len(paths), batch)]

    def read(path: Path) -> torch.Tensor:
        with Image.open(path) as image:
            tensor: torch.Tensor = prepare(image)
        return tensor

    @torch.inference_mode()
    def encode(tensors: list[torch.Tensor]) -> torch.Tensor:
        seen = torch.stack(tensors).to(options.device, dtype)
        return functional.normalize(model.encode_image(seen).float(), dim=-1).cpu()

    def files() -> None:
        embed_files(paths, tower, read_prompts=False, batch_size=batch, on_progress=lambda _: None)

    def threaded() -> None:
        with ThreadPoolExecutor(workers()) as pool:
            ready = pool.map(read, paths)
            for part in parts:
                encode([next(ready) for _ in part])

    for way, theirs in (
        ("one file after the other", lambda: [encode([read(path) for path in part]) for part in parts]),
        (f"{workers()} threads", threaded),
    ):
        yield {"what": f"embed, {name}, {way}", "unit": "pictures/s", **turns(files, theirs, len(paths), options, 3)}
    pixels = np.stack([tower.preprocess.pixels(Image.open(path).convert("RGB")) for path in parts[0]])
    tensors = [read(path) for path in parts[0]]
    row = turns(lambda: tower.embed_pixels(pixels), lambda: encode(tensors), batch, options)
    yield {"what": f"embed, {name}, tensors", "unit": "pictures/s", **row}


# train


def training(options: Any, folder: Path) -> Iterator[Row]:
    from clipcond.train.config import TrainConfig
    from clipcond.train.job import prepare

    model, batch = (SMALL, 4) if options.small else (BASE, 256)
    for name, words in (("captions of 10 to 20 tokens", (8, 18)), ("captions of 77 tokens", (90, 90))):
        rng = random.Random(1)
        own = folder / name.replace(" ", "-")
        own.mkdir()
        rows = ["filepath,title"]
        for number in range(batch):
            Image.new("RGB", (64, 64), (number % 256, 90, 200)).save(own / f"{number}.png")
            rows.append(f"{number}.png,{' '.join(rng.choices(WORDS, k=rng.randint(*words)))} {number}")
        (own / "pairs.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        job = prepare(
            TrainConfig(
                data=str(own / "pairs.csv"),
                model=model,
                init="random",
                out=str(own / "run"),
                steps=100,
                batch_size=batch,
                precision="bf16",
                device=options.device,
            )
        )
        ready = job.batches[0]

        def ours(job: Any = job, ready: Any = ready) -> None:
            job.optimizer.zero_grad()
            losses = job.objective.backward(ready)
            norm = float(job.optimizer.clip(1.0))
            assert losses.total == losses.total
            assert norm == norm
            job.optimizer.step(1e-5)

        step = plain_step(model, ready, options)
        row = turns(ours, step, batch, options)
        yield {"what": f"train, {model}, batch {batch}, {name}", "unit": "pairs/s", **row}
        del job, step
        if options.device.startswith("cuda"):
            torch.cuda.empty_cache()


def plain_step(name: str, ready: Any, options: Any) -> Callable[[], None]:
    """A step as one writes it with open_clip and torch alone, on the same batch."""
    import open_clip

    model = open_clip.create_model(name, pretrained=None, device=options.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.98), weight_decay=0.1, fused=True)
    mean, std = (torch.tensor(PREPROCESS[name], device=options.device).view(1, 3, 1, 1) for name in ("mean", "std"))
    ids = np.zeros((len(ready.ids), 77), dtype=np.int64)
    for row, own in zip(ids, ready.ids, strict=True):
        row[: len(own)] = own
    target = torch.arange(len(ids), device=options.device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        pixels = torch.from_numpy(ready.pixels).to(options.device).permute(0, 3, 1, 2).float().div_(255)
        with torch.autocast(options.device.split(":")[0], torch.bfloat16):
            images = model.encode_image(pixels.sub_(mean).div_(std), normalize=True).float()
            texts = model.encode_text(torch.from_numpy(ids).to(options.device), normalize=True).float()
        logits = model.logit_scale.exp() * images @ texts.T
        loss = (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0))
        assert norm == norm
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, 4.6052)

    return step


def main() -> None:
    """Print the table; write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    card = torch.cuda.get_device_name() if options.device.startswith("cuda") else platform.processor() or "CPU"
    about = {"card": card, "python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    print(", ".join(f"{name} {value}" for name, value in about.items()) + "\n")
    print("| what | unit | clipcond | plain | clipcond / plain (least to most) |\n|---|---|---|---|---|", flush=True)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for part in (encoding(options), embedding(options, Path(folder)), training(options, Path(folder))):
            for row in part:
                rows.append(row)
                ratio = f"{row['ratio']:.2f} ({row['least']:.2f} to {row['most']:.2f})" if "ratio" in row else "—"
                print(
                    f"| {row['what']} | {row['unit']} | {row['clipcond']:,} | {row.get('plain', '—')} | {ratio} |",
                    flush=True,
                )
                if options.json is not None:
                    options.json.write_text(json.dumps({"about": about, "rows": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
