"""Weights, parts and findings in every family: each encoder by its formula, T5 too, and nothing lost without a word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clipcond.condition.weighting import METHODS
from clipcond.diffusion.conditioner import Conditioner
from clipcond.errors import ConfigError

Pipes = Callable[[str], Any]
ALL = ("sd15", "sd2", "sdxl", "refiner", "sd3", "sd3-no-t5", "flux")
WEIGHTED, PLAIN = "a (red:1.5) fox in the (snow:0.5)", "a red fox in the snow"


def close(a: torch.Tensor, b: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


def t5_weights(pipe: Any, length: int) -> torch.Tensor:
    """(length) weights of T5's tokens of WEIGHTED, from the words of its small vocabulary."""
    tokenizer = pipe.tokenizer_2 if type(pipe).__name__.startswith("Flux") else pipe.tokenizer_3
    pieces = tokenizer.convert_ids_to_tokens(tokenizer(PLAIN).input_ids)
    weights = torch.ones(length)
    for at, piece in enumerate(pieces):
        weights[at] = {"▁red": 1.5, "▁snow": 0.5}.get(piece, 1.0)
    assert sorted(weights.unique().tolist()) == [0.5, 1.0, 1.5]
    return weights


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("weighting", [*METHODS, "a1111+length_norm", "comfy+mean_norm"])
def test_weights_of_one_are_the_plain_prompt_bit_for_bit(pipes: Pipes, family: str, weighting: str) -> None:
    conditioner = Conditioner.from_pipeline(pipes(family))
    plain = conditioner(PLAIN, "grey").kwargs
    written = conditioner("a (red:1.0) fox in the (snow:1)", "(grey:1)", dialect="a1111", weighting=weighting).kwargs
    for name, tensor in plain.items():
        assert torch.equal(written[name], tensor)


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("weighting", METHODS)
def test_every_weighting_with_every_dialect(pipes: Pipes, family: str, weighting: str) -> None:
    conditioner = Conditioner.from_pipeline(pipes(family))
    states = [
        conditioner(prompt, "grey", dialect=dialect, weighting=weighting).prompt_embeds
        for prompt, dialect in ((WEIGHTED, "a1111"), (WEIGHTED, "comfy"), ("a (red)1.5 fox in the (snow)0.5", "compel"))
    ]
    for other in states[1:]:
        close(other, states[0])
    assert torch.equal(states[0], conditioner(PLAIN).prompt_embeds) == (weighting == "none")


def test_a_dialects_own_weighting_is_its_default(pipes: Pipes) -> None:
    conditioner = Conditioner.from_pipeline(pipes("sdxl"))
    for dialect, prompt in (("a1111", WEIGHTED), ("comfy", WEIGHTED), ("compel", "a (red)1.5 fox in the (snow)0.5")):
        default, named = conditioner(prompt, dialect=dialect), conditioner(prompt, dialect=dialect, weighting=dialect)
        assert torch.equal(default.prompt_embeds, named.prompt_embeds)
        assert default.weighting == dialect
    assert conditioner(WEIGHTED).weighting == "none"


@pytest.mark.parametrize("family", ["sdxl", "refiner", "sd2"])
def test_every_encoder_is_weighted_by_itself(pipes: Pipes, family: str) -> None:
    pipe = pipes(family)
    conditioner = Conditioner.from_pipeline(pipe)
    z, e = conditioner(PLAIN).prompt_embeds, conditioner("").prompt_embeds
    (plan,) = conditioner(WEIGHTED, dialect="a1111").plans
    tokens = next(iter(plan.encoders.values())).chunks[0].tokens
    w = torch.ones(77, 1)
    w[1 : 1 + len(tokens), 0] = torch.tensor([token.weight for token in tokens])
    close(conditioner(WEIGHTED, dialect="comfy").prompt_embeds, e + w * (z - e))
    close(conditioner(WEIGHTED, dialect="a1111", weighting="no_norm").prompt_embeds, z * w)
    if family == "sd2":
        return  # after a norm of a random model the mean is nothing
    parts = [slice(0, 24), slice(24, 64)] if family == "sdxl" else [slice(0, 40)]
    expected = torch.cat([z[..., at] * w * (z[..., at].mean() / (z[..., at] * w).mean()) for at in parts], dim=-1)
    close(conditioner(WEIGHTED, dialect="a1111").prompt_embeds, expected, 1e-4)


@pytest.mark.parametrize("family", ["sd3", "sd3-no-t5"])
def test_sd3_restores_one_mean_over_both_clip_encoders(pipes: Pipes, family: str) -> None:
    conditioner = Conditioner.from_pipeline(pipes(family))
    z = conditioner(PLAIN).prompt_embeds[:, :77]
    (plan,) = conditioner(WEIGHTED, dialect="a1111").plans
    tokens = plan.encoders["clip_l"].chunks[0].tokens
    w = torch.ones(77, 1)
    w[1 : 1 + len(tokens), 0] = torch.tensor([token.weight for token in tokens])
    out = conditioner(WEIGHTED, dialect="a1111").prompt_embeds[:, :77]
    close(out, z * w * (z.mean() / (z * w).mean()), 1e-4)  # over the zeros too, which change nothing
    own = conditioner(WEIGHTED, prompt_2=PLAIN, dialect="a1111").prompt_embeds[:, :77]
    left = z[..., :24]
    close(own[..., :24], left * w * (left.mean() / (left * w).mean()), 1e-4)  # other weights, other means
    close(own[..., 24:], z[..., 24:])


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_weights_apply_to_t5(pipes: Pipes, family: str) -> None:
    pipe = pipes(family)
    conditioner, length = Conditioner.from_pipeline(pipe), 512 if family == "flux" else 256
    z, e = (conditioner(text).prompt_embeds[:, -length:] for text in (PLAIN, ""))
    w = t5_weights(pipe, length)[:, None]
    close(conditioner(WEIGHTED, dialect="comfy").prompt_embeds[:, -length:], e + w * (z - e))
    close(conditioner(WEIGHTED, dialect="a1111").prompt_embeds[:, -length:], z * w * (z.mean() / (z * w).mean()), 1e-4)


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("weighting", ["a1111", "comfy", "comfy_pp", "compel"])
def test_weighted_prompts_do_not_depend_on_their_neighbours(pipes: Pipes, family: str, weighting: str) -> None:
    conditioner = Conditioner.from_pipeline(pipes(family))
    options = {"dialect": "a1111", "weighting": weighting}
    alone = conditioner(WEIGHTED, "(grey:0.3)", **options).kwargs
    among = conditioner(["(bird:0.2)", WEIGHTED, PLAIN], "(grey:0.3)", **options).kwargs
    for name, tensor in alone.items():
        close(among[name][1:2], tensor)


