"""`clipcond screen`: content rules in words, applied to pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipcond.cli.app import command
from clipcond.cli.exit_codes import CHECK_FAILED
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
    print_rows,
    print_table,
    write_csv,
)
from clipcond.cli.progress import progress
from clipcond.files import check_output
from clipcond.wording import visible
from clipcond.workflows.screen import ScreenOptions, ScreenResult, run

if TYPE_CHECKING:
    from clipcond.find.rules import Rule
    from clipcond.score.statistics import Interval
    from clipcond.score.thresholds import Calibration


@command
def screen(
    images: Images,
    rules: Annotated[
        Path, typer.Option("--rules", help="TOML or JSON: name, prompts for, prompts against, threshold.")
    ],
    calibrate: Annotated[
        Path | None,
        typer.Option("--calibrate", help="Right verdicts: a CSV with image and a column for each rule, 1 or 0."),
    ] = None,
    precision: Annotated[float | None, typer.Option("--precision", help="With --calibrate: to be reached.")] = None,
    recall: Annotated[float | None, typer.Option("--recall", help="With --calibrate: to be reached.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="With --calibrate: the rules' new file.")] = None,
    fail_on_match: Annotated[bool, typer.Option("--fail-on-match", help="Exit with 1 if a rule applies.")] = False,
    recursive: Recursive = False,
    model: Model = "mini",
    batch_size: BatchSize = 32,
    no_cache: NoCache = False,
    as_json: AsJson = False,
    csv: Csv = None,
) -> None:
    """Check pictures against content rules in words.

    A rule applies where its prompts fit better than those against it, by its threshold. --calibrate sets thresholds from
    examples, for a wanted precision or recall.
    """
    options = ScreenOptions(
        gallery=gallery_options(images, model, recursive, batch_size, no_cache), rules=rules, calibrate=calibrate,
        precision=precision, recall=recall, out=out,
    )  # fmt: skip
    if csv is not None:
        check_output(csv)
    with progress() as events:
        result = run(options, events)
    _show(result, for_programs(as_json))
    if csv is not None:
        rows = [
            (str(each.path), verdict.rule, int(verdict.applies), f"{verdict.probability:.6f}", verdict.because)
            for each in result.screening.pictures
            for verdict in each.verdicts
        ]
        write_csv(csv, ("image", "rule", "applies", "probability", "because"), rows)
    if fail_on_match and any(each.flagged for each in result.screening.pictures):
        raise typer.Exit(CHECK_FAILED)


def _show(result: ScreenResult, as_json: bool) -> None:
    for rule, found in result.calibrated:
        typer.echo(_calibration(rule, found), err=True)
    screening = result.screening
    if as_json:
        print_rows((each.to_json() for each in screening.pictures), screening.unread)
        return
    rows = [
        (str(each.path), verdict.rule, f"{verdict.probability:.1%}", verdict.because)
        for each in screening.pictures
        for verdict in each.flagged
    ]
    print_table(
        [("picture", False), ("rule", False), ("probability", True), ("because", False)], rows, screening.unread
    )
    flagged = sum(bool(each.flagged) for each in screening.pictures)
    typer.echo(f"{flagged} of {len(screening.pictures)} pictures flagged", err=True)


def _calibration(rule: Rule, found: Calibration) -> str:
    precision = "no picture named" if found.precision is None else f"precision {_share(found.precision)}"
    return (
        f"{visible(rule.name)}: threshold {found.threshold:.4f}, {precision}, recall {_share(found.recall)} "
        f"on {found.positives} positive examples"
    )


def _share(share: Interval) -> str:
    return f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}]"
