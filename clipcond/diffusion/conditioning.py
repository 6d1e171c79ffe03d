"""What a prompt becomes: a pair of tensors that a stock pipeline takes, with the plans that explain them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from clipcond.encode.shapes import check_axes
from clipcond.errors import DataError, OutputExists, ResourceMissing
from clipcond.prompt.plan import PromptPlan, plan

FORMAT = "clipcond.conditioning/1"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Conditioning:
    """Token states of prompts and negative prompts, of equal shape, ready for a pipeline.

    With `num_images_per_prompt` n, B is n times the number of prompts, and each prompt's rows follow one another.
    Raises ShapeError when the two sides differ in shape.
    """

    prompt_embeds: Tensor  # (B, T, D) in the encoder's dtype and on its device
    negative_prompt_embeds: Tensor  # (B, T, D)
    plans: tuple[PromptPlan, ...]  # of each prompt
    negative_plans: tuple[PromptPlan, ...]  # of each negative prompt, in the same order
    family: str
    dialect: str
    clip_skip: int

    def __post_init__(self) -> None:
        check_axes("negative_prompt_embeds", self.negative_prompt_embeds, "B T D", **self._sizes)

    @property
    def _sizes(self) -> dict[str, int]:
        return check_axes("prompt_embeds", self.prompt_embeds, "B T D")

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts, as they were given."""
        return tuple(each.prompt for each in self.plans)

    @property
    def negative_prompts(self) -> tuple[str, ...]:
        """The negative prompts, one for each prompt."""
        return tuple(each.prompt for each in self.negative_plans)

    @property
    def kwargs(self) -> dict[str, Tensor]:
        """What the pipeline's call takes in place of `prompt` and `negative_prompt`."""
        return {"prompt_embeds": self.prompt_embeds, "negative_prompt_embeds": self.negative_prompt_embeds}

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write a safetensors file: both tensors, and prompts, family, dialect and clip skip as metadata.

        Raises OutputExists when the file is there already, unless `overwrite`.
        """
        from safetensors.torch import save

        path = Path(path)
        metadata = {
            "format": FORMAT,
            "prompt": json.dumps(self.prompts, ensure_ascii=False),
            "negative_prompt": json.dumps(self.negative_prompts, ensure_ascii=False),
            "family": self.family,
            "dialect": self.dialect,
            "clip_skip": str(self.clip_skip),
        }
        content = save({name: tensor.contiguous() for name, tensor in self.kwargs.items()}, metadata=metadata)
        try:
            with path.open("wb" if overwrite else "xb") as file:
                file.write(content)
        except FileExistsError:
            raise OutputExists(f"{path} exists already; choose another name or ask for overwriting") from None

    @classmethod
    def load(cls, path: str | Path) -> Conditioning:
        """Read a file that `save` wrote, onto the CPU; the plans are made again from the prompts.

        Raises ResourceMissing when there is no such file, DataError when it is not a conditioning.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise ResourceMissing(f"no conditioning at {path}: there is no such file")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise DataError(
                f"{path} is not a safetensors file ({error}); expected what Conditioning.save wrote"
            ) from error
        if metadata.get("format") != FORMAT:
            raise DataError(
                f"{path} holds no conditioning; expected a file that Conditioning.save or clipcond encode wrote"
            )
        dialect, family = metadata["dialect"], metadata["family"]
        sides = [json.loads(metadata[side]) for side in ("prompt", "negative_prompt")]
        plans, negative_plans = (tuple(plan(p, dialect=dialect, family=family) for p in side) for side in sides)
        return cls(
            prompt_embeds=tensors["prompt_embeds"],
            negative_prompt_embeds=tensors["negative_prompt_embeds"],
            plans=plans,
            negative_plans=negative_plans,
            family=family,
            dialect=dialect,
            clip_skip=int(metadata["clip_skip"]),
        )
