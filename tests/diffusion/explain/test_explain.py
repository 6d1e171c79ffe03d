"""Explanations: identities, every family as a tiny pipeline of random weights, and the embedded model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

import clipcond
from clipcond.diffusion.conditioner import Conditioner
from clipcond.diffusion.encode_plans import encode_plans
from clipcond.diffusion.explain.counterfactuals import encode_counterfactuals
from clipcond.diffusion.explain.denoiser_calls import recorded, steps_at
from clipcond.diffusion.explain.effects import effect_maps
from clipcond.diffusion.explain.explain import explain_prompt
from clipcond.diffusion.explain.explanation import Explanation
from clipcond.diffusion.explain.predict import predictions
from clipcond.diffusion.explain.settings import ExplainSettings
from clipcond.diffusion.explain.spans import phrase_spans
from clipcond.diffusion.generate import generate
from clipcond.diffusion.prompt_plans import Sides
from clipcond.encode.rows import TokenSequence
from clipcond.errors import ConfigError, ModelError

SCENE = "a red circle at the top left, a blue square in the center, a green star at the bottom right"
FAMILIES = ("sd15", "sd2", "sdxl", "sd3", "sd3-no-t5", "flux")


@pytest.fixture(scope="module")
def mini() -> Any:
    pipe = clipcond.load_pipeline("mini")
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def scene(mini: Any) -> Explanation:
    return explain_prompt(mini, SCENE + ", zxqv florp", "a black ring", settings=ExplainSettings(steps=8))


# on the embedded model


def test_each_object_is_found_in_its_cell_and_nonsense_is_dead(scene: Explanation) -> None:
    assert [each.where for each in scene.phrases[:3]] == ["top left", "center", "bottom right"]
    assert scene.dead == ("zxqv florp",)
    assert [each.code for each in scene.findings] == ["phrase-dead"]
    assert scene.maps.shape == (5, 8, 8)
    assert scene.phrases[4].side == "negative_prompt"
    assert all(0.2 < each.strength < 3 for each in scene.phrases if not each.dead)
    assert scene.rows == 3 * (5 + 2 + 1), "a row a phrase, one for each side and one for the empty text"


def test_the_maps_of_two_objects_nearly_add_up_to_that_of_both(mini: Any) -> None:
    conditioner = Conditioner.from_pipeline(mini)
    options = conditioner.planner.options(dialect="plain")
    plans = conditioner.planner.plans(conditioner.planner.prompts(SCENE), options, {}).positive[0]
    spans = [(each.start, each.end) for each in phrase_spans(plans.by_argument["prompt"])]
    hidden = ((), spans[1:2], spans[2:], spans[1:])
    rows = tuple(replace(plans, hidden=tuple(each)) for each in hidden)
    (encoded,) = encode_plans(conditioner.pipeline, [Sides(rows, ())], options, inversions=conditioner.inversions)
    with recorded(mini, [4]) as calls:
        list(generate(mini, SCENE, count=1, steps=8))
    whole, *masked = predictions(mini, calls[0], [{"prompt_embeds": each} for each in encoded.tensors["prompt_embeds"]])
    one, other, both = effect_maps(whole, torch.stack(masked)).flatten(1)
    assert torch.cosine_similarity(one + other, both, dim=0) > 0.95
    assert torch.cosine_similarity(one, both, dim=0) < 0.9


def test_the_picture_is_the_one_that_generate_draws(mini: Any, scene: Explanation) -> None:
    (drawn,) = generate(mini, SCENE + ", zxqv florp", negative_prompt="a black ring", count=1, steps=8)
    assert drawn.image.tobytes() == scene.pictures[0].image.tobytes()


def test_a_picture_that_is_there_has_the_same_places(mini: Any, scene: Explanation) -> None:
    again = explain_prompt(
        mini, SCENE, picture=scene.pictures[0].image, settings=ExplainSettings(steps=8, seed=4, at=(0.5,))
    )
    assert [each.where for each in again.phrases] == ["top left", "center", "bottom right"]
    assert again.at_steps == (5,)


def test_maps_of_phrases_that_act_apart_add_up_to_the_map_of_both(mini: Any) -> None:
    both = "a red circle at the top left, a blue square in the center"
    prompt = f"{both}, a green star at the bottom right, a white ring at the top right, on a teal background"
    settings = ExplainSettings(steps=8, phrases=(both, *both.split(", ")), at=(0.0, 0.5))
    maps = explain_prompt(mini, prompt, settings=settings).maps
    assert float(torch.cosine_similarity((maps[1] + maps[2]).flatten(), maps[0].flatten(), dim=0)) > 0.95
    assert float((maps[1] + maps[2] - maps[0]).norm() / maps[0].norm()) < 0.4, "in size they add up less nearly"


def test_what_the_stock_pipeline_cuts_off_is_dead_exactly(mini: Any) -> None:
    prompt = ", ".join([SCENE] * 4) + ", a white ring at the top right"
    made = explain_prompt(mini, prompt, settings=ExplainSettings(steps=4, stock=True, at=(0.5,)))
    cut = [each for each in made.phrases if each.cut]
    assert [each.text for each in cut][-1] == "a white ring at the top right"
    assert [each.strength for each in cut] == pytest.approx([0.0] * len(cut), abs=1e-5)
    assert len(cut) > 1
    assert {each.code for each in made.findings} >= {"phrase-cut"}
    with pytest.raises(ConfigError, match="stock leaves the prompt to the pipeline"):
        ExplainSettings(stock=True, dialect="a1111")


def test_looking_for_carriers_takes_rows_and_changes_nothing_else(mini: Any) -> None:
    settings = ExplainSettings(by="word", steps=4, at=(0.5,))
    made = explain_prompt(mini, "a yellow star", settings=settings)
    plain = explain_prompt(mini, "a yellow star", settings=replace(settings, through=False))
    assert plain.strengths == pytest.approx(made.strengths, abs=1e-4)
    assert (plain.rows, made.rows) == (1 + 1 + 3, 5 + 1 + 3 + 6), "each word's own states and those of later words"
    assert not any(each.through for each in plain.phrases)


def test_parts_of_and_are_explained_in_their_own_text(mini: Any) -> None:
    settings = ExplainSettings(dialect="a1111", steps=4, at=(0.5,))
    made = explain_prompt(mini, "a red ring, gray AND a red ring, gray", settings=settings)
    assert [each.part for each in made.phrases] == [0, 0, 1, 1]
    torch.testing.assert_close(made.maps[:2], made.maps[2:], rtol=1e-4, atol=1e-5)
    half = explain_prompt(mini, "a red ring, gray :2 AND a red ring, gray :0.5", settings=settings)
    torch.testing.assert_close(half.maps[:2], 4 * half.maps[2:], rtol=1e-3, atol=1e-4)


def test_several_pictures_have_maps_of_their_own_and_strengths_in_common(mini: Any) -> None:
    made = explain_prompt(mini, SCENE, settings=ExplainSettings(steps=3, at=(0.5,), count=2, seed=5))
    assert [each.seed for each in made.pictures] == [5, 6]
    assert not torch.equal(made.pictures[0].maps, made.pictures[1].maps)
    second = explain_prompt(mini, SCENE, settings=ExplainSettings(steps=3, at=(0.5,), seed=6))
    torch.testing.assert_close(second.maps, made.pictures[1].maps)


# every family


def small(pipe: Any) -> Any:
    """Flux's pictures are 256 pixels wide otherwise, also those of a tiny one."""
    if hasattr(pipe, "default_sample_size"):
        pipe.default_sample_size = 8
    return pipe


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_runs_and_is_finite(family: str, pipes: Callable[[str], Any]) -> None:
    pipe = small(pipes(family))
    settings = ExplainSettings(steps=3, phrases=("red fox", "RED FOX", "snow"), guidance_scale=3.0)
    made = explain_prompt(pipe, "a red fox in the snow", "blurry", settings=settings)
    assert made.family == ("sd3" if family == "sd3-no-t5" else family)
    assert bool(torch.isfinite(made.maps).all())
    assert made.maps.shape[0] == 3
    assert float(made.maps.min()) >= 0
    torch.testing.assert_close(made.maps[0], made.maps[1], rtol=1e-4, atol=1e-6)  # one phrase, asked for twice
    assert all(each.strength > 0 for each in made.phrases)
    pooled = [each.pooled_share for each in made.phrases]
    assert pooled == [None] * len(pooled) if family in ("sd15", "sd2") else all(each is not None for each in pooled)
    if family == "flux":
        assert [each.code for each in made.findings if each.code == "negative-unused"] == ["negative-unused"]
    there = explain_prompt(pipe, "a red fox", picture=made.pictures[0].image, settings=ExplainSettings(steps=3))
    assert there.maps.shape[1:] == made.maps.shape[1:]
    assert bool(torch.isfinite(there.maps).all())


