"""`clipcond evaluate`: retrieval of a model on pairs."""

from __future__ import annotations

from typing import Annotated

import typer

from clipcond.cli.app import command
from clipcond.cli.progress import progress
from clipcond.cli.render import print_json
from clipcond.prompt.analysis.plan_summary import counted
from clipcond.workflows.evaluate import EvaluateOptions, run


@command
def evaluate(
    model: Annotated[str, typer.Option(metavar="TEXT", help="Any model spec with both towers.")],
    data: Annotated[
        str, typer.Option(metavar="TEXT", help="CSV, TSV, JSONL, a WebDataset tar, a glob or folder of tars.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure retrieval on image-caption pairs, both ways."""
    with progress() as events:
        found = run(EvaluateOptions(model, data), events).to_dict()
    if as_json:
        print_json(found)
        return
    typer.echo(f"{counted(found['images'], 'image')}, {counted(found['texts'], 'caption')}")
    for side in ("image_to_text", "text_to_image"):
        typer.echo(
            f"{side.replace('_', ' '):14}" + "".join(f"{name:>6} {share:6.1%}" for name, share in found[side].items())
        )
