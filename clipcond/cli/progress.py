"""The events of a job on standard error: notes always, a bar or a spinner on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import typer

from clipcond.cli.interruption import check
from clipcond.cli.render import stderr_console
from clipcond.wording import visible
from clipcond.workflows.events import Advanced, Event, Events, Finished, Note, Started


@contextmanager
def progress() -> Iterator[Events]:
    """Show events for as long as the block runs; gives the function that takes them."""
    with ExitStack() as running:
        yield _Progress(running)


class _Progress:
    """Shows one task at a time; `running` closes what an exception leaves on the screen."""

    def __init__(self, running: ExitStack) -> None:
        self._running = running
        self._advance: Callable[[int], object] = _ignore

    def __call__(self, event: Event) -> None:
        check()  # for a Ctrl-C that a library swallowed
        match event:
            case Note():
                typer.echo(f"note: {visible(event.text)}", err=True)
            case Started() if sys.stderr.isatty():
                self._advance = self._running.enter_context(_spinner(event) if event.total is None else _bar(event))
            case Advanced():
                self._advance(event.count)
            case Finished():
                self._running.pop_all().close()
                self._advance = _ignore


def _ignore(count: int) -> None:
    """Advance nothing."""


@contextmanager
def _spinner(started: Started) -> Iterator[Callable[[int], object]]:
    from rich.text import Text

    with stderr_console().status(Text(visible(started.task))):
        yield _ignore


@contextmanager
def _bar(started: Started) -> Iterator[Callable[[int], object]]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    done = MofNCompleteColumn() if started.unit == "pictures" else TaskProgressColumn()
    columns = TextColumn("{task.description}", markup=False), BarColumn(), done, TimeRemainingColumn()
    # Rich would send stdout through its own console, which is stderr: right on a terminal, wrong for a pipe or a file
    with Progress(*columns, console=stderr_console(), transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task(visible(started.task), total=started.total)
        yield lambda count: bar.advance(task, count)
