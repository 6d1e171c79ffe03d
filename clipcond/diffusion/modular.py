"""A text block for Modular Diffusers: prompts of any length, in any dialect and weighting, in place of the stock block.

    blocks = StableDiffusionXLAutoBlocks()
    blocks.sub_blocks["text_encoder"] = ClipcondTextBlock(blocks.sub_blocks["text_encoder"])
    pipe = blocks.init_pipeline(repository)

The pipeline then takes `dialect`, `weighting`, `chunking`, `clip_skip`, `pooled` and `lengths` beside its prompts.
"""

from __future__ import annotations

import warnings
from typing import Any, get_type_hints

import torch
from diffusers.modular_pipelines import ModularPipelineBlocks
from diffusers.modular_pipelines.modular_pipeline_utils import InputParam, OutputParam

from clipcond.diffusion.conditioner import Conditioner, PromptSettings
from clipcond.errors import ConfigError

_PROMPTS = ("prompt", "prompt_2", "prompt_3", "negative_prompt", "negative_prompt_2", "negative_prompt_3")
_PER_IMAGE = ("num_images_per_prompt", "steps")  # other blocks repeat the rows; a schedule needs a callback


class ClipcondTextBlock(ModularPipelineBlocks):  # type: ignore[misc]
    """Encodes as `Conditioner` does, with the components and for the outputs of the block that it replaces.

    What it found about the texts is warned of; the whole `Conditioning` is the intermediate output `conditioning`.
    """

    def __init__(self, replaces: ModularPipelineBlocks) -> None:
        """replaces: the text block of SDXL, SD3, Flux or Flux Kontext. Raises ConfigError for one without `prompt_embeds`."""
        super().__init__()
        self._replaces = replaces
        self.model_name = replaces.model_name
        names = [each.name for each in replaces.intermediate_outputs]
        if "prompt_embeds" not in names:
            raise ConfigError(f"{type(replaces).__name__} gives {', '.join(names) or 'nothing'}, and no prompt_embeds")

    @property
    def description(self) -> str:
        """One line for the blocks' own documentation."""
        return "Prompts of any length in any dialect and weighting, encoded by clipcond"

    @property
    def expected_components(self) -> list[Any]:
        """Those of the block that it replaces."""
        return list(self._replaces.expected_components)

    @property
    def expected_configs(self) -> list[Any]:
        """Those of the block that it replaces."""
        return list(self._replaces.expected_configs)

    @property
    def inputs(self) -> list[InputParam]:
        """The prompts of the block that it replaces, and the settings of `Conditioner`."""
        own = {each.name: each for each in self._replaces.inputs if each.name in _PROMPTS}
        settings = [InputParam(name) for name in get_type_hints(PromptSettings) if name not in _PER_IMAGE]
        negative = [] if "negative_prompt" in own else [InputParam("negative_prompt")] * self._guides
        return [*own.values(), *negative, *settings]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        """Those of the block that it replaces, and `conditioning`."""
        return [*self._replaces.intermediate_outputs, OutputParam("conditioning", description="the Conditioning")]

    @property
    def _guides(self) -> bool:
        return any(each.name == "negative_prompt_embeds" for each in self._replaces.intermediate_outputs)

    @torch.no_grad()
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        """Encode the prompts of a state."""
        block = self.get_block_state(state)
        given = {each.name: getattr(block, each.name, None) for each in self.inputs}
        wanted = {name: value for name, value in given.items() if value is not None}
        if "prompt" not in wanted:
            raise ConfigError("prompt is not given; pass one, or take the text block out and pass prompt_embeds")
        out = Conditioner.from_pipeline(components)(**wanted)
        for found in out.findings:
            warnings.warn(f"{found.argument}: {found.message}", stacklevel=2)
        kwargs = out.kwargs
        for each in self._replaces.intermediate_outputs:
            setattr(block, each.name, kwargs.get(each.name))
        block.conditioning = out
        self.set_block_state(state, block)
        return components, state
