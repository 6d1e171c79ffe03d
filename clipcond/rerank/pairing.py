"""A picture and the prompt that it is scored against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """A picture and the prompt that it is scored against. prompt: None for its own.

    negative_prompt: None for its own where the prompt is its own, or where `margin` asks for one.   source: for the table.
    """

    path: Path
    prompt: str | None = None
    negative_prompt: str | None = None
    source: str = "given"
