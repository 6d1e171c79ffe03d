"""Rows of a ranking: one for each picture and prompt, with its scores or with what kept it from having them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from clipcond.wording import html_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Stage = Literal["read", "prompt", "scores"]  # what failed: the file itself, its prompt, a number from elsewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class PhraseScore:
    """A phrase of the prompt. missing: it falls short of the prompt's other phrases."""

    text: str
    cosine: float
    missing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedImage:
    """One picture. Either it has a rank and scores, or an error that says what kept it from having them.

    rank: from 1, in the order of the ranking, or of its prompt's where each prompt has its own.   tied: its rank is
    open, as the next score lies within the noise.   score: the number that orders.   scores: every column by name.
    prompt_source: where the prompt was found.   seed: what stands beside it there.   share_seen: the part of the picture
    that the model's crop leaves.   group: number of its near-duplicates, from 1.   stage: what failed.
    """

    path: Path
    rank: int | None = None
    tied: bool = False
    score: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    prompt: str | None = None
    negative_prompt: str | None = None
    prompt_source: str | None = None
    seed: str | None = None
    content_tokens: int | None = None
    chunks: int | None = None
    phrases: tuple[PhraseScore, ...] = ()
    width: int | None = None
    height: int | None = None
    share_seen: float | None = None
    group: int | None = None
    kept: bool = False
    stage: Stage | None = None
    error: str | None = None

    @property
    def cosine(self) -> float | None:
        """The column `cosine`; None where it was not computed."""
        return self.scores.get("cosine")

    @property
    def clip_score(self) -> float | None:
        """The column `clipscore`; None where it was not computed."""
        return self.scores.get("clipscore")

    @property
    def missing(self) -> tuple[str, ...]:
        """The phrases that the picture lacks, the weakest first."""
        return tuple(each.text for each in sorted(self.phrases, key=lambda each: each.cosine) if each.missing)

    def to_json(self) -> dict[str, object]:
        """The row as JSON values, in a fixed order; phrases only where they were asked for."""
        phrases = [{"text": each.text, "cosine": each.cosine, "missing": each.missing} for each in self.phrases]
        return {
            "path": str(self.path),
            "rank": self.rank,
            "tied": self.tied,
            "score": self.score,
            **self.scores,
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "prompt_source": self.prompt_source,
            "seed": self.seed,
            "content_tokens": self.content_tokens,
            "chunks": self.chunks,
            **({"phrases": phrases} if phrases else {}),
            "width": self.width,
            "height": self.height,
            "share_seen": self.share_seen,
            "group": self.group,
            "kept": self.kept,
            "stage": self.stage,
            "error": self.error,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The scale, model and preprocessing of a ranking's numbers: without them a score says nothing.

    score: the expression that orders.   scales: each column with its formula.   preprocessing: how pictures become the
    model's input.   dtype: of the weights.   noise: scores nearer than this are tied.   column_noise: the same of each column.
    """

    model: str
    score: str
    scales: tuple[tuple[str, str], ...]
    preprocessing: str
    dtype: str
    noise: float
    column_noise: Mapping[str, float] = field(default_factory=dict)

    def line(self) -> str:
        """One line for people."""
        return f"score {self.score} · model {self.model} · {self.preprocessing} · {self.dtype}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Rows in order: what was scored by rank, then what could not be, by path.

    prompt: the one that all were scored against; None where each has its own.   vectors: the (P,) float32 embedding of
    each picture, for what comes after: a fit, a map.   embedded: how many of them the model made in this run; the others
    were remembered.   unseen: words of the prompts that the model never learned.   warning: the same in one line.
    """

    rows: tuple[RankedImage, ...]
    model: str
    prompt: str | None
    header: Header | None = None
    notes: tuple[str, ...] = ()
    embedded: int = 0
    unseen: tuple[str, ...] = ()
    warning: str = ""
    vectors: Mapping[Path, NDArray[np.float32]] = field(default_factory=dict, compare=False, repr=False)

    def _repr_html_(self) -> str:
        """A table for a notebook: the pictures by rank, and those that could not be scored."""
        rows = [
            (each.rank, each.path.name, "" if each.score is None else f"{each.score:.4f}", "kept" if each.kept else "")
            for each in self.scored
        ]
        errors = [f"{each.path.name}: {each.error}" for each in self.errors]
        title = f"{self.prompt or 'each by its own prompt'} ({self.model})"
        return html_table(title, ("rank", "picture", "score", ""), rows, notes=errors)

    @property
    def scored(self) -> tuple[RankedImage, ...]:
        """The rows that have scores, by rank."""
        return tuple(row for row in self.rows if row.error is None)

    @property
    def kept(self) -> tuple[RankedImage, ...]:
        """The rows that passed the threshold and are among the first `top`, by rank."""
        return tuple(row for row in self.rows if row.kept)

    @property
    def errors(self) -> tuple[RankedImage, ...]:
        """The rows without scores."""
        return tuple(row for row in self.rows if row.error is not None)
