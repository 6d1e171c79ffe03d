"""`clipcond ask`: which of several answers fits a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

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
    names_of,
    percent,
    print_rows,
    print_table,
    write_csv,
)
from clipcond.cli.progress import progress
from clipcond.files import check_output
from clipcond.workflows.ask import AskOptions, run

if TYPE_CHECKING:
    from clipcond.find.questions import AnsweredPicture


@command
def ask(
    images: Images,
    question: Annotated[str, typer.Option("--question", "-q", help="Such as: what colour is the car?")] = "",
    answers: Annotated[str, typer.Option("--answers", "-a", help="Two or more, with commas between.")] = "",
    statement: Annotated[
        str, typer.Option("--statement", help="Instead of a question: a sentence with {} where the answer goes.")
    ] = "",
    recursive: Recursive = False,
    model: Model = "mini",
    batch_size: BatchSize = 32,
    no_cache: NoCache = False,
    as_json: AsJson = False,
    csv: Csv = None,
) -> None:
    """Say which of your answers fits each picture best.

    Answers become statements, put in several ways; where the ways disagree by more than the answers do, the answer is
    marked as unsure.
    """
    options = AskOptions(
        gallery=gallery_options(images, model, recursive, batch_size, no_cache), answers=names_of(answers),
        question=question, statement=statement,
    )  # fmt: skip
    if csv is not None:
        check_output(csv)
    with progress() as events:
        result = run(options, events)
    if for_programs(as_json):
        print_rows((each.to_json() for each in result.pictures), result.unread)
    else:
        titles = [("picture", False), ("answer", False), ("probability", True), ("", False), ("others", False)]
        print_table(titles, map(_row, result.pictures), result.unread)
        if unsure := sum(not each.sure for each in result.pictures):
            typer.echo(
                f"unsure of {unsure} of {len(result.pictures)}: the answers differ by less than the ways to put them",
                err=True,
            )
    if csv is not None:
        write_csv(
            csv, ("image", "answer", "probability", "margin", "sure"),
            [(str(each.path), each.answers[0].label, f"{each.answers[0].probability:.6f}", f"{each.margin:.6f}", int(each.sure))
             for each in result.pictures],
        )  # fmt: skip


def _row(picture: AnsweredPicture) -> tuple[str, ...]:
    first, *others = picture.answers
    rest = ", ".join(f"{other.label} {percent(other.probability)}" for other in others)
    return str(picture.path), first.label, f"{first.probability:.1%}", "" if picture.sure else "unsure", rest
