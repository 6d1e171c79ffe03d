"""The plain dialect: every character is text. Syntax of other dialects in it earns a finding."""

from __future__ import annotations

import re

from clipcond.prompt.dialects.detect import a1111_passage, compel_passage
from clipcond.prompt.findings import Finding
from clipcond.prompt.items import Words
from clipcond.prompt.tokenizer import typed_special_tokens

_ESCAPED = re.compile(r"\\[()\[\]]")
_SPECIAL_TO_T5 = re.compile(r"<extra_id_\d{1,4}>|<pad>|</s>|<unk>")
_SURROGATES = re.compile("[\ud800-\udfff]+")
_FOREIGN = "looks like {} syntax; in the plain dialect CLIP reads it as text"


def read_plain(prompt: str) -> tuple[Words, ...]:
    """Return the prompt as one piece; no piece for an empty one."""
    end = len(prompt)
    return (Words(text=prompt, weight=1.0, start=0, end=end, places=tuple(range(end + 1))),) if prompt else ()


def plain_findings(prompt: str) -> tuple[Finding, ...]:
    """Return the findings of a plain prompt in the order of their places; of each other dialect the first passage only."""
    found = [*unreadable(prompt)]
    if match := _ESCAPED.search(prompt):
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
