"""`clipcond train` and `clipcond evaluate`: retrain a dual encoder, and measure one."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from clipcond.cli.app import INTERRUPTED, app

Text = Annotated[str | None, typer.Option()]


@app.command()
def train(
    config: Annotated[Path | None, typer.Argument(help="A TOML file of settings; flags win over it.")] = None,
    data: Annotated[
        str | None, typer.Option(help="CSV, TSV, JSONL, a WebDataset tar, a glob or folder of tars.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="mini, or an open_clip folder.")] = None,
    out: Annotated[str | None, typer.Option(help="The run's folder; an unfinished run in it goes on.")] = None,
    val_data: Annotated[str | None, typer.Option(help="Held-out pairs for retrieval.")] = None,
    val_count: Annotated[int | None, typer.Option(help="Hold out this many images of --data instead.")] = None,
    max_bad_rows: Annotated[int | None, typer.Option(help="Leave out so many rows that will not do (0).")] = None,
    steps: Annotated[int | None, typer.Option(help="Length of the run in steps.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Length of the run in passes over the data (5).")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pairs a step (256).")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate (1e-5).")] = None,
    rate: Annotated[float | None, typer.Option(hidden=True)] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Decay of weight matrices (0.1).")] = None,
    warmup: Annotated[int | None, typer.Option(help="Steps of linear warm-up (a tenth, 500 at the most).")] = None,
    grad_clip: Annotated[float | None, typer.Option(help="Largest norm of a gradient (1.0).")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides order, captions and random weights (0).")] = None,
    precision: Annotated[str | None, typer.Option(help="float32 or bf16.")] = None,
    freeze: Annotated[list[str] | None, typer.Option(help="text or image; may be repeated.")] = None,
    init: Annotated[str | None, typer.Option(help="weights, or random to start from nothing.")] = None,
    captions: Annotated[str | None, typer.Option(help="Of several captions: random or first.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, …")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    cache_gib: Annotated[
        float | None, typer.Option(help="Keep decoded pictures in memory up to this size (4).")
    ] = None,
    log_every: Annotated[int | None, typer.Option(help="Steps between log lines (50).")] = None,
    eval_every: Annotated[int | None, typer.Option(help="Steps between evaluations (500).")] = None,
    save_every: Annotated[int | None, typer.Option(help="Steps between checkpoints (500).")] = None,
    keep: Annotated[int | None, typer.Option(help="Checkpoints to keep (2).")] = None,
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="Resume although settings or data differ.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a dual encoder on image-caption pairs; an interrupted run goes on where it stopped."""
    given = {name: value for name, value in locals().items() if value is not None}
    for name in ("config", "allow_changes", "as_json"):
        given.pop(name, None)
    if "steps" in given and config is not None:  # the flag replaces the file's length, however that is given
        given.setdefault("epochs", None)
    elif "epochs" in given and config is not None:
        given.setdefault("steps", None)

    if config is None and not {"data", "model", "out"} <= given.keys():
        raise typer.BadParameter("give a CONFIG.toml, or --data, --model and --out")

    from clipcond.train.config import from_mapping, from_toml

    settings = from_toml(config, given) if config is not None else from_mapping(given, source="the command line")

    from clipcond.train.loop import train as run

    result = run(settings, report=_Progress(), allow_changes=allow_changes)
    if as_json:
        retrieval = result.retrieval.to_dict() if result.retrieval else None
        typer.echo(json.dumps({
            "steps": result.steps, "loss": result.loss, "retrieval": retrieval,
            "model": str(result.model) if result.model else None, "interrupted": result.interrupted,
        }))  # fmt: skip
    elif result.model:
        typer.echo(str(result.model))
    if result.interrupted:
        typer.echo(f"stopped at step {result.steps}; the same command goes on from there", err=True)
        raise typer.Exit(INTERRUPTED)


@app.command()
def evaluate(
    model: Annotated[str, typer.Option(help="Any model spec with both towers.")],
    data: Annotated[str, typer.Option(help="CSV, TSV, JSONL, a WebDataset tar, a glob or folder of tars.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure retrieval, image to text and text to image, among all pairs of a data source."""
    from clipcond.train.evaluate import evaluate as measure

    found = measure(model, data).to_dict()
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo(f"{found['images']} images, {found['texts']} captions")
    for side in ("image_to_text", "text_to_image"):
        typer.echo(
            f"{side.replace('_', ' '):14}" + "".join(f"{name:>6} {share:6.1%}" for name, share in found[side].items())
        )


class _Progress:
    """Log lines for people, on stderr: a line that rewrites itself on a terminal, one line each elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._total, self._start, self._first = 0, time.monotonic(), 0

    def __call__(self, line: dict[str, Any]) -> None:
        event = line.get("event")
        if event in ("start", "resume"):
            self._total, self._start, self._first = line["steps"], time.monotonic(), line["step"]
            self._say(
                f"{line['images']} images, {line['captions']} captions; {line['steps_per_epoch']} steps an epoch; "
                f"{line['steps']} steps, {line['warmup']} of warm-up; {line['trainable']:,} weights train "
                f"on {line['device']}" + (f"; goes on at step {line['step']}" if event == "resume" else "")
            )
        elif event == "evaluation":
            forth, back = line["image_to_text"], line["text_to_image"]
            self._say(
                f"step {line['step']}  R@1/5/10 among {line['images']}: image to text "
                + "/".join(f"{100 * value:.1f}" for value in forth.values())
                + ", text to image "
                + "/".join(f"{100 * value:.1f}" for value in back.values())
            )
        elif event is None:
            done = line["step"] - self._first
            left = (time.monotonic() - self._start) / max(1, done) * (self._total - line["step"])
            self._say(
                f"step {line['step']}/{self._total}  loss {line['loss']:.4f}  rate {line['rate']:.2e}  "
                f"scale {line['logit_scale']:.1f}  norm {line['grad_norm']:.2f}  "
                f"{line['pairs_per_second']:.0f} pairs/s  {left / 60:.0f} min left",
                passing=self._terminal and line["step"] < self._total,
            )

    def _say(self, text: str, *, passing: bool = False) -> None:
        clear = "\r\x1b[K" if self._terminal else ""
        typer.echo(clear + text, err=True, nl=not passing)