def test_a_negative_prompt_without_guidance_is_not_read_however_long(pipes: Callable[[str], Any]) -> None:
    settings = ExplainSettings(steps=2, at=(0.5,), guidance_scale=1.0)
    made = explain_prompt(pipes("sd15"), "a red fox, snow", "blurry, " * 60, settings=settings)
    assert [each.side for each in made.phrases] == ["prompt", "prompt"]
    assert [each.code for each in made.findings if each.code != "phrase-dead"] == ["negative-unused"]
    guided = explain_prompt(
        pipes("sd15"),
        "a red fox, snow",
        "blurry, " * 60,
        settings=replace(settings, guidance_scale=2.0, phrases=("fox",)),
    )
    assert len(guided.phrases) == 1, "the texts are repeated to one length"


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
def test_rows_do_not_depend_on_the_batch_they_are_in(family: str, pipes: Callable[[str], Any]) -> None:
    pipe, settings = small(pipes(family)), ExplainSettings(steps=2, at=(0.5,))
    apart = explain_prompt(pipe, "a red fox, snow", settings=settings, most_rows=1)
    together = explain_prompt(pipe, "a red fox, snow", settings=settings)
    torch.testing.assert_close(apart.maps, together.maps, rtol=1e-3, atol=1e-5)


def test_masking_is_that_of_the_encoder_and_states_before_the_phrase_stay(pipes: Callable[[str], Any]) -> None:
    pipe = pipes("sd15")
    conditioner = Conditioner.from_pipeline(pipe)
    planner = conditioner.planner
    options = planner.options(dialect="plain")
    plans = planner.plans(planner.prompts("a red fox in snow"), options, {})
    empty = planner.plans(planner.prompts(""), options, {}).positive[0]
    plan = plans.positive[0].by_argument["prompt"]
    spans = phrase_spans(plan, asked=("fox in",))
    (text,) = encode_counterfactuals(conditioner, type(plans)(plans.positive, ()), empty, spans, options).positive
    encoder = conditioner.pipeline.encoders["clip_l"]
    row = TokenSequence(tuple(plan.encoders["clip_l"].ids()[0]), masked=(3, 4))
    by_hand = encoder.tower.encode_rows([row], clip_skip=0, final_norm=True).hidden[0]
    torch.testing.assert_close(text.masked[0]["prompt_embeds"], by_hand, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        text.masked[0]["prompt_embeds"][:3], text.whole["prompt_embeds"][:3], rtol=1e-4, atol=1e-5
    )
    assert not torch.allclose(text.masked[0]["prompt_embeds"][5], text.whole["prompt_embeds"][5], atol=1e-3)
    torch.testing.assert_close(text.whole["prompt_embeds"], conditioner("a red fox in snow").prompt_embeds[0])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own
