"""`clipcond rerank`: which pictures match a prompt, or each its own, and what becomes of the best."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipcond.cli.app import command
from clipcond.cli.rerank_run import OutputOptions, rank_and_show, without_scores
from clipcond.workflows.rerank import RerankOptions
from clipcond.workflows.rerank_actions import ActionOptions
from clipcond.workflows.rerank_ratings import RatingOptions

_TEXTS, _SCORES, _KEEP, _DO, _RATE, _OUTPUT = (
    "Texts", "Scores", "What to keep", "What to do with it", "Ratings of people", "Output"
)  # fmt: skip


@command
def rerank(
    images: Annotated[
        list[str] | None, typer.Argument(help="Picture files, folders (their top level), tars, or quoted patterns.")
    ] = None,
    files_from: Annotated[
        str | None,
        typer.Option(
            "--files-from",
            help="A file of more names, or - (standard input): each ended by NUL, as of find -print0, or one a line.",
        ),
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Look into the folders below, too.")] = False,
    model: Annotated[
        str, typer.Option("--model", "-m", help="mini, emoji, NAME/PRETRAINED, hf:ID, or a folder.")
    ] = "mini",
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Pictures in one forward pass; on a CPU 8 at most.")
    ] = 32,
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            help="Of the image encoder: fp32 (exact), bf16, fp16, or auto: half of it where this machine is faster so.",
        ),
    ] = "fp32",
    device: Annotated[
        str | None, typer.Option(metavar="TEXT", help="cpu, cuda, …; CUDA where there is one.", show_default=False)
    ] = None,
    draft: Annotated[
        bool, typer.Option("--draft", help="Decode large JPEGs at a part of their size: quicker, not quite exact.")
    ] = False,
    view: Annotated[
        str | None,
        typer.Option(
            "--view", help="What the model sees: crop (the centre), pad, or tiles; by default as its config says."
        ),
    ] = None,
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
            "--long-prompt",
            rich_help_panel=_TEXTS,
            help="Beyond one pass (CLIP: 75 tokens): mean, max, first or min of chunks.",
        ),
    ] = "mean",
    score: Annotated[
        str,
        typer.Option(
            "--score",
            "-s",
            rich_help_panel=_SCORES,
            help="cosine, clipscore, logit, probability, pick, margin, refclipscore, iqa, aesthetic, a column of "
            '--scores, or a sum: "0.7*clipscore + 0.3*iqa". With commas the others are shown too.',
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
    reference: Annotated[
        list[str] | None,
        typer.Option(
            "--reference", rich_help_panel=_SCORES, help="Pictures to be like, for refclipscore; may be repeated."
        ),
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
    """Score and sort pictures, and say which to keep.

    A prompt of any length counts in full. The table shows what is kept, --json every picture. One that cannot be read
    is listed with the reason, and the rest goes on: the exit code is 3 only if no picture could be scored.
    """
    actions = ActionOptions(
        copy_to=copy_to,
        move_to=move_to,
        link_to=link_to,
        write_back=write_back,  # type: ignore[arg-type]
        dry_run=dry_run,
    )
    if undo is not None or apply is not None:
        without_scores(undo, apply, actions, bool(images or pairs or files_from))
        return
    options = RerankOptions(
        images=tuple(images or ()),
        files_from=files_from,
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
        references=tuple(reference or ()),
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
        precision=precision,  # type: ignore[arg-type]
        device=device,
        draft=draft,
        view=view,  # type: ignore[arg-type]
        cache=not no_cache,
    )
    rank_and_show(
        options,
        actions,
        RatingOptions(agreement=agreement, fit=fit, head=fit_to),
        OutputOptions(as_json=as_json, as_paths=as_paths, print0=print0, csv=csv, html=html),
    )
