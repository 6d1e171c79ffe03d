"""The conditioning of a prompt as a safetensors file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipcond.diffusion.pipeline_names import find_pipeline
from clipcond.errors import ConfigError, OptionsError
from clipcond.files import check_output
from clipcond.workflows.events import Events, Note, ignore, task
from clipcond.workflows.prompt_options import PromptOptions, check_folders, composes, note_file, with_dialect
from clipcond.workflows.templates import template_hint

if TYPE_CHECKING:
    from clipcond.diffusion.conditioning import Conditioning


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeOptions:
    """A prompt, the pipeline whose encoders read it, and the file to write.

    model: mini, a diffusers pipeline folder, or a hub id.   steps: of the sampler; needed for a prompt with a schedule.
    overwrite: replace the file that is there.
    """

    out: Path
    prompt: PromptOptions
    model: str = "mini"
    steps: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.prompt.prompt is None:
            raise OptionsError("give a PROMPT")
        if self.prompt.is_counterfactual:
            raise OptionsError("--weighting counterfactual acts while a picture is drawn; it is for clipcond generate")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Encoded:
    """A file and the conditioning in it; `prompt` are the options with their dialect decided."""

    path: Path
    prompt: PromptOptions
    conditioning: Conditioning

    def to_json(self) -> dict[str, object]:
        """Return the line of `clipcond encode`, in a fixed order."""
        made = self.conditioning
        return {
            "path": str(self.path),
            "prompt": self.prompt.text,
            "negative_prompt": self.prompt.negative_prompt or "",
            "family": made.family,
            "dialect": made.dialect,
            "weighting": made.weighting,
            "chunking": made.chunking,
            "clip_skip": self.prompt.clip_skip,
            "pooled": self.prompt.pooled,
            "lengths": made.lengths,
            "encoders": {
                name: {"content_tokens": each.content_tokens, "chunks": len(each.chunks)}
                for name, each in made.plans[0].encoders.items()
            },
            "tensors": {name: list(tensor.shape) for name, tensor in made.kwargs.items()},
            "dtype": str(made.prompt_embeds.dtype).removeprefix("torch."),
        }


def run(options: EncodeOptions, events: Events = ignore) -> Encoded:
    """Encode a prompt on the CPU, both sides, and write the file.

    Raises OutputExists and ResourceMissing for a file or a folder, ModelError for the pipeline, ConfigError for a
    prompt with AND, OptionsError for one that changes over steps that are not given, and what loading and encoding
    raise. Findings of the texts become notes.
    """
    prompt = with_dialect(options.prompt, events)
    note_file(prompt, "give the text itself, in quotes", events)
    check_output(options.out, "choose another name with --out, or --overwrite", overwrite=options.overwrite)
    _check_prompt(prompt, options.steps)
    check_folders(prompt)
    find_pipeline(options.model)
    for text in prompt.texts:
        if hint := template_hint(text):
            events(Note(hint.replace("--expand fills it in, ", "")))
    from clipcond.diffusion.pipelines import load_pipeline
    from clipcond.runtime.quiet import quiet_calls
    from clipcond.workflows.conditioning import conditioner_for, note_findings, note_unseen

    with task(events, f"loading {options.model}"):
        pipe = load_pipeline(options.model, device="cpu", on_note=lambda text: events(Note(text)))
    with quiet_calls(), task(events, "encoding"):
        conditioner = conditioner_for(pipe, prompt, events)
        conditioning = conditioner(prompt.text, **prompt.arguments, steps=options.steps)
    conditioning.save(options.out, overwrite=options.overwrite)
    note_findings(conditioning, events)
    note_unseen(pipe, prompt, options.model, events)
    return Encoded(path=options.out, prompt=prompt, conditioning=conditioning)


def _check_prompt(prompt: PromptOptions, steps: int | None) -> None:
    """Raise ConfigError for an AND, OptionsError for a prompt that changes over steps that nobody gave."""
    from clipcond.prompt.dialects.schedules import is_scheduled

    if any(composes(text, prompt.dialect) for text in prompt.texts):
        raise ConfigError(
            'a file holds no AND, whose parts are put together while a picture is made: use `clipcond generate`, or write "and"'
        )
    if prompt.dialect == "a1111" and steps is None and any(map(is_scheduled, prompt.texts)):
        raise OptionsError("the prompt changes over the steps: say --steps N, as many as the sampler will run")
