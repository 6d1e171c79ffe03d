"""What is odd about a prompt: warnings with a code and a span, never an error.

| code | what was found |
|---|---|
| `special-token-as-text` | the name of a special token; clipcond reads it as ordinary text |
| `looks-like-a1111` | A1111 syntax in a plain prompt, which CLIP will read as text |
| `looks-like-compel` | compel syntax in a plain prompt, which CLIP will read as text |
| `broken-unicode` | half of a surrogate pair, read as U+FFFD |
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from clipcond.prompt.tokenizer import typed_special_tokens

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
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
_SURROGATES = re.compile("[\ud800-\udfff]+")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to tell the user about prompt[start:end]."""

    code: str
    message: str
    start: int
    end: int


def findings(prompt: str) -> tuple[Finding, ...]:
    """Everything odd about a plain prompt, in the order of its places; of each foreign dialect the first place only."""
    found = [
        Finding("special-token-as-text", f"{prompt[start:end]} is read as ordinary text", start, end)
        for start, end in typed_special_tokens(prompt)
    ]
    found += [
        Finding("broken-unicode", "half of a surrogate pair is read as U+FFFD", *match.span())
        for match in _SURROGATES.finditer(prompt)
    ]
    for name, code, pattern in (
        ("A1111", "looks-like-a1111", _A1111),
        ("compel", "looks-like-compel", _COMPEL),
    ):
        if match := pattern.search(prompt):
            message = f"looks like {name} syntax; in the plain dialect CLIP reads it as text"
            found.append(Finding(code, message, _word_start(prompt, match.start()), match.end()))
    return tuple(sorted(found, key=lambda finding: (finding.start, finding.end)))


def _word_start(prompt: str, at: int) -> int:
    """Back over the letters before a place, so that the span of `fox++` is not `++` alone."""
    while at and prompt[at - 1].isalpha():
        at -= 1
    return at
