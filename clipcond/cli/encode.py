"""`clipcond encode`: the conditioning of a prompt as a safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipcond.cli import conditioning_options as shared
from clipcond.cli.app import command
from clipcond.cli.progress import progress
from clipcond.cli.render import on_terminal, print_json
from clipcond.prompt.analysis.plan_summary import counted
from clipcond.wording import visible
from clipcond.workflows.encode import Encoded, EncodeOptions, run
from clipcond.workflows.prompt_options import PromptOptions


@command
def encode(
    prompt: Annotated[str, typer.Argument(help="The prompt, of any length; put `--` before a leading dash.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The safetensors file to write.")],
    model: Annotated[
        str,
        typer.Option(
            "--model", "--pipeline", "-m", metavar="MODEL", help="mini, a diffusers pipeline folder, or a hub id."
        ),
    ] = "mini",
    negative_prompt: shared.NegativePrompt = None,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Of the sampler; for a prompt that changes over them.", show_default=False
        ),
    ] = None,
    dialect: shared.Dialect = None,
    weighting: shared.Weighting = None,
    chunking: shared.Chunking = None,
    clip_skip: shared.ClipSkip = 0,
    pooled: shared.Pooled = "first",
    lengths: shared.Lengths = None,
    prompt_2: shared.Prompt2 = None,
    prompt_3: shared.Prompt3 = None,
    embeddings: shared.Embeddings = None,
    lora_dir: shared.LoraDir = None,
    operations: shared.Operations = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
    as_json: shared.AsJson = False,
) -> None:
    """Write the conditioning of PROMPT to a file.

    Prints a line about it, JSON in a pipe or with --json. `Conditioning.load` and `clipcond generate
    --conditioning` read the file. Nothing is
    overwritten without --overwrite.
    """
    options = EncodeOptions(
        out=out,
        model=model,
        steps=steps,
        overwrite=overwrite,
        prompt=PromptOptions(
            prompt=prompt,
            negative_prompt=negative_prompt,
            prompt_2=prompt_2,
            prompt_3=prompt_3,
            dialect=dialect or "",
            weighting=weighting,
            chunking=chunking,
            clip_skip=clip_skip,
            pooled=pooled,
            lengths=lengths,
            embeddings=embeddings,
            lora_dir=lora_dir,
            operations=tuple(operations or ()),
        ),
    )
    with progress() as events:
        encoded = run(options, events)
    if as_json or not on_terminal():
        print_json(encoded.to_json())
    else:
        typer.echo(_for_people(encoded))


def _for_people(encoded: Encoded) -> str:
    """Say in one line what is in the file."""
    made = encoded.conditioning
    counts = ", ".join(
        f"{name} {counted(encoder.content_tokens or 0, 'token')} in {counted(len(encoder.chunks), 'chunk')}"
        for name, encoder in made.plans[0].encoders.items()
    )
    return f"{visible(str(encoded.path))}  {made.family}, read as {made.dialect}: {counts}"
