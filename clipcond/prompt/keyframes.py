"""Prompts of a film by frame, in the forms that people have them in: a dict, Deforum's JSON, lines of `0: a fox`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping

from clipcond.errors import ConfigError

Keyframes = str | Mapping[int, str] | Mapping[str, str]
_KEY = re.compile(r"(?:^|,)[ \t]*(\d+)[ \t]*:(?!\d)")  # `16:` at the start of a line or after a comma, never `16:9`
_QUOTED = re.compile(r'\s*"[^"]*"\s*:\s*"')


def keyframes(prompts: Keyframes) -> dict[int, str]:
    """Return prompts by frame, from 0, in the order of the frames.

    prompts: a mapping of frames to prompts; a JSON object of them, with or without its braces, as Deforum and ComfyUI's nodes
    have it; `0: a fox, 16: a wolf`, in one line or several, where lines before the first frame and after the last one
    are said in all of them; any other string is one prompt for all frames.
    Raises ConfigError for a frame that is no whole number or is there twice, for none at 0, and for Deforum's `--neg`.
    """
    pairs: list[tuple[object, object]]
    if isinstance(prompts, str):
        pairs = list(_of_text(prompts))
    elif isinstance(prompts, Mapping):
        pairs = list(prompts.items())
    else:
        raise ConfigError(f"prompts are a {type(prompts).__name__}, expected a dict of frames, or a string")
    found: dict[int, str] = {}
    for key, prompt in pairs:
        frame = _frame(key)
        if frame in found:
            raise ConfigError(f"frame {frame} has two prompts; leave one of them")
        found[frame] = _checked(frame, prompt)
    if 0 not in found:
        raise ConfigError(
            f"the first prompt is at frame {min(found, default='none')}, expected one at 0, where films begin"
        )
    return dict(sorted(found.items()))


def _frame(key: object) -> int:
    if isinstance(key, str) and key.strip().isdecimal():
        return int(key)
    if not isinstance(key, int) or isinstance(key, bool) or key < 0:
        raise ConfigError(f"frame {key!r} is no frame, expected a whole number from 0")
    return key


def _checked(frame: int, prompt: object) -> str:
    if not isinstance(prompt, str):
        raise ConfigError(f"the prompt at frame {frame} is a {type(prompt).__name__}, expected a string")
    if re.search(r"(?<!\S)--neg(?!\S)", prompt):
        raise ConfigError(
            f"the prompt at frame {frame} has --neg in it; give that side as negative_prompt, by frame too"
        )
    return prompt


def _of_text(text: str) -> Iterable[tuple[object, object]]:
    """The pairs of a string."""
    stripped = text.strip()
    if stripped.startswith("{") and _QUOTED.match(stripped[1:]):
        return _of_json(stripped)
    if _QUOTED.match(stripped):
        return _of_json("{" + stripped.rstrip(", \n\t") + "}")
    lines = text.splitlines()
    keyed = [at for at, line in enumerate(lines) if (found := _KEY.search(line)) and found.start() == 0]
    if not keyed:
        return [(0, text)]
    return _of_lines(lines, keyed[0], keyed[-1])


def _of_json(text: str) -> list[tuple[object, object]]:
    try:
        found: list[tuple[object, object]] = json.loads(text, object_pairs_hook=list)
    except ValueError as error:
        raise ConfigError(
            f'the prompts by frame are no JSON object like {{"0": "a fox", "16": "a wolf"}}: {error}'
        ) from error
    return found


def _of_lines(lines: list[str], first: int, last: int) -> Iterator[tuple[object, object]]:
    """The pairs of lines that begin with a frame, with what is said in all frames around each prompt."""
    head, tail = lines[:first], lines[last + 1 :]
    for at, line in enumerate(lines[first : last + 1], start=first + 1):
        if not line.strip():
            continue
        keys = list(_KEY.finditer(line))
        if not keys or keys[0].start() != 0:
            raise ConfigError(f"line {at} of the prompts has no frame, expected one like `16: a wolf`")
        ends = [*(key.start() for key in keys[1:]), len(line)]
        for key, end in zip(keys, ends, strict=True):
            pieces = (*head, line[key.end() : end], *tail)
            yield key[1], ", ".join(piece for each in pieces if (piece := each.strip().rstrip(",").strip()))
