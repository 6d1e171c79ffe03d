"""What a prompt becomes: the tensors that a stock pipeline takes, with the plans that explain them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from clipcond.encode.shapes import check_axes
from clipcond.prompt.findings import Finding
from clipcond.prompt.plan import PromptPlan

if TYPE_CHECKING:
    from clipcond.diffusion.conditioner import Conditioner
    from clipcond.diffusion.step_callback import StepCallback
    from clipcond.diffusion.word_swaps import Edited

TENSORS = (
    "prompt_embeds",
    "negative_prompt_embeds",
    "pooled_prompt_embeds",
    "negative_pooled_prompt_embeds",
    "prompt_attention_mask",
    "negative_prompt_attention_mask",
)


@dataclass(frozen=True, slots=True)
class PlacedFinding(Finding):
    """A finding about one text of a call: that of `argument` for the prompt of number `index`.

    Besides those of the plans (`clipcond.prompt.findings`): `mean-near-zero`, a mean that `a1111` did not restore;
    `weights-unused`, weights that change nothing; `text-unused` and `negative-unused`, a text that the pipeline has no
    encoder or no argument for; `embedding-as-text`, an embedding of the pipeline that ComfyUI's dialect reads as text.
    """

    argument: str = "prompt"
    index: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Conditioning:
    """What a pipeline takes in place of prompts and negative prompts: token states, and in most families pooled vectors.

    With `num_images_per_prompt` n, B is n times the number of prompts, and each prompt's rows follow one another.
    Both sides have one shape; Flux may do without a negative one.
    Raises ShapeError when shapes do not fit.
    """

    prompt_embeds: Tensor  # (B, T, D) in the dtype and on the device of the pipeline
    negative_prompt_embeds: Tensor | None = None  # (B, T, D)
    pooled_prompt_embeds: Tensor | None = None  # (B, P)
    negative_pooled_prompt_embeds: Tensor | None = None  # (B, P)
    prompt_attention_mask: Tensor | None = None  # (B, T) bool, True where attention may look; with lengths="mask"
    negative_prompt_attention_mask: Tensor | None = None  # (B, T)
    plans: tuple[PromptPlan, ...]  # of each prompt
    negative_plans: tuple[PromptPlan, ...]  # of each negative prompt, in the same order
    other_plans: Mapping[str, tuple[PromptPlan, ...]] = field(default_factory=dict)  # of prompt_2, … where given
    findings: tuple[PlacedFinding, ...] = ()  # what is odd about the texts
    family: str
    dialect: str
    clip_skip: int
    weighting: str = "none"
    chunking: str | None = None  # None: the dialect's own
    pooled: str = "first"
    lengths: str = "lcm"
    fingerprints: Mapping[str, str] = field(default_factory=dict)  # of the encoders, as they were
    takes: frozenset[str] | None = None  # the arguments of the pipeline's call, None where it is not known
    callback: StepCallback | None = None  # for callback_on_step_end where a prompt changes over the steps
    edited: Edited | None = None  # of compel's `.swap()`: the states that the swaps lead to, and where

    def __post_init__(self) -> None:
        sizes = check_axes("prompt_embeds", self.prompt_embeds, "B T D")
        if self.negative_prompt_embeds is not None:
            check_axes("negative_prompt_embeds", self.negative_prompt_embeds, "B T D", **sizes)
        for name in TENSORS[2:4]:
            if (pooled := getattr(self, name)) is not None:
                check_axes(name, pooled, "B P", B=sizes["B"])

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts, as they were given."""
        return tuple(each.prompt for each in self.plans)

    @property
    def negative_prompts(self) -> tuple[str, ...]:
        """The negative prompts, one for each prompt."""
        return tuple(each.prompt for each in self.negative_plans)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors that there are, by the names of arguments."""
        named = {name: getattr(self, name) for name in TENSORS}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    @property
    def kwargs(self) -> dict[str, Tensor]:
        """What the pipeline's call takes in place of `prompt` and `negative_prompt`: no more than it has names for."""
        return {name: tensor for name, tensor in self.tensors.items() if self.takes is None or name in self.takes}

    @property
    def callback_on_step_end_tensor_inputs(self) -> list[str]:
        """What the pipeline's argument of this name takes beside `callback`; older pipelines need it said."""
        return ["latents"] if self.callback is None else self.callback.tensor_inputs

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write a safetensors file with all tensors, and as metadata the texts, their plans, the settings and the
        fingerprints of the encoders: complete or not at all.

        Raises OutputExists when the file is there already, unless `overwrite`; ResourceMissing when its folder is not.
        """
        from clipcond.diffusion.conditioning_file import save

        save(self, path, overwrite=overwrite)

    @classmethod
    def load(
        cls, path: str | Path, pipe: Any = None, *, conditioner: Conditioner | None = None, force: bool = False
    ) -> Conditioning:
        """Read a file that `save` wrote.

        pipe, conditioner: the pipeline that it is for, or its Conditioner: the tensors go where it computes, and a file
        of another family or of other encoders is refused, unless `force`. Without, tensors are on the CPU and nothing
        is compared.
        Raises ResourceMissing when there is no such file, DataError when it holds no conditioning or is damaged,
        ModelError when it was made by other encoders.
        """
        from clipcond.diffusion.conditioning_file import load

        if pipe is not None and conditioner is None:
            from clipcond.diffusion.conditioner import Conditioner

            conditioner = Conditioner.from_pipeline(pipe)
        return load(path, conditioner=conditioner, force=force)
