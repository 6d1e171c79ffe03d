"""The words of a training run on standard error: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING

import typer

from clipcond.cli.interruption import check
from clipcond.cli.render import stderr_console
from clipcond.wording import visible
from clipcond.workflows.events import Event, Finished, Note, Started
from clipcond.workflows.train_events import DriftSeen, Evaluated, StepDone, StepTaken, TrainingStarted

if TYPE_CHECKING:
    from rich.text import Text

    from clipcond.train.run_log import Progress

_SHORT = {"data": "data", "forward_backward": "towers", "step": "update"}


def training_lines() -> PlainLines:
    """Return what shows the events of a run, as a context manager."""
    return LiveLine() if sys.stderr.isatty() else PlainLines()


class PlainLines:
    """A line for each line of the log, and nothing between them."""

    def __init__(self) -> None:
        self._total, self._left = 0, 0.0
        self._steps = False

    def __enter__(self) -> PlainLines:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nothing is open."""

    def __call__(self, event: Event) -> None:
        check()
        match event:
            case Note():
                self._print(f"note: {visible(event.text)}")
            case TrainingStarted():
                self._total = event.steps
                self._print(
                    f"{event.images} images, {event.captions} captions; {event.steps_per_epoch} steps an epoch; "
                    f"{event.steps} steps, {event.warmup} of warm-up; {event.trainable:,} weights train "
                    f"on {event.device}" + (_resumed(event) if event.resumed else "")
                )
            case Evaluated():
                self._print(
                    f"step {event.step}  {_recalls(event.image_to_text)} image to text, "
                    f"{_recalls(event.text_to_image)} text to image, among {event.images}"
                )
            case DriftSeen():
                self._print(f"step {event.step}  general prompts moved: {_drifts(event)}")
            case StepDone():
                self._step(event)
            case Started():
                self._begin(event.task)
            case StepTaken():
                self._steps, self._left = True, event.progress.seconds_left

    def _begin(self, what: str) -> None:
        if self._total and not self._steps:  # what may take long before the first step
            self._print(visible(what))

    def _step(self, event: StepDone) -> None:
        self._print(
            f"step {event.step}/{self._total}  loss {event.loss:.4f}{_terms(event.terms)}  "
            f"learning rate {event.learning_rate:.2e}  scale {event.logit_scale:.1f}  norm {event.grad_norm:.2f}  "
            f"{event.pairs_per_second:.0f} pairs/s{_stages(event.by_stage)}  {_duration(self._left)} left"
        )

    def _print(self, text: str) -> None:
        typer.echo(text, err=True)


class LiveLine(PlainLines):
    """The last line of the terminal says where the run is, from its first moment and at each step; the others stay above."""

    def __init__(self) -> None:
        super().__init__()
        self._open = ExitStack()
        self._began = time.monotonic()
        self._phase, self._recall = "starting", ""
        self._last: StepDone | None = None
        self._progress: Progress | None = None

    def __enter__(self) -> PlainLines:
        from rich.live import Live

        live = Live(
            get_renderable=self._line, console=stderr_console(), transient=True, refresh_per_second=4,
            redirect_stdout=sys.stdout.isatty(),
        )  # fmt: skip
        self._open.enter_context(live)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()
        if self._last is not None:
            super()._step(self._last)

    def __call__(self, event: Event) -> None:
        match event:
            case StepTaken():
                self._progress = event.progress
            case Finished():
                self._phase = ""
            case Evaluated():
                self._recall = f"  R@1 {100 * (event.image_to_text['R@1'] + event.text_to_image['R@1']) / 2:.1f} %"
        super().__call__(event)

    def _begin(self, what: str) -> None:
        self._phase = visible(what)

    def _step(self, event: StepDone) -> None:
        self._last = event

    def _line(self) -> Text:
        from rich.text import Text

        return Text(self._said(), no_wrap=True, overflow="ellipsis")

    def _said(self) -> str:
        """The line as it is now."""
        progress, phase = self._progress, self._phase
        if progress is None:
            return f"{phase or 'first step'} … {time.monotonic() - self._began:.0f} s"
        return (
            f"step {progress.step}/{progress.steps}  {_duration(progress.seconds_left)} left  loss {progress.loss:.4f}"
            f"{self._recall}  temperature {progress.temperature:.4f}  {progress.pairs_per_second:.0f} pairs/s"
            f"{_stages(progress.by_stage)}" + (f"  {phase} …" if phase else "")
        )


def _terms(terms: Mapping[str, float]) -> str:
    """The terms of a loss that has several."""
    return "" if len(terms) < 2 else f" ({', '.join(f'{name} {value:.4f}' for name, value in terms.items())})"


def _stages(by_stage: Mapping[str, float]) -> str:
    """The speed that each stage would have alone."""
    told = [f"{short} {_brief(by_stage[name])}" for name, short in _SHORT.items() if name in by_stage]
    return f" ({', '.join(told)})" if told else ""


def _brief(number: float) -> str:
    """Three digits are enough: 412, 9.8k, 1.2M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}" if number < 1000 * size else f"over 999{letter}"
    return f"{number:.0f}"


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds, the hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _drifts(event: DriftSeen) -> str:
    kinds = ("words", "bos", "eos", "padding", "empty", "pooled")
    told = [f"{name} {event.measures[name]:.4f}" for name in kinds if name in event.measures]
    return f"1 - cosine {', '.join(told)}; spread {event.spread_ratio:.2f}"


def _resumed(event: TrainingStarted) -> str:
    if event.step >= event.steps:
        return "; all steps were done before, nothing is left to train"
    return f"; goes on at step {event.step}"


def _recalls(recalls: Mapping[str, float]) -> str:
    ks = "/".join(name.removeprefix("R@") for name in recalls)
    return f"R@{ks} {'/'.join(f'{100 * value:.1f}' for value in recalls.values())} %"
