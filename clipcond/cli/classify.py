"""`clipcond classify`: pictures into classes that are named in words, without training."""

from __future__ import annotations

import json
from pathlib import Path
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
from clipcond.cli.render import stdout_console
from clipcond.errors import OptionsError
from clipcond.files import check_output, write_file
from clipcond.wording import visible
from clipcond.workflows.classify import ClassifyOptions, ClassifyResult, run

if TYPE_CHECKING:
    from clipcond.find.classify import ClassifiedPicture
    from clipcond.score.classification import Classified

_NONE = "none of these"
_WEAKEST = 12  # classes that are shown


@command
def classify(
    images: Images,
    labels: Annotated[str | None, typer.Option("--labels", "-l", help="Classes, with commas between.")] = None,
    labels_file: Annotated[
        Path | None,
        typer.Option("--labels-file", help="Classes one a line, or a table or JSON that describes them in sentences."),
    ] = None,
    templates: Annotated[
        str,
        typer.Option(
            "--templates",
            help="Sentences around each label: none, photo, satellite, art, text, imagenet7, imagenet80, or a file.",
        ),
    ] = "none",
    tuned: Annotated[
        Path | None, typer.Option("--tuned", help="Classes that clipcond tune learned, in place of sentences.")
    ] = None,
    top: Annotated[int, typer.Option("--top", "-k", help="Labels to show for each picture.")] = 1,
    none_below: Annotated[
        float, typer.Option("--none-below", help="A picture whose best label is less probable has none.")
    ] = 0.0,
    truth: Annotated[
        str | None,
        typer.Option("--truth", help="The right labels: folders (each picture's), or a CSV with image and label."),
    ] = None,
    try_templates: Annotated[
        bool, typer.Option("--try-templates", help="With --truth: the gain of each template, and a greedy choice.")
    ] = False,
    measure: Annotated[
        Path | None,
        typer.Option("--measure", help="With --truth: write the numbers and the confusion into a JSON file."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="With --truth: draw what is taken for what into a .png or .svg.")
    ] = None,
    recursive: Recursive = False,
    model: Model = "mini",
    batch_size: BatchSize = 32,
    no_cache: NoCache = False,
    as_json: AsJson = False,
    csv: Csv = None,
) -> None:
    """Name what pictures show, out of labels in words.

    Each label is compared through all its sentences; probabilities are among the labels given, so a picture of none of
    them needs --none-below. With --truth the answers are measured.
    """
    options = ClassifyOptions(
        gallery=gallery_options(images, model, recursive, batch_size, no_cache), labels=names_of(labels),
        labels_file=labels_file, templates=templates, top=top, none_below=none_below, truth=truth,
        try_templates=try_templates, tuned=tuned,
    )  # fmt: skip
    _check_outputs(options, csv, measure, plot)
    with progress() as events:
        result = run(options, events)
    _show(result, for_programs(as_json))
    if csv is not None:
        _write(result, csv)
    if measure is not None:
        write_file(measure, json.dumps(result.measure_to_json(), indent=2, ensure_ascii=False) + "\n")
    if plot is not None and result.measured is not None:
        from clipcond.pages.confusion_plot import confusion_plot

        write_file(plot, confusion_plot(result.measured, result.labels, plot.suffix.lower()[1:]))


def _check_outputs(options: ClassifyOptions, csv: Path | None, measure: Path | None, plot: Path | None) -> None:
    """Refuse files that cannot be written, before any work."""
    for flag, path in (("--measure", measure), ("--plot", plot)):
        if path is not None and options.truth is None:
            raise OptionsError(f"{flag} needs the right labels; give them with --truth folders or --truth FILE")
    for path in (csv, measure):
        if path is not None:
            check_output(path)
    if plot is not None:
        from clipcond.pages.plots import check_plot

        check_plot(plot)


def _show(result: ClassifyResult, as_json: bool) -> None:
    found = result.classification
    if as_json:
        print_rows((each.to_json() for each in found.pictures), found.unread)
        return
    titles = [("picture", False), ("label", False), ("probability", True), ("cosine", True), ("next", False)]
    print_table(titles, map(_row, found.pictures), found.unread)
    _show_measure(result)


def _row(picture: ClassifiedPicture) -> tuple[str, ...]:
    first, *rest = picture.answers
    others = ", ".join(f"{each.label} {percent(each.probability)}" for each in rest)
    label = _NONE if picture.label is None else picture.label
    return str(picture.path), label, f"{first.probability:.1%}", f"{first.cosine:.4f}", others


def _show_measure(result: ClassifyResult) -> None:
    """Print accuracy, the classes and what they are taken for, and the templates."""
    if (found := result.measured) is None:
        return
    console = stdout_console()
    console.print()
    five = f"among the first five {found.top5:.1%}, " if len(result.labels) > 5 else ""
    console.print(
        f"accuracy {found.accuracy:.1%} of {found.count:,} pictures, {five}mean recall of a class {found.mean_recall:.1%}; "
        f"confidence {found.confidence:.1%} (calibration error {found.calibration_error:.1%})"
    )
    _show_classes(found, result.labels)
    if result.gains:
        console.print()
        print_table(
            [("alone", True), ("loss without", True), ("template", False)],
            [(f"{gain.alone:.1%}", f"{gain.loss_without:+.1%}", gain.template) for gain in result.gains], (),
        )  # fmt: skip
        chosen = "; ".join(visible(each) for each in result.selected)
        console.print(f"chosen greedily, {result.selected_accuracy:.1%} on these pictures: {chosen}")


def _show_classes(found: Classified, labels: tuple[str, ...]) -> None:
    """Print a table of classes, the weakest first: recall, and what their pictures are mostly taken for."""
    order = [int(row) for row in found.recall.argsort(kind="stable")]
    order = [row for row in order if found.confusion[row].any()]  # a class without a picture has no recall
    rows = []
    for row in order[:_WEAKEST]:
        wrong = found.confusion[row].copy()
        wrong[row] = 0
        most = int(wrong.argmax())
        taken = f"{labels[most]} ({wrong[most]:,})" if wrong[most] else ""
        rows.append((labels[row], f"{found.confusion[row].sum():,}", f"{found.recall[row]:.1%}", taken))
    print_table([("class", False), ("pictures", True), ("recall", True), ("mostly taken for", False)], rows, ())
    if len(order) > _WEAKEST:
        stdout_console().print(f"… and {len(order) - _WEAKEST:,} classes with more; --measure FILE has all")


def _write(result: ClassifyResult, path: Path) -> None:
    found = result.classification
    rows = [
        (str(each.path), each.label or "", f"{each.answers[0].probability:.6f}", f"{each.answers[0].cosine:.6f}", "")
        for each in found.pictures
    ]
    rows += [(str(each.path), "", "", "", each.error) for each in found.unread]
    write_csv(path, ("image", "label", "probability", "cosine", "error"), rows)
