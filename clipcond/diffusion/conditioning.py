"""The tensors that a stock pipeline takes in place of prompts, with the plans that explain them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from clipcond.diffusion.edits import Edited
from clipcond.diffusion.findings import PlacedFinding
from clipcond.diffusion.pipeline_shapes import as_arguments
from clipcond.diffusion.pipeline_view import PipelineView, view_pipeline
from clipcond.encode.shapes import check_axes
from clipcond.errors import ConfigError, ShapeError
from clipcond.prompt.families import FAMILIES
from clipcond.prompt.operations import Operation
from clipcond.prompt.plan import PromptPlan
from clipcond.wording import html_table

if TYPE_CHECKING:
    from clipcond.diffusion.conditioning_file import ConditioningRecord
    from clipcond.diffusion.step_callback import StepCallback

TENSORS = (
    "prompt_embeds",
    "negative_prompt_embeds",
    "pooled_prompt_embeds",
    "negative_pooled_prompt_embeds",
    "prompt_attention_mask",
    "negative_prompt_attention_mask",
)
# arguments of single families, taken as they are: (B + 1) ends of the texts laid end to end, (layers, B, S, D) states
FURTHER = (
    "prompt_cu_seqlens",
    "negative_prompt_cu_seqlens",
    "prompt_embeds_llama3",
    "negative_prompt_embeds_llama3",
)
SETTINGS = ("family", "dialect", "clip_skip", "weighting", "chunking", "pooled", "lengths")


class HasPipeline(Protocol):
    """A Conditioner, or anything else with a view of its pipeline."""

    @property
    def pipeline(self) -> PipelineView: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Conditioning:
    """The input of a pipeline in place of prompts and negative prompts: token states, in most families pooled vectors too.

    With `num_images_per_prompt` n, B is n times the number of prompts, and each prompt's rows follow one another.
    Both sides have one shape; Flux may do without a negative one, and a language model's sides differ in length.
    Raises ShapeError when shapes do not fit one another or the number of prompts, or an axis is empty.
    """

    prompt_embeds: Tensor  # (B, T, D) in the dtype and on the device of the pipeline
    negative_prompt_embeds: Tensor | None = None  # (B, T, D)
    pooled_prompt_embeds: Tensor | None = None  # (B, P)
    negative_pooled_prompt_embeds: Tensor | None = None  # (B, P)
    prompt_attention_mask: Tensor | None = None  # (B, T) bool, True where attention may look
    negative_prompt_attention_mask: Tensor | None = None  # (B, T)
    further: Mapping[str, Tensor] = field(default_factory=dict)  # by names of `FURTHER`
    plans: tuple[PromptPlan, ...]  # of each prompt
    negative_plans: tuple[PromptPlan, ...]  # of each negative prompt, in the same order
    other_plans: Mapping[str, tuple[PromptPlan, ...]] = field(default_factory=dict)  # of prompt_2, … where given
    findings: tuple[PlacedFinding, ...] = ()  # of all texts
    family: str
    dialect: str
    clip_skip: int
    weighting: str = "none"
    chunking: str | None = None  # None: the dialect's own
    pooled: str = "first"
    lengths: str = "lcm"
    fingerprints: Mapping[str, str] = field(default_factory=dict)  # of the encoders, as they were
    takes: frozenset[str] | None = None  # the tensors that the pipeline's call takes, None where it is not known
    arguments: Mapping[str, str] = field(default_factory=dict)  # the call's names of tensors, where they differ
    callback: StepCallback | None = None  # for callback_on_step_end where a prompt changes over the steps
    operations: tuple[Operation, ...] = ()  # the operations that were applied to the positive side
    edited: Edited | None = None  # of compel's `.swap()`: the states that the swaps lead to, and where

    def __post_init__(self) -> None:
        sizes = check_axes("prompt_embeds", self.prompt_embeds, "B T D")
        if self.negative_prompt_embeds is not None:
            wanted = sizes if self._one_length else {"B": sizes["B"], "D": sizes["D"]}
            check_axes("negative_prompt_embeds", self.negative_prompt_embeds, "B T D", **wanted)
        for name in TENSORS[2:4]:
            if (pooled := getattr(self, name)) is not None:
                check_axes(name, pooled, "B P", B=sizes["B"])
        for name in TENSORS[4:]:
            if (mask := getattr(self, name)) is not None:
                wanted = {"B": sizes["B"], "T": sizes["T"]} if self._one_length else {"B": sizes["B"]}
                check_axes(name, mask, "B T", **wanted)
        _check_rows(sizes, self.plans, self.negative_plans)

    @property
    def _one_length(self) -> bool:
        """False for the states of a language model, whose sides the denoiser reads one after the other."""
        return all(encoder.kind != "language" for encoder in FAMILIES.get(self.family, {}).values())

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts of the call."""
        return tuple(each.prompt for each in self.plans)

    @property
    def negative_prompts(self) -> tuple[str, ...]:
        """The negative prompts, one for each prompt."""
        return tuple(each.prompt for each in self.negative_plans)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors that there are, by the names of arguments."""
        own = {name: getattr(self, name) for name in TENSORS}
        return {name: tensor for name, tensor in own.items() if tensor is not None} | dict(self.further)

    @property
    def kwargs(self) -> dict[str, Any]:
        """The arguments for the pipeline's call in place of `prompt` and `negative_prompt`: those that it takes."""
        return self.as_editing() if self._edits else as_arguments(self._taken, self.arguments)

    def as_editing(self, images: int = 1) -> dict[str, Any]:
        """The arguments for LEDITS++, whose prompts are edits of pictures that it has inverted: all edits for each picture,
        and one negative prompt for all of them.

        images: the number of inverted pictures.
        Raises ConfigError for another pipeline's conditioning, for negative prompts that differ, and for several edits with a
        negative prompt, or longer than one chunk, where the pipeline takes one edit beside `negative_prompt_embeds` only
        (Stable Diffusion 1).
        """
        if not self._edits:
            raise ConfigError("as_editing is for a conditioner of a LEDITS++ pipeline; others take **out.kwargs")
        if len(set(self.negative_prompts)) > 1:
            raise ConfigError("the edits of LEDITS++ share one negative prompt; give the same one for each")
        edits = {name: each for name, each in self._taken.items() if not name.startswith("negative_")}
        shared = {
            name: each[:1].repeat(images, *[1] * (each.ndim - 1))
            for name, each in self._taken.items()
            if name.startswith("negative_")
        }
        repeated = {name: each.repeat_interleave(images, dim=0) for name, each in edits.items()}
        alone = "pooled_prompt_embeds" not in self._taken and len(self.prompt_embeds) > 1
        most = next(iter(self.plans[0].encoders.values())).chunks[0].frame.length
        if alone and (any(self.negative_prompts) or self.prompt_embeds.shape[1] > most):
            raise ConfigError(
                f"{len(self.prompt_embeds)} edits: LEDITS++ of Stable Diffusion 1 takes several of at most {most} "
                "positions and no negative prompt; edit once for each"
            )
        return as_arguments(repeated if alone else {**repeated, **shared}, self.arguments)

    @property
    def _edits(self) -> bool:
        """True for the arguments of LEDITS++."""
        return any(name.startswith("editing") for name in self.arguments.values())

    @property
    def _taken(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in self.tensors.items() if self.takes is None or name in self.takes}

    @property
    def callback_on_step_end_tensor_inputs(self) -> list[str]:
        """The pipeline's argument of this name, to go with `callback`; older pipelines need it."""
        return ["latents"] if self.callback is None else self.callback.tensor_inputs

    def _repr_html_(self) -> str:
        """A table for a notebook: the tensors, the prompts and what was found about them."""
        rows = [
            (name, "×".join(map(str, each.shape)), str(each.dtype).removeprefix("torch."), each.device)
            for name, each in self.tensors.items()
        ]
        title = f"{'; '.join(self.prompts)} ({self.family}, {self.dialect}, weighting {self.weighting})"
        notes = [*map(str, self.operations), *(f"{found.argument}: {found.message}" for found in self.findings)]
        return html_table(title, ("tensor", "shape", "dtype", "device"), rows, notes=notes)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write a safetensors file with all tensors, and as metadata the texts, their plans, the settings and the
        fingerprints of the encoders: complete or not at all.

        Raises OutputExists when the file is there already, unless `overwrite`; ResourceMissing when its folder is not.
        """
        from clipcond.diffusion.conditioning_file import ConditioningRecord, write

        record = ConditioningRecord(
            tensors=self.tensors,
            settings={name: getattr(self, name) for name in SETTINGS},
            plans=self.plans,
            negative_plans=self.negative_plans,
            other_plans=self.other_plans,
            findings=self.findings,
            taken=frozenset(self._taken),
            arguments=self.arguments,
            fingerprints=self.fingerprints,
            operations=self.operations,
            edited=self.edited,
            timeline=None if self.callback is None else self.callback.timeline,
            states=() if self.callback is None else self.callback.states,
        )
        write(path, record, overwrite=overwrite)

    @classmethod
    def load(
        cls, path: str | Path, pipe: Any = None, *, conditioner: HasPipeline | None = None, force: bool = False
    ) -> Conditioning:
        """Read a file that `save` wrote.

        pipe, conditioner: the pipeline that it is for, or its Conditioner: the tensors go where it computes, and a file
        of another family or of other encoders is refused, unless `force`. Without, tensors are on the CPU and nothing
        is compared.
        Raises ResourceMissing when there is no such file, DataError when it holds no conditioning or is damaged,
        ModelError when other encoders made it or the pipeline's call cannot take its tensors, ConfigError when its prompt
        changes over the steps and there is no pipeline.
        """
        from clipcond.diffusion.conditioning_file import damage_named, fitted, read

        record = read(path)
        with damage_named(path):  # tensors that do not fit one another
            conditioning = cls._of(record)
        if conditioner is None and pipe is None:
            if record.timeline is not None:
                raise ConfigError(
                    f"the prompt of {path} changes over the steps; load it with the pipeline that is to use it"
                )
            return conditioning
        pipeline = view_pipeline(pipe) if conditioner is None else conditioner.pipeline
        record = fitted(record, pipeline, path, force=force)
        conditioning = replace(
            conditioning,
            **named(record.tensors),
            edited=record.edited,
            takes=pipeline.takes,
            arguments=pipeline.shape.arguments,
        )
        if record.timeline is None:
            return conditioning
        from clipcond.diffusion.step_callback import StepCallback  # imports diffusers

        return replace(conditioning, callback=StepCallback(pipeline.pipe, record.timeline, record.states))

    @classmethod
    def _of(cls, record: ConditioningRecord) -> Conditioning:
        """A record without its schedule."""
        return cls(
            **named(record.tensors),
            **record.settings,
            plans=record.plans,
            negative_plans=record.negative_plans,
            other_plans=record.other_plans,
            findings=record.findings,
            takes=record.taken,
            arguments=record.arguments,
            fingerprints=record.fingerprints,
            operations=record.operations,
            edited=record.edited,
        )


def named(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return tensors as a Conditioning takes them: those of `FURTHER` together."""
    further = {name: tensor for name, tensor in tensors.items() if name in FURTHER}
    return {name: tensor for name, tensor in tensors.items() if name not in FURTHER} | {"further": further}


def _check_rows(sizes: Mapping[str, int], plans: Sequence[PromptPlan], negative_plans: Sequence[PromptPlan]) -> None:
    """Raise ShapeError for an axis without entries and for rows that are no multiple of the prompts."""
    for axis, size in sizes.items():
        if size < 1:
            raise ShapeError(f"prompt_embeds: axis {axis} is {size}, expected 1 or more in ({', '.join(sizes)})")
    if not plans or sizes["B"] % len(plans) or len(negative_plans) not in (0, len(plans)):
        raise ShapeError(
            f"prompt_embeds: axis B is {sizes['B']}, expected a multiple of its {len(plans)} prompts, each with as many "
            f"negative prompts ({len(negative_plans)} in all)"
        )
