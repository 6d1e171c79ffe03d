"""`clipcond duplicates`: pictures that are there more than once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipcond.cli.app import command
from clipcond.cli.gallery_options import (
    BatchSize,
    Images,
    Model,
    NoCache,
    Recursive,
    for_programs,
    gallery_options,
    print_rows,
    print_table,
)
from clipcond.cli.progress import progress
from clipcond.cli.rerank_run import show_outcome
from clipcond.workflows.duplicates import DEFAULT_THRESHOLD, DuplicateOptions, run
from clipcond.workflows.rerank_actions import ActionOptions


@command
def duplicates(
    images: Images,
    threshold: Annotated[float, typer.Option("--threshold", help="The least cosine of a pair.")] = DEFAULT_THRESHOLD,
    move_to: Annotated[Path | None, typer.Option("--move-to", help="Move the copies there; the best stay.")] = None,
    copy_to: Annotated[Path | None, typer.Option("--copy-to", help="Copy the copies there.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    recursive: Recursive = False,
    model: Model = "mini",
    batch_size: BatchSize = 32,
    no_cache: NoCache = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON line per group.")] = False,
) -> None:
    """Find pictures that are there twice, exactly or nearly.

    Of a group the one with the most pixels is kept, of those the oldest. clipcond rerank --undo DIR takes moves back.
    """
    actions = ActionOptions(copy_to=copy_to, move_to=move_to, dry_run=dry_run)
    options = DuplicateOptions(
        gallery=gallery_options(images, model, recursive, batch_size, no_cache), threshold=threshold, actions=actions
    )
    with progress() as events:
        result = run(options, events)
    if for_programs(as_json):
        print_rows((each.to_json() for each in result.groups), result.unread)
    else:
        rows = [
            row
            for group in result.groups
            for row in (
                (str(group.keep), "keep", "", ""),
                *(
                    (str(each.path), each.kind, f"{each.cosine:.4f}", f"{each.width}×{each.height}")
                    for each in group.copies
                ),
            )
        ]
        print_table([("picture", False), ("", False), ("cosine", True), ("pixels", True)], rows, result.unread)
    copies, groups = ("copy" if result.copies == 1 else "copies"), ("group" if len(result.groups) == 1 else "groups")
    typer.echo(f"{result.copies} {copies} in {len(result.groups)} {groups}, among {result.pictures} pictures", err=True)
    show_outcome(result.outcome, actions)
