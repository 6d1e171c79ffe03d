"""Modular Diffusers: the block in place of the stock text block, and embeds where that block is taken out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import clipcond
from clipcond.diffusion.compose_denoiser import composed
from clipcond.diffusion.conditioner import Conditioner
from clipcond.diffusion.counterfactual.denoiser import steered
from clipcond.diffusion.modular import ClipcondTextBlock
from clipcond.diffusion.modular_guider import ClipcondGuider
from clipcond.errors import ConfigError

Pipes = Callable[[str], Any]
SHORT = "a red fox in the snow, soft light"
LONG = "a red fox, " * 40
BLOCKS = {
    "sdxl": "StableDiffusionXLAutoBlocks",
    "sd3": "StableDiffusion3AutoBlocks",
    "flux": "FluxAutoBlocks",
    "kontext": "FluxKontextAutoBlocks",
}


def close(a: torch.Tensor, b: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


def modular(pipes: Pipes, family: str, text: str) -> Any:
    """A modular pipeline around a family's parts, whose text block is `stock`, `ours` or `none`."""
    import diffusers.modular_pipelines as library

    blocks = getattr(library, BLOCKS[family])()
    if text == "none":
        blocks.sub_blocks.pop("text_encoder")
    elif text == "ours":
        blocks.sub_blocks["text_encoder"] = ClipcondTextBlock(blocks.sub_blocks["text_encoder"])
    pipe = blocks.init_pipeline()
    parts = pipes("flux" if family == "kontext" else family).components
    pipe.update_components(**{name: part for name, part in parts.items() if name in pipe.component_names and part})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: Any, **more: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return pipe(
        height=16, width=16, num_inference_steps=2, generator=generator, output_type="pt", output="images", **more
    )


@pytest.mark.parametrize("family", BLOCKS)
def test_the_block_draws_the_stock_picture(pipes: Pipes, family: str) -> None:
    texts = {"prompt": SHORT} if family in ("flux", "kontext") else {"prompt": SHORT, "negative_prompt": "blurry"}
    theirs = draw(modular(pipes, family, "stock"), **texts)
    close(draw(modular(pipes, family, "ours"), **texts), theirs)


@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_embeds_draw_the_same_where_the_text_block_is_taken_out(pipes: Pipes, family: str) -> None:
    texts = {"prompt": SHORT} if family == "flux" else {"prompt": SHORT, "negative_prompt": "blurry"}
    out = Conditioner.from_pipeline(pipes(family))(**texts)
    close(draw(modular(pipes, family, "none"), **out.kwargs), draw(modular(pipes, family, "ours"), **texts))


def test_settings_are_inputs_and_the_conditioning_is_an_output(pipes: Pipes) -> None:
    pipe = modular(pipes, "sdxl", "ours")
    prompt = f"(a red fox:1.4), {LONG}"
    state = pipe(prompt=prompt, dialect="a1111", pooled="mean", height=16, width=16, num_inference_steps=1)
    classic = Conditioner.from_pipeline(pipes("sdxl"))(prompt, dialect="a1111", pooled="mean")
    made = state.get("conditioning")
    assert (made.dialect, made.pooled, len(made.plans[0].encoders["clip_l"].chunks)) == ("a1111", "mean", 3)
    for name, tensor in classic.kwargs.items():
        close(made.kwargs[name], tensor)


def test_what_was_found_is_warned_of(pipes: Pipes) -> None:
    with pytest.warns(UserWarning, match=r"^prompt: .*bracket"):
        draw(modular(pipes, "sdxl", "ours"), prompt="a red) fox", dialect="a1111")


def test_what_modular_pipelines_cannot_do_is_said(pipes: Pipes) -> None:
    pipe = modular(pipes, "sdxl", "ours")
    with pytest.raises(ConfigError, match="prompt is not given; pass one"):
        draw(pipe)
    with pytest.raises(ConfigError, match=r"AND needs a guider that composes them: pipe\.update_components"):
        Conditioner.from_pipeline(pipe).compose("a fox AND a bird")
    with pytest.raises(ConfigError, match="takes no callback_on_step_end"):
        Conditioner.from_pipeline(pipe)("a [red:blue:0.5] fox", dialect="a1111", steps=4)
    with pytest.raises(ConfigError, match="and no prompt_embeds"):
        ClipcondTextBlock(pipe.blocks.sub_blocks["decode"])


SCALE, STEPS = 5.0, 4
AND = "a red fox :1.2 AND a (blue bird:1.3) in the snow :0.7"
CHANGING = "a [red:blue:0.5] fox"


def guided(pipes: Pipes, family: str) -> Any:
    """A modular pipeline with our text block and our guider."""
    pipe = modular(pipes, family, "ours")
    pipe.update_components(guider=ClipcondGuider(guidance_scale=SCALE))
    return pipe


def drawn(pipe: Any, **more: Any) -> torch.Tensor:
    """By a modular or a classic pipeline, from the same noise."""
    generator = torch.Generator().manual_seed(3)
    own = {"output": "images"} if hasattr(type(pipe), "blocks") else {"guidance_scale": SCALE}
    size = {"height": 16, "width": 16, "num_inference_steps": STEPS}
    made = pipe(**size, generator=generator, output_type="pt", **{**own, **more})
    return made if isinstance(made, torch.Tensor) else made.images


