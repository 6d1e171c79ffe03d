"""A finding: something to tell the user about a passage of a prompt. `finding_codes` lists all codes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to tell the user about prompt[start:end]."""

    code: str
    message: str
    start: int
    end: int
