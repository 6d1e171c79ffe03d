"""Ctrl-C from the first moment on: an interruption that an import or a library swallows is not lost."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_seen: list[int] = []  # signals of this run of the command line
_told: list[str] = []  # what was said of them


@contextmanager
def noted() -> Iterator[None]:
    """Note every SIGINT for as long as the block runs; each raises KeyboardInterrupt where the program stands, as usual."""
    _seen.clear()
    _told.clear()
    before = signal.getsignal(signal.SIGINT)
    unraisable, sys.unraisablehook = sys.unraisablehook, _quiet
    taken = before not in (signal.SIG_IGN, None)  # else started in the background: not for us
    try:
        if taken:
            signal.signal(signal.SIGINT, _take)
    except ValueError:  # not the main thread, which alone gets signals
        taken = False
    try:
        yield
    finally:
        sys.unraisablehook = unraisable
        if taken:
            signal.signal(signal.SIGINT, before)


def interrupted() -> bool:
    """Return True if a SIGINT came, whatever became of it."""
    return bool(_seen)


def tell(sentence: str) -> None:
    """Say what an interruption left, on standard error."""
    _told.append(sentence)
    sys.stderr.write(f"{sentence}\n")


def told() -> bool:
    """Return True if a sentence was said."""
    return bool(_told)


def check() -> None:
    """Raise KeyboardInterrupt if one came that something swallowed, and the work went on."""
    if _seen:
        raise KeyboardInterrupt


def _quiet(unraisable: UnraisableHookArgs) -> None:
    """Say nothing of an interruption in a destructor or a callback of the collector, which Python can only print."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)


def _take(number: int, frame: FrameType | None) -> None:
    _seen.append(number)
    raise KeyboardInterrupt
