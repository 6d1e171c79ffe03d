"""The text that A1111 and its relatives write into a picture: prompt, negative prompt, and a line of settings.

    a red fox
    Negative prompt: blurry
    Steps: 20, Sampler: Euler a, Seed: 1, Lora hashes: "a: 1, b: 2", Size: 512x768

A line is settings only if it holds three `key: value` pairs or more and one of the keys is one that every writer of the
format uses. The second condition is ours: without it `(cat:1.2), (dog:1.3), (bird:0.8)` on a last line is lost. Values
in quotes and JSON may hold commas and line breaks. Lines behind the settings (`Template: …`) are settings too. All of
it may stand on one line, as some sites show it.

The format has no way to quote a prompt: a line of it that starts with `Negative prompt:` is read back as that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from clipcond.errors import ConfigError

LONGEST_PROMPT = 32_768  # characters; what is longer was not meant as a prompt

_NEGATIVE = "Negative prompt:"
_TYPED_NEGATIVE = "Raw negative prompt"  # a setting of Fooocus: the negative prompt without that of its styles
_FEWEST = 3  # pairs that make a line of settings
_TELLING = frozenset({"Steps", "Sampler", "CFG scale", "Seed", "Model hash"})  # one of them must be there
_TELLING_KEY = re.compile(rf"(?:{'|'.join(sorted(_TELLING))}) *:")
_KEY = re.compile(r"\w[\w /-]+")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_FOLLOWING = re.compile(r"[^\S\n]*(?:,|\n|\Z)")
_SIZE = re.compile(r"(\d+)x(\d+)")
_STEPS = re.compile(r"(?<!\w)Steps:[ \t]*\d+[ \t]*,")
_NEGATIVE_LINE = re.compile(r"\s*negative prompt[ \t]*:", re.IGNORECASE)
_NEGATIVE_INSIDE = re.compile(r"(?<!\w)negative prompt[ \t]*:", re.IGNORECASE)
_LONGEST_JSON = 1 << 15  # characters of a value; an error of the reader costs a look at all before it
_json = json.JSONDecoder(strict=False)


@dataclass(frozen=True, slots=True)
class Infotext:
    """An infotext that was read. `settings` keeps the writer's order and spelling; values are text, unquoted.

    rest: lines behind the settings that are neither a setting nor a negative prompt.
    """

    prompt: str
    negative_prompt: str
    settings: Mapping[str, str] = field(default_factory=dict)
    rest: str = ""

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height from `Size: 512x768`, or None."""
        found = _SIZE.fullmatch(self.settings.get("Size", ""))
        return (int(found[1]), int(found[2])) if found else None

    @property
    def problem(self) -> str:
        """The reason why the prompt is none to work with; empty where it is fit."""
        if len(self.prompt) <= LONGEST_PROMPT:
            return ""
        return f"its text is too long to be a prompt ({len(self.prompt):,} characters, at most {LONGEST_PROMPT:,})"


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
    """Read an infotext, in time linear in its length. Never raises: what is not recognised is prompt."""
    text = text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n").strip()
    reader = _Reader()
    at = 0
    while at <= len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        if settings := _settings(text, at, end):
            if head := text[at : settings.start].strip():
                reader.line(head)
            reader.settings(settings.pairs)
            at = settings.end + 1
        else:
            reader.line(text[at:end])
            at = end + 1
    return reader.infotext()


def recognise_infotext(text: str) -> Infotext | None:
    """Split a pasted infotext; None for text that has neither a line of settings nor a negative prompt."""
    found = parse_infotext(text)
    return found if found.settings or found.negative_prompt or _NEGATIVE_LINE.match(text.lstrip("\ufeff")) else None


