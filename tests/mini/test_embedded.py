"""The embedded model as it ships: complete, small, able to draw what it is told and to see one wrong object."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

import clipcond
from clipcond.encode.text import TextTower
from clipcond.errors import ResourceMissing
from clipcond.mini import world
from clipcond.models.open_clip_folder import pipeline_layers, read_config, read_open_clip_folder
from clipcond.prompt.tokenizer import batch_ids
from clipcond.resources import embedded
from clipcond.score.phrases import phrase_scores

WEIGHTS = {  # the first sixteen digits of each file's SHA-256
    "clip/open_clip_model.safetensors": "0d201be0f16d6c94",
    "pipeline/text_encoder/model.safetensors": "070933c3c1187eb9",
    "pipeline/unet/diffusion_pytorch_model.safetensors": "cf0ddaa1f7cfc20c",
    "pipeline/vae/diffusion_pytorch_model.safetensors": "b2c751543b649bfb",
}


@pytest.fixture(scope="module")
def pipe() -> Any:
    loaded = clipcond.load_pipeline("mini", device="cpu")
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture(scope="module")
def scorer() -> clipcond.Scorer:
    return clipcond.Scorer.load("mini", device="cpu")


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


def test_the_weights_are_those_that_the_documents_speak_of() -> None:
    found = {
        str(path.relative_to(embedded("clip").parent)): hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        for part in ("clip", "pipeline")
        for path in embedded(part).rglob("*.safetensors")
    }
    assert found == WEIGHTS


def test_the_pipeline_reads_the_scorers_text_tower_after_four_layers(pipe: Any) -> None:
    folder = embedded("clip")
    assert pipeline_layers(read_config(folder)) == pipe.text_encoder.config.num_hidden_layers == 4
    dual = TextTower.from_open_clip(read_open_clip_folder(folder))
    own = TextTower.from_transformers(pipe.text_encoder)
    rng = random.Random(1)
    texts = [world.caption(world.sample(rng, most=4), rng, "terse") for _ in range(8)]
    ids = torch.tensor([[49406, *row, *[49407] * (76 - len(row))] for row in batch_ids(texts)])
    a, b = dual.encode(ids, clip_skip=dual.layers - 4).hidden, own.encode(ids).hidden
    assert a.std() > 0.1
    assert (a - b).abs().max() < 1e-5
    assert (a[0] - a[1]).abs().max() > 0.1


def test_the_text_encoder_is_stored_in_the_names_that_every_transformers_reads() -> None:
    with safe_open(embedded("pipeline") / "text_encoder" / "model.safetensors", framework="pt") as file:
        assert {name.partition(".")[0] for name in file.keys()} == {"text_model"}  # noqa: SIM118
        assert file.metadata() == {"format": "pt"}


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


def test_the_scorer_finds_pictures_and_captions_both_ways(scorer: clipcond.Scorer) -> None:
    rng = random.Random("embedded/rank")
    scenes = [world.sample(rng, least=3) for _ in range(60)]
    pictures = scorer.dual.image.embed([world.render(scene, rng) for scene in scenes])
    texts = scorer.texts([world.caption(scene, rng, "terse") for scene in scenes])
    scores = pictures.double() @ torch.tensor(np.stack([text.vector for text in texts])).T
    truth = torch.arange(60)
    assert int((scores.argmax(1) == truth).sum()) >= 58
    assert int((scores.argmax(0) == truth).sum()) >= 58


@pytest.mark.parametrize(("words", "least", "enough"), [("terse", 1, 11), ("wordy", 7, 7)])
def test_the_scorer_sees_one_wrong_object(scorer: clipcond.Scorer, words: world.Words, least: int, enough: int) -> None:
    rng, found = random.Random(f"embedded/spot/{words}"), 0
    for _ in range(12):
        scene = world.sample(rng, least=least)
        shown = [scene, *(world.one_changed(scene, rng) for _ in range(15))]
        pictures = [world.render(each, rng) for each in shown]
        found += int(scorer.score(pictures, world.caption(scene, rng, words)).cosine.argmax()) == 0
    assert found >= enough


def test_a_long_text_is_cut_behind_a_comma_where_there_is_one(scorer: clipcond.Scorer) -> None:
    phrase = "a red circle in the center,"  # seven tokens: eleven of them would be cut in two
    whole, first, rest = scorer.texts([" ".join([phrase] * count) for count in (12, 10, 2)])
    assert (whole.content_tokens, whole.chunks) == (84, 2)
    np.testing.assert_allclose(whole.parts, np.concatenate([first.parts, rest.parts]), atol=1e-6)
    assert scorer.texts(["red " * 80])[0].chunks == 2


def test_the_phrases_name_the_wrong_object_and_few_others(scorer: clipcond.Scorer) -> None:
    rng, named, falsely = random.Random("embedded/phrases"), 0, 0
    for _ in range(20):
        right = world.sample(rng, least=4, most=4)
        wrong = world.one_changed(right, rng)
        at = next(k for k, thing in enumerate(wrong.objects) if thing != right.objects[k])
        vector = scorer.dual.image.embed([world.render(wrong, rng)])
        cosines = [
            float(scorer.score(vector, f"{each.colour} {each.shape} {each.cell}").cosine[0]) for each in right.objects
        ]
        missing = phrase_scores(cosines, margin=3 / scorer.dual.logit_scale).missing
        named, falsely = named + (at in missing), falsely + len(set(missing) - {at})
    assert named >= 18
    assert falsely <= 6


def test_the_scorer_reads_objects_without_a_place(scorer: clipcond.Scorer) -> None:
    rng = random.Random("embedded/no place")
    scenes = [
        world.Scene("gray", (world.Object(colour=c, shape=s, cell="center"),))
        for c in ("red", "blue")
        for s in ("star", "ring")
    ]
    pictures = [world.render(scene, rng) for scene in scenes]
    best = [
        int(scorer.score(pictures, f"a {each.colour} {each.shape}").cosine.argmax())
        for (each,) in (s.objects for s in scenes)
    ]
    assert best == [0, 1, 2, 3]


def test_diffusers_alone_loads_it_in_one_dtype() -> None:
    from diffusers import DiffusionPipeline

    alone = DiffusionPipeline.from_pretrained(embedded("pipeline"))
    assert {alone.text_encoder.dtype, alone.unet.dtype, alone.vae.dtype} == {torch.float32}
