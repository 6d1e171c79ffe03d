"""What is odd about a prompt: warnings with a code and a span, never an error.

| code | what was found |
|---|---|
| `special-token-as-text` | the name of a special token; clipcond reads it as ordinary text |
| `looks-like-a1111` | A1111 syntax in a plain prompt, which CLIP will read as text |
| `looks-like-compel` | compel syntax in a plain prompt, which CLIP will read as text |
| `leftover-escape` | a backslash before a bracket that needs none: it stays in the text |
| `broken-unicode` | what no encoding can carry (half of a surrogate pair), read as U+FFFD |

The other dialects add these; `docs/prompt-language.md` shows an example of each.

| code | what was found |
|---|---|
| `unclosed-bracket` `stray-bracket` | a bracket without a partner |
| `weights-disabled` | comfy: weights that an unclosed bracket turns into text |
| `bad-weight` | what stands where a number should, and stays text |
| `weight-from-ratio` | `16:9)` read as a weight of 9 |
| `weight-from-suffix` | compel: `C++` read as a weight |
| `weight-out-of-range` | a weight below 0 or above 2 |
| `bracket-number` | `[cat:1.5]`, which is no weight |
| `empty-group` | brackets around nothing |
| `bad-group` | compel: brackets around what its grammar does not know, read as text |
| `bad-call` | compel: a call that is not well formed, read as text |
| `break-in-group` | BREAK inside of brackets: a chunk ends there, the weight goes on |
| `break-lower-case` | `break` by itself, a word |
| `break-is-text` | BREAK in a dialect that has none |
| `shouted-keyword` | BREAK or AND in the midst of other capitals |
| `schedule-too-deep` | schedules inside of one another beyond the limit |
| `unknown-tag` `unknown-adapter` `unknown-embedding` | a tag of no known kind; a name that no file has |
| `foreign-syntax` | syntax of another dialect, read as text |
"""

from __future__ import annotations

import re
from dataclasses import dataclass

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
_ESCAPED = re.compile(r"\\[()\[\]]")
_FOREIGN = "looks like {} syntax; in the plain dialect CLIP reads it as text"
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
    found = [*unreadable(prompt)]
    if match := _ESCAPED.search(prompt):
        found.append(
            Finding("leftover-escape", "the plain dialect knows no escapes: CLIP reads the backslash", *match.span())
        )
    if span := a1111_place(prompt):
        found.append(Finding("looks-like-a1111", _FOREIGN.format("A1111"), *span))
    if span := compel_place(prompt):
        found.append(Finding("looks-like-compel", _FOREIGN.format("compel"), *span))
    return tuple(sorted(found, key=lambda finding: (finding.start, finding.end)))


def embedding_place(prompt: str) -> tuple[int, int] | None:
    """The span of the first `embedding:name`, ComfyUI's syntax."""
    match = _EMBEDDING.search(prompt)
    return None if match is None else match.span()


def said_to_be(prompt: str) -> dict[str, int]:
    """How many passages of a prompt are in A1111 and how many in compel syntax."""
    counts = {"a1111": _A1111, "compel": _COMPEL}
    return {dialect: sum(1 for _ in pattern.finditer(prompt)) for dialect, pattern in counts.items()}


def unreadable(prompt: str) -> tuple[Finding, ...]:
    """What no dialect can read as it was typed: special tokens, and characters that no encoding can carry."""
    found = [
        Finding("special-token-as-text", f"{prompt[start:end]} is read as ordinary text", start, end)
        for start, end in typed_special_tokens(prompt)
    ]
    found += [
        Finding("broken-unicode", "not a valid character; read as U+FFFD", *match.span())
        for match in _SURROGATES.finditer(prompt)
    ]
    return tuple(found)


def compel_place(prompt: str) -> tuple[int, int] | None:
    """The span of the first passage in compel syntax."""
    if not any(mark in prompt for mark in _MARKS_OF_COMPEL):  # saves most of the time
        return None
    match = _COMPEL.search(prompt)
    return None if match is None else (_compel_start(prompt, match), match.end())


def a1111_place(prompt: str) -> tuple[int, int] | None:
    """The span of the first passage in A1111 syntax."""
    if not any(mark in prompt for mark in _MARKS_OF_A1111):
        return None
    match = _A1111.search(prompt)
    return None if match is None else match.span()


def _compel_start(prompt: str, match: re.Match[str]) -> int:
    """Where the passage starts that a compel mark stands behind: its bracket, or the first letter of its word."""
    at = match.start()
    if prompt[at] == ")":
        return max(prompt.rfind("(", 0, at), 0)
    while at and prompt[at - 1].isalpha():
        at -= 1
    return at
