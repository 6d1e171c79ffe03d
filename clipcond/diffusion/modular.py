"""A text block for Modular Diffusers: prompts of any length, in any dialect and weighting, in place of the stock block.

    blocks = StableDiffusionXLAutoBlocks()
    blocks.sub_blocks["text_encoder"] = ClipcondTextBlock(blocks.sub_blocks["text_encoder"])
    pipe = blocks.init_pipeline(repository)

The pipeline then takes `dialect`, `weighting`, `chunking`, `clip_skip`, `pooled` and `lengths` beside its prompts. AND,
schedules and the weighting `counterfactual` act in the denoiser; they need a guider that knows them:

    pipe.update_components(guider=ClipcondGuider(guidance_scale=5.0))
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

import torch
from diffusers.modular_pipelines import ModularPipelineBlocks
from diffusers.modular_pipelines.modular_pipeline_utils import InputParam, OutputParam

from clipcond.condition.weighting import COUNTERFACTUAL
from clipcond.diffusion.compose_denoiser import Composition
from clipcond.diffusion.conditioner import Conditioner, PromptSettings
from clipcond.diffusion.conditioning import Conditioning
from clipcond.diffusion.counterfactual.steering import Steering
from clipcond.diffusion.modular_guider import ClipcondGuider
from clipcond.errors import ConfigError
from clipcond.prompt.dialects.schedules import is_scheduled
from clipcond.prompt.plan import plan

_PROMPTS = ("prompt", "prompt_2", "prompt_3", "negative_prompt", "negative_prompt_2", "negative_prompt_3")
_REPEATED, _STEPS = "num_images_per_prompt", "num_inference_steps"  # other blocks repeat rows, and read the steps


class ClipcondTextBlock(ModularPipelineBlocks):  # type: ignore[misc]
    """Encodes as `Conditioner` does, with the components and for the outputs of the block that it replaces.

    What it found about the texts is warned of; the whole `Conditioning` is the intermediate output `conditioning`, the
    `Composition` or `Steering` for prompts that the pipeline's ClipcondGuider draws.
    """

    def __init__(self, replaces: ModularPipelineBlocks) -> None:
        """replaces: the text block of SDXL, SD3, Flux or Flux Kontext. Raises ConfigError for one without `prompt_embeds`."""
        super().__init__()
        if not isinstance(replaces, ModularPipelineBlocks):
            raise ConfigError(
                f"ClipcondTextBlock takes the text block of a modular pipeline, not a {type(replaces).__name__}; "
                'give it blocks.sub_blocks["text_encoder"]'
            )
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
        settings = [InputParam(name) for name in (*get_type_hints(PromptSettings), _STEPS) if name != _REPEATED]
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
        steps = wanted.pop(_STEPS, None)
        wanted.setdefault("steps", steps)
        out = _encoded(components, wanted)
        for found in out.findings:
            warnings.warn(f"{found.argument}: {found.message}", stacklevel=2)
        kwargs = out.kwargs
        for each in self._replaces.intermediate_outputs:
            setattr(block, each.name, kwargs.get(each.name))
        block.conditioning = out
        self.set_block_state(state, block)
        return components, state


def _encoded(pipe: Any, wanted: Mapping[str, Any]) -> Conditioning | Composition | Steering:
    """The prompts of a call, encoded; the pipeline's guider is told those that the denoiser composes or changes.

    Raises ConfigError for such prompts where the guider is another one, and for further prompts beside them.
    """
    conditioner, guider = Conditioner.from_pipeline(pipe), getattr(pipe, "guider", None)
    encode: Callable[..., Conditioning | Composition | Steering] = conditioner
    if wanted.get("weighting") == COUNTERFACTUAL:
        encode = conditioner.counterfactual
    elif wanted.get("dialect") == "a1111" and any(_acts_in_denoiser(name, wanted[name]) for name in wanted):
        encode = conditioner.compose
    if encode is not conditioner:
        if not isinstance(guider, ClipcondGuider):
            raise ConfigError(
                f"{type(pipe).__name__} needs a guider for AND, schedules and the weighting counterfactual: "
                "pipe.update_components(guider=clipcond.ClipcondGuider(guidance_scale=…)); Flux takes none"
            )
        if further := set(wanted) - set(inspect.signature(encode).parameters):
            raise ConfigError(f"{min(further)} goes with no AND, schedule or weighting counterfactual; leave it out")
    made = encode(**wanted)
    if isinstance(guider, ClipcondGuider):
        guider.steer(None if isinstance(made, Conditioning) else made, pipe.scheduler)
    return made


def _acts_in_denoiser(name: str, given: Any) -> bool:
    """True for a prompt of A1111 that has AND in it, or changes over the steps."""
    if name not in _PROMPTS:
        return False
    negative = name.startswith("negative")
    texts = [given] if isinstance(given, str) else list(given)
    return any(
        is_scheduled(each, negative=negative)
        or ("AND" in each and any(part.how == "noise" for part in plan(each, dialect="a1111", negative=negative).parts))
        for each in texts
    )
