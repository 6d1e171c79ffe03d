"""`clipcond train --encoder both`: the outcome of two runs, of both text encoders of a pipeline."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

import typer

from clipcond.cli.exit_codes import INTERRUPTED
from clipcond.cli.render import print_json
from clipcond.train.encoders import FIRST_PART, SECOND_PART
from clipcond.wording import visible

if TYPE_CHECKING:
    from clipcond.train.loop import TrainResult
    from clipcond.workflows.train_pair import PairResult


def show_pair(pair: PairResult, *, as_json: bool) -> None:
    """Print both results as JSON, or the folder that holds both runs. Raises Exit where a signal ended one."""
    if as_json:
        print_json({
            FIRST_PART: _document(pair.first), SECOND_PART: _document(pair.second) if pair.second else None,
            "model": str(pair.model) if pair.model else None, "interrupted": pair.last.interrupted,
        })  # fmt: skip
    elif pair.model:
        typer.echo(str(pair.model))
        if sys.stderr.isatty():
            run = visible(shlex.quote(str(pair.model)))
            typer.echo(f"into a pipeline  clipcond export {run} --to diffusers --into PIPELINE --out FOLDER", err=True)
    if pair.last.interrupted:
        part = SECOND_PART if pair.second else FIRST_PART
        typer.echo(f"stopped at step {pair.last.steps} of {part}; the same command goes on from there", err=True)
        raise typer.Exit(INTERRUPTED)


def _document(result: TrainResult) -> dict[str, object]:
    return {
        "steps": result.steps, "loss": result.loss,
        "retrieval": result.retrieval.to_dict() if result.retrieval else None,
        "model": str(result.model) if result.model else None,
    }  # fmt: skip
