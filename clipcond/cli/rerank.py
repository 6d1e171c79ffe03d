"""`clipcond rerank`: which pictures match a prompt, or each its own, and what becomes of the best."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipcond.cli.app import command
from clipcond.cli.exit_codes import FAILED
from clipcond.cli.progress import progress
from clipcond.cli.render import print_json
from clipcond.cli.rerank_table import show
from clipcond.errors import OptionsError
from clipcond.files import refuse_to_overwrite, write_file
from clipcond.wording import visible
from clipcond.workflows.rerank import RerankOptions, run
from clipcond.workflows.rerank_actions import ActionOptions, Outcome, act_on, apply_chosen, take_back
from clipcond.workflows.rerank_ratings import RatingOptions, RatingReport, compare, read_given

if TYPE_CHECKING:
    from clipcond.rerank.rows import Ranking
    from clipcond.workflows.events import Events

_TEXTS, _SCORES, _KEEP, _DO, _RATE, _OUTPUT = (
    "Texts", "Scores", "What to keep", "What to do with it", "Ratings of people", "Output"
)  # fmt: skip


@command
def rerank(
    images: Annotated[
        list[str] | None, typer.Argument(help="Picture files, folders (their top level), or quoted patterns.")
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Look into the folders below, too.")] = False,
    model: Annotated[str, typer.Option("--model", "-m", help="mini, NAME/PRETRAINED, hf:ID, or a folder.")] = "mini",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Pictures in one forward pass.")] = 32,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Neither use nor keep embeddings of earlier runs (clipcond cache).")
    ] = False,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            "-p",
            rich_help_panel=_TEXTS,
            help="The text to match; without it, each picture's own: from its metadata, or the .txt beside it.",
        ),
    ] = None,
    negative_prompt: Annotated[
        str | None, typer.Option("--negative-prompt", rich_help_panel=_TEXTS, help="For the score margin.")
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", rich_help_panel=_TEXTS, help="Many prompts, one a line: each against every picture."),
    ] = None,
    assign: Annotated[
        bool,
        typer.Option(
            "--assign", rich_help_panel=_TEXTS, help="With --prompts: the best picture of each, and the reverse."
        ),
    ] = False,
    pairs: Annotated[
        Path | None,
        typer.Option("--pairs", rich_help_panel=_TEXTS, help="CSV or JSONL with the columns image and prompt."),
    ] = None,
    long_prompt: Annotated[
        str,
        typer.Option(
            "--long-prompt", rich_help_panel=_TEXTS, help="Beyond 75 tokens: mean, max, first or min of chunks."
        ),
    ] = "mean",
    score: Annotated[
        str,
        typer.Option(
            "--score",
            "-s",
            rich_help_panel=_SCORES,
            help="cosine, clipscore, logit, probability, pick, margin, iqa, aesthetic, a column of --scores, or a sum: "
            '"0.7*clipscore + 0.3*iqa". With commas the others are shown too.',
        ),
    ] = "cosine",
    phrases: Annotated[
        bool, typer.Option("--phrases", rich_help_panel=_SCORES, help="Score phrase by phrase: which are missing?")
    ] = False,
    missing_margin: Annotated[
        float | None,
        typer.Option("--missing-margin", rich_help_panel=_SCORES, help="Cosine by which a missing phrase falls short."),
    ] = None,
    distractors: Annotated[
        Path | None, typer.Option("--distractors", rich_help_panel=_SCORES, help="Other prompts, for probability.")
    ] = None,
    aesthetic: Annotated[
        Path | None, typer.Option("--aesthetic", rich_help_panel=_SCORES, help="A head's file, .pth or .safetensors.")
    ] = None,
    scores: Annotated[
        Path | None, typer.Option("--scores", rich_help_panel=_SCORES, help="Numbers of another scorer, a CSV.")
    ] = None,
    top: Annotated[
        int | None, typer.Option("--top", "-k", min=1, rich_help_panel=_KEEP, help="Keep the best K.")
    ] = None,
    top_percent: Annotated[
        float | None, typer.Option("--top-percent", rich_help_panel=_KEEP, help="Keep the best share, in percent.")
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option("--threshold", rich_help_panel=_KEEP, help="COLUMN>=VALUE, or the least cosine; may be repeated."),
    ] = None,
    per_prompt: Annotated[
        bool, typer.Option("--per-prompt", rich_help_panel=_KEEP, help="Rank and keep within each prompt.")
    ] = False,
    diversity: Annotated[
        float,
        typer.Option(
            "--diversity",
            min=0,
            max=1,
            rich_help_panel=_KEEP,
            help="0: by score alone; towards 1: unlike those before.",
        ),
    ] = 0.0,
    duplicates: Annotated[
        float | None,
        typer.Option("--duplicates", rich_help_panel=_KEEP, help="Of pictures this alike keep the best, such as 0.94."),
    ] = None,
    copy_to: Annotated[Path | None, typer.Option("--copy-to", rich_help_panel=_DO, help="Copy the kept there.")] = None,
    move_to: Annotated[Path | None, typer.Option("--move-to", rich_help_panel=_DO, help="Move the kept there.")] = None,
    link_to: Annotated[Path | None, typer.Option("--link-to", rich_help_panel=_DO, help="Link the kept there.")] = None,
    write_back: Annotated[
        str | None,
        typer.Option("--write-back", rich_help_panel=_DO, help="score (into PNG text) or rating (one to five stars)."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", rich_help_panel=_DO, help="Say what would be done.")] = False,
    undo: Annotated[
        Path | None, typer.Option("--undo", rich_help_panel=_DO, help="Take the last moves into a folder back.")
    ] = None,
    apply: Annotated[
        Path | None, typer.Option("--apply", rich_help_panel=_DO, help="Take the list that a contact sheet saved.")
    ] = None,
    agreement: Annotated[
        Path | None,
        typer.Option("--agreement", rich_help_panel=_RATE, help="Ratings (image, rating): how far do scores agree?"),
    ] = None,
    fit: Annotated[
        Path | None,
        typer.Option("--fit", rich_help_panel=_RATE, help="Ratings, or keeps and deletes, to fit a head on."),
    ] = None,
    fit_to: Annotated[
        Path | None,
        typer.Option("--fit-to", rich_help_panel=_RATE, help="The head's file, which --aesthetic takes: .safetensors."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", rich_help_panel=_OUTPUT, help="A JSON line per picture.")] = False,
    as_paths: Annotated[
        bool, typer.Option("--paths", rich_help_panel=_OUTPUT, help="Only the paths of kept pictures.")
    ] = False,
    print0: Annotated[
        bool, typer.Option("--print0", rich_help_panel=_OUTPUT, help="The same, each ended by NUL, for xargs -0.")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option("--html", rich_help_panel=_OUTPUT, help="A contact sheet: look, compare, choose in a browser."),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv", rich_help_panel=_OUTPUT, help="Every row into a file: .csv, .tsv, .jsonl, .json, .parquet."
        ),
    ] = None,
) -> None:
    """Score pictures against a prompt, sort them, and say which to keep.

    A prompt of any length counts in full. The table shows what is kept, --json every picture. One that cannot be read
    is listed with the reason, and the rest goes on: the exit code is 3 only if no picture could be scored.
    """
    if assign and (as_paths or print0):
        raise OptionsError("--assign shows matches, not paths; leave --paths and --print0 out, or --assign")
    if sum((as_json, as_paths, print0)) > 1:
        raise OptionsError("--json, --paths and --print0 exclude each other")
    actions = ActionOptions(
        copy_to=copy_to,
        move_to=move_to,
        link_to=link_to,
        write_back=write_back,  # type: ignore[arg-type]
        dry_run=dry_run,
    )
    if undo is not None or apply is not None:
        _without_scores(undo, apply, actions, bool(images or pairs))
        return
    options = RerankOptions(
        images=tuple(images or ()),
        prompt=prompt,
        negative_prompt=negative_prompt,
        prompts=prompts,
        assign=assign,
        pairs=pairs,
        model=model,
        score=score,
        distractors=distractors,
        aesthetic=aesthetic,
        scores=scores,
        long_prompt=long_prompt,  # type: ignore[arg-type]
        phrases=phrases,
        missing_margin=missing_margin,
        top=top,
        top_percent=top_percent,
        thresholds=tuple(threshold or ()),
        per_prompt=per_prompt,
        diversity=diversity,
        duplicates=duplicates,
        recursive=recursive,
        batch_size=batch_size,
        cache=not no_cache,
    )
    rating = RatingOptions(agreement=agreement, fit=fit, head=fit_to)
    given = read_given(rating)
    if csv is not None:
        _check_output(csv)
    if html is not None:
        refuse_to_overwrite(html)
    with progress() as events:
        ranking = run(options, events)
        report = compare(ranking, given, rating, events)
        page = None if html is None else _sheet(ranking, events)  # before a picture is moved
        outcome = act_on(ranking, actions, events)
    if report is not None:
        _show_report(report, as_json)
    elif assign:
        _show_assignment(ranking, as_json)
    else:
        _output(ranking, as_json=as_json, as_paths=as_paths, print0=print0)
    if csv is not None:
        _write(csv, ranking)
    if html is not None and page is not None:
        write_file(html, page)
    if not (as_json or as_paths or print0) or not ranking.kept:
        _summarise(ranking, options)
    _show_outcome(outcome, actions)
    if not ranking.scored:
        raise typer.Exit(FAILED)


def _without_scores(undo: Path | None, apply: Path | None, actions: ActionOptions, pictures: bool) -> None:
    """Run `--undo` or `--apply`, which need no model."""
    if pictures or (undo is not None and apply is not None):
        raise OptionsError(
            f"{'--undo' if undo is not None else '--apply'} names the pictures itself; leave the others out"
        )
    if undo is None:
        assert apply is not None
        with progress() as events:
            _show_outcome(apply_chosen(apply, actions, events), actions)
        return
    if actions.target is not None or actions.write_back is not None:
        raise OptionsError("--undo takes moves back and does nothing else; leave the others out")
    undone = take_back(undo)
    typer.echo(f"{len(undone.restored):,} of {len(undone.restored) + len(undone.kept):,} taken back", err=True)
    for path, reason in undone.kept:
        typer.echo(f"note: {visible(str(path))} {visible(reason)}", err=True)
    if undone.kept:
        raise typer.Exit(FAILED)


def _check_output(path: Path) -> None:
    from clipcond.rerank.output import check_output

    check_output(path)


def _sheet(ranking: Ranking, events: Events) -> str:
    from clipcond.pages.contact_sheet import contact_sheet
    from clipcond.workflows.events import task

    with task(events, "thumbnails", len({row.path for row in ranking.scored}), "pictures") as advance:
        return contact_sheet(ranking, on_progress=advance)


def _write(path: Path, ranking: Ranking) -> None:
    from clipcond.rerank.output import write_ranking

    write_ranking(path, ranking)


def _output(ranking: Ranking, *, as_json: bool, as_paths: bool, print0: bool) -> None:
    if as_json:
        for row in ranking.rows:
            print_json(row.to_json())
    elif as_paths or print0:
        _write_paths(ranking, b"\0" if print0 else b"\n")
    else:
        show(ranking)


def _show_report(report: RatingReport, as_json: bool) -> None:
    """Print how far scores agree with people, and what was fitted, in place of the ranking."""
    from clipcond.cli.rerank_ratings import show_report

    if as_json:
        print_json(report.to_json())
    else:
        show_report(report)


def _show_assignment(ranking: Ranking, as_json: bool) -> None:
    """Print the matches of prompts and pictures."""
    from clipcond.cli.rerank_table import show_assignment
    from clipcond.rerank.assignment import assign

    if as_json:
        print_json(assign(ranking).to_json())
    else:
        show_assignment(assign(ranking))


def _write_paths(ranking: Ranking, end: bytes) -> None:
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


def _show_outcome(outcome: Outcome, actions: ActionOptions) -> None:
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
            typer.echo(f"{len(outcome.moves.done):,} files {done} to {visible(str(folder))}{back}", err=True)
    for path, reason in failed:
        typer.echo(f"note: {visible(str(path))} {visible(reason)}", err=True)
