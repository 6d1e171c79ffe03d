"""The outcome of a look at training data: a line each, from fine to what would stop the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from clipcond.wording import visible

OK, NOTE, WARNING, STOPS = "ok", "note", "warning", "stops"
SHOWN = 5  # examples of a check


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at.

    verdict: `ok`, `note`, `warning` or `stops`. examples: where it is so, at most a few. numbers: what was counted.
    """

    name: str
    verdict: str
    text: str
    examples: tuple[str, ...] = ()
    numbers: Mapping[str, int | float] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return the check as `clipcond train --check --json` has it."""
        return {
            "name": self.name, "verdict": self.verdict, "text": self.text, "examples": list(self.examples),
            "numbers": dict(self.numbers),
        }  # fmt: skip


def short(text: str, most: int = 100) -> str:
    """A text of the data in one line, its end left out where it is long."""
    line = visible(" ".join(text.split()))
    return line if len(line) <= most else f"{line[: most - 1]}…"
