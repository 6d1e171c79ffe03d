"""Modular Diffusers: the block in place of the stock text block, and embeds where that block is taken out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clipcond.diffusion.conditioner import Conditioner
from clipcond.diffusion.modular import ClipcondTextBlock
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
    with pytest.raises(ConfigError, match="AND needs a classic pipeline"):
        Conditioner.from_pipeline(pipe).compose("a fox AND a bird")
    with pytest.raises(ConfigError, match="takes no callback_on_step_end"):
        Conditioner.from_pipeline(pipe)("a [red:blue:0.5] fox", dialect="a1111", steps=4)
    with pytest.raises(ConfigError, match="and no prompt_embeds"):
        ClipcondTextBlock(pipe.blocks.sub_blocks["decode"])
