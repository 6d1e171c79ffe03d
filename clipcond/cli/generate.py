"""`clipcond generate`: pictures from any supported diffusers pipeline, and the best of them on request."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from clipcond.cli import conditioning_options as shared
from clipcond.cli.app import command, stopped
from clipcond.cli.progress import progress
from clipcond.cli.render import on_terminal, print_json
from clipcond.errors import ClipCondError
from clipcond.prompt.analysis.plan_summary import counted
from clipcond.wording import visible
from clipcond.workflows.events import Event, Events
from clipcond.workflows.generate import GenerateOptions, PictureDone, WrittenPicture, run
from clipcond.workflows.prompt_options import PromptOptions


@command
def generate(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="The folder for the pictures; made if it is not there.")
    ],
    prompt: Annotated[
        str | None,
        typer.Argument(help="The prompt, of any length; put `--` before a leading dash.", show_default=False),
    ] = None,
    pipeline: Annotated[
        str, typer.Option("--pipeline", "-p", metavar="MODEL", help="mini, a diffusers pipeline folder, or a hub id.")
    ] = "mini",
    count: Annotated[int, typer.Option("--count", "-n", metavar="N", min=1, help="How many pictures.")] = 8,
    negative_prompt: shared.NegativePrompt = None,
    conditioning: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What `clipcond encode` wrote, in place of PROMPT and its options.", show_default=False
        ),
    ] = None,
    regions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A JSON file of regions, each with a prompt for its place.", show_default=False
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Take a --conditioning that other encoders made.", show_default=False)
    ] = False,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Denoising steps; what the pipeline advises, else 20.", show_default=False
        ),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            metavar="X", min=0, help="Guidance scale; what the pipeline advises, else 7.5.", show_default=False
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Seed of the first picture, each next one adds 1; 0, or the next one of a folder that has pictures.",
            show_default=False,
        ),
    ] = None,
    infotext: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A picture, a text or `-` to take prompt, negative prompt, seed and settings from; flags win.",
            show_default=False,
        ),
    ] = None,
    expand: Annotated[
        bool, typer.Option("--expand", help="Fill in `{a|b}` and `__name__`, anew for each picture by its seed.")
    ] = False,
    wildcards: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="With --expand: a folder of lists; may be repeated.", show_default=False),
    ] = None,
    stock: Annotated[
        bool, typer.Option("--stock", help="Leave the prompt to the pipeline, which reads 75 tokens of it.")
    ] = False,
    replace: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OLD=NEW",
            help="Other words for a phrase; the rest of the picture stays. May be repeated; takes twice as long.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(
            "--keep",
            "-k",
            metavar="N",
            min=1,
            help="Rerank, keep the best K; the others go to OUT/rejected.",
            show_default=False,
        ),
    ] = None,
    adaptive: Annotated[
        bool,
        typer.Option(
            "--adaptive", help="With --keep: give up the worse half at a third of the steps, and again at two thirds."
        ),
    ] = False,
    rerank_model: Annotated[str, typer.Option(metavar="MODEL", help="The model that --keep scores with.")] = "mini",
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Pictures in one forward pass.")] = 8,
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"], typer.Option(help="Number format of the pipeline.")
    ] = "float32",
    device: Annotated[
        str | None, typer.Option(metavar="TEXT", help="cpu, cuda, …; CUDA where there is one.", show_default=False)
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
    as_json: shared.AsJson = False,
) -> None:
    """Make pictures of PROMPT, all of it.

    Prints a line for each, JSON in a pipe or with --json. The PNGs carry their prompt and settings. The same seed gives
    the same bytes. Nothing is ever overwritten: a folder that has pictures gets the next numbers, and a new seed if none
    is given. The same command after an interruption makes what is missing.
    """
    options = GenerateOptions(
        out=out,
        conditioning=conditioning,
        regions=regions,
        force=force,
        infotext=infotext,
        expand=expand,
        wildcards=tuple(wildcards or ()),
        pipeline=pipeline,
        count=count,
        steps=steps,
        guidance_scale=guidance,
        seed=seed,
        stock=stock,
        replace=tuple(replace or ()),
        keep=keep,
        adaptive=adaptive,
        rerank_model=rerank_model,
        batch_size=batch_size,
        dtype=dtype,
        device=device,
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
    lines = _Lines(options, as_json=as_json or not on_terminal())
    try:
        with progress() as events:
            pictures = run(options, partial(lines.take, events))
    except KeyboardInterrupt:
        raise stopped(f"interrupted: {lines.saved()}") from None
    except (OSError, ClipCondError) as error:
        if lines.done and isinstance(error, OSError):
            typer.echo(f"note: {lines.saved()}", err=True)
        raise
    if keep is not None:  # their verdicts and places are known only now
        for picture in pictures:
            lines.show(picture)


class _Lines:
    """A line for each picture, as soon as it is written, or at the end where pictures are ranked."""

    def __init__(self, options: GenerateOptions, *, as_json: bool) -> None:
        self._options, self._as_json = options, as_json
        self.done = 0

    def take(self, events: Events, event: Event) -> None:
        """Show a picture that is done; hand on all other events."""
        if not isinstance(event, PictureDone):
            events(event)
            return
        self.done += 1
        if self._options.keep is None:
            self.show(event.picture)

    def show(self, picture: WrittenPicture) -> None:
        """Print the line of a picture, JSON or for people."""
        if self._as_json:
            print_json(picture.to_json())
        else:
            verdict = {True: "kept      ", False: "rejected  ", None: ""}[picture.kept]
            score = "" if picture.score is None else f"{picture.score:.4f}  "
            problem = f"  {visible(picture.error)}" if picture.error else ""
            typer.echo(f"{verdict}{score}{visible(str(picture.path))}  seed {picture.seed}{problem}")
        sys.stdout.flush()

    def saved(self) -> str:
        """Say what is on the disk, and how to go on."""
        where = visible(str(self._options.out))
        if not self.done:
            return "no picture was finished"
        if self.done == self._options.count:
            return f"all {counted(self.done, 'picture')} are in {where}; the same command sorts them out"
        return (
            f"{self.done} of {counted(self._options.count, 'picture')} are in {where}; the same command makes the rest"
        )
