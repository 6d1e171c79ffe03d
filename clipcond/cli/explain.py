"""`clipcond explain`: each phrase's effect in the picture, where and how much."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from clipcond.cli import conditioning_options as shared
from clipcond.cli.app import command
from clipcond.cli.progress import progress
from clipcond.cli.render import print_json, stdout_console
from clipcond.files import write_file
from clipcond.prompt.analysis.plan_summary import counted
from clipcond.wording import visible
from clipcond.workflows.explain import ExplainOptions, run
from clipcond.workflows.prompt_options import PromptOptions

if TYPE_CHECKING:
    from rich.table import Table

    from clipcond.diffusion.explain.explanation import ExplainedPhrase, Explanation

_BAR = 12  # cells
_FULL = 1.5  # the strength of a full bar at least


@command
def explain(
    target: Annotated[
        str,
        typer.Argument(
            metavar="PROMPT|PICTURE", help="A prompt, which is drawn; or a picture file with its prompt in it."
        ),
    ],
    pipeline: Annotated[
        str, typer.Option("--pipeline", "-p", metavar="MODEL", help="mini, a diffusers pipeline folder, or a hub id.")
    ] = "mini",
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="Of the first picture, or of the noise on PICTURE.")
    ] = 0,
    count: Annotated[int, typer.Option("--count", "-n", metavar="K", min=1, help="How many pictures to draw.")] = 1,
    by: Annotated[Literal["phrase", "word"], typer.Option(help="Phrases between commas, or each word.")] = "phrase",
    phrases: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Your own instead, with commas between them.", show_default=False),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The prompt of a PICTURE without one.", show_default=False)
    ] = None,
    negative_prompt: shared.NegativePrompt = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page to look through.", show_default=False)
    ] = None,
    png: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a grid of the maps, for papers.", show_default=False)
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace --html and --png if they are there.", show_default=False)
    ] = False,
    stock: Annotated[
        bool, typer.Option("--stock", help="Leave the prompt to the pipeline, which reads 75 tokens of it.")
    ] = False,
    through: Annotated[
        bool | None,
        typer.Option(
            "--through/--no-through",
            help="Look for phrases that act only through another one; on with --by word.",
            show_default=False,
        ),
    ] = None,
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
    prompt_2: shared.Prompt2 = None,
    prompt_3: shared.Prompt3 = None,
    embeddings: shared.Embeddings = None,
    lora_dir: shared.LoraDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Show where each phrase acts in the picture, and how much.

    Each phrase is masked in turn, and the change of the denoiser's prediction is its map: at three steps, with one row of
    the denoiser a phrase and step. Phrases that do next to nothing are named.
    """
    explanation = _run(
        ExplainOptions(
            target=target,
            pipeline=pipeline,
            by=by,
            phrases=None if phrases is None else tuple(each.strip() for each in phrases.split(",") if each.strip()),
            count=count,
            seed=seed,
            steps=steps,
            guidance_scale=guidance,
            stock=stock,
            through=through,
            html=html,
            png=png,
            overwrite=overwrite,
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
                embeddings=embeddings,
                lora_dir=lora_dir,
            ),
        )
    )
    if as_json:
        print_json(explanation.to_json())
    else:
        _show(explanation)


def _run(options: ExplainOptions) -> Explanation:
    """Explain, and write the files that were asked for."""
    with progress() as events:
        explanation = run(options, events)
    if options.html is not None:
        from clipcond.pages.explain import explanation_page

        write_file(options.html, explanation_page(explanation), overwrite=options.overwrite)
    if options.png is not None:
        from clipcond.pages.map_grid import map_grid_png

        write_file(options.png, map_grid_png(explanation), overwrite=options.overwrite)
    for file in (options.html, options.png):
        if file is not None:
            typer.echo(f"wrote {visible(str(file))}", err=True)
    return explanation


def _show(explanation: Explanation) -> None:
    """Print a line for each phrase, then what stands out, and what it cost."""
    console = stdout_console()
    console.print(_table(explanation))
    alive = [each for each in explanation.findings if each.code in ("acts-elsewhere", "acts-through")]
    for each in alive:
        console.print(f"{each.code}: {visible(each.message)}", soft_wrap=True)
    for name, several in (
        ("never read by the stock pipeline", [each for each in explanation.phrases if each.cut]),
        ("next to nothing", [each for each in explanation.phrases if each.dead and not each.cut]),
    ):
        if several:
            named = ", ".join(f"“{_short(each.text)}”" for each in several)
            console.print(f"{counted(len(several), 'phrase')} {name}: {named}", soft_wrap=True, style="yellow")
    at = ", ".join(map(str, explanation.at_steps))
    pictures = "" if len(explanation.pictures) == 1 else f" of {len(explanation.pictures)} pictures"
    console.print(
        f"strength 1 is the effect of the whole prompt; steps {at} of {explanation.steps}{pictures}, "
        f"{counted(explanation.rows, 'row')} of the denoiser",
        style="dim",
        soft_wrap=True,
    )


def _table(explanation: Explanation) -> Table:
    from rich.table import Table
    from rich.text import Text

    full = max([_FULL, *explanation.strengths])
    pooled = any(each.pooled_share is not None for each in explanation.phrases)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("phrase", overflow="fold", ratio=1)
    table.add_column("strength", no_wrap=True, min_width=_BAR)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("where", overflow="fold")
    if pooled:
        table.add_column("pooled", justify="right", no_wrap=True)
    for each in explanation.phrases:
        negative = "negative: " if each.side != "prompt" else ""
        style = "dim" if each.dead else "cyan"
        share = [f"{each.pooled_share or 0.0:.0%}"] if pooled else []
        table.add_row(
            Text(negative + visible(each.text), style="dim" if each.dead else ""),
            Text(_bar(each.strength / full), style=style),
            f"{each.strength:.2f}",
            _where(each),
            *share,
        )
    return table


def _where(phrase: ExplainedPhrase) -> str:
    return "not read" if phrase.cut else "–" if phrase.dead else phrase.where


def _bar(share: float) -> str:
    eighths = round(min(share, 1.0) * _BAR * 8)
    return "█" * (eighths // 8) + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[eighths % 8]


def _short(text: str) -> str:
    text = visible(" ".join(text.split()))
    return text if len(text) <= 40 else text[:39] + "…"
