"""The calls of compel's dialect: `(…).and()` and `(…).blend()` around a whole prompt, `.swap()`, `withLora()`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from clipcond.prompt.dialects.compel_groups import WORD, Pairs
from clipcond.prompt.dialects.reading import blanks_after, decimal
from clipcond.prompt.items import Adapter

CALL = re.compile(r"\.(and|add|blend|swap|attend)\(")
_LORA = re.compile(r"(?:use|with)Lora\(([^(),\"]+)(?:,([^(),\"]+))?\)")
_QUOTED = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
_FLAT = re.compile(r'[^()"]*')
_EDITED = re.compile(r'"([^()"\n]*)"|\(([^()"]*)\)|([^()",.=]+)')
_OPTION = re.compile(r"\s*(\w+)\s*=([^=]*)")


@dataclass(frozen=True, slots=True)
class SwapCall:
    """The arguments of a `.swap(…)`: prompt[start:end] comes in, the call is over at `after`."""

    start: int
    end: int
    after: int
    options: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class CallPart:
    """One of the prompts that are put together: prompt[start:end], behind the mark at `at`."""

    at: int
    start: int
    end: int
    inside: bool
    weight: float


@dataclass(frozen=True, slots=True)
class WholeCall:
    """A call around a whole prompt, its span from the point on, and the adapters on both sides of it."""

    how: Literal["concatenate", "blend", "sum"]
    parts: tuple[CallPart, ...]
    before: tuple[Adapter, ...]
    after: tuple[Adapter, ...]
    span: tuple[int, int]


def read_lora(prompt: str, at: int, limit: int) -> Adapter | None:
    """Return the adapter of a `withLora(name, 0.8)` at `at`."""
    if not prompt.startswith(("withLora(", "useLora("), at):
        return None
    match = _LORA.match(prompt, at, limit)
    weight = 1.0 if match is None or match[2] is None else decimal(match[2])
    if match is None or weight is None or not match[1].strip():
        return None
    return Adapter(kind="lora", name=match[1].strip(), weight=weight, start=at, end=match.end())


def read_swap(prompt: str, at: int, limit: int) -> SwapCall | None:
    """Return the `.swap(…)` at `at`: plain words, quoted or in brackets or neither, then options like `s_end=0.3`."""
    edited = _EDITED.match(prompt, blanks_after(prompt, at + len(".swap("), limit), limit)
    if edited is None:
        return None
    start, end = edited.span(edited.lastindex or 0)
    options: list[tuple[str, float]] = []
    close = blanks_after(prompt, edited.end(), limit)
    if prompt.startswith(",", close) and (typed := _FLAT.match(prompt, close + 1, limit)):
        close = typed.end()
        for option in typed[0].split(","):
            match = _OPTION.fullmatch(option)
            value = None if match is None else decimal(match[2])
            if match is None or value is None:
                return None
            options.append((match[1], value))
    if close >= limit or prompt[close] != ")":
        return None
    return SwapCall(start, end, close + 1, tuple(options))


def whole_call(prompt: str, pairs: Pairs) -> WholeCall | None:
    """Return the `.and()` or `.blend()` around a whole prompt; None where there is none or it is not well formed."""
    if ").and(" not in prompt and ").add(" not in prompt and ").blend(" not in prompt:
        return None
    before, at = _loras(prompt, 0)
    if not prompt.startswith("(", at):
        return None
    targets: list[tuple[int, int, int, bool]] = []
    while not targets or prompt[at] == ",":
        target, mark = _target(prompt, blanks_after(prompt, at + 1, len(prompt)), pairs), at
        if target is None:
            return None
        targets.append((mark, *target[:3]))
        at = blanks_after(prompt, target[3], len(prompt))
        if at >= len(prompt):
            return None
    call = CALL.match(prompt, at + 1) if prompt[at] == ")" else None
    typed = _FLAT.match(prompt, call.end()) if call else None
    if call is None or typed is None or call[1] in ("swap", "attend") or not prompt.startswith(")", typed.end()):
        return None
    after, end = _loras(prompt, typed.end() + 1)
    arguments = _arguments(typed[0], len(targets))
    swapped = call[1] == "blend" and any(prompt.find(".swap(", start, stop) >= 0 for _, start, stop, _ in targets)
    if end < len(prompt) or arguments is None or swapped:
        return None
    weights, raw = arguments
    if raw and call[1] != "blend":
        return None
    how: Literal["concatenate", "blend", "sum"] = "sum" if raw else "blend" if call[1] == "blend" else "concatenate"
    parts = tuple(CallPart(*target, weight) for target, weight in zip(targets, weights, strict=True))
    return WholeCall(how, parts, before, after, (call.start(), typed.end() + 1))


def _loras(prompt: str, at: int) -> tuple[tuple[Adapter, ...], int]:
    """Return the adapters in a row from `at`, and the end of the blanks behind them."""
    found: list[Adapter] = []
    at = blanks_after(prompt, at, len(prompt))
    while adapter := read_lora(prompt, at, len(prompt)):
        found.append(adapter)
        at = blanks_after(prompt, adapter.end, len(prompt))
    return tuple(found), at


def _target(prompt: str, at: int, pairs: Pairs) -> tuple[int, int, bool, int] | None:
    """Return one of the prompts that are put together: its start and end, True if it reads as in brackets, what is behind."""
    if quoted := _QUOTED.match(prompt, at):
        start, end = quoted.span(1)
        return start, end, pairs.close(at) == end, quoted.end()
    if prompt.startswith("(", at):
        close = pairs.close(at)
        return None if close < 0 else (at + 1, close, True, close + 1)
    word = WORD.match(prompt, at)
    return None if word is None else (at, word.end(), True, word.end())


def _arguments(typed: str, parts: int) -> tuple[list[float], bool] | None:
    """Return the weights, all 1 where none is given, and True if `no_normalize` stands behind them."""
    fields = [field.strip() for field in typed.split(",")] if typed.strip() else []
    raw = fields[-1:] == ["no_normalize"]
    weights = [decimal(field) for field in (fields[:-1] if raw else fields)]
    known = [weight for weight in weights if weight is not None]
    if len(known) < len(weights) or len(known) not in (0, parts):
        return None
    return known or [1.0] * parts, raw
