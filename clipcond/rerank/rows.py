"""Rows of a ranking: one for each picture, with its scores or with what kept it from having them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedImage:
    """One picture. Either it has a rank and scores, or an error that says what kept it from having them."""

    path: Path
    rank: int | None = None  # from 1, in the order of the ranking
    cosine: float | None = None
    clip_score: float | None = None
    prompt: str | None = None
    content_tokens: int | None = None
    chunks: int | None = None
    kept: bool = False
    error: str | None = None

    def to_json(self) -> dict[str, object]:
        """The row as JSON values, in a fixed order."""
        return {
            "path": str(self.path),
            "rank": self.rank,
            "cosine": self.cosine,
            "clip_score": self.clip_score,
            "prompt": self.prompt,
            "content_tokens": self.content_tokens,
            "chunks": self.chunks,
            "kept": self.kept,
            "error": self.error,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Rows in order: what was scored by rank, then what could not be, by path."""

    rows: tuple[RankedImage, ...]
    model: str
    prompt: str | None  # None: each picture's own

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
