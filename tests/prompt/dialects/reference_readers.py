"""Readers of the three weighted dialects that are slow, short and made from the rules alone, to hold the fast ones against.

They know weights, brackets and escapes, and nothing else: no BREAK, AND, schedule, tag, call or embedding. Each gives the
text with a weight for each character.
"""

from __future__ import annotations

import importlib.util
import re
from itertools import pairwise
from pathlib import Path
from types import ModuleType

Characters = list[tuple[str, float]]
_A1111_TAIL = re.compile(r":\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*\)", re.ASCII)


def a1111(prompt: str) -> Characters:
    """Weights multiply; a number counts directly before `)`; a lone backslash vanishes; an open bracket weighs the rest."""
    found: Characters = []
    open_brackets: list[tuple[str, int]] = []
    at = 0

    def weigh(start: int, factor: float) -> None:
        found[start:] = [(character, weight * factor) for character, weight in found[start:]]

    def innermost(kind: str) -> int:
        return next((n for n in range(len(open_brackets) - 1, -1, -1) if open_brackets[n][0] == kind), -1)

    while at < len(prompt):
        character = prompt[at]
        if character == "\\":
            if prompt[at + 1 : at + 2] in {"(", ")", "[", "]", "\\"}:
                found.append((prompt[at + 1], 1.0))
                at += 1
        elif character in "([":
            open_brackets.append((character, len(found)))
        elif (tail := _A1111_TAIL.match(prompt, at)) and innermost("(") >= 0:
            weigh(open_brackets.pop(innermost("("))[1], float(tail[1]))
            at = tail.end() - 1
        elif character in ")]" and (place := innermost("(" if character == ")" else "[")) >= 0:
            weigh(open_brackets.pop(place)[1], 1.1 if character == ")" else 1 / 1.1)
        else:
            found.append((character, 1.0))
        at += 1
    for kind, start in open_brackets:
        weigh(start, 1.1 if kind == "(" else 1 / 1.1)
    return found


_HIDDEN = {"(": "\ue000", ")": "\ue001"}


def comfy(prompt: str) -> Characters:
    """A piece from `(` to the `)` that brings the count back to 0 is a group, as is any piece that begins and ends so."""
    hidden = re.sub(r"\\([()])", lambda match: _HIDDEN[match[1]], prompt)
    shown = {mark: character for character, mark in _HIDDEN.items()}
    return [(shown.get(character, character), weight) for character, weight in _comfy(hidden, 1.0)]


def _comfy(text: str, weight: float) -> Characters:
    found: Characters = []
    for piece in _comfy_pieces(text):
        if not (len(piece) > 1 and piece[0] == "(" and piece[-1] == ")"):
            found += [(character, weight) for character in piece]
            continue
        words, colon, number = piece[1:-1].rpartition(":")
        try:
            inner = (words, float(number)) if colon and words else None
        except ValueError:
            inner = None
        found += _comfy(*(inner or (piece[1:-1], weight * 1.1)))
    return found


def _comfy_pieces(text: str) -> list[str]:
    borders, depth = [0], 0
    for at, character in enumerate(text):
        if character == "(":
            borders += [at] if depth == 0 else []
            depth += 1
        elif character == ")":
            depth -= 1
            borders += [at + 1] if depth == 0 else []
    borders.append(len(text))
    return [text[start:end] for start, end in pairwise(borders) if end > start]


def compels_parser() -> ModuleType | None:
    """compel's parser without compel, whose import needs models' libraries; None where it is not installed."""
    package = importlib.util.find_spec("compel")
    if package is None or not package.submodule_search_locations or importlib.util.find_spec("pyparsing") is None:
        return None
    path = Path(package.submodule_search_locations[0]) / "prompt_parser.py"
    spec = importlib.util.spec_from_file_location("compels_prompt_parser", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compel(prompt: str) -> Characters:
    """compel's own reading, without blanks."""
    own = compels_parser()
    assert own is not None
    (flat,) = own.PromptParser().parse_conjunction(prompt).prompts or [own.FlattenedPrompt([("", 1.0)])]
    return [(character, part.weight) for part in flat.children for character in part.text]
