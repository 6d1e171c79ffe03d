"""Seconds to score pictures against prompts: clipcond, two libraries for CLIPScore, and loops over open_clip and transformers.

The pictures are made on the spot: 1024 × 1024, soft shapes with a little grain, half of them PNG, half JPEG of quality 90.
The models have the shapes of ViT-B/32 and ViT-L/14 and random weights, the same ones in every library: time and rounding do
not depend on what a model has learned. Each picture has one of eight prompts. All contestants hold their model in memory,
start from file names, end with a score for each picture (those that print a mean, with the mean), and take turns, so that a
busy moment of the machine hits all; the tables give medians with the least and the most, and ratios run by run.

- open_clip, transformers: what a careful user writes: batches of 32, `inference_mode`, each distinct prompt encoded once.
- torchmetrics: `CLIPScore.update` with batches of 32 pictures as uint8 tensors.   clip-score: its `calculate_clip_score` over
  its data set and a DataLoader with a worker process for each core, batches of 50. Both expect `get_image_features` to
  return a tensor, which transformers 5 no longer does: they get the model in a wrapper that takes the tensor out.
- clipcond: `rank_pictures` without a cache, in float32 and bfloat16; over more pictures with an empty cache, and once more.

First the limit is counted: operations of one picture's forward, the machine's speed in products of those sizes, and the time
of decoding and resizing one picture on one core. `of the limit`: the least that is possible without another
encoder, as a share of the median: the forward alone, or where that is more the processor seconds of decode, resize and
forward over the number of cores. `forward`: the share of the wall time during which the encoder runs.

    python benchmarks/rerank.py [--pictures 32] [--large-pictures 4] [--cache-pictures 200] [--runs 3]
        [--threads 1] [--many 10000]
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.util
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from clipcond.encode.embedding_cache import EmbeddingCache
from clipcond.encode.image import ImageTower
from clipcond.encode.precision import cast_tower
from clipcond.images.decode import decoded
from clipcond.models.load import load_dual
from clipcond.models.to_transformers import clip_text_config, open_clip_text_to_transformers
from clipcond.rerank.ranking import Pairing, rank_pictures
from clipcond.rerank.scorer import Scorer
from clipcond.resources import embedded
from clipcond.runtime.torchvision_repair import repair

PACKAGES = ("clipcond", "torch", "pillow", "open_clip_torch", "transformers", "torchmetrics", "clip-score")
PROMPTS = [
    f"a {colour} {thing} in the snow at night" for colour in ("red", "blue") for thing in ("fox", "car", "owl", "ship")
]
BATCH = 32
Scores = list[float]


# ── pictures and models ──────────────────────────────────────────────────────────────────────────────────────────────


def make_pictures(folder: Path, count: int, side: int = 1024) -> list[Path]:
    """Write pictures of soft shapes and grain, PNG and JPEG in turn."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        shapes = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize(
            (side, side), Image.Resampling.BICUBIC
        )
        grain = rng.normal(0, 4, (side, side, 1))
        picture = Image.fromarray(np.clip(np.asarray(shapes) + grain, 0, 255).astype(np.uint8))
        paths.append(folder / f"{number:05}.{'jpg' if number % 2 else 'png'}")
        picture.save(paths[-1], **({"quality": 90} if number % 2 else {}))
    return paths


