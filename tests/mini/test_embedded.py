"""The embedded model as it ships: complete, small, the same text tower twice, and able to draw what it is told."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

import clipcond
from clipcond.encode.text import TextTower
from clipcond.errors import ResourceMissing
from clipcond.mini import world
from clipcond.models.open_clip_folder import read_open_clip_folder
from clipcond.prompt.tokenizer import batch_ids
from clipcond.resources import embedded


@pytest.fixture(scope="module")
def pipe() -> Any:
    loaded = clipcond.load_pipeline("mini", device="cpu")
    loaded.set_progress_bar_config(disable=True)
    return loaded


def share_right(pipe: Any, captions: list[str], scenes: list[world.Scene]) -> float:
    asked = clipcond.Conditioner.from_pipeline(pipe)(captions).kwargs
    noise = [torch.Generator().manual_seed(k) for k in range(len(captions))]
    pictures = pipe(**asked, generator=noise, num_inference_steps=20, guidance_scale=2.5).images
    verdicts = [ok for picture, scene in zip(pictures, scenes, strict=True) for ok in world.check(picture, scene)]
    return sum(verdicts) / len(verdicts)


def test_the_files_are_small_and_hold_no_pickle() -> None:
    files = [path for part in ("clip", "pipeline") for path in embedded(part).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 40 * 2**20
    assert {path.suffix for path in files} <= {".json", ".txt", ".safetensors"}


def test_a_missing_part_says_where_it_was_looked_for() -> None:
    with pytest.raises(ResourceMissing, match=r"the embedded model is incomplete.*reinstall clipcond"):
        embedded("no such part")


def test_both_folders_hold_the_same_text_tower(pipe: Any) -> None:
    dual = TextTower.from_open_clip(read_open_clip_folder(embedded("clip")))
    own = TextTower.from_transformers(pipe.text_encoder)
    rng = random.Random(1)
    texts = [world.caption(world.sample(rng, most=4), rng, "terse") for _ in range(8)]
    ids = torch.tensor([[49406, *row, *[49407] * (76 - len(row))] for row in batch_ids(texts)])
    a, b = dual.encode(ids).hidden, own.encode(ids).hidden
    assert a.std() > 0.1
    assert (a - b).abs().max() < 1e-5
    assert (a[0] - a[1]).abs().max() > 0.1


def test_the_pipeline_loads_as_any_diffusers_folder() -> None:
    from diffusers import StableDiffusionPipeline

    loaded = StableDiffusionPipeline.from_pretrained(clipcond.mini.path())
    assert loaded.tokenizer("a red circle").input_ids == [49406, 320, 736, 7117, 49407]


def test_it_draws_what_a_short_caption_says(pipe: Any) -> None:
    rng = random.Random("embedded/short")
    scenes = [world.sample(rng, least=2, most=5) for _ in range(8)]
    assert share_right(pipe, [world.caption(scene, rng, "terse") for scene in scenes], scenes) > 0.85


def test_it_draws_what_stands_after_token_75(pipe: Any) -> None:
    rng = random.Random("embedded/long")
    scenes = [world.sample(rng, least=7) for _ in range(6)]
    captions = [world.caption(scene, rng, "wordy") for scene in scenes]
    assert all(len(ids) > 75 for ids in batch_ids(captions))
    assert share_right(pipe, captions, scenes) > 0.8


def test_the_scorer_finds_the_picture_of_a_caption(tmp_path: Path) -> None:
    rng = random.Random("embedded/rank")
    scenes = [world.sample(rng, least=3) for _ in range(24)]
    paths = [tmp_path / f"{k}.png" for k in range(24)]
    for path, scene in zip(paths, scenes, strict=True):
        world.render(scene, rng).save(path)
    scorer = clipcond.Scorer.load("mini", device="cpu")
    first = [
        clipcond.rerank(paths, world.caption(scene, rng, "plain"), scorer=scorer).kept[0].path for scene in scenes[:12]
    ]
    assert sum(Path(found) == path for found, path in zip(first, paths, strict=False)) >= 11


def test_diffusers_alone_loads_it_in_one_dtype() -> None:
    from diffusers import DiffusionPipeline

    alone = DiffusionPipeline.from_pretrained(embedded("pipeline"))
    assert {alone.text_encoder.dtype, alone.unet.dtype, alone.vae.dtype} == {torch.float32}
