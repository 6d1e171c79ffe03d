"""`clipcond tokens`: the tokens and chunks of a prompt, and the part that a stock pipeline would lose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipcond.cli.app import command
from clipcond.cli.tokens_plain import request_of, run
from clipcond.prompt.plan import CHUNKINGS, DIALECTS, FAMILIES
from clipcond.workflows.tokens import ALL_FAMILIES, AUTO

_FAMILIES = "|".join([*FAMILIES, ALL_FAMILIES])


@command
def tokens(
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT",
            help="The prompt, or `-` for one per line of standard input; put `--` before a leading dash. A pasted "
            "infotext is taken apart.",
            show_default=False,
        ),
    ] = None,
    negative_prompt: Annotated[
        str | None,
        typer.Option(
            "--negative",
            "--negative-prompt",
            metavar="TEXT",
            help="The negative prompt: counted too, with the length that both sides get.",
            show_default=False,
        ),
    ] = None,
    family: Annotated[
        str, typer.Option(metavar=_FAMILIES, help="What the prompt is for: the encoders of that model family.")
    ] = "sd15",
    dialect: Annotated[
        str | None,
        typer.Option(
            metavar="|".join([*DIALECTS, AUTO]),
            help="The syntax of the prompt, plain if not given; `auto` decides and says why.",
            show_default=False,
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(DIALECTS), help="Show the same prompt under this dialect too.", show_default=False
        ),
    ] = None,
    infotext: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Count the prompts of a picture, or of a text as A1111 writes it; `-` is standard input.",
            show_default=False,
        ),
    ] = None,
    expand: Annotated[
        bool, typer.Option("--expand", help="Fill in `{a|b}` and `__name__` first (see clipcond expand).")
    ] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="With --expand: which of the prompts.")] = 0,
    wildcards: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="With --expand: a folder of lists; may be repeated.", show_default=False),
    ] = None,
    steps: Annotated[
        int, typer.Option(metavar="N", help="Of the sampler: a prompt that changes over them counts at its longest.")
    ] = 20,
    chunking: Annotated[
        str | None,
        typer.Option(
            metavar="POLICY",
            help=f"Where a long prompt is cut: {', '.join(CHUNKINGS)}; the default is the dialect's own.",
            show_default=False,
        ),
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A folder of textual inversions: their names count as vectors.", show_default=False
        ),
    ] = None,
    t5_tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="T5's tokenizer.json, its folder, or a hub name in the local cache, for a family with T5.",
            show_default=False,
        ),
    ] = None,
    language_tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="The same of the language model that a family such as qwen-image reads with.",
            show_default=False,
        ),
    ] = None,
    pipeline: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="mini, or a pipeline's folder: count for its family, and name the words that it has never seen.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Read a prompt per line from FILE, or from standard input with `-`.",
            show_default=False,
        ),
    ] = None,
    stats: Annotated[
        bool, typer.Option("--stats", help="With --file: lengths, split words and common phrases of the collection.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="List the phrases and their places; with --json, add the analysis.")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a self-contained page too.", show_default=False),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="With --html: replace the page if it is there.")
    ] = False,
    live: Annotated[bool, typer.Option("--live", help="Type a prompt and watch its count; Enter shows it.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON and nothing else; JSON lines with --file.")
    ] = False,
    fail_on_truncation: Annotated[
        bool,
        typer.Option("--fail-on-truncation", help="Exit with 1 when a stock pipeline would drop part of a prompt."),
    ] = False,
) -> None:
    """Count a prompt's tokens and show what would be cut.

    Shown are its chunks, what a stock pipeline drops, warnings, and what wastes tokens.
    """
    if prompt == "-" and file is None and not live:
        prompt, file = None, Path("-")
    request = request_of(
        prompt=prompt,
        file=file,
        family=family,
        dialect=dialect,
        compare=compare,
        chunking=chunking,
        steps=steps,
        embeddings=embeddings,
        t5_tokenizer=t5_tokenizer,
        language_tokenizer=language_tokenizer,
        pipeline=pipeline,
        as_json=as_json,
        fail_on_truncation=fail_on_truncation,
        explain=explain,
        stats=stats,
        html=html,
        overwrite=overwrite,
        negative_prompt=negative_prompt,
        infotext=infotext,
        expand=expand,
        seed=seed,
        wildcards=tuple(wildcards or ()),
        live=live,
    )
    raise typer.Exit(run(request))
