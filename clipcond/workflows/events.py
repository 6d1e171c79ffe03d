"""The events of all jobs: progress and notes, for a terminal, a page or a notebook to show.

A job whose results come one by one, or that reports numbers on its way, adds its own subclasses of Event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class Event:
    """Anything that a job says before it returns."""

    __slots__ = ()


Events = Callable[[Event], object]


@dataclass(frozen=True, slots=True)
class Started(Event):
    """A task began. total: its length in units; None where nobody knows."""

    task: str
    total: int | None = None
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Advanced(Event):
    """The running task is `count` units further."""

    count: int = 1


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """The running task ended, also by an error."""


@dataclass(frozen=True, slots=True)
class Note(Event):
    """Something that the user should know, in one line; its text may hold control characters of a prompt or a path."""

    text: str


def ignore(event: Event) -> None:
    """Take an event and show nothing."""


@contextmanager
def task(events: Events, name: str, total: int | None = None, unit: str = "") -> Iterator[Callable[[int], None]]:
    """Announce a task for as long as the block runs; gives a function that says how many units were done."""

    def advance(count: int) -> None:
        events(Advanced(count))

    events(Started(name, total, unit))
    try:
        yield advance
    finally:
        events(Finished())
