"""`clipcond generate`: pictures from any supported diffusers pipeline, and the best of them on request."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clipcond.cli import conditioning_options as shared
from clipcond.cli.app import app
from clipcond.errors import ResourceMissing

if TYPE_CHECKING:
    from clipcond.diffusion.compose_denoiser import Composition
    from clipcond.diffusion.conditioning import Conditioning

REJECTED = "rejected"  # the folder, beside the pictures that are kept, for those that are not


@app.command()
def generate(
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the pictures; made if it is not there.")],
    prompt: Annotated[
        str | None,
        typer.Argument(help="The prompt, of any length; put `--` before a leading dash.", show_default=False),
    ] = None,
    pipeline: Annotated[
        str, typer.Option("--pipeline", "-p", help="mini, a diffusers pipeline folder, or a hub id.")
    ] = "mini",
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many pictures.")] = 8,
    negative_prompt: shared.NegativePrompt = None,
    conditioning: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What `clipcond encode` wrote, in place of PROMPT and its options.", show_default=False
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Take a --conditioning that other encoders made.", show_default=False)
    ] = False,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Denoising steps; what the pipeline advises, else 20.", show_default=False)
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(min=0, help="Guidance scale; what the pipeline advises, else 7.5.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first picture; each next one adds 1.")] = 0,
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
    """Make pictures of PROMPT, all of it, and print a JSON line for each.

    The PNGs carry their prompt and settings. The same seed gives the same bytes; nothing is ever overwritten.
    """
    asked = shared.PromptOptions(
        prompt=prompt or "",
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
    )
    if problem := _problem_with(asked, prompt, conditioning, stock=stock, force=force):
        raise typer.BadParameter(problem)
    if keep is not None and keep > count:
        raise typer.BadParameter(f"--keep {keep} of --count {count} pictures")
    if keep is not None and conditioning is None and not asked.prompt.strip():
        raise typer.BadParameter("--keep needs a PROMPT to score the pictures by")
    asked = asked.checked()
    from clipcond.cli.render import print_json
    from clipcond.diffusion.generate import generate as pictures_of
    from clipcond.diffusion.generate import settings_of
    from clipcond.images.write import destinations, write_picture

    files = destinations(out, count, seed)
    if keep is not None:
        destinations(out / REJECTED, count, seed)
    if conditioning is not None and not conditioning.is_file():
        raise ResourceMissing(f"no conditioning at {conditioning}: there is no such file")
    if stock:
        _note_dropped(asked)

    import torch

    from clipcond.cli.conditioning_job import conditioned
    from clipcond.cli.conditioning_job import settings as settings_of_prompt
    from clipcond.diffusion.pipelines import advice, load_pipeline
    from clipcond.runtime.quiet import quiet_calls

    # both models before any work: a name that is not there costs no pictures
    scorer = None if keep is None else _scorer(rerank_model, device)
    pipe = load_pipeline(pipeline, dtype=getattr(torch, dtype), device=device)
    pipe.set_progress_bar_config(disable=True)
    advised = advice(pipe)
    used = advised.steps if steps is None else steps, advised.guidance_scale if guidance is None else guidance
    made_of: Conditioning | Composition | None = None
    with quiet_calls():
        if conditioning is not None:
            made_of, asked = _loaded(pipe, conditioning, force=force)
            used = _steps_of(made_of, conditioning, steps, used[0]), used[1]
        elif not stock:
            made_of = conditioned(pipe, asked, used[0])
    text, negative = asked.prompt, asked.negative_prompt or ""
    shared_fields = {
        "prompt": text,
        "negative_prompt": negative,
        "steps": used[0],
        "guidance_scale": used[1],
        "pipeline": pipeline,
        "through": "stock" if stock else "conditioner",
    }
    lines: list[dict[str, Any]] = []
    with quiet_calls(), _progress(count * used[0]) as on_step:
        made = pictures_of(
            pipe,
            text,
            negative_prompt=negative,
            conditioning=made_of,
            count=count,
            steps=used[0],
            guidance_scale=used[1],
            seed=seed,
            clip_skip=clip_skip,
            through="stock" if stock else "conditioner",
            batch_size=batch_size,
            on_step=on_step,
        )
        for picture, file in zip(made, files, strict=True):
            settings = settings_of(pipe, picture, steps=used[0], guidance_scale=used[1], model=pipeline)
            settings |= settings_of_prompt(asked)
            write_picture(picture.image, file, prompt=text, negative_prompt=negative, settings=settings)
            lines.append({"path": str(file), "seed": picture.seed, **shared_fields})
            if scorer is None:
                print_json(lines[-1])
                sys.stdout.flush()
    if scorer is not None and keep is not None:
        rows = _ranked(files, text, asked.dialect, scorer, keep)
        for line in _sorted_out(lines, rows, out / REJECTED):
            print_json(line)


def _problem_with(
    asked: shared.PromptOptions, prompt: str | None, conditioning: Path | None, *, stock: bool, force: bool
) -> str | None:
    """What is wrong with the options together, in words for the one who gave them; None when all is well."""
    if conditioning is not None:
        if stock:
            return "--stock has no use for a --conditioning; leave one of them out"
        given = "PROMPT" if prompt is not None else asked.given()
        return given and f"--conditioning FILE says what {given} would; leave one of them out"
    if prompt is None:
        return "give a PROMPT, or --conditioning FILE"
    if force:
        return "--force is about a --conditioning FILE; leave it out"
    if stock and (given := asked.given(beside=("negative_prompt", "clip_skip"))):
        return f"--stock leaves the prompt to the pipeline; leave out {given}"
    return None


def _loaded(pipe: Any, file: Path, *, force: bool) -> tuple[Conditioning, shared.PromptOptions]:
    """The conditioning of a file, and what it was asked for."""
    from clipcond.cli.conditioning_job import prompt_options_of
    from clipcond.diffusion.conditioning import Conditioning
    from clipcond.errors import DataError

    conditioning = Conditioning.load(file, pipe, force=force)
    if len(conditioning.plans) != 1:
        raise DataError(f"{file} is of {len(conditioning.plans)} prompts; give one of one prompt")
    return conditioning, prompt_options_of(conditioning)


def _steps_of(conditioning: Conditioning, file: Path, asked: int | None, usual: int) -> int:
    """The steps for a conditioning: those that its schedule was made for. Raises typer.BadParameter for others."""
    if conditioning.callback is None:
        return usual
    own = conditioning.callback.timeline.steps
    if asked not in (None, own):
        raise typer.BadParameter(f"{file} was encoded for --steps {own}, not {asked}; leave --steps out")
    return own


def _note_dropped(asked: shared.PromptOptions) -> None:
    """Say on stderr what is odd about the prompts, and what a stock pipeline is about to lose."""
    from clipcond.prompt.plan import plan
    from clipcond.wording import visible

    for name, text in (("prompt", asked.prompt), ("negative prompt", asked.negative_prompt or "")):
        planned = plan(text)
        for found in planned.warnings:
            typer.echo(f"note: {name}: {visible(found.message)}", err=True)
        (encoder,) = planned.encoders.values()
        if encoder.dropped is not None:
            typer.echo(
                f"note: {name}: the stock pipeline reads {encoder.limit} of {encoder.content_tokens} tokens and drops "
                f"“{visible(encoder.dropped.text)}”",
                err=True,
            )


def _scorer(model: str, device: str | None) -> Any:
    from clipcond.rerank.scorer import Scorer

    return Scorer.load(model, device=device)


def _ranked(files: list[Path], prompt: str, dialect: str, scorer: Any, keep: int) -> dict[str, Any]:
    """The rows of the ranking by path; pictures are scored by the words of the prompt, without the marks of its syntax."""
    from clipcond.prompt.dialects.translate import translate
    from clipcond.rerank.ranking import rerank

    words = translate(prompt, dialect, "plain").text.strip()
    return {str(row.path): row for row in rerank(files, words, scorer=scorer, top=keep).rows}


def _sorted_out(lines: list[dict[str, Any]], rows: dict[str, Any], rejected: Path) -> Iterator[dict[str, Any]]:
    """The lines with score and verdict, best first; what is not kept is moved, never deleted."""
    from clipcond.files import move_file

    for line in sorted(lines, key=lambda line: rows[line["path"]].rank or len(lines) + 1):
        row, path = rows[line["path"]], Path(line["path"])
        if row.error is not None:  # the file went away or was damaged meanwhile: it is not judged and stays
            yield {**line, "score": None, "kept": False, "error": row.error}
            continue
        if not row.kept:
            target = rejected / path.name
            rejected.mkdir(exist_ok=True)
            path = move_file(path, target)
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
