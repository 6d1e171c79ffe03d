"""Ctrl-C from the first moment on: an interruption that an import or a library swallows is not lost.

One that comes while a module is being imported waits until that is done: an exception in the midst of a C++ library's
import (torch's) ends the whole process with a dump.
"""

from __future__ import annotations

import _thread
import builtins
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_seen: list[int] = []  # signals of this run of the command line
_told: list[str] = []  # what was said of them
_noting = threading.Event()  # a block of `noted` is open
_asked_again = threading.Event()  # the signal is our own, of an interruption that waits for an import
_raised = threading.Event()  # KeyboardInterrupt has come out of it
_waiting: list[threading.Timer] = []
_import = builtins.__import__
_PAUSE = 0.02  # seconds from one look at an import that is under way to the next


@contextmanager
def noted() -> Iterator[None]:
    """Note every SIGINT for as long as the block runs; each raises KeyboardInterrupt where the program stands, as usual.

    The first one lets an import end before.
    """
    _seen.clear()
    _told.clear()
    _asked_again.clear()
    _raised.clear()
    _noting.set()
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
        _noting.clear()
        _import_freely()
        while _waiting:
            timer = _waiting.pop()
            timer.cancel()
            timer.join()  # what it asks from now on, `_take` passes over; a handler of others would not
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
        _raise()


def _quiet(unraisable: UnraisableHookArgs) -> None:
    """Say nothing of an interruption in a destructor or a callback of the collector, which Python can only print."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)


def _take(number: int, frame: FrameType | None) -> None:
    waited = _asked_again.is_set()
    _asked_again.clear()
    if waited and (_raised.is_set() or not _noting.is_set()):  # by `check`, in the meantime; or all is done
        return
    if not waited:
        _seen.append(number)
    if len(_seen) > 1 or not _imports(frame):
        _raise()
    builtins.__import__ = _import_unless_interrupted
    waiting = threading.Timer(_PAUSE, _ask_again)
    waiting.daemon = True
    waiting.start()
    _waiting.append(waiting)


def _raise() -> NoReturn:
    _raised.set()
    _import_freely()
    raise KeyboardInterrupt


def _import_freely() -> None:
    if builtins.__import__ is _import_unless_interrupted:  # another's hook is left alone
        builtins.__import__ = _import


def _ask_again() -> None:
    if _noting.is_set() and not _raised.is_set():
        _asked_again.set()
        _thread.interrupt_main()


def _import_unless_interrupted(*args: Any, **kwargs: Any) -> Any:
    """Import a module; the interruption that waited for another import to end comes before the next one of ours begins."""
    if threading.current_thread() is threading.main_thread() and not _imports(sys._getframe(1)):
        _raise()
    return _import(*args, **kwargs)


def _imports(frame: FrameType | None) -> bool:
    """True if the command line stands in the import of a module."""
    while frame is not None and frame.f_globals.get("__name__") != "clipcond.cli.main":
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
