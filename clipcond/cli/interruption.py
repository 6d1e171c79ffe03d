"""Ctrl-C from the first moment on: an interruption that an import or a library swallows is not lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_seen: list[int] = []  # signals of this run of the command line


@contextmanager
def noted() -> Iterator[None]:
    """Note every SIGINT for as long as the block runs; each raises KeyboardInterrupt where the program stands, as usual."""
    _seen.clear()
    before = signal.getsignal(signal.SIGINT)
    taken = before not in (signal.SIG_IGN, None)  # else started in the background: not for us
    try:
        if taken:
            signal.signal(signal.SIGINT, _take)
    except ValueError:  # not the main thread, which alone gets signals
        taken = False
    try:
        yield
    finally:
        if taken:
            signal.signal(signal.SIGINT, before)


def interrupted() -> bool:
    """Return True if a SIGINT came, whatever became of it."""
    return bool(_seen)


def check() -> None:
    """Raise KeyboardInterrupt if one came that something swallowed, and the work went on."""
    if _seen:
        raise KeyboardInterrupt


def _take(number: int, frame: FrameType | None) -> None:
    _seen.append(number)
    raise KeyboardInterrupt
