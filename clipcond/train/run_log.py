"""What a run says of itself: lines for its log and for whoever listens, and the means between two of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from clipcond.train.objective import Losses
from clipcond.train.run_folder import RunFolder

Report = Callable[[dict[str, Any]], None]


class RunLog:
    """Lines to `log.jsonl` and to a listener; of several processes the first alone speaks."""

    def __init__(self, folder: RunFolder, report: Report | None, *, speaks: bool) -> None:
        self._folder, self._report, self._speaks = folder, report, speaks

    def line(self, step: int, **values: Any) -> None:
        """Write a line of a step. Raises OSError, naming the log, on a full disk."""
        if not self._speaks:
            return
        line = {"step": step, "time": round(time.time(), 2), **values}
        self._folder.log(line)
        if self._report:
            self._report(line)


@dataclass(slots=True)
class Window:
    """Losses since the last line of the log."""

    since: float = field(default_factory=time.monotonic)
    count: int = 0
    loss: float = 0.0
    terms: dict[str, float] = field(default_factory=dict)

    def add(self, losses: Losses) -> None:
        """Take in a step."""
        self.count += 1
        self.loss += losses.total
        for name, value in losses.terms.items():
            self.terms[name] = self.terms.get(name, 0.0) + value

    def means(self) -> dict[str, Any]:
        """Return the mean loss and, by name, the mean of each term before its weight."""
        terms = {name: round(value / self.count, 5) for name, value in self.terms.items()}
        return {"loss": round(self.loss / self.count, 5), "terms": terms}