def make_models(folder: Path, name: str) -> tuple[Path, Path]:
    """Write a model of random weights in open_clip's and in transformers' format."""
    repair()
    import open_clip
    from open_clip.transform import PreprocessCfg
    from safetensors.torch import save_file
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    torch.manual_seed(0)
    with contextlib.redirect_stderr(io.StringIO()):
        model = open_clip.create_model(name, load_weights=False).eval()
    config = open_clip.get_model_config(name)
    ours, theirs = folder / f"{name}-open_clip", folder / f"{name}-transformers"
    ours.mkdir()
    about = {"model_cfg": config, "preprocess_cfg": {**vars(PreprocessCfg()), "size": 224}}
    (ours / "open_clip_config.json").write_text(json.dumps(about))
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, ours / "open_clip_model.safetensors")
    width, layers = config["vision_cfg"]["width"], config["vision_cfg"]["layers"]
    vision = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "hidden_act": "gelu",
        "num_attention_heads": width // 64,
        "patch_size": config["vision_cfg"]["patch_size"],
        "image_size": 224,
    }
    shape = CLIPConfig(vision_config=vision, text_config=clip_text_config(model), projection_dim=config["embed_dim"])
    converted = CLIPModel(shape)
    text = open_clip_text_to_transformers(model.state_dict(), config["text_cfg"]["heads"])
    lacking = converted.load_state_dict({**text, **vision_to_transformers(model)}, strict=False)
    assert {key for key in lacking.missing_keys if "position_ids" not in key} <= {"logit_scale"}, lacking
    assert not lacking.unexpected_keys, lacking
    converted.save_pretrained(theirs)
    CLIPProcessor(image_processor=CLIPImageProcessor(), tokenizer=tokenizer(CLIPTokenizer)).save_pretrained(theirs)
    return ours, theirs


def vision_to_transformers(model: Any) -> dict[str, torch.Tensor]:
    """The weights of an open_clip vision transformer under transformers' names."""
    visual = model.visual
    as_text = {  # the blocks are those of a text encoder; what else one has is left out below
        **{key: value for key, value in visual.state_dict().items() if key.startswith("transformer.")},
        "token_embedding.weight": visual.positional_embedding,
        "positional_embedding": visual.positional_embedding,
        "ln_final.weight": visual.ln_post.weight,
        "ln_final.bias": visual.ln_post.bias,
    }
    layers = open_clip_text_to_transformers(as_text, visual.transformer.resblocks[0].attn.num_heads)
    prefix = "text_model."
    return {
        **{f"vision_model.{key.removeprefix(prefix)}": value for key, value in layers.items() if ".encoder." in key},
        "vision_model.embeddings.class_embedding": visual.class_embedding,
        "vision_model.embeddings.patch_embedding.weight": visual.conv1.weight,
        "vision_model.embeddings.position_embedding.weight": visual.positional_embedding,
        "vision_model.pre_layrnorm.weight": visual.ln_pre.weight,
        "vision_model.pre_layrnorm.bias": visual.ln_pre.bias,
        "vision_model.post_layernorm.weight": visual.ln_post.weight,
        "vision_model.post_layernorm.bias": visual.ln_post.bias,
        "visual_projection.weight": visual.proj.T.contiguous(),
    }


def tokenizer(kind: Any) -> Any:
    """CLIP's tokenizer as transformers has it, from the embedded pipeline."""
    return kind.from_pretrained(embedded("pipeline") / "tokenizer")


# ── contestants ──────────────────────────────────────────────────────────────────────────────────────────────────────


def batches(items: Sequence[Any], size: int = BATCH) -> Iterator[Sequence[Any]]:
    """Stretches of a list."""
    for at in range(0, len(items), size):
        yield items[at : at + size]


def open_clip_loop(folder: Path) -> Callable[[list[Path], list[str]], Scores]:
    """A loop over open_clip's own transform and encoders."""
    import open_clip

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    read = open_clip.get_tokenizer("ViT-B-32")
    model.eval()

    @torch.inference_mode()
    def run(paths: list[Path], prompts: list[str]) -> Scores:
        distinct = list(dict.fromkeys(prompts))
        texts = dict(zip(distinct, model.encode_text(read(distinct), normalize=True), strict=True))
        rows = []
        for some in batches(paths):
            pixels = torch.stack([transform(Image.open(path)) for path in some])
            rows.append(model.encode_image(pixels, normalize=True))
        return (torch.cat(rows) * torch.stack([texts[prompt] for prompt in prompts])).sum(dim=1).tolist()

    return run


