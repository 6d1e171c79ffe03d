"""`clipcond train` and `clipcond evaluate`: retrain a dual encoder, and measure one."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipcond.cli.app import command
from clipcond.cli.exit_codes import INTERRUPTED
from clipcond.cli.progress import progress
from clipcond.cli.render import print_json
from clipcond.prompt.analysis.plan_summary import counted
from clipcond.wording import visible
from clipcond.workflows.evaluate import EvaluateOptions
from clipcond.workflows.evaluate import run as measure
from clipcond.workflows.events import Event, Note
from clipcond.workflows.train import Evaluated, StepDone, TrainingStarted, TrainOptions, run

if TYPE_CHECKING:
    from clipcond.train.loop import TrainResult


@command
def train(
    config: Annotated[Path | None, typer.Argument(help="A TOML file of settings; flags win over it.")] = None,
    data: Annotated[
        str | None, typer.Option(metavar="TEXT", help="CSV, TSV, JSONL, a WebDataset tar, a glob or folder of tars.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="TEXT", help="mini, or an open_clip folder.")] = None,
    out: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The run's folder; an unfinished run in it goes on.")
    ] = None,
    val_data: Annotated[str | None, typer.Option(metavar="TEXT", help="Held-out pairs for retrieval.")] = None,
    val_count: Annotated[
        int | None, typer.Option(metavar="N", help="Hold out this many images of --data instead.")
    ] = None,
    max_bad_rows: Annotated[
        int | None, typer.Option(metavar="N", help="Leave out so many rows that will not do (0).")
    ] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Length of the run in steps.")] = None,
    epochs: Annotated[
        float | None, typer.Option(metavar="X", help="Length of the run in passes over the data (5).")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(metavar="N", help="Pairs a step (256).")] = None,
    learning_rate: Annotated[float | None, typer.Option(metavar="X", help="Peak learning rate (1e-5).")] = None,
    rate: Annotated[float | None, typer.Option(hidden=True)] = None,
    weight_decay: Annotated[float | None, typer.Option(metavar="X", help="Decay of weight matrices (0.1).")] = None,
    warmup: Annotated[
        int | None, typer.Option(metavar="N", help="Steps of linear warm-up (a tenth, 500 at the most).")
    ] = None,
    grad_clip: Annotated[float | None, typer.Option(metavar="X", help="Largest norm of a gradient (1.0).")] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Decides order, captions and random weights (0).")
    ] = None,
    precision: Annotated[str | None, typer.Option(metavar="TEXT", help="float32 or bf16.")] = None,
    freeze: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="text or image; may be repeated.")] = None,
    init: Annotated[str | None, typer.Option(metavar="TEXT", help="weights, or random to start from nothing.")] = None,
    captions: Annotated[str | None, typer.Option(metavar="TEXT", help="Of several captions: random or first.")] = None,
    device: Annotated[str | None, typer.Option(metavar="TEXT", help="auto, cpu, cuda, …")] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", help="CPU threads.")] = None,
    cache_gib: Annotated[
        float | None, typer.Option(metavar="X", help="Keep decoded pictures in memory up to this size (4).")
    ] = None,
    log_every: Annotated[int | None, typer.Option(metavar="N", help="Steps between log lines (50).")] = None,
    eval_every: Annotated[int | None, typer.Option(metavar="N", help="Steps between evaluations (500).")] = None,
    save_every: Annotated[int | None, typer.Option(metavar="N", help="Steps between checkpoints (500).")] = None,
    keep: Annotated[int | None, typer.Option(metavar="N", help="Checkpoints to keep (2).")] = None,
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="Resume although settings or data differ.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a dual encoder on image-caption pairs.

    The same command goes on with an interrupted run where it stopped.
    """
    settings: dict[str, object] = {
        "data": data,
        "model": model,
        "out": out,
        "val_data": val_data,
        "val_count": val_count,
        "max_bad_rows": max_bad_rows,
        "steps": steps,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "rate": rate,
        "weight_decay": weight_decay,
        "warmup": warmup,
        "grad_clip": grad_clip,
        "seed": seed,
        "precision": precision,
        "freeze": freeze,
        "init": init,
        "captions": captions,
        "device": device,
        "threads": threads,
        "cache_gib": cache_gib,
        "log_every": log_every,
        "eval_every": eval_every,
        "save_every": save_every,
        "keep": keep,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    result = run(TrainOptions(config=config, settings=given, allow_changes=allow_changes), TrainingLines())
    _show(result, as_json=as_json)
    if result.interrupted:
        typer.echo(f"stopped at step {result.steps}; the same command goes on from there", err=True)
        raise typer.Exit(INTERRUPTED)


def _show(result: TrainResult, *, as_json: bool) -> None:
    """Print the result as JSON, or the folder of the model."""
    if as_json:
        print_json({
            "steps": result.steps, "loss": result.loss,
            "retrieval": result.retrieval.to_dict() if result.retrieval else None,
            "model": str(result.model) if result.model else None, "interrupted": result.interrupted,
        })  # fmt: skip
    elif result.model:
        typer.echo(str(result.model))
        if sys.stderr.isatty():
            run = visible(shlex.quote(str(result.model.parent)))
            for what, command_line in (
                ("what it knows", f"evaluate --model {run} --data PAIRS.csv"),
                ("into a pipeline", f"export {run} --to diffusers --into PIPELINE --out FOLDER"),
            ):
                typer.echo(f"{what:17}clipcond {command_line}", err=True)


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
        found = measure(EvaluateOptions(model, data), events).to_dict()
    if as_json:
        print_json(found)
        return
    typer.echo(f"{counted(found['images'], 'image')}, {counted(found['texts'], 'caption')}")
    for side in ("image_to_text", "text_to_image"):
        typer.echo(
            f"{side.replace('_', ' '):14}" + "".join(f"{name:>6} {share:6.1%}" for name, share in found[side].items())
        )


class TrainingLines:
    """Log lines for people, on stderr: a line that rewrites itself on a terminal, one line each elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._total, self._start, self._first = 0, time.monotonic(), 0

    def __call__(self, event: Event) -> None:
        match event:
            case Note():
                self._print(f"note: {visible(event.text)}")
            case TrainingStarted():
                self._total, self._start, self._first = event.steps, time.monotonic(), event.step
                self._print(
                    f"{event.images} images, {event.captions} captions; {event.steps_per_epoch} steps an epoch; "
                    f"{event.steps} steps, {event.warmup} of warm-up; {event.trainable:,} weights train "
                    f"on {event.device}" + (_resumed(event) if event.resumed else "")
                )
            case Evaluated():
                self._print(
                    f"step {event.step}  R@1/5/10 among {event.images}: "
                    f"image to text {_recalls(event.image_to_text)}, text to image {_recalls(event.text_to_image)}"
                )
            case StepDone():
                done = event.step - self._first
                left = (time.monotonic() - self._start) / max(1, done) * (self._total - event.step)
                self._print(
                    f"step {event.step}/{self._total}  loss {event.loss:.4f}  learning rate {event.learning_rate:.2e}  "
                    f"scale {event.logit_scale:.1f}  norm {event.grad_norm:.2f}  "
                    f"{event.pairs_per_second:.0f} pairs/s  {left / 60:.0f} min left",
                    passing=self._terminal and event.step < self._total,
                )

    def _print(self, text: str, *, passing: bool = False) -> None:
        clear = "\r\x1b[K" if self._terminal else ""
        typer.echo(clear + text, err=True, nl=not passing)


def _resumed(event: TrainingStarted) -> str:
    if event.step >= event.steps:
        return "; all steps were done before, nothing is left to train"
    return f"; goes on at step {event.step}"


def _recalls(recalls: Mapping[str, float]) -> str:
    return "/".join(f"{100 * value:.1f}" for value in recalls.values())
