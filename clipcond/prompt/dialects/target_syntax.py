"""Texts, weights and names as each dialect writes them: the tables of `translate`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from clipcond.prompt.dialects.reading import blanks_before
from clipcond.prompt.items import Adapter


def _as_it_is(text: str, number: str = "1.0") -> str:
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Syntax:
    """A dialect's ways to write things; None for what it cannot say.

    group: of escaped text and its weight.   escape: of text and the weight of its group.   embedding: of a name.
    spaced: marks count only at the start of a word.   joins: neighbours of equal weight are one text.
    border: between parts that are encoded apart and joined.   keywords: words that no bracket turns into text, but lower
    case does.   unsayable: characters that cannot be written.   finish: of the whole text.
    """

    group: Callable[[str, str], str] | None = None
    escape: Callable[[str, str], str] = _as_it_is
    embedding: Callable[[str], str | None] = _as_it_is
    adapter: Callable[[Adapter], str | None] = lambda adapter: None
    spaced: bool = False
    joins: bool = False
    border: str | None = None
    keywords: re.Pattern[str] | None = None
    unsayable: str = ""
    finish: Callable[[str], str] | None = None


def weight_text(weight: float) -> str:
    """Return a weight to six decimals, without an exponent, and with one decimal at least: `2.` would take a full stop."""
    text = f"{weight:.6f}".rstrip("0")
    text = text + "0" if text.endswith(".") else text
    return "0.0" if text == "-0.0" else text


# a1111

_KEYWORDS = re.compile(r"\b(?:BREAK|AND)\b")
_TAG = re.compile(r"<\w+:[^>]+>")
_TAIL = re.compile(r":(\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)\s*)\Z")


def _escape_a1111(text: str, number: str) -> str:
    return re.sub(r"<(?=\w+:)", "(<:1)", re.sub(r"[()\[\]\\]", r"\\\g<0>", text))  # (<:1) starts no tag


def _finish_a1111(text: str) -> str:
    """Keep a number at the very end, or in front of tags there, from being the weight of the prompt."""
    end = blanks_before(text, len(text), 0)
    while end and text[end - 1] == ">" and _TAG.fullmatch(text, start := max(text.rfind("<", 0, end), 0), end):
        end = blanks_before(text, start, 0)
    return _TAIL.sub(r"(::1)\1", text[:end]) + text[end:]


def _embedding_a1111(name: str) -> str | None:
    return None if "#" in name else _escape_a1111(_KEYWORDS.sub(lambda match: match[0].lower(), name), "1.0")


def _adapter_a1111(adapter: Adapter) -> str | None:
    sayable = re.fullmatch(r"\w+", adapter.kind) and re.fullmatch(r"[^:>#\n]+", adapter.name)
    return f"<{adapter.kind}:{adapter.name}:{weight_text(adapter.weight)}>" if sayable else None


# comfy

# a word `embedding` in brackets of its own names nothing, and the tokenizer parts it from its neighbours anyway; a
# backslash in front comes along, which would escape the bracket
_COMFY_MARKS = re.compile(r"[()]|(?:[^\w\s()]{0,40}\\|\b)(?i:embedding)(?=:[^\s,:;()\[\]{}<>|])")


def _escape_comfy(text: str, number: str) -> str:
    def escaped(match: re.Match[str]) -> str:
        return f"\\{match[0]}" if match[0] in "()" else f"({match[0]}:{number})"

    return _COMFY_MARKS.sub(escaped, text)


def _embedding_comfy(name: str) -> str | None:
    return f"embedding:{name}" if re.fullmatch(r"[^\s,:;()\[\]{}<>|]*[^\s,:;()\[\]{}<>|.!?'\"]", name) else None


# compel


def _escape_compel(text: str, number: str) -> str:
    marks = r'[()"]|[+-](?=[\s()",.+=-]|\Z)|(?<=\\)[,.+=-]'
    return re.sub(marks if number == "1.0" else marks + "|=", r"\\\g<0>", text)  # no group holds an =


def _group_compel(escaped: str, number: str) -> str:
    """Return `(red fox)1.3`, with a blank where the bracket would be escaped; only a call takes a negative number."""
    inner = f"({escaped} )" if escaped.endswith("\\") else f"({escaped})"
    return f"{inner}.attend({number})" if number.startswith("-") else inner + number


def _embedding_compel(name: str) -> str | None:
    return _escape_compel(name, "0.0")


def _adapter_compel(adapter: Adapter) -> str | None:
    sayable = adapter.kind == "lora" and re.fullmatch(r'[^\s(),"]+', adapter.name) and adapter.weight >= 0
    return f"withLora({adapter.name},{weight_text(adapter.weight)})" if sayable else None


SYNTAX: dict[str, Syntax] = {
    "plain": Syntax(),
    "a1111": Syntax(
        group="({}:{})".format,
        escape=_escape_a1111,
        embedding=_embedding_a1111,
        adapter=_adapter_a1111,
        joins=True,
        border="BREAK",
        keywords=_KEYWORDS,
        unsayable="#",
        finish=_finish_a1111,
    ),
    "comfy": Syntax(group="({}:{})".format, escape=_escape_comfy, embedding=_embedding_comfy),
    "compel": Syntax(
        group=_group_compel,
        escape=_escape_compel,
        embedding=_embedding_compel,
        adapter=_adapter_compel,
        spaced=True,
    ),
}
