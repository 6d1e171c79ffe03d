"""A ranking from its options to the terminal and its files: what `clipcond rerank` does when its arguments are read."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from clipcond.cli.app import stopped
from clipcond.cli.exit_codes import FAILED
from clipcond.cli.progress import progress
from clipcond.cli.render import on_terminal, print_json
from clipcond.cli.rerank_table import show, show_assignment
from clipcond.errors import OptionsError
from clipcond.files import check_output, write_file
from clipcond.prompt.analysis.plan_summary import counted
from clipcond.wording import visible
from clipcond.workflows.rerank import RerankOptions, run
from clipcond.workflows.rerank_actions import ActionOptions, Outcome, act_on, apply_chosen, take_back
from clipcond.workflows.rerank_ratings import (
    GivenRatings,
    RatingOptions,
    RatingReport,
    check_rated,
    compare,
    read_given,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clipcond.rerank.moves import Step
    from clipcond.rerank.rows import Ranking
    from clipcond.workflows.events import Events


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """The form on stdout: a table, JSON lines, or paths that end in a line feed or NUL. csv, html: files beside it.

    Raises OptionsError for two forms, an ending that names none, or Parquet where it cannot be written.
    """

    as_json: bool = False
    as_paths: bool = False
    print0: bool = False
    csv: Path | None = None
    html: Path | None = None

    def __post_init__(self) -> None:
        if sum((self.as_json, self.as_paths, self.print0)) > 1:
            raise OptionsError("--json, --paths and --print0 exclude each other")
        if self.csv is not None:
            from clipcond.rerank.output import check_ranking_file

            check_ranking_file(self.csv)
        if self.html is not None:
            check_output(self.html)

    @property
    def lines(self) -> bool:
        """True if stdout gets JSON: asked for, or read by no person."""
        return self.as_json or not (self.as_paths or self.print0 or on_terminal())

    @property
    def bare(self) -> bool:
        """True if stdout is for a program."""
        return self.as_json or self.as_paths or self.print0


def rank_and_show(options: RerankOptions, actions: ActionOptions, rating: RatingOptions, output: OutputOptions) -> None:
    """Rank, compare with ratings, act on what is kept, and show it all. Exits with 3 where nothing could be scored."""
    if options.assign and (output.as_paths or output.print0):
        raise OptionsError("--assign shows matches, not paths; leave --paths and --print0 out, or --assign")
    given = read_given(rating)
    try:
        with progress() as events:
            ranking = run(options, events, check=lambda paths: _check(list(paths), actions, given))
            report = compare(ranking, given, rating, events)
            page = None if output.html is None else sheet(ranking, events)  # before a picture is moved
    except KeyboardInterrupt:
        raise stopped("interrupted: nothing was ranked, and no file was changed") from None
    try:
        with progress() as events:
            outcome = act_on(ranking, actions, events, cache=options.cache)
    except KeyboardInterrupt:
        raise stopped("interrupted among the files: --undo DIR takes back what was done") from None
    table = _show(ranking, report, options.assign, output)
    if ranking.warning and not table:  # which says so above it
        typer.echo(f"note: {visible(ranking.warning)}", err=True)
    write_files(ranking, page, output)
    if not output.bare or not ranking.kept:
        _summarise(ranking, options)
    show_outcome(outcome, actions)
    if not ranking.scored:
        raise typer.Exit(FAILED)


def _check(paths: list[Path], actions: ActionOptions, given: GivenRatings) -> None:
    """Refuse what cannot be done with these pictures, before a model is loaded."""
    actions.check_pictures(paths)
    check_rated(given, paths)


def _show(ranking: Ranking, report: RatingReport | None, assigned: bool, output: OutputOptions) -> bool:
    """Print the report on ratings, the matches of prompts and pictures, or the ranking; True if that was its table."""
    if report is not None:
        _show_report(report, output.lines)
    elif assigned:
        from clipcond.rerank.assignment import assign

        found = assign(ranking)
        if output.lines:
            print_json(found.to_json())
        else:
            show_assignment(found)
    elif output.lines:
        for row in ranking.rows:
            print_json(row.to_json())
    elif output.as_paths or output.print0:
        write_paths(ranking, b"\0" if output.print0 else b"\n")
    else:
        show(ranking)
        return True
    return False


def _show_report(report: RatingReport, as_json: bool) -> None:
    from clipcond.cli.rerank_ratings import show_report

    if as_json:
        print_json(report.to_json())
    else:
        show_report(report)


def write_files(ranking: Ranking, page: str | None, output: OutputOptions) -> None:
    from clipcond.rerank.output import write_ranking

    if output.csv is not None:
        write_ranking(output.csv, ranking)
    if output.html is not None and page is not None:
        write_file(output.html, page)


def without_scores(undo: Path | None, apply: Path | None, actions: ActionOptions, pictures: bool) -> None:
    """Run `--undo` or `--apply`, which need no model."""
    if pictures or (undo is not None and apply is not None):
        raise OptionsError(
            f"{'--undo' if undo is not None else '--apply'} names the pictures itself; leave the others out"
        )
    if undo is None:
        assert apply is not None
        with progress() as events:
            show_outcome(apply_chosen(apply, actions, events), actions)
        return
    if actions.target is not None or actions.write_back is not None:
        raise OptionsError("--undo takes moves back and does nothing else; leave the others out")
    undone = take_back(undo)
    typer.echo(f"{len(undone.restored):,} of {len(undone.restored) + len(undone.kept):,} taken back", err=True)
    for path, reason in undone.kept:
        typer.echo(f"note: {visible(str(path))} {visible(reason)}", err=True)
    if undone.kept:
        raise typer.Exit(FAILED)


def sheet(ranking: Ranking, events: Events) -> str:
    from clipcond.pages.contact_sheet import contact_sheet
    from clipcond.workflows.events import task

    with task(events, "thumbnails", len({row.path for row in ranking.scored}), "pictures") as advance:
        return contact_sheet(ranking, on_progress=advance)


def write_paths(ranking: Ranking, end: bytes) -> None:
    """Write the kept paths as the file system spells them, whatever the terminal's encoding."""
    sys.stdout.flush()
    for path in dict.fromkeys(row.path for row in ranking.kept):
        sys.stdout.buffer.write(os.fsencode(path) + end)
    sys.stdout.buffer.flush()


