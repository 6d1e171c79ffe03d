"""What `encode` and `generate` do with a prompt, without Typer's declarations: adapters, conditioning, notes, settings."""

from __future__ import annotations

from collections import Counter
from typing import Any

import typer

from clipcond.cli.conditioning_options import PromptOptions
from clipcond.condition.families import LAYOUTS
from clipcond.condition.weighting import DEFAULTS
from clipcond.diffusion.compose_denoiser import Composition
from clipcond.diffusion.conditioner import Conditioner
from clipcond.diffusion.conditioning import Conditioning
from clipcond.errors import ConfigError
from clipcond.prompt.plan import plan
from clipcond.wording import visible


def conditioned(pipe: Any, asked: PromptOptions, steps: int) -> Conditioning | Composition:
    """What a pipeline is conditioned with; a prompt with AND becomes a composition. What is odd is said on stderr.

    Raises ConfigError for an AND with prompts of its own for further encoders, and what the Conditioner raises.
    """
    conditioner = conditioner_for(pipe, asked)
    if not any(part.how == "noise" for part in plan(asked.prompt, dialect=asked.dialect).parts):
        made: Conditioning | Composition = conditioner(asked.prompt, **asked.arguments, steps=steps)
    elif asked.prompt_2 or asked.prompt_3:
        raise ConfigError("the parts of AND are read by all encoders; leave out --prompt-2 and --prompt-3")
    else:
        rest = {name: value for name, value in asked.arguments.items() if name not in ("prompt_2", "prompt_3")}
        made = conditioner.compose(asked.prompt, **rest, steps=steps)
    note(made)
    return made


def prompt_options_of(conditioning: Conditioning) -> PromptOptions:
    """What a conditioning of one prompt, out of a file, was asked for."""
    other = {name: plans[0].prompt for name, plans in conditioning.other_plans.items()}
    shape = LAYOUTS.get(conditioning.family)
    return PromptOptions(
        prompt=conditioning.prompts[0],
        negative_prompt=next(iter(conditioning.negative_prompts), None),
        prompt_2=other.get("prompt_2"),
        prompt_3=other.get("prompt_3"),
        dialect=conditioning.dialect,
        weighting=_unless(DEFAULTS.get(conditioning.dialect), conditioning.weighting),
        chunking=conditioning.chunking,
        clip_skip=conditioning.clip_skip,
        pooled=conditioning.pooled,
        lengths=_unless(shape.lengths if shape else None, conditioning.lengths),
    )


def _unless(usual: str | None, value: str) -> str | None:
    return None if value == usual else value


def conditioner_for(pipe: Any, asked: PromptOptions) -> Conditioner:
    """The Conditioner of a pipeline, which gets the adapters that the prompts ask for."""
    load_loras(pipe, asked)
    conditioner = Conditioner.from_pipeline(pipe, embeddings=asked.embeddings)
    if asked.embeddings is not None and not conditioner.inversions:
        typer.echo(f"note: {visible(str(asked.embeddings))}: no embeddings there", err=True)
    return conditioner


def load_loras(pipe: Any, asked: PromptOptions) -> None:
    """Give the pipeline the LoRAs of all texts, from the folder of `--lora-dir`; without it, say that they are left out."""
    from clipcond.diffusion.adapters import load_adapters, merge

    wanted = merge(adapter for text in asked.texts for adapter in plan(text, dialect=asked.dialect).adapters)
    if not wanted:
        return
    if asked.lora_dir is not None:
        load_adapters(pipe, wanted, asked.lora_dir)
        return
    names = ", ".join(visible(adapter.name) for adapter in wanted)
    typer.echo(f"note: the prompt asks for {names}, which is left out; --lora-dir DIR names the folder", err=True)


def note(conditioning: Conditioning | Composition) -> None:
    """Say on stderr what is odd about the texts, each thing once."""
    said = Counter((found.argument, found.message) for found in conditioning.findings)
    for (argument, message), times in said.items():
        often = f" ({times} times)" if times > 1 else ""
        typer.echo(f"note: {argument.replace('_', ' ')}: {visible(message)}{often}", err=True)


def settings(asked: PromptOptions) -> dict[str, object]:
    """What a picture's infotext says of its prompt, for `format_infotext`: only what is not usual.

    The format's prompts are in A1111's syntax, so any other dialect is named.
    """
    named: dict[str, object | None] = {
        "Clip skip": asked.clip_skip + 1 if asked.clip_skip else None,  # its readers count from 1
        "Prompt dialect": _unless("a1111", asked.dialect),
        "Prompt weighting": asked.weighting,
        "Prompt chunking": asked.chunking,
        "Prompt pooled": _unless("first", asked.pooled),
        "Prompt lengths": asked.lengths,
        "Prompt 2": asked.prompt_2,
        "Prompt 3": asked.prompt_3,
    }
    return {name: value for name, value in named.items() if value is not None}