def transformers_loop(folder: Path) -> Callable[[list[Path], list[str]], Scores]:
    """A loop over transformers' processor and model."""
    from transformers import CLIPProcessor

    model, processor = shared_model(folder), CLIPProcessor.from_pretrained(folder)

    @torch.inference_mode()
    def run(paths: list[Path], prompts: list[str]) -> Scores:
        distinct = list(dict.fromkeys(prompts))
        read = processor(text=distinct, return_tensors="pt", padding=True)
        texts = dict(zip(distinct, _unit(model.get_text_features(**read).pooler_output), strict=True))
        rows = []
        for some in batches(paths):
            pixels = processor(images=[Image.open(path).convert("RGB") for path in some], return_tensors="pt")
            rows.append(_unit(model.get_image_features(**pixels).pooler_output))
        return (torch.cat(rows) * torch.stack([texts[prompt] for prompt in prompts])).sum(dim=1).tolist()

    return run


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(rows, dim=-1)


@cache
def shared_model(folder: Path) -> Any:
    """transformers' CLIP, once for all that use it."""
    from transformers import CLIPModel

    return CLIPModel.from_pretrained(folder).eval()


class TensorsOnly(torch.nn.Module):
    """A transformers CLIP whose features are tensors, as in version 4."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.model = shared_model(folder)
        self.config = self.model.config

    def get_image_features(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self.model.get_image_features(*args, **kwargs).pooler_output

    def get_text_features(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self.model.get_text_features(*args, **kwargs).pooler_output


def torchmetrics_score(folder: Path) -> Callable[[list[Path], list[str]], Scores]:
    """torchmetrics' CLIPScore, which gives 100 times the mean cosine."""
    from torchmetrics.multimodal.clip_score import CLIPScore
    from transformers import CLIPProcessor

    model, processor = TensorsOnly(folder), CLIPProcessor.from_pretrained(folder)

    @torch.inference_mode()
    def run(paths: list[Path], prompts: list[str]) -> Scores:
        metric = CLIPScore(model_name_or_path=lambda: (model, processor))
        for some, texts in zip(batches(paths), batches(prompts), strict=True):
            pictures = [torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1) for path in some]
            metric.update(pictures, list(texts))
        return [float(metric.score / metric.n_samples) / 100]

    return run


def clip_score_package(folder: Path) -> Callable[[list[Path], list[str]], Scores]:
    """The package clip-score (Taited), as its command runs it."""
    from clip_score.clip_score import DummyDataset, calculate_clip_score
    from torch.utils.data import DataLoader
    from transformers import AutoProcessor, AutoTokenizer

    model = TensorsOnly(folder)
    processor, reader = AutoProcessor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)

    def run(paths: list[Path], prompts: list[str]) -> Scores:
        with TemporaryDirectory() as place:
            pictures, texts = Path(place, "pictures"), Path(place, "texts")
            pictures.mkdir()
            texts.mkdir()
            for path, prompt in zip(paths, prompts, strict=True):
                (pictures / path.name).symlink_to(path)
                (texts / f"{path.stem}.txt").write_text(prompt)
            data = DummyDataset(str(pictures), str(texts), transform=processor, tokenizer=reader)
            loader = DataLoader(data, 50, num_workers=min(8, os.cpu_count() or 1))
            with contextlib.redirect_stderr(io.StringIO()):
                return [float(calculate_clip_score(loader, model, "img", "txt"))]

    return run