# parts


@pytest.mark.parametrize("family", ALL)
def test_parts_are_joined_in_every_encoder(pipes: Pipes, family: str) -> None:
    conditioner = Conditioner.from_pipeline(pipes(family))
    one, two, e = (conditioner(text).prompt_embeds for text in ("a red fox", "a bird", ""))
    blended = conditioner('("a red fox", "a bird").blend(1, 3)', dialect="compel")
    close(blended.prompt_embeds, (one + 3 * two) / 4)
    joined = conditioner('("a red fox", "a bird").and(1, 0.5)', dialect="compel").prompt_embeds
    second = e + (two - e) * 0.5
    clip = 0 if family == "flux" else 77
    tails = [each[:, clip:] for each in (one, second)]
    if family == "sd3-no-t5":
        tails = tails[:1]
    close(joined, torch.cat([one[:, :clip], second[:, :clip], *tails], dim=1))


def test_a_blend_is_pooled_as_a_blend(pipes: Pipes) -> None:
    conditioner = Conditioner.from_pipeline(pipes("sdxl"))
    one, two = (conditioner(text).pooled_prompt_embeds for text in ("a red fox", "a bird"))
    blended = conditioner('("a red fox", "a bird").blend(1, 3)', dialect="compel").pooled_prompt_embeds
    close(blended, (one + 3 * two) / 4)  # type: ignore[operator, arg-type]
    joined = conditioner('("a red fox", "a bird").and()', dialect="compel").pooled_prompt_embeds
    close(joined, one)  # type: ignore[arg-type]


def test_parts_for_the_denoiser_are_left_to_it(pipes: Pipes) -> None:
    with pytest.raises(
        ConfigError, match=r"AND in it, whose parts only the denoiser can compose; use conditioner.compose"
    ):
        Conditioner.from_pipeline(pipes("sd15"))("a fox AND a bird", dialect="a1111")


# findings


def codes(out: Any) -> list[tuple[str, str, int, str]]:
    plans = {"prompt": out.plans, "negative_prompt": out.negative_plans, **out.other_plans}
    return [
        (each.code, each.argument, each.index, plans[each.argument][each.index].prompt[each.start : each.end])
        for each in out.findings
    ]


def test_findings_say_where_and_in_which_prompt(pipes: Pipes) -> None:
    out = Conditioner.from_pipeline(pipes("sdxl"))(
        ["a fox", "a (fox"], ["(grey", ""], prompt_2=["(cat:1,5)", "x"], dialect="a1111"
    )
    assert ("unclosed-bracket", "prompt", 1, "(") in codes(out)
    assert ("unclosed-bracket", "negative_prompt", 0, "(") in codes(out)
    assert ("bad-weight", "prompt_2", 0, ":1,5") in codes(out)


def test_a_mean_near_zero_is_said(pipes: Pipes) -> None:
    out = Conditioner.from_pipeline(pipes("sd15"))(["a fox", WEIGHTED], "(grey:2)", dialect="a1111")
    assert codes(out) == [
        ("mean-near-zero", "prompt", 1, "red:1.5) fox in the (snow"),
        ("mean-near-zero", "negative_prompt", 0, "grey"),
        ("mean-near-zero", "negative_prompt", 1, "grey"),
    ]


def test_weights_that_change_nothing_are_said(pipes: Pipes) -> None:
    flux = Conditioner.from_pipeline(pipes("flux"))
    assert codes(flux(WEIGHTED, dialect="a1111")) == []
    out = flux(WEIGHTED, prompt_2="a (bird:1.2)", dialect="a1111")
    assert codes(out) == [("weights-unused", "prompt", 0, "red:1.5) fox in the (snow")]
    out = flux(WEIGHTED, prompt_2="a bird", dialect="a1111", weighting="none")
    assert codes(out) == [("weights-unused", "prompt", 0, "red:1.5) fox in the (snow")]
    assert "clip_l" in flux(WEIGHTED, prompt_2="a bird", dialect="a1111").findings[0].message


def test_a_text_that_no_encoder_reads_is_said(pipes: Pipes) -> None:
    out = Conditioner.from_pipeline(pipes("sd3-no-t5"))("a fox", prompt_3="a bird")
    assert codes(out) == [("text-unused", "prompt_3", 0, "a bird")]
    assert codes(Conditioner.from_pipeline(pipes("sd3"))("a fox", prompt_3="a bird")) == []
