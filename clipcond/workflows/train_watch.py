"""A listener of a training run that makes events of what it hears."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clipcond.train.run_log import Listener, Progress
from clipcond.workflows.events import Events, Finished, Started
from clipcond.workflows.train_events import StepTaken, event_of


@contextmanager
def watch(events: Events) -> Iterator[Listener]:
    """Give the listener; a phase that an error ends is finished, too."""
    watcher = _Watcher(events)
    try:
        yield watcher
    finally:
        watcher.end_phase()


class _Watcher(Listener):
    """Lines and steps as events of their own; a phase is a task, which the next word ends."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._in_phase = False

    def line(self, line: dict[str, Any]) -> None:
        self.end_phase()
        if event := event_of(line):
            self._events(event)

    def step(self, progress: Progress) -> None:
        self.end_phase()
        self._events(StepTaken(progress))

    def phase(self, what: str) -> None:
        self.end_phase()
        self._events(Started(what))
        self._in_phase = True

    def end_phase(self) -> None:
        """Finish the phase that is open, if one is."""
        if self._in_phase:
            self._events(Finished())
        self._in_phase = False
