"""`clipcond probe`: logistic regression on embeddings, from a few examples or all, against zero-shot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipcond.cli.app import command
from clipcond.cli.gallery_options import BatchSize, Model, NoCache, for_programs, names_of, print_table
from clipcond.cli.progress import progress
from clipcond.cli.render import print_json
from clipcond.errors import OptionsError
from clipcond.files import write_file
from clipcond.workflows.probe import ProbeOptions, run


@command
def probe(
    train: Annotated[Path, typer.Argument(help="A folder with a folder for each class, or a CSV of image and label.")],
    test: Annotated[Path, typer.Argument(help="The same, of other pictures.")],
    shots: Annotated[str, typer.Option("--shots", help="Examples a class, with commas between.")] = "1,2,4,8,16",
    draws: Annotated[int, typer.Option("--draws", help="Draws of each few-shot set.")] = 3,
    seed: Annotated[int, typer.Option("--seed", help="Of the draws.")] = 0,
    labels_file: Annotated[
        Path | None, typer.Option("--labels-file", help="Sentences for the classes; else their names.")
    ] = None,
    templates: Annotated[
        str, typer.Option("--templates", help="Sentences around each name, as for classify.")
    ] = "none",
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the result into a .png or .svg.")] = None,
    model: Model = "mini",
    batch_size: BatchSize = 32,
    no_cache: NoCache = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Train classes on embeddings, and compare with zero-shot.

    Regularisation is chosen on the training pictures. The second probe starts from the zero-shot weights, so that a single
    example does not make it worse.
    """
    numbers = names_of(shots)
    if not all(number.isdecimal() for number in numbers):
        raise OptionsError(f"--shots {shots}: expected whole numbers, with commas between: 1,2,4,8,16")
    options = ProbeOptions(
        train=train, test=test, model=model, labels_file=labels_file, templates=templates,
        shots=tuple(dict.fromkeys(map(int, numbers))), draws=draws, seed=seed, batch_size=batch_size, cache=not no_cache,
    )  # fmt: skip
    if plot is not None:
        from clipcond.pages.plots import check_plot

        check_plot(plot)
    with progress() as events:
        report = run(options, events)
    if plot is not None:
        from clipcond.pages.probe_plot import probe_plot

        write_file(plot, probe_plot(report, plot.suffix.lower()[1:]))
    if for_programs(as_json):
        print_json(report.to_json(), indent=2)
        return
    typer.echo(
        f"zero-shot {report.zero_shot:.1%} of {report.test:,} test pictures, {report.classes} classes, "
        f"{report.train:,} training pictures"
    )
    rows = [
        (
            "all" if row.shots is None else str(row.shots), f"{row.probe:.1%}", f"{row.from_zero_shot:.1%}",
            f"±{row.spread / 2:.1%}", f"{max(row.alphas):.1%}",
        )
        for row in report.rows
    ]  # fmt: skip
    titles = ["examples a class", "probe", "from zero-shot", "", "best between"]
    print_table([(title, True) for title in titles], rows, ())
