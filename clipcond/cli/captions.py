"""`clipcond caption-rank` and `clipcond interrogate`: given captions in order of fit, and captions made for pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipcond.cli.app import command
from clipcond.cli.gallery_options import (
    AsJson,
    BatchSize,
    Csv,
    Images,
    Model,
    NoCache,
    Recursive,
    for_programs,
    gallery_options,
    percent,
    print_rows,
    print_table,
    write_csv,
)
from clipcond.cli.progress import progress
from clipcond.wording import visible
from clipcond.workflows.captions import (
    CANDIDATES,
    MOST,
    CaptionOptions,
    InterrogateOptions,
    InterrogateResult,
    Style,
    describe,
    rank,
)


@command
def caption_rank(
    images: Images,
    captions: Annotated[Path, typer.Option("--captions", "-c", help="A text file, one caption a line.")],
    top: Annotated[int | None, typer.Option("--top", "-k", help="Captions to show for each picture; else all.")] = None,
    recursive: Recursive = False,
    model: Model = "mini",
    batch_size: BatchSize = 32,
    no_cache: NoCache = False,
    as_json: AsJson = False,
) -> None:
    """Put captions in order of how well they fit each picture.

    Captions of any length count in full. Probabilities are among the captions given.
    """
    options = CaptionOptions(
        gallery=gallery_options(images, model, recursive, batch_size, no_cache), captions=captions, top=top
    )
    with progress() as events:
        result = rank(options, events)
    if for_programs(as_json):
        print_rows((each.to_json() for each in result.pictures), result.unread)
        return
    rows = [
        (str(picture.path) if not number else "", f"{each.cosine:.4f}", percent(each.probability), each.caption)
        for picture in result.pictures
        for number, each in enumerate(picture.captions)
    ]
    print_table([("picture", False), ("cosine", True), ("", True), ("caption", False)], rows, result.unread)


@command
def interrogate(
    images: Images,
    phrases: Annotated[
        list[Path] | None, typer.Option("--phrases", help="A text file, one phrase a line; may be repeated.")
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option("--candidates", help=f"Phrases tried for a picture, the best alone; else {CANDIDATES}."),
    ] = None,
    most: Annotated[int | None, typer.Option("--most", help=f"Phrases of a caption; else {MOST}.")] = None,
    style: Annotated[
        Style | None,
        typer.Option("--style", help="How a model that writes captions (Florence-2) is to; else short."),
    ] = None,
    csv: Csv = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace --csv if it is there.", show_default=False)
    ] = False,
    recursive: Recursive = False,
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="mini, emoji, NAME/PRETRAINED, hf:ID, or a folder; Florence-2 writes captions."
        ),
    ] = "mini",
    batch_size: BatchSize = 32,
    no_cache: NoCache = False,
    as_json: AsJson = False,
) -> None:
    """Describe pictures in phrases, or in a model's own words.

    Phrases are joined one by one, always the one with which the caption fits best, as long as it gains and 75 tokens last;
    what each adds is shown. Florence-2 writes its captions; what 75 tokens have no place for is said.
    """
    options = InterrogateOptions(
        gallery=gallery_options(images, model, recursive, batch_size, no_cache), phrases=tuple(phrases or ()),
        candidates=candidates, most=most, style=style, csv=csv, overwrite=overwrite,
    )  # fmt: skip
    with progress() as events:
        result = describe(options, events)
    if for_programs(as_json):
        print_rows((each.to_json() for each in result.captions), result.unread)
    else:
        _show(result)
    if csv is not None:
        rows = [
            *((str(each.path), each.caption, each.content_tokens, "") for each in result.captions),
            *((str(each.path), "", "", each.error) for each in result.unread),
        ]
        write_csv(csv, ("image", "caption", "content_tokens", "error"), rows, overwrite=overwrite)
        typer.echo(f"wrote {visible(str(csv))}", err=True)


def _show(result: InterrogateResult) -> None:
    """A row for each phrase of a caption, or for each caption that a model wrote."""
    if result.written:
        lines = [
            (str(each.path), f"{each.probability:.3f}", str(each.content_tokens), each.caption)
            for each in result.written
        ]
        titles = [("picture", False), ("probability", True), ("tokens", True), ("caption", False)]
        print_table(titles, lines, result.unread)
        return
    rows = [
        (str(picture.path) if not number else "", f"{each.cosine:.4f}", f"{each.gain:+.4f}", each.phrase)
        for picture in result.pictures
        for number, each in enumerate(picture.phrases)
    ]
    print_table([("picture", False), ("cosine", True), ("gain", True), ("phrase", False)], rows, result.unread)
