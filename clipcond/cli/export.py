"""`clipcond export`: a trained text encoder back into the programs that draw with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from clipcond.cli.app import command
from clipcond.cli.progress import progress
from clipcond.cli.render import print_json
from clipcond.wording import visible
from clipcond.workflows.export import Dtype, Encoder, ExportOptions, Format, run


@command
def export(
    model: Annotated[str, typer.Argument(help="A training run, or any model spec or text encoder.")],
    to: Annotated[str, typer.Option(help="diffusers, transformers, open_clip, comfyui or a1111.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder or file to write.")],
    into: Annotated[
        str | None,
        typer.Option(
            help="mini or a pipeline's folder (diffusers), a checkpoint (comfyui, a1111): OUT is a copy of it."
        ),
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="clip_l, clip_g or clip_h, where several could be meant.")] = None,
    projection: Annotated[
        bool | None, typer.Option("--projection/--no-projection", help="Write text_projection, or leave it out.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, float16 or bfloat16.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an export that is at OUT.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write a text encoder for another program, and prove it.

    What was written is read back, and its token states and pooled vectors are compared with those of MODEL.
    """
    options = ExportOptions(
        model=model, to=cast("Format", to), out=out, into=into, encoder=cast("Encoder | None", encoder),
        projection=projection, dtype=cast("Dtype | None", dtype), force=force,
    )  # fmt: skip
    with progress() as events:
        exported = run(options, events)
    if as_json:
        print_json(exported.to_json())
        return
    worst = max(exported.differences.values())
    rounded = max(exported.rounding.values(), default=0.0)
    typer.echo(
        f"read back: {len(exported.differences)} outputs differ by at most {worst:.1e} from {visible(model)}"
        + (f"; {exported.dtype} itself moved them by {rounded:.1e}" if rounded else ""),
        err=True,
    )
    typer.echo(visible(str(exported.path)))
