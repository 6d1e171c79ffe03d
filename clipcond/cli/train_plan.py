"""The output of `clipcond train --plan`: what a run would take, a line each."""

from __future__ import annotations

from collections.abc import Iterator

import typer

from clipcond.cli.exit_codes import CHECK_FAILED
from clipcond.cli.progress import progress
from clipcond.cli.render import print_json
from clipcond.prompt.analysis.plan_summary import counted
from clipcond.wording import visible
from clipcond.workflows.train_plan import PlanOptions, TrainPlan, run

_GIB = 2**30


def show_plan(options: PlanOptions, *, as_json: bool) -> None:
    """Plan a run and show it; exits with 1 where the memory that was given does not suffice."""
    with progress() as events:
        found = run(options, events)
    if as_json:
        print_json(found.to_json())
    else:
        for what, text in _lines(found):
            typer.echo(f"{what:13} {visible(text)}")
    if options.gpu_memory is not None and not found.fits:
        raise typer.Exit(CHECK_FAILED)


def _lines(found: TrainPlan) -> Iterator[tuple[str, str]]:
    config, sizes = found.config, found.footprint
    yield (
        "model",
        (
            f"{config.model}: {sizes.parameters:,} weights (image tower {sizes.image:,}, text tower {sizes.text:,}), "
            f"{sizes.trained:,} train"
        ),
    )
    yield "captions", found.lengths
    yield "steps", _steps(found)
    for number, (name, size) in enumerate(found.memory.parts().items()):
        yield "" if number else "memory", f"{size / _GIB:8.2f} GiB  {name}"
    where = f"a GPU, {found.config.batch_size // found.gpus} pairs each" if found.gpus else "on this CPU"
    yield "at the peak", f"{found.memory.peak / _GIB:8.2f} GiB  {where}{_verdict(found)}"
    for each in found.advice:
        yield "advice", each


def _steps(found: TrainPlan) -> str:
    batch = f"batches of {found.config.batch_size}" + (f" on {counted(found.gpus, 'GPU')}" if found.gpus else "")
    if found.steps is None:
        return f"{batch}; --data or --images gives the steps"
    if found.steps_per_epoch is None:
        return f"{batch}; {counted(found.steps, 'step')}, {found.warmup} of warm-up"
    return (
        f"{batch}; {counted(found.images or 0, 'image')}, {counted(found.steps_per_epoch, 'step')} an epoch; "
        f"{counted(found.steps, 'step')}, {found.warmup} of warm-up, {found.steps / found.steps_per_epoch:.1f} epochs"
    )


def _verdict(found: TrainPlan) -> str:
    if found.room is None:
        return ""
    return f"; {found.room / _GIB:.1f} GiB can be used: {'it fits' if found.fits else 'it does not fit'}"
