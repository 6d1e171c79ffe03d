"""SIGINT and SIGTERM during a run: at once before the first step, at the end of a step from then on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopSignals:
    """Signals that ask a run to end. Until `defer` each raises KeyboardInterrupt; then it sets `came`."""

    def __init__(self) -> None:
        self.came = False
        self._deferred = False

    def defer(self) -> None:
        """From now on only note signals, so that the run can save."""
        self._deferred = True

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.came = True
        if not self._deferred:
            raise KeyboardInterrupt


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Take SIGINT and SIGTERM for a while; outside the main thread, where none can be caught, none comes."""
    signals = StopSignals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.signal(kind, signals._handle) for kind in kinds}
    try:
        yield signals
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler or signal.SIG_DFL)
