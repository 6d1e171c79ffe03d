"""`clipcond encode`: the conditioning of a prompt as a safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipcond.cli.app import app
from clipcond.prompt.plan import Dialect


@app.command()
def encode(
    prompt: Annotated[str, typer.Argument(help="The prompt, of any length; put `--` before a leading dash.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The safetensors file to write.")],
    model: Annotated[
        str, typer.Option("--model", "--pipeline", "-m", help="mini, a diffusers pipeline folder, or a hub id.")
    ] = "mini",
    negative_prompt: Annotated[str, typer.Option("--negative-prompt", help="What to steer away from.")] = "",
    dialect: Annotated[Dialect, typer.Option(help="The syntax of both prompts.")] = "plain",
    clip_skip: Annotated[int, typer.Option(min=0, help="0: the text encoder's last layer, 1: the one before.")] = 0,
) -> None:
    """Write what a pipeline takes for PROMPT, both sides, and print a JSON line about it.

    `Conditioning.load` reads the file, and `pipe(**conditioning.kwargs)` uses it. Nothing is ever overwritten.
    """
    from clipcond.cli.render import print_json
    from clipcond.errors import OutputExists, ResourceMissing

    if out.exists():
        raise OutputExists(f"{out} exists already; choose another name with --out")
    if not out.parent.is_dir():
        raise ResourceMissing(f"there is no folder {out.parent}; make it, or choose another name with --out")
    from clipcond.diffusion.conditioner import Conditioner
    from clipcond.diffusion.pipelines import load_pipeline, quiet_calls

    pipe = load_pipeline(model, device="cpu")
    with quiet_calls():
        conditioning = Conditioner.from_pipeline(pipe)(prompt, negative_prompt, dialect=dialect, clip_skip=clip_skip)
    conditioning.save(out)
    for name, plans in (("prompt", conditioning.plans), ("negative prompt", conditioning.negative_plans)):
        for found in plans[0].warnings:
            typer.echo(f"note: {name}: {found.message}", err=True)
    (encoder,) = conditioning.plans[0].encoders.values()
    print_json(
        {
            "path": str(out),
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "family": conditioning.family,
            "dialect": dialect,
            "clip_skip": clip_skip,
            "content_tokens": encoder.content_tokens,
            "chunks": len(encoder.chunks),
            "shape": list(conditioning.prompt_embeds.shape),
            "dtype": str(conditioning.prompt_embeds.dtype).removeprefix("torch."),
        }
    )