@pytest.mark.parametrize("family", ["sdxl", "sd3"])
@pytest.mark.parametrize("prompt", [SHORT, AND, CHANGING, "a red fox AND a [blue:grey:0.4] bird :0.7", [AND, SHORT]])
def test_the_guider_draws_the_picture_of_a_classic_pipeline(pipes: Pipes, family: str, prompt: Any) -> None:
    classic = pipes(family)
    parts = Conditioner.from_pipeline(classic).compose(prompt, "blurry, [grey|red]", dialect="a1111", steps=STEPS)
    with composed(classic, parts):
        theirs = drawn(classic, **parts.kwargs)
    texts = {"prompt": prompt, "negative_prompt": "blurry, [grey|red]"}
    close(drawn(guided(pipes, family), **texts, dialect="a1111", steps=STEPS), theirs, 1e-4)


def test_without_guidance_several_pictures_are_composed_too(pipes: Pipes) -> None:
    classic = pipes("sdxl")
    parts = Conditioner.from_pipeline(classic).compose(AND, "blurry", num_images_per_prompt=2)
    with composed(classic, parts):
        theirs = drawn(classic, **parts.kwargs, guidance_scale=1.0)
    pipe = modular(pipes, "sdxl", "ours")
    pipe.update_components(guider=ClipcondGuider(guidance_scale=1.0))
    texts = {"prompt": AND, "negative_prompt": "blurry", "dialect": "a1111"}
    close(drawn(pipe, **texts, num_images_per_prompt=2), theirs, 1e-4)


@pytest.mark.parametrize("prompt", ["a (red fox:0) in the snow", "a ([red:blue:0.5] fox:1.5) AND a (bird:0.5) :0.8"])
def test_phrases_weigh_in_the_prediction_as_in_a_classic_pipeline(pipes: Pipes, prompt: str) -> None:
    classic, texts = pipes("sdxl"), {"prompt": prompt, "negative_prompt": "a (grey:1.4) photo"}
    steering = Conditioner.from_pipeline(classic).counterfactual(*texts.values(), dialect="a1111", steps=STEPS)
    assert steering.phrases > 1
    with steered(classic, steering):
        theirs = drawn(classic, **steering.kwargs)
    pipe = guided(pipes, "sdxl")
    close(drawn(pipe, **texts, dialect="a1111", weighting="counterfactual"), theirs, 1e-4)
    close(drawn(pipe, prompt=SHORT), drawn(guided(pipes, "sdxl"), prompt=SHORT), 0)  # it forgets


def test_what_the_guider_is_not_told_is_refused(pipes: Pipes) -> None:
    refused: list[dict[str, Any]] = [{"prompt": AND}, {"prompt": CHANGING, "steps": 4}]
    for texts in refused:
        with pytest.raises(ConfigError, match="needs a guider for AND, schedules and the weighting counterfactual"):
            draw(modular(pipes, "sdxl", "ours"), dialect="a1111", **texts)
    pipe = guided(pipes, "sdxl")
    with pytest.raises(ConfigError, match="the schedule was made for 7 steps, and the pipeline runs 2; say steps=2"):
        draw(pipe, prompt=CHANGING, dialect="a1111", steps=7)
    with pytest.raises(ConfigError, match="prompt_2 goes with no AND, schedule or weighting counterfactual"):
        draw(pipe, prompt=AND, prompt_2="a fox", dialect="a1111")


def test_a_guider_is_told_by_hand_where_the_text_block_is_taken_out(pipes: Pipes) -> None:
    pipe, guider = modular(pipes, "sdxl", "none"), ClipcondGuider(guidance_scale=SCALE)
    pipe.update_components(guider=guider)
    conditioner = Conditioner.from_pipeline(pipes("sdxl"))
    parts, other = conditioner.compose(AND, "blurry"), conditioner(SHORT, "blurry")
    guider.steer(parts, pipe.scheduler)
    close(
        drawn(pipe, **parts.kwargs), drawn(guided(pipes, "sdxl"), prompt=AND, negative_prompt="blurry", dialect="a1111")
    )
    with pytest.raises(ConfigError, match="draws another prompt than its ClipcondGuider was told"):
        drawn(pipe, **other.kwargs)
    guider.steer(None)
    close(drawn(pipe, **other.kwargs), drawn(guided(pipes, "sdxl"), prompt=SHORT, negative_prompt="blurry"))
    place = clipcond.Region(prompt="a bird", cell="top left")
    with pytest.raises(ConfigError, match="regions need a classic pipeline"):
        guider.steer(conditioner.regions("a fox", [place]), pipe.scheduler)
    with pytest.raises(
        ConfigError, match=r"the scheduler is not given; call pipe\.guider\.steer\(parts, pipe\.scheduler"
    ):
        guider.steer(parts)
    no_parts: Any = other
    with pytest.raises(ConfigError, match=r"gives, or None, not a Conditioning"):
        guider.steer(no_parts, pipe.scheduler)
    classic: Any = pipes("sdxl")
    with pytest.raises(ConfigError, match="text block of a modular pipeline, not a StableDiffusionXLPipeline; give it"):
        ClipcondTextBlock(classic)
