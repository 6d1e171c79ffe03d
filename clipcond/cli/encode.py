"""`clipcond encode`: the conditioning of a prompt as a safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipcond.cli import conditioning_options as shared
from clipcond.cli.app import app


@app.command()
def encode(
    prompt: Annotated[str, typer.Argument(help="The prompt, of any length; put `--` before a leading dash.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The safetensors file to write.")],
    model: Annotated[
        str, typer.Option("--model", "--pipeline", "-m", help="mini, a diffusers pipeline folder, or a hub id.")
    ] = "mini",
    negative_prompt: shared.NegativePrompt = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Of the sampler; for a prompt that changes over them.", show_default=False),
    ] = None,
    dialect: shared.Dialect = "plain",
    weighting: shared.Weighting = None,
    chunking: shared.Chunking = None,
    clip_skip: shared.ClipSkip = 0,
    pooled: shared.Pooled = "first",
    lengths: shared.Lengths = None,
    prompt_2: shared.Prompt2 = None,
    prompt_3: shared.Prompt3 = None,
    embeddings: shared.Embeddings = None,
    lora_dir: shared.LoraDir = None,
) -> None:
    """Write what a pipeline takes for PROMPT, both sides, and print a JSON line about it.

    `Conditioning.load` and `clipcond generate --conditioning` read the file. Nothing is ever overwritten.
    """
    asked = shared.PromptOptions(
        prompt=prompt,
        negative_prompt=negative_prompt,
        prompt_2=prompt_2,
        prompt_3=prompt_3,
        dialect=dialect,
        weighting=weighting,
        chunking=chunking,
        clip_skip=clip_skip,
        pooled=pooled,
        lengths=lengths,
        embeddings=embeddings,
        lora_dir=lora_dir,
    ).checked()
    from clipcond.cli.render import print_json
    from clipcond.errors import OutputExists, ResourceMissing

    if out.exists():
        raise OutputExists(f"{out} exists already; choose another name with --out")
    if not out.parent.is_dir():
        raise ResourceMissing(f"there is no folder {out.parent}; make it, or choose another name with --out")
    _check_one_text(asked, steps)
    from clipcond.cli.conditioning_job import conditioner_for, note
    from clipcond.diffusion.pipelines import load_pipeline
    from clipcond.runtime.quiet import quiet_calls

    pipe = load_pipeline(model, device="cpu")
    with quiet_calls():
        conditioning = conditioner_for(pipe, asked)(prompt, **asked.arguments, steps=steps)
    conditioning.save(out)
    note(conditioning)
    encoders = conditioning.plans[0].encoders
    print_json(
        {
            "path": str(out),
            "prompt": prompt,
            "negative_prompt": negative_prompt or "",
            "family": conditioning.family,
            "dialect": conditioning.dialect,
            "weighting": conditioning.weighting,
            "chunking": conditioning.chunking,
            "clip_skip": clip_skip,
            "pooled": pooled,
            "lengths": conditioning.lengths,
            "encoders": {
                name: {"content_tokens": each.content_tokens, "chunks": len(each.chunks)}
                for name, each in encoders.items()
            },
            "tensors": {name: list(tensor.shape) for name, tensor in conditioning.kwargs.items()},
            "dtype": str(conditioning.prompt_embeds.dtype).removeprefix("torch."),
        }
    )


def _check_one_text(asked: shared.PromptOptions, steps: int | None) -> None:
    """Raise ConfigError for an AND, typer.BadParameter for a prompt that changes over steps that nobody gave."""
    from clipcond.errors import ConfigError
    from clipcond.prompt.dialects.schedules import is_scheduled
    from clipcond.prompt.plan import plan

    if any(part.how == "noise" for text in asked.texts for part in plan(text, dialect=asked.dialect).parts):
        raise ConfigError(
            'a file holds no AND, whose parts are put together while a picture is made: use `clipcond generate`, or write "and"'
        )
    if asked.dialect == "a1111" and steps is None and any(map(is_scheduled, asked.texts)):
        raise typer.BadParameter("the prompt changes over the steps: say --steps N, as many as the sampler will run")