class _Reader:
    """Collects the lines of an infotext into its parts."""

    def __init__(self) -> None:
        self._prompt: list[str] = []
        self._negative: list[str] = []
        self._rest: list[str] = []
        self._settings: dict[str, list[str]] = {}
        self._into = self._prompt
        self._behind = False  # the settings

    def line(self, line: str) -> None:
        """Take a line that holds no settings, or what stands before them."""
        if mark := _NEGATIVE_LINE.match(line):
            self._into, line, self._behind = self._negative, line[mark.end() :].lstrip(), False
        elif self._behind and (pair := _key(line, 0, len(line))):
            self._into = self._settings[pair[0]] = []
            line = _unquoted(line[pair[1] :].strip())
        if line.strip() or not self._behind:
            self._into.append(line)

    def settings(self, pairs: Mapping[str, str]) -> None:
        """Take a line of settings; what follows is behind them."""
        self._settings.update({key: [value] for key, value in pairs.items()})
        self._into, self._behind = self._rest, True

    def infotext(self) -> Infotext:
        """All parts, now that everything is read."""
        prompt, negative = "\n".join(self._prompt).strip(), "\n".join(self._negative).strip()
        settings = {key: "\n".join(lines) for key, lines in self._settings.items()}
        if settings and (mark := _NEGATIVE_INSIDE.search(prompt)):  # all on one line
            negative = f"{prompt[mark.end() :].strip()}\n{negative}".strip()
            prompt = prompt[: mark.start()].strip()
        return Infotext(prompt, negative, settings, "\n".join(self._rest).strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    """The pairs of a line of settings, and the span of text that holds them."""

    pairs: Mapping[str, str]
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """The text between two commas of a line: a key, empty if there is none, and a value."""

    key: str
    value: str
    start: int
    quoted: bool


def _settings(text: str, at: int, end: int) -> _Settings | None:
    """The settings of the line text[at:end], which may go on over more lines; None if it holds none.

    They are the whole line, or start at `Steps: 20,` inside of it: then the prompt stands on the same line.
    """
    if _TELLING_KEY.search(text, at, end) is None:
        return None
    pieces, stop = _pieces(text, at, end)
    steps = _STEPS.search(text, at, end)
    if steps is not None and not _is_setting(pieces, steps.start()):
        inside, stop_inside = _pieces(text, steps.start(), end)
        if pairs := _telling(inside):
            return _Settings(pairs=pairs, start=steps.start(), end=stop_inside)
    keys = {piece.key for piece in pieces} - {_TYPED_NEGATIVE}
    if any("negative prompt" in key.lower() for key in keys) or not (pairs := _telling(pieces)):
        return None
    return _Settings(pairs=pairs, start=at, end=stop)


def _telling(pieces: list[_Piece]) -> dict[str, str]:
    """The pairs of some pieces; none if they are too few or none of them is telling."""
    pairs = {piece.key: piece.value for piece in pieces if piece.key}
    enough = sum(1 for piece in pieces if piece.key) >= _FEWEST
    return pairs if enough and _TELLING & pairs.keys() else {}


def _is_setting(pieces: list[_Piece], at: int) -> bool:
    """True if all pieces up to `at` are pairs, and `at` is the start of one or in quotes."""
    quoted = False
    for piece in pieces:
        if piece.start == at:
            return True
        if piece.start > at:
            break
        if not piece.key:
            return False
        quoted = piece.quoted
    return quoted


def _pieces(text: str, at: int, end: int) -> tuple[list[_Piece], int]:
    """The pieces of a line, and where it ends: behind a value that goes on over more lines, if that is of settings."""
    pieces: list[_Piece] = []
    told = False  # a telling key was there
    while (start := _skip(text, at, end)) < end:
        key, at = _key(text, start, end) or ("", start)
        told = told or key in _TELLING
        at = _skip(text, at, end)
        stop = _end_of_quoted(text, at, len(text) if told else end, json_too=told)
        if stop is not None:
            value = _unquoted(text[at:stop])
            if stop > end:
                line_end = text.find("\n", stop)
                end = len(text) if line_end < 0 else line_end
        else:
            comma = text.find(",", at, end)
            value = text[at : end if comma < 0 else comma].strip()
        pieces.append(_Piece(key=key, value=value, start=start, quoted=stop is not None))
        comma = text.find(",", at if stop is None else stop, end)
        at = end if comma < 0 else comma + 1
    return pieces, end


def _skip(text: str, at: int, end: int) -> int:
    """The place of the next character that is no blank."""
    while at < end and text[at].isspace():
        at += 1
    return at


def _key(text: str, at: int, end: int) -> tuple[str, int] | None:
    """A key with its colon, and the place behind it; None if there is none."""
    key = _KEY.match(text, at, end)
    if key is None or key.end() == end or text[key.end()] != ":":
        return None
    return key[0].strip(), key.end() + 1


def _end_of_quoted(text: str, at: int, end: int, *, json_too: bool) -> int | None:
    """The end of a value in quotes, or of JSON, before a comma or the end of a line; None for other values."""
    stop = None
    if text.startswith('"', at):
        quoted = _QUOTED.match(text, at, end)
        stop = quoted.end() if quoted else None
    elif json_too and text.startswith(("[", "{"), at):
        try:
            stop = at + _json.raw_decode(text[at : at + _LONGEST_JSON])[1]
        except (ValueError, RecursionError):
            return None
    if stop is None:
        return None
    follows = _FOLLOWING.match(text, stop)
    return stop if follows else None


def _quote(value: str) -> str:
    plain = value and value == value.strip() and value[0] != '"' and not re.search(r"[,:\r\n]", value)
    return value if plain else json.dumps(value, ensure_ascii=False)


def _unquoted(value: str) -> str:
    """A value without its quotes; as it is where it has none, or a backslash that JSON does not know."""
    if not value.startswith('"'):
        return value
    try:
        text = json.loads(value, strict=False)
    except ValueError:
        return value
    return text if isinstance(text, str) else value
