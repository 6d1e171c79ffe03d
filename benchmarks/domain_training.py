"""Teach the embedded model heraldry, and look at what that does to its pictures.

    python benchmarks/domain_training.py --out runs/blazon                    # all variants, then all sizes
    python benchmarks/domain_training.py --out runs/blazon --only "rows, contrastive + denoising" --pairs 200

The text tower of `mini` is trained on (picture, blazon) pairs with the image tower locked, exported, and put into the
unchanged pipeline. Of each run: R@1 among held-out scenes (text to image), objects right in pictures from held-out
prompts, both in blazon and in English, and the drift on English prompts that no run has seen. A finished run is not
repeated: `--out` keeps `results.jsonl`. Prints Markdown tables for docs/training.md.
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from blazon import blazon

import clipcond
from clipcond.diffusion.pipelines import advice, load_pipeline
from clipcond.mini import world
from clipcond.prompt.tokenizer import CONTENT, token_ids
from clipcond.score.correlation import spearman
from clipcond.workflows import drift, export
from clipcond.workflows import train as training

COMMON: Mapping[str, object] = {
    "model": "mini", "lock_image": True, "target": "sd15", "precision": "bf16", "batch_size": 32, "learning_rate": 5e-4,
    "unseen_rate": 2e-2, "weight_decay": 0.01, "contrastive": 0.3, "max_drift": 10.0, "denoise_batch": 32,
    "retention_batch": 8, "log_every": 25, "eval_every": 10_000, "save_every": 10_000, "threads": 1,
}  # fmt: skip
RETENTION = {"retention": 3.0}
DENOISING = {"pipeline": "mini", "denoise_weight": 1.0}
ROWS = {"freeze": ["text"]}
VARIANTS: Mapping[str, Mapping[str, object]] = {
    "contrastive": {},
    "contrastive + retention": RETENTION,
    "contrastive + denoising": DENOISING,
    "contrastive + retention + denoising": {**RETENTION, **DENOISING},
    "unseen rows alone, contrastive": ROWS,
    "unseen rows alone, contrastive + denoising": {**ROWS, **DENOISING},
}
BEST = "contrastive + retention + denoising"
SIZES = (200, 1000, 5000)
LIMIT = 0.01  # of the drift of words: `clipcond drift --fail-over words=0.01`


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=Path("runs/blazon"))
    options.add_argument("--only", choices=VARIANTS, help="one variant")
    options.add_argument("--pairs", type=int, default=1000)
    options.add_argument("--steps", type=int, default=400)
    options.add_argument("--scenes", type=int, default=60, help="pictures judged, of each language")
    options.add_argument("--gallery", type=int, default=300)
    options.add_argument("--most", type=int, default=9, help="objects in a scene")
    given = options.parse_args()
    torch.set_num_threads(1)

    bench = Bench(given)
    if given.only:
        bench.run(given.only, given.pairs)
    else:
        for name in VARIANTS:
            bench.run(name, given.pairs)
        for size in SIZES:
            bench.run(BEST, size)
    print(table(bench.results))


class Bench:
    """Runs under one folder, and what came of them."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.out = given, given.out
        self.out.mkdir(parents=True, exist_ok=True)
        self._file = self.out / "results.jsonl"
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        self.results: list[dict[str, Any]] = [json.loads(line) for line in lines]
        if not self.results:
            self._keep({"name": "before", "pairs": 0, "steps": 0, "cpu_s": 0.0, **self._measure("mini", "mini")})

    def run(self, name: str, pairs: int) -> None:
        """Train, export and measure one variant, unless it is known."""
        steps = self.given.steps
        if any((r["name"], r["pairs"], r["steps"]) == (name, pairs, steps) for r in self.results):
            return
        folder = self.out / f"{name.replace(' ', '-').replace(',', '')}-{pairs}-{steps}"
        settings = {
            **COMMON, **VARIANTS[name], "data": str(self._pairs("blazon", "train", pairs)), "out": str(folder / "run"),
            "steps": steps, "retention_prompts": str(self._english()),
        }  # fmt: skip
        start = time.process_time()
        if training.run(training.TrainOptions(settings=settings)).interrupted:
            raise SystemExit("stopped; the same command goes on from there")
        seconds = time.process_time() - start
        gc.collect()
        export.run(
            export.ExportOptions(
                model=str(folder / "run"), to="diffusers", into="mini", out=folder / "pipeline", force=True
            )
        )
        found = self._measure(str(folder / "run"), str(folder / "pipeline"))
        self._keep({"name": name, "pairs": pairs, "steps": steps, "cpu_s": round(seconds, 1), **found})

    def _keep(self, result: dict[str, Any]) -> None:
        self.results.append(result)
        with self._file.open("a") as file:
            file.write(json.dumps(result) + "\n")
        print(json.dumps(result), flush=True)

    # ── data ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _cases(self, language: str, use: str) -> Iterator[tuple[world.Scene, str, random.Random]]:
        """Scenes with a caption that fits 75 tokens, without end: the same for the same use."""
        rng = random.Random(f"{language}/{use}")
        say: Callable[[world.Scene], str] = (
            (lambda scene: blazon(scene, rng))
            if language == "blazon"
            else (lambda scene: world.caption(scene, rng, rng.choice(("terse", "plain"))))
        )
        while True:
            scene = world.sample(rng, most=self.given.most)
            said = say(scene)
            if len(token_ids(said)) <= CONTENT:
                yield scene, said, rng

    def _pairs(self, language: str, use: str, count: int) -> Path:
        """Write the first `count` cases as pictures and a CSV, once."""
        folder = self.out / "data" / f"{language}-{use}-{count}-{self.given.most}"
        if not (folder / "pairs.csv").exists():
            folder.mkdir(parents=True, exist_ok=True)
            rows = []
            for number, (scene, said, rng) in zip(range(count), self._cases(language, use), strict=False):
                world.render(scene, rng).save(folder / f"{number}.png")
                rows.append((f"{number}.png", said))
            with (folder / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([("image", "caption"), *rows])
        return folder / "pairs.csv"

    def _english(self, use: str = "retention", count: int = 300) -> Path:
        """Write general prompts, English captions of scenes without a picture, once."""
        path = self.out / "data" / f"english-{use}.txt"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [said for (_, said, _), _ in zip(self._cases("english", use), range(count), strict=False)]
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    # ── measuring ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _measure(self, model: str, pipeline: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        pipe = load_pipeline(pipeline, device="cpu")
        for language in ("blazon", "english"):
            recall = clipcond.evaluate(model, self._pairs(language, "gallery", self.given.gallery))
            found[f"r1_{language}"] = recall.text_to_image[1]
            found[f"pictures_{language}"] = self._objects_right(pipe, language)
        prompts = self._english("drift", 40)
        report = drift.run(
            drift.DriftOptions(before="mini", after=model, target="sd15", prompts=prompts, pipeline="mini", limits={})
        )
        measures = report.encoders["clip_l"].drift.measures()
        found["drift_words"], found["drift_empty"] = measures["words"], measures["empty"]
        found["drift_denoiser"] = max(each.change for each in report.denoiser)
        return found

    def _objects_right(self, pipe: Any, language: str) -> float:
        """The share of objects right in pictures from held-out prompts, by the judge of pixels."""
        pipe.set_progress_bar_config(disable=True)
        how, verdicts = advice(pipe), list[bool]()
        chosen = [case for case, _ in zip(self._cases(language, "judged"), range(self.given.scenes), strict=False)]
        for at in range(0, len(chosen), 20):
            some = chosen[at : at + 20]
            with torch.autocast("cpu", torch.bfloat16):
                images = pipe(
                    [said for _, said, _ in some], num_inference_steps=how.steps, guidance_scale=how.guidance_scale,
                    guidance_rescale=how.guidance_rescale,
                    generator=[torch.Generator().manual_seed(at + k) for k in range(len(some))],
                ).images  # fmt: skip
            for image, (scene, _, _) in zip(images, some, strict=True):
                verdicts += world.check(image, scene)
        return sum(verdicts) / len(verdicts)


def table(results: list[dict[str, Any]]) -> str:
    """Two Markdown tables: of all runs, and of how drift ranks them beside the English pictures."""
    head = (
        "| trained with | pairs | CPU s | R@1 blazon | R@1 English | pictures, blazon | pictures, English | drift: words | "
        "drift: denoiser | verdict |"
    )
    lines = [head, "|---|---|---|---|---|---|---|---|---|---|"]
    for r in results:
        shares = (
            f"{100 * r[name]:.1f} %" for name in ("r1_blazon", "r1_english", "pictures_blazon", "pictures_english")
        )
        lines.append(
            f"| {r['name']} | {r['pairs'] or '–'} | {r['cpu_s']:.0f} | {' | '.join(shares)} | {r['drift_words']:.4f} | "
            f"{r['drift_denoiser']:.4f} | {'holds' if r['drift_words'] <= LIMIT else 'fails'} |"
        )
    after = [r for r in results if r["pairs"]]
    if len(after) > 2:
        right = [r["pictures_english"] for r in after]
        for name in ("drift_words", "drift_denoiser"):
            rank = spearman([-r[name] for r in after], right)
            lines.append(f"\nSpearman, {name.replace('_', ' of the ')} against English pictures: {rank:.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
