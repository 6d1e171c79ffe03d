"""The words of a run on itself: lines for its log and for whoever listens, and the speed of its steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from clipcond.train.objective import Losses
from clipcond.train.run_folder import RunFolder

Report = Callable[[dict[str, Any]], None]
STAGES = ("data", "forward_backward", "step")
_KEPT = 0.9  # of the mean seconds of a stage that a step leaves


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A step of a run, for whoever watches it.

    temperature: by which cosines are divided. pairs_per_second: recent speed; by_stage: what each stage alone would give,
    by the names of STAGES: waiting for a batch, the towers' way forth and back, the update of the weights.
    seconds_left: at that speed, without measurements.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    temperature: float
    pairs_per_second: float
    by_stage: Mapping[str, float]
    seconds_left: float


class Listener:
    """Someone who hears of a run while it goes; each overrides what is of interest."""

    def line(self, line: dict[str, Any]) -> None:
        """Take a line of the log."""

    def step(self, progress: Progress) -> None:
        """Take a step, each one."""

    def phase(self, what: str) -> None:
        """Hear what begins that may take a while."""

    def close(self) -> None:
        """Hear that no more will come."""


class JsonLines(Listener):
    """Writes the lines to the run's `log.jsonl`."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def line(self, line: dict[str, Any]) -> None:
        """Write it. Raises OSError, naming the log, on a full disk."""
        self._folder.log(line)


class Reporting(Listener):
    """Hands the lines to a function."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def line(self, line: dict[str, Any]) -> None:
        """Hand it on."""
        self._report(line)


class RunLog:
    """The listeners of a run; of several processes the first alone speaks to them."""

    def __init__(self, listeners: Sequence[Listener], *, speaks: bool = True) -> None:
        self._listeners = list(listeners) if speaks else []

    def add(self, listener: Listener) -> None:
        """Let one more hear."""
        self._listeners.append(listener)

    def line(self, step: int, **values: Any) -> None:
        """Say a line of the log. Raises OSError, naming the log, on a full disk."""
        line = {"step": step, "time": round(time.time(), 2), **values}
        for listener in self._listeners:
            listener.line(line)

    def step(self, progress: Progress) -> None:
        """Say that a step is done."""
        for listener in self._listeners:
            listener.step(progress)

    def phase(self, what: str) -> None:
        """Say what begins."""
        for listener in self._listeners:
            listener.phase(what)

    def close(self) -> None:
        """Say that it is over."""
        for listener in self._listeners:
            listener.close()


class Pace:
    """The recent seconds of each stage of a step."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._latest: dict[str, float] = {}

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Time a stage for as long as the block runs."""
        since = time.monotonic()
        yield
        self._latest[stage] = time.monotonic() - since

    def take(self) -> dict[str, float]:
        """Return the seconds by stage of the step that is done, and let them count."""
        latest, self._latest = self._latest, {}
        for stage, seconds in latest.items():
            self._seconds[stage] = _KEPT * self._seconds.get(stage, seconds) + (1 - _KEPT) * seconds
        return latest

    def total(self) -> float:
        """Return the seconds that a step takes."""
        return sum(self._seconds.values())

    def speeds(self, pairs: int) -> dict[str, float]:
        """Return pairs a second by stage."""
        return speeds(self._seconds, pairs)


def speeds(seconds: Mapping[str, float], pairs: int) -> dict[str, float]:
    """Return pairs a second by stage, of so many pairs in so many seconds."""
    return {stage: round(pairs / max(value, 1e-6), 1) for stage, value in seconds.items()}


@dataclass(slots=True)
class Window:
    """Losses and seconds since the last line of the log."""

    since: float = field(default_factory=time.monotonic)
    count: int = 0
    loss: float = 0.0
    terms: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, losses: Losses, seconds: Mapping[str, float]) -> None:
        """Take in a step, and its seconds by stage."""
        self.count += 1
        self.loss += losses.total
        for sums, values in ((self.terms, losses.terms), (self.seconds, seconds)):
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value

    def means(self) -> dict[str, Any]:
        """Return the mean loss and, by name, the mean of each term before its weight."""
        terms = {name: round(value / self.count, 5) for name, value in self.terms.items()}
        return {"loss": round(self.loss / self.count, 5), "terms": terms}
