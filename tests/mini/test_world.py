"""The scene world: pictures, captions, the way back, and the judge."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clipcond.mini import world

SEEDS = st.integers(0, 2**32)
WORDS = st.sampled_from(["terse", "plain", "wordy"])


def changed(thing: world.Object, scene: world.Scene, rng: random.Random) -> world.Object:
    """The object with one attribute changed, so that the scene does not hold it."""
    attribute = rng.choice(["colour", "shape", "cell"])
    there = set(scene.objects)
    pool = {"colour": tuple(world.COLOURS), "shape": world.LAYOUTS, "cell": world.CELLS}[attribute]
    return rng.choice([new for value in pool if (new := replace(thing, **{attribute: value})) not in there])


def test_judge_is_right_on_rendered_objects_and_refuses_changed_ones() -> None:
    rng = random.Random("judge")
    right = seen = wrongly_accepted = asked = 0
    for _ in range(600):
        scene = world.sample(rng)
        picture = world.render(scene, rng)
        verdicts = world.check(picture, scene)
        right, seen = right + sum(verdicts), seen + len(verdicts)
        others = tuple(changed(thing, scene, rng) for thing in scene.objects)
        refused = [world.check(picture, world.Scene(scene.background, (other,)))[0] for other in others]
        wrongly_accepted, asked = wrongly_accepted + sum(refused), asked + len(refused)
    assert right / seen >= 0.995
    assert wrongly_accepted / asked <= 0.005


def test_judge_sees_the_whole_scene() -> None:
    rng = random.Random(5)
    for _ in range(40):
        scene = world.sample(rng)
        seen = world.look(world.render(scene, rng))
        assert seen.background == scene.background
        assert set(seen.objects) == set(scene.objects)


@pytest.mark.parametrize("background", world.BACKGROUNDS.values())
def test_judge_finds_nothing_in_an_empty_picture(background: tuple[int, int, int]) -> None:
    assert world.look(Image.new("RGB", (64, 64), background)).objects == ()


def test_judge_reads_any_size_and_mode() -> None:
    rng = random.Random(6)
    scene = world.sample(rng, least=4)
    picture = world.render(scene, rng)
    assert all(world.check(picture.resize((256, 256), Image.Resampling.NEAREST).convert("RGBA"), scene))


def test_judge_refuses_noise() -> None:
    rng = random.Random(7)
    noise = Image.frombytes("RGB", (64, 64), rng.randbytes(64 * 64 * 3))
    assert not any(world.check(noise, world.sample(rng, least=9)))


@given(SEEDS, WORDS)
def test_a_caption_reads_back_as_its_scene(seed: int, words: world.Words) -> None:
    rng = random.Random(seed)
    scene = world.sample(rng)
    assert world.parse(world.caption(scene, rng, words)) == scene


@given(SEEDS, WORDS, st.floats(0, 1))
def test_a_caption_that_is_cut_off_reads_as_its_complete_objects(seed: int, words: world.Words, share: float) -> None:
    rng = random.Random(seed)
    scene = world.sample(rng)
    text = world.caption(scene, rng, words)
    seen = world.parse(text[: int(share * len(text))])
    assert seen.background in ("", scene.background)
    # A place can lose its second word ("top| left"), which leaves the object before it incomplete, never wrong.
    assert seen.objects == scene.objects[: len(seen.objects)]


@settings(max_examples=20)
@given(SEEDS)
def test_the_same_seed_gives_the_same_world(seed: int) -> None:
    first, second = random.Random(seed), random.Random(seed)
    assert world.sample(first) == (scene := world.sample(second))
    assert world.render(scene, first).tobytes() == world.render(scene, second).tobytes()
    assert world.caption(scene, first) == world.caption(scene, second)


def test_captions_come_in_three_lengths() -> None:
    rng = random.Random(8)
    scenes = [world.sample(rng, least=9) for _ in range(50)]
    words = {
        kind: [len(world.caption(scene, rng, kind).split()) for scene in scenes] for kind in ("terse", "plain", "wordy")
    }
    assert max(words["terse"]) < 60 <= min(words["wordy"])
    assert max(words["wordy"]) > 140
    assert len({world.caption(scenes[0], random.Random(k), "plain") for k in range(50)}) > 40