@pytest.mark.parametrize("scheduler", ["HeunDiscreteScheduler", "PNDMScheduler"])
def test_other_samplers_are_recorded_and_noise_alike(scheduler: str, fresh: Callable[[str], Any]) -> None:
    import diffusers

    pipe = fresh("sd15")
    pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config)
    made = explain_prompt(pipe, "a red fox, snow", settings=ExplainSettings(steps=4, at=(0.0, 1.0)))
    assert made.at_steps == (1, 4)
    there = explain_prompt(
        pipe, "a red fox, snow", picture=made.pictures[0].image, settings=ExplainSettings(steps=4, at=(0.0, 1.0))
    )
    assert bool(torch.isfinite(there.maps).all())


# what is refused


@pytest.mark.parametrize(
    ("prompt", "settings", "said"),
    [
        ("", {}, "the prompt has no phrase in it"),
        ("a [red:blue:3] fox", {"dialect": "a1111"}, "changes over the steps; explain the text of one of its steps"),
        ("a fox", {"phrases": ("dog",)}, "the prompt has no “dog” in it; there is “a fox”"),
    ],
)
def test_prompts_that_cannot_be_explained(
    prompt: str, settings: dict[str, Any], said: str, pipes: Callable[[str], Any]
) -> None:
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        explain_prompt(pipes("sd15"), prompt, settings=ExplainSettings(steps=2, **settings))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"by": "letter"}, "by is 'letter'"),
        ({"count": 0}, "count is 0, expected 1 or more"),
        ({"seed": -1}, "seed is -1"),
        ({"phrases": (" ",)}, "phrases holds none"),
        ({"dead_below": 1.0}, "dead_below is 1.0"),
        ({"lengths": "mask"}, "an explanation cannot do"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ExplainSettings(**settings)


def test_shares_of_the_way_are_steps() -> None:
    assert steps_at((0.0, 0.5, 1.0), 11) == (1, 6, 11)
    assert steps_at((0.5, 0.5), 1) == (1,)
    with pytest.raises(ConfigError, match=r"at is \[1.5\], expected shares"):
        steps_at((1.5,), 10)


def test_a_pipeline_without_a_denoiser_is_refused() -> None:
    from clipcond.diffusion.explain.denoiser_calls import denoiser_of

    with pytest.raises(ModelError, match="object has no unet and no transformer"):
        denoiser_of(object())
