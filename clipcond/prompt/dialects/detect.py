"""Syntax of one dialect in a prompt of another: which dialect a prompt seems to be written in, and findings about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from clipcond.prompt.dialects.names import Dialect
from clipcond.prompt.dialects.reading import FindingCollector, decimal
from clipcond.prompt.findings import Finding
from clipcond.prompt.tokenizer import typed_special_tokens

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

_LEFTOVER_ESCAPE = re.compile(r"\\[()\[\]]")
_SPECIAL_TO_T5 = re.compile(r"<extra_id_\d{1,4}>|<pad>|</s>|<unk>")
_SURROGATES = re.compile("[\ud800-\udfff]+")
_FOREIGN = "looks like {} syntax; in the plain dialect CLIP reads it as text"


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


_TAG = re.compile(r"<(?:lora|lyco|hypernet):")
_SQUARE = re.compile(r"\\.|[\[\]:|(]", re.DOTALL)
_ROUND = re.compile(r"\\.|[():]", re.DOTALL)
_BREAK = re.compile(r"\bBREAK\b")
_ESCAPED = re.compile(r"\\(?:\\|[\[\]])")


def note_foreign(prompt: str, dialect: str, findings: FindingCollector) -> None:
    """Note syntax of other dialects in a prompt of `a1111`, `comfy` or `compel`: of each kind the first place.

    Weights of the form `(x:1.5)` in compel, words BREAK and escaped square brackets are noted everywhere.
    """
    if dialect != "compel" and (span := compel_passage(prompt)):
        findings.add("foreign-syntax", f"looks like compel syntax; in the {dialect} dialect it is read as text", *span)
    if dialect == "compel" and ":" in prompt:
        for colon, end in _round_numbers(prompt):
            findings.add("foreign-syntax", "a number in brackets is text in compel; write (…)1.5", colon, end)
    if dialect != "comfy" and (span := embedding_passage(prompt)):
        findings.add("foreign-syntax", "embedding:name is ComfyUI syntax and is read as text", *span)
    if dialect == "a1111":
        return
    if match := _TAG.search(prompt):
        end = prompt.find(">", match.end()) + 1
        if end:
            message = f"a tag is A1111 syntax; in the {dialect} dialect it is read as text"
            findings.add("foreign-syntax", message, match.start(), end)
    if "[" in prompt and (":" in prompt or "|" in prompt):
        _note_squares(prompt, findings)
    for match in _BREAK.finditer(prompt):
        if not _shouted(prompt, *match.span()):
            findings.add("break-is-text", f"BREAK is a word in the {dialect} dialect", *match.span())
    for match in _ESCAPED.finditer(prompt):
        if match[0] != "\\\\":
            findings.add(
                "leftover-escape", "square brackets need no backslash here: it stays in the text", *match.span()
            )


def _round_numbers(prompt: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of each `:1.5` directly before a `)` that something opened."""
    depth, colon = 0, -1
    for match in _ROUND.finditer(prompt):
        mark, at = match[0], match.start()
        if mark == ")":
            if depth and colon >= 0 and decimal(prompt[colon + 1 : at]) is not None:
                yield colon, at
            depth = max(depth - 1, 0)
        depth += mark == "("
        colon = at if mark == ":" else -1


def _note_squares(prompt: str, findings: FindingCollector) -> None:
    """Note each `[cat:1.5]`, and the first bracket that looks like a schedule."""
    opened, cuts, told = -1, list[int](), False
    for match in _SQUARE.finditer(prompt):
        mark, at = match[0], match.start()
        if mark == "[":
            opened, cuts = at, []
        elif mark in ":|" and opened >= 0:
            cuts.append(at)
        elif mark == "]":
            number_last = bool(cuts) and prompt[cuts[-1]] == ":" and decimal(prompt[cuts[-1] + 1 : at]) is not None
            signed = number_last and prompt[cuts[-1] + 1 : at].strip()[0] in "+-"
            if number_last and len(cuts) == 1 and not signed:
                message = "square brackets are text here, with their number; write (…:1.5) or (…)1.5 for a weight"
                findings.add("bracket-number", message, cuts[0], at)
            elif cuts and not told and (prompt[cuts[-1]] == "|" or (number_last and (len(cuts) == 2 or signed))):
                findings.add("foreign-syntax", "a schedule is A1111 syntax and is read as text", opened, at + 1)
                told = True
            opened, cuts = -1, []


def _shouted(prompt: str, start: int, end: int) -> bool:
    """Return True if the word stands among other words in capitals."""
    before = prompt[max(0, start - 24) : start].split()[-1:]
    after = prompt[end : end + 24].split()[:1]
    return any(len(word) > 1 and word.isalpha() and word.isupper() for word in before + after)


def plain_findings(prompt: str) -> tuple[Finding, ...]:
    """Return the findings of a plain prompt in the order of their places; of each other dialect the first passage only."""
    found = [*unreadable(prompt)]
    if match := _LEFTOVER_ESCAPE.search(prompt):
        message = "the plain dialect knows no escapes: CLIP reads the backslash"
        found.append(Finding("leftover-escape", message, *match.span()))
    if span := a1111_passage(prompt):
        found.append(Finding("looks-like-a1111", _FOREIGN.format("A1111"), *span))
    if span := compel_passage(prompt):
        found.append(Finding("looks-like-compel", _FOREIGN.format("compel"), *span))
    return tuple(sorted(found, key=lambda finding: (finding.start, finding.end)))


def unreadable(prompt: str) -> tuple[Finding, ...]:
    """Return the findings of what no dialect can read as it was typed: special tokens and broken Unicode."""
    special = list(typed_special_tokens(prompt))
    if "<" in prompt:
        special += [match.span() for match in _SPECIAL_TO_T5.finditer(prompt)]
    found = [
        Finding("special-token-as-text", f"{prompt[start:end]} is read as ordinary text", start, end)
        for start, end in special
    ]
    if not prompt.isascii():
        found += [
            Finding("broken-unicode", "not a valid character; read as U+FFFD", *match.span())
            for match in _SURROGATES.finditer(prompt)
        ]
    return tuple(found)
