"""`clipcond caption-rank` and `clipcond interrogate`: given captions in order of fit, and captions made of phrases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipcond.cli.app import command
from clipcond.cli.gallery_options import (
    AsJson,
    BatchSize,
    Images,
    Model,
    NoCache,
    Recursive,
    for_programs,
    gallery_options,
    percent,
    print_rows,
    print_table,
)
from clipcond.cli.progress import progress
from clipcond.workflows.captions import CaptionOptions, InterrogateOptions, describe, rank


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
    candidates: Annotated[int, typer.Option("--candidates", help="Phrases tried for a picture: the best alone.")] = 32,
    most: Annotated[int, typer.Option("--most", help="Phrases of a caption.")] = 8,
    recursive: Recursive = False,
    model: Model = "mini",
    batch_size: BatchSize = 32,
    no_cache: NoCache = False,
    as_json: AsJson = False,
) -> None:
    """Describe pictures in phrases, with what each phrase adds.

    Phrases are joined one by one, always the one with which the caption fits best, as long as it gains and 75 tokens last.
    """
    options = InterrogateOptions(
        gallery=gallery_options(images, model, recursive, batch_size, no_cache), phrases=tuple(phrases or ()),
        candidates=candidates, most=most,
    )  # fmt: skip
    with progress() as events:
        result = describe(options, events)
    if for_programs(as_json):
        print_rows((each.to_json() for each in result.pictures), result.unread)
        return
    rows = [
        (str(picture.path) if not number else "", f"{each.cosine:.4f}", f"{each.gain:+.4f}", each.phrase)
        for picture in result.pictures
        for number, each in enumerate(picture.phrases)
    ]
    print_table([("picture", False), ("cosine", True), ("gain", True), ("phrase", False)], rows, result.unread)