class Ours:
    """clipcond, with or without a cache; of the last run also the seconds during which the encoder ran."""

    def __init__(self, folder: Path, precision: str, cache: Path | None = None) -> None:
        self._dual = load_dual(str(folder))
        cast_tower(self._dual.image, precision)
        self._cache = cache
        self.forward = 0.0

    def __call__(self, paths: list[Path], prompts: list[str]) -> Scores:
        embed, began = ImageTower.embed_pixels, time.perf_counter

        def timed(tower: ImageTower, *args: Any) -> torch.Tensor:
            start = began()
            rows = embed(tower, *args)
            self.forward += began() - start
            return rows

        self.forward = 0.0
        ImageTower.embed_pixels = timed  # type: ignore[method-assign]
        try:
            cache = None if self._cache is None else EmbeddingCache(self._cache, clock=lambda: time.time() + 60)
            pairings = [Pairing(path=path, prompt=prompt) for path, prompt in zip(paths, prompts, strict=True)]
            ranking = rank_pictures(pairings, scorer=Scorer(self._dual), batch_size=BATCH, cache=cache)
        finally:
            ImageTower.embed_pixels = embed  # type: ignore[method-assign]
        found = {row.path: row.cosine for row in ranking.rows}
        return [found[path] or 0.0 for path in paths]


# ── the limit ────────────────────────────────────────────────────────────────────────────────────────────────────────


def best(call: Callable[[], object], repeats: int, clock: Callable[[], float] = time.process_time) -> float:
    """The least seconds of several calls."""
    times = []
    for _ in range(repeats):
        start = clock()
        call()
        times.append(clock() - start)
    return min(times)


def parts_alone(paths: list[Path], folder: Path, repeats: int) -> dict[str, float]:
    """Processor seconds of a picture in each part, each alone, the best of several."""
    tower = load_dual(str(folder)).image
    some = paths[:4]
    pictures = [Image.open(path).copy() for path in some]

    def decode() -> None:
        for path in some:
            with decoded(path):
                pass

    pixels = np.stack([tower.preprocess.pixels(picture) for picture in pictures])
    found = {
        "decode": best(decode, repeats) / len(some),
        "resize": best(lambda: [tower.preprocess.pixels(picture) for picture in pictures], repeats) / len(some),
        "forward fp32": best(lambda: tower.embed_pixels(pixels), repeats) / len(some),
    }
    cast_tower(tower, "bf16")
    found["forward bf16"] = best(lambda: tower.embed_pixels(pixels), repeats) / len(some)
    return found


def operations(folder: Path) -> float:
    """Floating-point operations of one picture's forward, counted."""
    tower = load_dual(str(folder)).image
    pixels = np.zeros((1, 224, 224, 3), dtype=np.uint8)
    torch.backends.mha.set_fastpath_enabled(False)  # the counter does not know the fused kernel
    try:
        with FlopCounterMode(display=False) as counter:
            tower.embed_pixels(pixels)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    return float(counter.get_total_flops())


def speed(dtype: torch.dtype, width: int) -> float:
    """Operations a second in a product of an encoder's inner layer, per processor second."""
    x, w = torch.randn(800, width).to(dtype), torch.randn(4 * width, width).to(dtype)
    return 2 * 800 * width * 4 * width / best(lambda: torch.nn.functional.linear(x, w), 20)


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def contestants(
    ours: Path, theirs: Path, without: Collection[str]
) -> dict[str, Callable[[list[Path], list[str]], Scores]]:
    """All that can run here; one line for each that cannot, or is left out."""
    found: dict[str, Callable[[list[Path], list[str]], Scores]] = {"open_clip loop": open_clip_loop(ours)}
    for name, module, make in (
        ("transformers loop", "transformers", transformers_loop),
        ("torchmetrics CLIPScore", "torchmetrics", torchmetrics_score),
        ("clip-score", "clip_score", clip_score_package),
    ):
        if module in without:
            print(f"{name} is left out, as --without says\n")
        elif importlib.util.find_spec(module) is None:
            print(f"{name} is left out: it is not installed\n")
        else:
            found[name] = make(theirs)
    found["clipcond float32"] = Ours(ours, "fp32")
    found["clipcond bfloat16"] = Ours(ours, "bf16")
    return found


