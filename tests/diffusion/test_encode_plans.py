"""Plans to tensors: each knows its prompt and its side, and all variants of a call have one length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clipcond.diffusion import encode_plans as encoding
from clipcond.diffusion.conditioner import Conditioner
from clipcond.diffusion.encode_plans import EncodedSides, encode_plans
from clipcond.diffusion.findings import findings_of_written
from clipcond.diffusion.pipeline_view import view_pipeline
from clipcond.diffusion.planner import Planner
from clipcond.diffusion.prompt_plans import PromptPlans, Sides
from clipcond.errors import ConfigError

Pipes = Callable[[str], Any]
LONG = "a red fox in the snow, " * 16


def planned(planner: Planner, prompts: list[str], negative: str | None, **settings: Any) -> Sides[PromptPlans]:
    options = planner.options(dialect="a1111", **settings)
    return planner.plans(planner.prompts(prompts, negative), options, {})


def encoded(planner: Planner, *variants: Sides[PromptPlans], **more: Any) -> list[EncodedSides]:
    options = planner.options(dialect="a1111")
    return encode_plans(planner.pipeline, variants, options, inversions=planner.inversions, **more)


def test_plans_know_their_prompt_and_their_side(pipes: Pipes) -> None:
    planner = Planner(view_pipeline(pipes("sdxl")))
    sides = planned(planner, ["a", "b"], "grey")
    assert [each.index for each in sides.positive] == [each.index for each in sides.negative] == [0, 1]
    assert [list(each.by_argument) for each in (*sides.positive, *sides.negative)] == [
        ["prompt"], ["prompt"], ["negative_prompt"], ["negative_prompt"]
    ]  # fmt: skip
    first = sides.positive[0]
    assert first.by_encoder["clip_l"] is first.by_encoder["clip_g"] is first.by_argument["prompt"]


def test_variants_have_one_length_whatever_the_others_are(pipes: Pipes) -> None:
    planner = Planner(view_pipeline(pipes("sd15")))
    short, long = planned(planner, ["a", "b"], "grey"), planned(planner, [LONG, "b"], "grey")
    first, second = encoded(planner, short, long)
    shapes = {tensor.shape for each in (first, second) for tensor in each.tensors.values()}
    assert shapes == {(2, 154, 32)}
    (alone,) = encoded(planner, short)
    assert torch.equal(first.tensors["prompt_embeds"], alone.tensors["prompt_embeds"].repeat(1, 2, 1))
    assert torch.equal(first.tensors["prompt_embeds"][1], second.tensors["prompt_embeds"][1])


def test_a_variant_may_have_one_side_only(pipes: Pipes) -> None:
    planner = Planner(view_pipeline(pipes("sd15")))
    both, one = planned(planner, ["a"], "grey"), Sides(planned(planner, ["b"], None).positive, ())
    first, second = encoded(planner, both, one, num_images_per_prompt=3)
    assert list(first.tensors) == ["prompt_embeds", "negative_prompt_embeds"]
    assert list(second.tensors) == ["prompt_embeds"]
    assert len(second.tensors["prompt_embeds"]) == 3


def test_zeros_take_the_place_of_the_negative_side(pipes: Pipes) -> None:
    planner = Planner(view_pipeline(pipes("sdxl")))
    (out,) = encoded(planner, planned(planner, ["a"], None), force_zeros=True)
    assert out.tensors["negative_prompt_embeds"].shape == out.tensors["prompt_embeds"].shape
    assert not out.tensors["negative_prompt_embeds"].any()
    assert not out.tensors["negative_pooled_prompt_embeds"].any()


def test_findings_name_the_prompt_and_its_side(pipes: Pipes) -> None:
    planner = Planner(view_pipeline(pipes("sd15")))
    (out,) = encoded(planner, planned(planner, ["a", "b (", "c"], "d)"))
    named = [(each.code, each.argument, each.index) for each in out.findings]
    assert named == [
        ("unclosed-bracket", "prompt", 1),
        *(("stray-bracket", "negative_prompt", index) for index in range(3)),
    ]


def test_findings_of_variants_are_placed_in_the_prompt_as_it_was_written(pipes: Pipes) -> None:
    planner = Planner(view_pipeline(pipes("sd15")))
    written, variant = planned(planner, ["x", "a [red:blue:2]"], None), planned(planner, ["x", "a red ("], None)
    (out,) = encoded(planner, variant)
    (found,) = findings_of_written(written, [*out.findings, *out.findings])
    assert (found.code, found.argument, found.index) == ("unclosed-bracket", "prompt", 1)
    assert (found.start, found.end) == (0, len("a [red:blue:2]"))


def test_a_part_is_a_prompt_of_its_own_with_the_index_of_the_whole(pipes: Pipes) -> None:
    planner = Planner(view_pipeline(pipes("sd15")))
    whole = planned(planner, ["x", "a fox AND a bird"], None).positive[1]
    part = whole.part(1)
    assert part.index == 1
    assert part.by_encoder["clip_l"] is part.by_argument["prompt"]
    assert [token.text for token in part.by_encoder["clip_l"].encoders["clip_l"].chunks[0].tokens] == ["a", "bird"]


def test_flux_has_no_negative_plans_where_none_was_asked_for_with_a_schedule_too(pipes: Pipes) -> None:
    from clipcond.diffusion.conditioner import Conditioner

    conditioner = Conditioner.from_pipeline(pipes("flux"))
    for prompt in ("a fox", "a [fox:bird:2]"):
        out = conditioner(prompt, dialect="a1111", steps=4)
        assert (out.negative_plans, out.negative_prompt_embeds) == ((), None)


def test_settings_are_named_and_checked(pipes: Pipes) -> None:
    from clipcond.diffusion.conditioner import Conditioner

    conditioner = Conditioner.from_pipeline(pipes("sd15"))
    with pytest.raises(TypeError, match="unexpected keyword argument 'weights'"):
        conditioner.compose("a AND b", weights="comfy")  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="unknown policy for pooled vectors 'fist'"):
        conditioner.compose("a AND b", pooled="fist")


def test_many_prompts_of_different_lengths_are_refused_before_memory_is_taken(
    pipes: Pipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "repeat_to", lambda *_: pytest.fail("repeated all the same"))
    conditioner = Conditioner.from_pipeline(pipes("sd15"))
    prompts = ["fox " * (75 * chunks) for chunks in (1, 5, 6, 7)] * 64
    with pytest.raises(
        ConfigError, match=r"meet at 16170 by repetition and take 1,011 MiB, more than 512; condition them"
    ):
        conditioner(prompts, "grey")
    assert conditioner(prompts, "grey", lengths="pad_empty").prompt_embeds.shape == (256, 539, 32)


def test_pictures_beyond_the_machine_are_refused_before_memory_is_taken(pipes: Pipes) -> None:
    conditioner = Conditioner.from_pipeline(pipes("sd15"))
    with pytest.raises(ConfigError, match=r"rows of 77 tokens would take .* GiB, more than the .* of this machine"):
        conditioner("a fox", "grey", num_images_per_prompt=10**12)


def test_numbers_that_leave_the_number_format_are_refused_and_not_drawn(fresh: Pipes) -> None:
    conditioner = Conditioner.from_pipeline(fresh("sd15").to(torch.float16))
    fox, cat = '"a red fox", ' * 4, ", ".join(['"a cat in snow"'] * 4)
    prompt = f"({fox}{cat}).blend({'9999, ' * 4}{', '.join(['-9999'] * 4)})"
    with pytest.raises(
        ConfigError, match=r"prompt_embeds would hold numbers that are not finite in float16.*smaller weights"
    ):
        conditioner(prompt, dialect="compel")
