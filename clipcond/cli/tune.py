"""`clipcond tune`: weights of templates and context vectors learned from pictures, against zero-shot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipcond.cli.app import command
from clipcond.cli.gallery_options import BatchSize, Model, NoCache, for_programs, names_of, print_table
from clipcond.cli.progress import progress
from clipcond.cli.render import print_json
from clipcond.workflows.tune import TuneOptions, run


@command
def tune(
    train: Annotated[Path, typer.Argument(help="A folder with a folder for each class, or a CSV of image and label.")],
    test: Annotated[
        Path | None, typer.Option("--test", help="The same, of other pictures; else a share of TRAIN.")
    ] = None,
    learn: Annotated[
        str | None,
        typer.Option("--learn", help="templates (their weights), shared, per-class (context); else all, compared."),
    ] = None,
    templates: Annotated[
        str, typer.Option("--templates", help="Sentences around each name, as for classify.")
    ] = "photo",
    sentence: Annotated[
        str | None, typer.Option("--sentence", help="Context starts as its words before {}; else a template's.")
    ] = None,
    labels_file: Annotated[
        Path | None, typer.Option("--labels-file", help="Sentences for the classes; else their names.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the best into a .safetensors, for classify --tuned.")
    ] = None,
    embedding: Annotated[
        Path | None, typer.Option("--embedding", help="Write shared context as a textual inversion (.safetensors).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    hold_out: Annotated[
        float, typer.Option("--hold-out", help="Share of each class to stop by, and to test on.")
    ] = 0.2,
    steps: Annotated[int, typer.Option("--steps", help="The most steps of each kind.")] = 200,
    patience: Annotated[int, typer.Option("--patience", help="Steps without gain before it stops.")] = 10,
    rate: Annotated[float, typer.Option("--rate", help="A step, as a share of an embedding's size.")] = 0.05,
    seed: Annotated[int, typer.Option("--seed", help="Of the split.")] = 0,
    model: Model = "mini",
    batch_size: BatchSize = 32,
    no_cache: NoCache = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Learn prompts from classes of pictures, and compare.

    Encoders stay as they are: learned are the weights of templates, and vectors in place of the words before a class's name.
    Each starts at zero-shot and stops by pictures that are held out; others say whether it helps.
    """
    options = TuneOptions(
        train=train, test=test, learn=names_of(learn), labels_file=labels_file, templates=templates, sentence=sentence,
        hold_out=hold_out, rate=rate, steps=steps, patience=patience, seed=seed, out=out, embedding=embedding,
        overwrite=force, model=model, batch_size=batch_size, cache=not no_cache,
    )  # fmt: skip
    with progress() as events:
        report = run(options, events)
    if for_programs(as_json):
        print_json(report.to_json(), indent=2)
        return
    typer.echo(
        f"{len(report.tuned[0].names)} classes: {report.fit:,} pictures to learn from, {report.validation:,} to stop by, "
        f"{report.test:,} to test on"
    )
    rows = [
        (
            row.method, f"{row.start:.1%}", f"{row.accuracy.value:.1%}",
            f"{100 * row.accuracy.low:.1f}–{100 * row.accuracy.high:.1f}", f"{row.validation:.1%}", f"{row.step}",
        )
        for row in report.rows
    ]  # fmt: skip
    titles = ["before", "accuracy", "95 %", "validation", "step"]
    print_table([("method", False), *((title, True) for title in titles)], rows, ())
    typer.echo(report.verdict)