def compare(name: str, paths: list[Path], ours: Path, theirs: Path, runs: int, without: Collection[str]) -> None:
    """One model's table."""
    prompts = [PROMPTS[number % len(PROMPTS)] for number in range(len(paths))]
    alone = parts_alone(paths, ours, max(2, runs))
    flops = operations(ours)
    speeds = {dtype: speed(dtype, 1024 if "L-14" in name else 768) for dtype in (torch.float32, torch.bfloat16)}
    print(f"\n### {name}, {len(paths)} pictures\n")
    print(f"One picture, processor ms alone: {', '.join(f'{part} {1000 * took:.1f}' for part, took in alone.items())}.")
    reached = [
        f"{each / 1e9:.0f} GFLOP/s in {dtype} (the forward reaches {flops / each / alone[f'forward {short}']:.0%} of it)"
        for each, dtype, short in zip(speeds.values(), ("float32", "bfloat16"), ("fp32", "bf16"), strict=True)
    ]
    print(
        f"Counted: {flops / 1e9:.1f} GFLOP a forward; products of a layer run at {' and '.join(reached)}.\n", flush=True
    )
    race = Race(contestants(ours, theirs, without))
    race.run(paths, prompts, runs)
    show(race, alone, len(paths))
    exact, half = batch_effect(ours, paths), batch_effect(ours, paths, "bf16")
    print(
        f"Scores move by {exact:.1e} between batches of 1, 3 and 32 in float32, by {half:.1e} in bfloat16.", flush=True
    )


class Race:
    """Contestants that take turns: seconds of each run, the last scores, and the encoder's share of clipcond's runs."""

    def __init__(self, racing: dict[str, Callable[[list[Path], list[str]], Scores]]) -> None:
        self._racing = racing
        self.times: dict[str, list[float]] = {each: [] for each in racing}
        self.shares: dict[str, list[float]] = {each: [] for each in racing}
        self.scores: dict[str, Scores] = {}

    def run(self, paths: list[Path], prompts: list[str], runs: int) -> None:
        """Take turns; first once with two pictures, not timed, as first calls allocate."""
        for call in self._racing.values():
            call(paths[:2], prompts[:2])
        for _ in range(runs):
            for each, call in self._racing.items():
                start = time.perf_counter()
                self.scores[each] = call(paths, prompts)
                self.times[each].append(time.perf_counter() - start)
                if isinstance(call, Ours):
                    self.shares[each].append(call.forward / self.times[each][-1])


def show(race: Race, alone: dict[str, float], count: int) -> None:
    """Print the table of a race."""
    peers = [each for each in race.times if not each.startswith("clipcond")]
    winner = min(peers, key=lambda each: statistics.median(race.times[each]))
    print(f"| | seconds | pictures/s | × {winner} | forward | of the limit | scores from open_clip's |")
    print("|---|---|---|---|---|---|---|")
    for each, taken in race.times.items():
        ratios = [slow / quick for slow, quick in zip(race.times[winner], taken, strict=True)]
        forward = alone["forward bf16" if "bfloat16" in each else "forward fp32"]
        least = count * max(forward, (alone["decode"] + alone["resize"] + forward) / (os.cpu_count() or 1))
        share = f"{statistics.median(race.shares[each]):.0%}" if race.shares[each] else "–"
        limit = f"{least / statistics.median(taken):.0%}"
        off = difference(race.scores[each], race.scores["open_clip loop"])
        pace = f"{spread(taken, '.2f')} | {count / statistics.median(taken):.1f} | {spread(ratios, '.2f')}"
        print(f"| {each} | {pace} | {share} | {limit} | {off:.1e} |")


def second_run(paths: list[Path], folder: Path, runs: int) -> None:
    """A first run over an empty cache, and others over what it kept. The model is in memory in all of them."""
    prompts = [PROMPTS[number % len(PROMPTS)] for number in range(len(paths))]
    ranker = Ours(folder, "fp32", folder.parent / "embeddings.sqlite")
    times = [best(lambda: ranker(paths, prompts), 1, time.perf_counter) for _ in range(runs + 1)]
    again = [times[0] / each for each in times[1:]]
    taken = f"{times[0]:.1f} s the first time, then {spread(times[1:], '.2f')} s"
    print(f"\nOver the cache, {len(paths)} pictures: {taken}: {spread(again, '.0f')} times faster.", flush=True)


