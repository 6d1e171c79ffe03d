"""A run under way: its job, its folder, its log, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from clipcond.score.retrieval import Retrieval
from clipcond.train.best import Best
from clipcond.train.job import Job
from clipcond.train.ranks import Ranks
from clipcond.train.run_folder import RunFolder
from clipcond.train.run_log import Pace, RunLog, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """The outcome of a run. `model` is None, and `interrupted` true, if a signal ended it before its last step.

    rank: of several processes the one that returns this; the first alone knows the retrieval. kept: for a run that ended
    before its first step, what it had stored by then, in words.
    """

    steps: int
    loss: float | None
    retrieval: Retrieval | None
    model: Path | None
    interrupted: bool
    rank: int = 0
    kept: str = ""


@dataclass(slots=True, kw_only=True, eq=False)
class Run:
    """The state that the parts of the loop share. They change it in place: the step that is done, and what was seen of it.

    cut: captions cut so far. saved: the step of the last checkpoint of this process. resumed: it goes on from a
    checkpoint. notes: for its start to say.
    """

    job: Job
    folder: RunFolder
    log: RunLog
    step: int = 0
    cut: int = 0
    resumed: bool = False
    loss: float | None = None
    grad_norm: float = 0.0
    learning_rate: float = 0.0
    retrieval: Retrieval | None = None
    notes: list[str] = field(default_factory=list)
    window: Window = field(default_factory=Window)
    pace: Pace = field(default_factory=Pace)
    best: Best = field(default_factory=Best)
    saved: int | None = None

    @property
    def ranks(self) -> Ranks:
        """The processes that share it."""
        return self.job.ranks

    @property
    def done(self) -> bool:
        """True after the last step, and where patience is at its end."""
        return self.step >= self.job.steps or self.best.exhausted(self.job.config.patience)

    def due(self, every: int) -> bool:
        """True after each `every` steps, and after the last."""
        return self.step % every == 0 or self.done

    def say(self, **values: object) -> None:
        """Log a line of this step."""
        self.log.line(self.step, **values)

    def result(self, model: Path | None, kept: str = "") -> TrainResult:
        """Return the outcome at this step; without a model the run was interrupted."""
        return TrainResult(
            steps=self.step, loss=self.loss, retrieval=self.retrieval, model=model, interrupted=model is None,
            rank=self.ranks.rank, kept=kept,
        )  # fmt: skip
