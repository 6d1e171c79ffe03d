"""`clipcond generate`: pictures from any supported diffusers pipeline, and the best of them on request."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from clipcond.cli.app import app
from clipcond.prompt.plan import Dialect

REJECTED = "rejected"  # the folder, beside the pictures that are kept, for those that are not


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="The prompt, of any length; put `--` before a leading dash.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the pictures; made if it is not there.")],
    pipeline: Annotated[
        str, typer.Option("--pipeline", "-p", help="mini, a diffusers pipeline folder, or a hub id.")
    ] = "mini",
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many pictures.")] = 8,
    negative_prompt: Annotated[str, typer.Option("--negative-prompt", help="What to steer away from.")] = "",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Denoising steps; what the pipeline advises, else 20.", show_default=False)
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(min=0, help="Guidance scale; what the pipeline advises, else 7.5.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first picture; each next one adds 1.")] = 0,
    dialect: Annotated[Dialect, typer.Option(help="The syntax of both prompts.")] = "plain",
    clip_skip: Annotated[int, typer.Option(min=0, help="0: the text encoder's last layer, 1: the one before.")] = 0,
    stock: Annotated[
        bool, typer.Option("--stock", help="Leave the prompt to the pipeline, which reads 75 tokens of it.")
    ] = False,
    keep: Annotated[
        int | None,
        typer.Option(
            "--keep", "-k", min=1, help="Rerank, keep the best K; the others go to OUT/rejected.", show_default=False
        ),
    ] = None,
    rerank_model: Annotated[str, typer.Option(help="The model that --keep scores with.")] = "mini",
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures in one forward pass.")] = 8,
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"], typer.Option(help="Number format of the pipeline.")
    ] = "float32",
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, …; CUDA where there is one.", show_default=False)
    ] = None,
) -> None:
    """Make pictures of PROMPT, all of it, and print a JSON line for each.

    The PNGs carry their prompt and settings. The same seed gives the same bytes; nothing is ever overwritten.
    """
    if keep is not None and keep > count:
        raise typer.BadParameter(f"--keep {keep} of --count {count} pictures")
    if keep is not None and not prompt.strip():
        raise typer.BadParameter("--keep needs a PROMPT to score the pictures by")
    from clipcond.cli.render import print_json
    from clipcond.diffusion.generate import destinations, settings_of, write_picture
    from clipcond.diffusion.generate import generate as pictures_of
    from clipcond.diffusion.pipelines import advice, load_pipeline, quiet_calls

    files = destinations(out, count, seed)
    if keep is not None:
        destinations(out / REJECTED, count, seed)
    _note(prompt, negative_prompt, dialect, stock)
    choose = None if keep is None else _chooser(prompt, rerank_model, keep, device)

    import torch

    pipe = load_pipeline(pipeline, dtype=getattr(torch, dtype), device=device)
    pipe.set_progress_bar_config(disable=True)
    advised = advice(pipe)
    used = advised.steps if steps is None else steps, advised.guidance_scale if guidance is None else guidance
    shared = {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "steps": used[0],
        "guidance_scale": used[1],
        "pipeline": pipeline,
        "through": "stock" if stock else "conditioner",
    }
    lines: list[dict[str, Any]] = []
    with quiet_calls(), _progress(count * used[0]) as on_step:
        made = pictures_of(
            pipe,
            prompt,
            negative_prompt=negative_prompt,
            count=count,
            steps=used[0],
            guidance_scale=used[1],
            seed=seed,
            dialect=dialect,
            clip_skip=clip_skip,
            through="stock" if stock else "conditioner",
            batch_size=batch_size,
            on_step=on_step,
        )
        for picture, file in zip(made, files, strict=True):
            settings = settings_of(pipe, picture, steps=used[0], guidance_scale=used[1], model=pipeline)
            if clip_skip:
                settings["Clip skip"] = clip_skip + 1  # readers of the format count from 1
            write_picture(picture, file, prompt=prompt, negative_prompt=negative_prompt, settings=settings)
            lines.append({"path": str(file), "seed": picture.seed, **shared})
            if choose is None:
                print_json(lines[-1])
                sys.stdout.flush()
    if choose is not None:
        for line in _sorted_out(lines, choose(files), out / REJECTED):
            print_json(line)


def _note(prompt: str, negative_prompt: str, dialect: str, stock: bool) -> None:
    """Say on stderr what is odd about the prompts, and what a stock pipeline is about to lose."""
    from clipcond.cli.render import visible
    from clipcond.prompt.plan import plan

    for name, text in (("prompt", prompt), ("negative prompt", negative_prompt)):
        planned = plan(text, dialect=dialect)
        for found in planned.warnings:
            typer.echo(f"note: {name}: {visible(found.message)}", err=True)
        (encoder,) = planned.encoders.values()
        if stock and encoder.dropped is not None:
            typer.echo(
                f"note: {name}: the stock pipeline reads {encoder.limit} of {encoder.content_tokens} tokens and drops "
                f"“{visible(encoder.dropped.text)}”",
                err=True,
            )


def _chooser(prompt: str, model: str, keep: int, device: str | None) -> Callable[[list[Path]], dict[str, Any]]:
    """A function from files to their rows in the ranking, by path; the model is loaded before any picture is made."""
    from clipcond.rerank.ranking import rerank
    from clipcond.rerank.scorer import Scorer

    scorer = Scorer.load(model, device=device)

    def choose(files: list[Path]) -> dict[str, Any]:
        return {str(row.path): row for row in rerank(files, prompt, scorer=scorer, top=keep).rows}

    return choose


def _sorted_out(lines: list[dict[str, Any]], rows: dict[str, Any], rejected: Path) -> Iterator[dict[str, Any]]:
    """The lines with score and verdict, best first; what is not kept is moved, never deleted."""
    from clipcond.errors import OutputExists

    for line in sorted(lines, key=lambda line: rows[line["path"]].rank or len(lines) + 1):
        row, path = rows[line["path"]], Path(line["path"])
        if row.error is not None:  # the file went away or was damaged meanwhile: it is not judged and stays
            yield {**line, "score": None, "kept": False, "error": row.error}
            continue
        if not row.kept:
            target = rejected / path.name
            rejected.mkdir(exist_ok=True)
            if target.exists():
                raise OutputExists(f"{target} is there already; nothing is overwritten, {path} stays where it is")
            path = path.replace(target)
        yield {**line, "path": str(path), "score": round(row.cosine, 6), "kept": row.kept}


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None] | None]:
    """A bar over all steps of all pictures on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import Progress

    from clipcond.cli.render import stderr_console

    # Rich would send stdout through its own console, which is stderr: right on a terminal, wrong for a pipe or a file
    with Progress(console=stderr_console(), transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task("generating", total=total)
        yield lambda moved: bar.advance(task, moved)