def _summarise(ranking: Ranking, options: RerankOptions) -> None:
    """Print one line for people on stderr."""
    counts = f"{len(ranking.scored)} scored with {ranking.model}, {len(ranking.kept)} kept"
    if ranking.errors:
        counts += f", {len(ranking.errors)} with an error"
    if ranking.scored and not ranking.kept and options.thresholds:
        first = options.selection().thresholds[0]
        column = first.column if first.column in ranking.scored[0].scores else "score"
        values = [row.scores.get(column, row.score or 0.0) for row in ranking.scored]
        best = max(values) if first.sign.startswith(">") else min(values)
        counts += f": the best {column} is {best:.4f}, which is not {first.sign} {first.value:g}"
    typer.echo(counts, err=True)


def show_outcome(outcome: Outcome, actions: ActionOptions) -> None:
    """Say what was done with the files, or with a dry run would be; a file that stays is a note."""
    if actions.write_back is not None:
        verb = "would get" if actions.dry_run else "got"
        typer.echo(f"{len(outcome.written):,} pictures {verb} their {actions.write_back}", err=True)
    failed = [*outcome.unwritten]
    if outcome.plan is not None and actions.target is not None:
        action, folder = actions.target
        failed += outcome.plan.skipped
        if outcome.moves is None:
            for step in outcome.plan.steps:
                typer.echo(f"would {step.action} {visible(str(step.source))} to {visible(str(step.target))}", err=True)
        else:
            failed += outcome.moves.failed
            done = {"copy": "copied", "move": "moved", "link": "linked"}[action]
            back = f"; --undo {visible(str(folder))} takes it back" if outcome.moves.done else ""
            what = _files(outcome.moves.done)
            typer.echo(f"{what} {done} to {visible(str(folder))}{back}", err=True)
    for path, reason in failed:
        typer.echo(f"note: {visible(str(path))} {visible(reason)}", err=True)


def _files(steps: Sequence[Step]) -> str:
    """Say how many pictures some steps are of, and how many files beside them."""
    pictures = sum(step.source == step.picture for step in steps)
    beside = len(steps) - pictures
    more = f" and {counted(beside, 'file')} beside them" if beside else ""
    return f"{counted(pictures, 'picture')}{more}"
