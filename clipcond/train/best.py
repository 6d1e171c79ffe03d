"""The best measurement of a run: what is kept of it, and when a run ends because nothing better came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from clipcond.score.drift import Drift
from clipcond.score.retrieval import Retrieval


def combined_score(found: Retrieval, drift: Drift | None) -> float:
    """Return R@1, the mean of both ways, times the share that general prompts kept: 1 - their drift, 1 where none is measured.

    Drift is that of the words, or of the pooled vector where a target reads that alone; a point of it costs what a point
    of recall gains.
    """
    recall = (found.image_to_text[1] + found.text_to_image[1]) / 2
    if drift is None:
        return recall
    measures = drift.measures()
    return recall * max(0.0, 1 - measures.get("words", measures.get("pooled", 0.0)))


@dataclass(slots=True)
class Best:
    """The highest score so far and its step; of equals the first.

    waited: measurements since then.   start: the score before the first step, None where it is not known.
    """

    step: int = 0
    score: float = -1.0
    waited: int = 0
    start: float | None = None

    def take(self, step: int, score: float) -> bool:
        """Take in a measurement; return True if it is the best."""
        if score > self.score:
            self.step, self.score, self.waited = step, score, 0
            return True
        self.waited += 1
        return False

    def exhausted(self, patience: int | None) -> bool:
        """True where so many measurements in a row were no better."""
        return patience is not None and self.waited >= patience

    def to_dict(self) -> dict[str, Any]:
        """The record that a checkpoint keeps."""
        return asdict(self)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Best:
        """Return what a checkpoint kept; a fresh one of an empty record."""
        return cls(**record)
