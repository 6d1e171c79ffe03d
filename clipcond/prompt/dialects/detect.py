"""The dialect that a prompt seems to be written in, guessed from the passages of syntax in it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from clipcond.prompt.dialects.names import Dialect

_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)"  # no two parts can match the same character
_A1111 = re.compile(
    rf"""
    \([^()]{{1,400}}:\s*{_NUMBER}\s*\)                    # (red fox:1.3)
    | \({{2}}[^()]+\){{2}}                              # ((red fox))
    | \[[^\[\]:]*:[^\[\]:]*:\s*{_NUMBER}\s*\]           # [cat:dog:0.5]
    | <\w+:[^<>]+>                                      # <lora:name:1>
    | (?<![A-Z]\ )\bBREAK\b(?!\ [A-Z])                  # BREAK, not in shouted text
    """,
    re.VERBOSE,
)
_COMPEL = re.compile(
    rf"""
    (?<=[^\W\d_]{{2}})(?:\++|-{{2,}})(?=[\s,.;:)]|$)      # fox++ fox--, but not C++
    | \)(?:\++|-+|{_NUMBER})(?=[\s,.;:)]|$)             # (red fox)++ (red fox)1.3
    | [")]\.(?:and|blend|swap)\(                        # ("a", "b").blend(1, 1)
    """,
    re.VERBOSE,
)
_MARKS_OF_A1111, _MARKS_OF_COMPEL = ("(", "[", "<", "BREAK"), ("+", "--", ")", '".')  # none: nothing to find
_EMBEDDING = re.compile(r"\bembedding:\w[\w.-]*")
_REASONS: dict[Dialect, str] = {
    "plain": "nothing in it looks like syntax",
    "a1111": "{} is A1111 syntax",
    "comfy": "{} is ComfyUI syntax",
    "compel": "{} is compel syntax",
}
_QUOTED = 30  # characters of the prompt that a reason quotes


@dataclass(frozen=True, slots=True)
class Detection:
    """A dialect, and the reason for the guess."""

    dialect: Dialect
    reason: str


def detect(prompt: str) -> Detection:
    """Guess the dialect of a prompt from the syntax in it.

    `(red:1.3)` is A1111's as well as ComfyUI's: it is read as A1111's unless an `embedding:name` says otherwise. Where
    passages of A1111 and of compel stand side by side, those that are more decide.

    >>> detect("a (red:1.3) fox")
    Detection(dialect='a1111', reason='(red:1.3) is A1111 syntax')
    """
    found: dict[Dialect, tuple[int, int] | None] = {
        "a1111": a1111_passage(prompt),
        "compel": compel_passage(prompt),
        "comfy": embedding_passage(prompt),
    }
    if found["a1111"] and found["compel"]:
        counts = passages(prompt)
        dialect: Dialect = max(counts, key=lambda name: counts[name])
    else:
        dialect = next((name for name, span in found.items() if span), "plain")
    if dialect == "a1111" and found["comfy"]:
        dialect = "comfy"
    span = found.get(dialect)
    passage = "" if span is None else prompt[slice(*span)]
    quoted = passage if len(passage) <= _QUOTED else passage[: _QUOTED - 1] + "…"
    return Detection(dialect, _REASONS[dialect].format(quoted))


def embedding_passage(prompt: str) -> tuple[int, int] | None:
    """Return the span of the first `embedding:name`, ComfyUI's syntax."""
    match = _EMBEDDING.search(prompt) if "embedding:" in prompt else None
    return None if match is None else match.span()


def passages(prompt: str) -> dict[Dialect, int]:
    """Count the passages of a prompt in A1111 and in compel syntax."""
    counts: dict[Dialect, re.Pattern[str]] = {"a1111": _A1111, "compel": _COMPEL}
    return {dialect: sum(1 for _ in pattern.finditer(prompt)) for dialect, pattern in counts.items()}


def compel_passage(prompt: str) -> tuple[int, int] | None:
    """Return the span of the first passage in compel syntax."""
    if not any(mark in prompt for mark in _MARKS_OF_COMPEL):  # saves most of the time
        return None
    match = _COMPEL.search(prompt)
    return None if match is None else (_compel_start(prompt, match), match.end())


def a1111_passage(prompt: str) -> tuple[int, int] | None:
    """Return the span of the first passage in A1111 syntax."""
    if not any(mark in prompt for mark in _MARKS_OF_A1111):
        return None
    match = _A1111.search(prompt)
    return None if match is None else match.span()


def _compel_start(prompt: str, match: re.Match[str]) -> int:
    """Return the start of the passage in front of a compel mark: its bracket, or the first letter of its word."""
    at = match.start()
    if prompt[at] == ")":
        return max(prompt.rfind("(", 0, at), 0)
    while at and prompt[at - 1].isalpha():
        at -= 1
    return at
