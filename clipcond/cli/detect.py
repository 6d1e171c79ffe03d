"""`clipcond detect`: where in a picture described things are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipcond.cli.app import command
from clipcond.cli.gallery_options import (
    AsJson,
    BatchSize,
    Images,
    Recursive,
    for_programs,
    gallery_options,
    names_of,
    print_rows,
    print_table,
    write_csv,
)
from clipcond.cli.progress import progress
from clipcond.files import write_file
from clipcond.wording import visible
from clipcond.workflows.detect import DetectOptions, DetectResult, Method, run

if TYPE_CHECKING:
    from clipcond.find.detect import DetectedPicture

_TITLES = ("image", "label", "score", "place", "left", "top", "right", "bottom", "rather", "error")


@command
def detect(
    images: Images,
    labels: Annotated[
        str | None, typer.Option("--labels", "-l", metavar="TEXT", help="What to find, with commas between.")
    ] = None,
    labels_file: Annotated[
        Path | None,
        typer.Option("--labels-file", metavar="FILE", help="The same one a line, or described in a table or JSON."),
    ] = None,
    templates: Annotated[
        str, typer.Option("--templates", metavar="NAME", help="Sentences around each label, as in classify.")
    ] = "none",
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="As in rerank; or hf:FOLDER of OWL-ViT, OWLv2, Grounding DINO, CLIPSeg, Florence-2."
        ),
    ] = "mini",
    method: Annotated[
        Method, typer.Option("--method", help="By patches of the picture, or by windows looked at one by one.")
    ] = "auto",
    most: Annotated[int, typer.Option("--most", metavar="N", help="Places of a label in a picture.")] = 5,
    min_score: Annotated[
        float | None, typer.Option("--min-score", metavar="X", help="Leave out weaker places.", show_default=False)
    ] = None,
    sure: Annotated[
        bool,
        typer.Option("--sure", help="Leave out labels all whose places another label fits better.", show_default=False),
    ] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with boxes and heat.", show_default=False)
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a row per place into a CSV file.", show_default=False)
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace --html and --csv if they are there.", show_default=False)
    ] = False,
    recursive: Recursive = False,
    batch_size: BatchSize = 32,
    as_json: AsJson = False,
) -> None:
    """Find where in pictures described things are.

    A model that ranks says of each label where it would be, there or not, and marks the place if another label fits it better:
    so name what else there may be. A detection model says only what it sees.
    """
    options = DetectOptions(
        gallery=gallery_options(images, model, recursive, batch_size, no_cache=True), labels=names_of(labels),
        labels_file=labels_file, templates=templates, method=method, most=most, min_score=min_score, sure=sure, html=html,
        csv=csv, overwrite=overwrite,
    )  # fmt: skip
    with progress() as events:
        result = run(options, events)
    if for_programs(as_json):
        print_rows((each.to_json() for each in result.pictures), result.unread)
    else:
        titles = [("picture", False), ("label", False), ("score", True), ("place", False), ("box", False), ("", False)]
        print_table(titles, [row for each in result.pictures for row in _rows(each)], result.unread)
    _write(result, options)


def _rows(picture: DetectedPicture) -> list[tuple[str, ...]]:
    """A line for each place, and one for each label without any; the picture's name on the first."""
    lines: list[tuple[str, ...]] = [
        (each.label, f"{each.score:.3f}", each.place, " ".join(map(str, each.box)),
         "" if each.rather is None else f"rather {each.rather}")
        for each in picture.found
    ]  # fmt: skip
    lines += [(label, "", "not found", "", "") for label in picture.absent]
    return [("" if number else str(picture.path), *line) for number, line in enumerate(lines)]


def _write(result: DetectResult, options: DetectOptions) -> None:
    if options.csv is not None:
        rows = [
            (str(picture.path), each.label, f"{each.score:.6f}", each.place, *each.box, each.rather or "", "")
            for picture in result.pictures
            for each in picture.found
        ]
        errors = [(str(each.path), *[""] * 8, each.error) for each in result.unread]
        write_csv(options.csv, _TITLES, [*rows, *errors], overwrite=options.overwrite)
    if options.html is not None:
        from clipcond.pages.detect import detection_page

        write_file(options.html, detection_page(result), overwrite=options.overwrite)
    for file in (options.html, options.csv):
        if file is not None:
            typer.echo(f"wrote {visible(str(file))}", err=True)
