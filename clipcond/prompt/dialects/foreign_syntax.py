"""Passages of a prompt in the syntax of a dialect that it is not read in."""

from __future__ import annotations

import re
from collections.abc import Iterator

from clipcond.prompt.dialects.collector import FindingCollector
from clipcond.prompt.dialects.detect import compel_passage, embedding_passage
from clipcond.prompt.dialects.weights import decimal

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
