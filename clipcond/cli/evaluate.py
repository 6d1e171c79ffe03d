"""`clipcond evaluate`: retrieval and classes of a model on the user's pictures, beside chance and the model from before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipcond.cli.app import command
from clipcond.cli.gallery_options import write_csv
from clipcond.cli.progress import progress
from clipcond.cli.render import print_json
from clipcond.files import check_output
from clipcond.prompt.analysis.plan_summary import counted
from clipcond.wording import visible
from clipcond.workflows.evaluate import EvaluateOptions, Evaluation, run
from clipcond.workflows.evaluation_sets import EvaluationSet


@command
def evaluate(
    model: Annotated[str, typer.Option(metavar="TEXT", help="Any model spec with both towers.")],
    data: Annotated[
        str,
        typer.Option(
            metavar="TEXT", help="CSV, TSV, JSONL, a WebDataset tar, a glob or folder of tars; class folders."
        ),
    ],
    before: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="A model to measure beside it, such as the one it was trained from."),
    ] = None,
    retention: Annotated[
        str | None, typer.Option(metavar="TEXT", help="General pictures of the same kinds, which should not get worse.")
    ] = None,
    templates: Annotated[
        str, typer.Option(metavar="NAME", help="Sentences around the names of classes: none, photo, …, or a file.")
    ] = "none",
    labels_file: Annotated[
        Path | None, typer.Option("--labels-file", help="Classes of --data with sentences that describe them.")
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write a row for each measure into a CSV file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure retrieval and zero-shot classes beside chance.

    A table with a column label (class, category) or a folder with a folder per class has classes. Recall at k is of the
    whole set, for k below its size; beside each share is that of chance.
    """
    options = EvaluateOptions(
        model=model, data=data, before=before, retention=retention, templates=templates, labels_file=labels_file
    )
    if csv is not None:
        check_output(csv)
    with progress() as events:
        found = run(options, events)
    if as_json:
        print_json(found.to_json())
    else:
        _show(found)
    if csv is not None:
        titles = ("set", "measure", "before", "after", "chance")
        write_csv(
            csv, titles, ((r.set, r.measure, _plain(r.before), _plain(r.after), _plain(r.chance)) for r in found.rows())
        )


def _show(found: Evaluation) -> None:
    """Print a table for each set."""
    for of in found.sets:
        rows = [row for row in found.rows() if row.set == of.name]
        typer.echo(f"{of.name}: {_size(of)}")
        titles = (["before"] if found.before is not None else []) + ["after" if found.before else "share", "chance"]
        typer.echo(f"  {'':24}" + "".join(f"{title:>9}" for title in titles))
        for row in rows:
            shares = [*([] if row.before is None else [row.before]), row.after, row.chance]
            typer.echo(f"  {row.measure:24}" + "".join(f"{share:>9.1%}" for share in shares))


def _size(of: EvaluationSet) -> str:
    parts = [visible(of.source), counted(len(of.pictures), "image")]
    if of.pairs is not None:
        parts.append(counted(sum(map(len, of.pairs.captions)), "caption"))
    if of.classes:
        parts.append(f"{len(of.classes)} classes")
    return ", ".join(parts)


def _plain(share: float | None) -> str:
    return "" if share is None else f"{share:.6f}"
