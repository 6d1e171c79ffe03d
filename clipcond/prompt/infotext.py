"""The text that A1111 and its relatives write into a picture: prompt, negative prompt, and a line of settings.

    a red fox
    Negative prompt: blurry
    Steps: 20, Sampler: Euler a, Seed: 1, Lora hashes: "a: 1, b: 2", Size: 512x768

The last line is settings only if it holds three `key: value` pairs or more and one of the keys is one that every writer
of the format uses. The second condition is ours: without it `(cat:1.2), (dog:1.3), (bird:0.8)` on a last line is lost.
The format has no way to quote a prompt: a line of it that starts with `Negative prompt:` is read back as that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from clipcond.errors import ConfigError

_NEGATIVE = "Negative prompt:"
_FEWEST = 3  # pairs that make a line of settings
_TELLING = frozenset({"Steps", "Sampler", "CFG scale", "Seed", "Model hash"})  # one of them must be there
_KEY = re.compile(r"\w[\w /-]+")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_SIZE = re.compile(r"(\d+)x(\d+)")


@dataclass(frozen=True, slots=True)
class Infotext:
    """What an infotext says. `settings` keeps the writer's order and spelling; values are text, unquoted."""

    prompt: str
    negative_prompt: str
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height from `Size: 512x768`, or None."""
        found = _SIZE.fullmatch(self.settings.get("Size", ""))
        return (int(found[1]), int(found[2])) if found else None


def format_infotext(prompt: str, negative_prompt: str, settings: Mapping[str, object]) -> str:
    """Write an infotext. Settings that are None are left out; values with a comma, colon or newline are quoted.

    Raises ConfigError for settings that no reader of the format would find again: a key that is not a word of letters,
    digits, spaces, `-` and `/`, fewer than three settings, or none that is telling (such as `Steps`).
    """
    kept = {key: str(value) for key, value in settings.items() if value is not None}
    for key in kept:
        if not _KEY.fullmatch(key) or key != key.strip():
            raise ConfigError(f"infotext setting {key!r}: a name is two or more letters, digits, spaces, '-' or '/'")
    if kept and (len(kept) < _FEWEST or not _TELLING & kept.keys()):
        raise ConfigError(
            f"infotext settings {', '.join(kept)}: give three or more, one of them out of "
            f"{', '.join(sorted(_TELLING))}, or readers take the line for a part of the prompt"
        )
    lines = [prompt.strip(), f"{_NEGATIVE} {negative_prompt.strip()}" if negative_prompt.strip() else ""]
    lines.append(", ".join(f"{key}: {_quote(value)}" for key, value in kept.items()))
    return "\n".join(line for line in lines if line)


def parse_infotext(text: str) -> Infotext:
    """Read an infotext. Never raises: what is not recognised is prompt."""
    lines = text.replace("\r\n", "\n").strip().split("\n")
    settings = _settings(lines[-1])
    if settings:
        lines.pop()
    parts: dict[bool, list[str]] = {False: [], True: []}
    negative = False
    for line in lines:
        if line.lstrip().startswith(_NEGATIVE):
            negative = True
            line = line.lstrip()[len(_NEGATIVE) :].strip()
        parts[negative].append(line)
    return Infotext("\n".join(parts[False]).strip(), "\n".join(parts[True]).strip(), settings)


def _settings(line: str) -> dict[str, str]:
    """The pairs of a line of settings; nothing if the line is not one."""
    found: dict[str, str] = {}
    pairs = at = 0
    while at < len(line):
        key, at = _key(line, at)
        value, at = _value(line, at)
        if key:
            found[key] = value
            pairs += 1
    return found if pairs >= _FEWEST and _TELLING & found.keys() else {}


def _key(line: str, at: int) -> tuple[str, int]:
    """A key with its colon, and where the value starts; an empty key if the next pair has none."""
    at += len(line[at:]) - len(line[at:].lstrip())
    key = _KEY.match(line, at)
    if key is None or line[key.end() : key.end() + 1] != ":":
        return "", at
    return key[0].strip(), key.end() + 1


def _value(line: str, at: int) -> tuple[str, int]:
    """A quoted string, or all up to the next comma; and the place after that comma."""
    start = at + len(line[at:]) - len(line[at:].lstrip())
    quoted = _QUOTED.match(line, start)
    if quoted:
        rest = line[quoted.end() :].lstrip()
        if not rest or rest[0] == ",":
            return _unquote(quoted[0]), len(line) - len(rest) + 1
    comma = line.find(",", start)
    end = len(line) if comma < 0 else comma
    return line[start:end].strip(), end + 1


def _quote(value: str) -> str:
    plain = value and value == value.strip() and value[0] != '"' and not re.search(r"[,:\r\n]", value)
    return value if plain else json.dumps(value, ensure_ascii=False)


def _unquote(value: str) -> str:
    try:
        text = json.loads(value, strict=False)
    except ValueError:  # a backslash that JSON does not know: leave what was written
        return value
    return text if isinstance(text, str) else value