def difference(found: Scores, expected: Scores) -> float:
    """The largest difference of scores; of means where only a mean is given."""
    if len(found) == 1:
        return abs(found[0] - statistics.mean(expected))
    return max(abs(one - other) for one, other in zip(found, expected, strict=True))


def batch_effect(folder: Path, paths: list[Path], precision: str = "fp32") -> float:
    """The largest change of a cosine with the size of the batch."""
    dual = load_dual(str(folder))
    cast_tower(dual.image, precision)
    text = torch.from_numpy(Scorer(dual).texts(PROMPTS[:1])[0].vector).float()
    pictures = [Image.open(path) for path in paths[:5]]
    found = [dual.image.embed(pictures, batch_size=size) @ text for size in (1, 3, 32)]
    return float(max((each - found[0]).abs().max() for each in found))


def spread(values: Sequence[float], form: str) -> str:
    """The median with the least and the most."""
    return f"{statistics.median(values):{form}} [{min(values):{form}}, {max(values):{form}}]"


MANY = """
import resource, sys, time
from pathlib import Path
from clipcond.rerank.ranking import rerank
from clipcond.rerank.scorer import Scorer

paths = sorted(Path(sys.argv[1]).iterdir())
scorer = Scorer.load("mini", device="cpu")
rerank(paths[:200], "a red fox", scorer=scorer)
for count in (len(paths) // 5, len(paths)):
    start = time.perf_counter()
    ranking = rerank(paths[:count], "a red fox", scorer=scorer, top=10)
    taken = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| {len(ranking.scored):,} | {taken:.1f} | {count / taken:.0f} | {peak:.0f} |", flush=True)
"""


def many(count: int, work: Path) -> None:
    """Peak memory over a fifth of many small pictures and over all of them, in a process of its own."""
    folder = work / "many"
    folder.mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((128, 128)).save(folder / f"{number:05}.{'jpg' if number % 2 else 'png'}")
    print(f"\n### {count:,} small pictures with mini\n")
    print("| pictures | seconds | pictures/s | peak MiB of the process |\n|---|---|---|---|", flush=True)
    subprocess.run([sys.executable, "-c", MANY, str(folder)], check=True)


def main() -> None:
    """Make pictures and models, then a table for each model and one for many pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--large-pictures", type=int, default=4)
    parser.add_argument("--cache-pictures", type=int, default=200)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of torch; decoding has its own")
    parser.add_argument(
        "--without", nargs="*", default=(), help="modules to leave out: transformers torchmetrics clip_score"
    )
    parser.add_argument("--many", type=int, default=10_000)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    os.environ["TQDM_DISABLE"] = "1"
    versions = []
    for name in PACKAGES:
        with contextlib.suppress(Exception):
            versions.append(f"{name} {version(name)}")
    print(
        f"{datetime.date.today()}, Python {platform.python_version()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    )
    print(f"{', '.join(versions)}; device cpu, {options.threads} threads; {options.runs} runs in turn")
    with TemporaryDirectory() as place:
        work = Path(place)
        (work / "pictures").mkdir()
        paths = make_pictures(work / "pictures", max(options.pictures, options.large_pictures, options.cache_pictures))
        for name, count in (("ViT-B-32", options.pictures), ("ViT-L-14", options.large_pictures)):
            if count:
                ours, theirs = make_models(work, name)
                compare(name, paths[:count], ours, theirs, options.runs, options.without)
                if name == "ViT-B-32" and options.cache_pictures:
                    second_run(paths[: options.cache_pictures], ours, options.runs)
        if options.many:
            many(options.many, work)


if __name__ == "__main__":
    main()
