"""Prompt templates filled in: at random with a seed, or every combination up to a limit.

Templates are expanded before anything else of a prompt is read: their marks (`{}`, `$`, `__`) are no marks of any
dialect. The syntax stands in `clipcond.prompt.templates`. The same seed gives the same prompts on every platform and
Python, and whatever is in a template, expansion ends: lists that name one another in a circle, alternatives that
explode and unknown names stay as text and earn a warning.
"""

from __future__ import annotations

import random
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Protocol

from clipcond.errors import ConfigError, ResourceMissing
from clipcond.prompt.findings import Finding
from clipcond.prompt.templates import MAX_DEPTH, Choice, Node, Reference, Template, Variable, entry, parse
from clipcond.resources import bundled

MAX_LENGTH = 100_000  # characters and choices that lists, alternatives and variables may add to one prompt


@dataclass(frozen=True, slots=True)
class Expansion:
    """The prompts that a template gives, and what is odd about it (spans in the template)."""

    prompts: tuple[str, ...]
    warnings: tuple[Finding, ...]


def expand(
    template: str,
    *,
    seed: int = 0,
    count: int = 1,
    folders: Sequence[str | Path] = (),
    combinatorial: bool = False,
    limit: int = 1000,
) -> Expansion:
    """Fill in a template.

    At random: `count` prompts; prompt i is the one that `seed + i` gives alone. Combinatorial: every combination in
    the template's order, the last choice changing fastest, equal ones once; at most `limit` combinations are tried, and
    `seed` and `count` mean nothing. Lists are the `.txt` files of `folders`, of which the first that has a name wins,
    then those that ship with clipcond.

    Warnings: `unknown-wildcard`, `empty-wildcard`, `cyclic-wildcard`, `unreadable-wildcard`, `unknown-variable`,
    `too-deep`, `too-long`, `too-many`, `unclosed-brace`, `stray-brace`, `unsupported-wrap`. What they are about stays
    as text. Raises ConfigError for a negative count or a limit below 1, ResourceMissing for a folder that is not there.

    >>> expand("a {red|blue} fox", combinatorial=True).prompts
    ('a red fox', 'a blue fox')
    """
    if count < 0 or limit < 1:
        given = f"count {count}" if count < 0 else f"limit {limit}"
        raise ConfigError(f"{given}: give a count of 0 or more and a limit of 1 or more")
    lists = _Lists(folders)
    parsed = parse(template)
    found = dict.fromkeys(parsed.warnings)
    prompts: dict[str, None] | list[str]
    if combinatorial:
        prompts, counter = {}, _Counter()
        for _ in range(limit):
            filling = _Filling(lists, counter, found)
            prompts[filling.fill(parsed)] = None
            if not counter.advance():
                break
        else:
            message = f"there are more than {limit} combinations; these are the first"
            found[Finding("too-many", message, 0, len(template))] = None
    else:
        prompts = [_Filling(lists, _Dice(seed + number), found).fill(parsed) for number in range(count)]
    ordered = sorted(found, key=lambda finding: (finding.start, finding.end, finding.code, finding.message))
    return Expansion(tuple(prompts), tuple(ordered))


class _Picker(Protocol):
    def pick(self, weights: Sequence[float]) -> int:
        """The number of one of len(weights) things; weights are not negative."""
        ...


class _Dice:
    """Picks at random. Only `random()` is used, which no version of Python changes."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(str(seed)).random  # as text: the number alone would lose its sign

    def pick(self, weights: Sequence[float]) -> int:
        sums = list(accumulate(weights))
        if not sums[-1] > 0:
            return int(self._random() * len(sums))
        return bisect_right(sums, self._random() * sums[-1])


class _Counter:
    """Picks everything in turn, like the wheels of a mileage counter; weights mean nothing."""

    def __init__(self) -> None:
        self._wheels: list[list[int]] = []  # [picked, of how many], in the order of the picks
        self._at = 0

    def pick(self, weights: Sequence[float]) -> int:
        if self._at == len(self._wheels):
            self._wheels.append([0, len(weights)])
        self._at += 1
        return self._wheels[self._at - 1][0]

    def advance(self) -> bool:
        """Go to the next combination; False when that was the last."""
        self._at = 0
        while self._wheels and self._wheels[-1][0] + 1 == self._wheels[-1][1]:
            self._wheels.pop()
        if not self._wheels:
            return False
        self._wheels[-1][0] += 1
        return True


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the filling we are. span: of the part of the user's template that led here; None: in that itself."""

    source: str
    depth: int = 0
    span: tuple[int, int] | None = None
    chain: tuple[str, ...] = ()  # the lists and variables that led here


class _Filling:
    """One prompt in the making."""

    def __init__(self, lists: _Lists, picker: _Picker, found: dict[Finding, None]) -> None:
        self._lists, self._picker, self._found = lists, picker, found
        self._variables: dict[str, str | tuple[_Place, Variable]] = {}
        self._left = MAX_LENGTH

    def fill(self, template: Template) -> str:
        """The template's text with everything picked."""
        return self._nodes(template.nodes, _Place(template.source))

    def _nodes(self, nodes: Sequence[Node], place: _Place) -> str:
        return "".join(node if isinstance(node, str) else self._node(node, place) for node in nodes)

    def _node(self, node: Choice | Reference | Variable, place: _Place) -> str:
        if self._left <= 0 or place.depth > MAX_DEPTH:
            if self._left <= 0:
                self._warn("too-long", f"this adds more than {MAX_LENGTH} characters to the prompt", node, place)
            else:
                self._warn("too-deep", f"more than {MAX_DEPTH} lists, variables and braces in one another", node, place)
            return place.source[node.start : node.end]
        deeper = _Place(place.source, place.depth + 1, place.span, place.chain)
        match node:
            case Choice():
                text = self._choice(node, deeper)
            case Reference():
                text = self._reference(node, deeper)
            case Variable():
                text = self._variable(node, deeper)
        self._left -= 1 + len(text)
        return text

    def _choice(self, node: Choice, place: _Place) -> str:
        options: list[tuple[float, Sequence[Node], _Place]]
        options = [(option.weight, option.nodes, place) for option in node.options]
        only = node.options[0].nodes
        if node.most > 1 and len(node.options) == len(only) == 1 and isinstance(only[0], Reference):
            options = self._entries(only[0], place)  # {2$$__colours__}: two entries of the list
        least, most = min(node.least, len(options)), min(node.most, len(options))
        amount = least + (self._picker.pick([1.0] * (most - least + 1)) if most > least else 0)
        return node.joiner.join(self._some(options, amount))

    def _some(self, options: list[tuple[float, Sequence[Node], _Place]], amount: int) -> Iterator[str]:
        """The texts of `amount` of the options, none twice."""
        weights = [weight for weight, _, _ in options]
        left = list(options)
        for _ in range(amount):
            number = self._picker.pick(weights) if len(left) > 1 else 0
            _, nodes, place = left.pop(number)
            del weights[number]
            yield self._nodes(nodes, place)

    def _reference(self, node: Reference, place: _Place) -> str:
        return "".join(self._some(self._entries(node, place), 1))

    def _entries(self, node: Reference, place: _Place) -> list[tuple[float, Sequence[Node], _Place]]:
        """What a reference can stand for; its own text, with a warning, where there is nothing."""
        names = self._lists.find(node.name)
        fresh = [name for name in names if name not in place.chain]
        entries: list[tuple[float, Sequence[Node], _Place]] = []
        for name in fresh:
            span = place.span or (node.start, node.end)
            for weight, template in self._read(name, node, place):
                within = _Place(template.source, place.depth, span, (*place.chain, name))
                entries.append((weight, template.nodes, within))
        if entries:
            return entries
        if not names:
            self._warn("unknown-wildcard", f"there is no list {node.name!r}{self._lists.hint(node.name)}", node, place)
        elif not fresh:
            route = " → ".join(name for name in place.chain if not name.startswith("$"))
            self._warn("cyclic-wildcard", f"the list {node.name!r} leads back to itself: {route}", node, place)
        return [(1.0, (place.source[node.start : node.end],), place)]

    def _read(self, name: str, node: Reference, place: _Place) -> Sequence[tuple[float, Template]]:
        try:
            entries = self._lists.entries(name)
        except OSError as error:
            self._warn("unreadable-wildcard", f"the list {name!r} cannot be read: {error.strerror}", node, place)
            return ()
        if not entries:
            self._warn("empty-wildcard", f"the list {name!r} has no entries", node, place)
        for _, template in entries:
            for warning in template.warnings:
                self._warn(warning.code, f"in the list {name!r}: {warning.message}", node, place)
        return entries

    def _variable(self, node: Variable, place: _Place) -> str:
        known = self._variables.get(node.name)
        if "=" in node.how:
            if known is None or "?" not in node.how:
                now = node.how.endswith("!")
                self._variables[node.name] = self._nodes(node.nodes, place) if now else (place, node)
            return ""
        if isinstance(known, str):
            return known
        key = f"${node.name}"
        if known is not None and key not in place.chain:
            origin, setting = known
            span = place.span or (node.start, node.end)
            return self._nodes(setting.nodes, _Place(origin.source, place.depth, span, (*place.chain, key)))
        if node.how == ":" and known is None:
            return self._nodes(node.nodes, place)
        what = "is not set" if known is None else "is made of itself"
        self._warn("unknown-variable", f"the variable {node.name!r} {what}", node, place)
        return place.source[node.start : node.end]

    def _warn(self, code: str, message: str, node: Choice | Reference | Variable, place: _Place) -> None:
        self._found[Finding(code, message, *(place.span or (node.start, node.end)))] = None


class _Lists:
    """The lists of some folders, by name: the path below the folder without `.txt`, in any case."""

    def __init__(self, folders: Sequence[str | Path]) -> None:
        self._folders = [Path(folder) for folder in folders]
        for folder in self._folders:
            if not folder.is_dir():
                raise ResourceMissing(f"{folder}: no such folder; give one with wildcard lists, a .txt file for each")
        self._paths: dict[str, Path] | None = None

    def _index(self) -> dict[str, Path]:
        """Name → file, in the order of the names. Looked up at the first name: most prompts have none."""
        if self._paths is None:
            paths: dict[str, Path] = {}
            for folder in (*self._folders, bundled("prompts", "wildcards/colours.txt").parent):
                for path in sorted(folder.rglob("*.txt")):
                    below = path.relative_to(folder)
                    if not any(part.startswith(".") for part in below.parts):
                        paths.setdefault(_key(below.with_suffix("").as_posix()), path)
            self._paths = dict(sorted(paths.items()))
        return self._paths

    def find(self, name: str) -> tuple[str, ...]:
        """The names of the lists that a name, or a pattern with stars, means."""
        key = _key(name)
        if "*" not in key:
            return (key,) if key in self._index() else ()
        pattern = key.split("/")
        return tuple(known for known in self._index() if _matches(known.split("/"), pattern))

    def entries(self, name: str) -> tuple[tuple[float, Template], ...]:
        """The entries of a list, each with its weight. Raises OSError for a file that cannot be read."""
        path = self._index()[name]
        state = path.stat()
        return _entries(str(path), state.st_mtime_ns, state.st_size)

    def hint(self, name: str) -> str:
        """What the user may have meant, as the end of a message."""
        close = get_close_matches(_key(name)[:80], list(self._index())[:2000], 1)
        return f"; did you mean {close[0]!r}?" if close else ""


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip()).casefold()


def _matches(parts: list[str], pattern: list[str]) -> bool:
    """Whether a path matches: `*` is any text in one part, `**` any parts."""
    reached = {0}  # how many parts of the path the pattern has used up so far
    for number, wanted in enumerate(pattern):
        if wanted == "**":
            least = 1 if number == len(pattern) - 1 else 0  # at the end it means the lists in a folder
            reached = set(range(min(reached) + least, len(parts) + 1)) if reached else reached
        else:
            reached = {used + 1 for used in reached if used < len(parts) and fnmatchcase(parts[used], wanted)}
    return len(parts) in reached


@lru_cache(maxsize=256)
def _entries(path: str, changed: int, size: int) -> tuple[tuple[float, Template], ...]:
    """The entries of a file: a line each, without empty lines and comments. Time and size are there for the cache."""
    lines = Path(path).read_text(encoding="utf-8-sig", errors="replace").splitlines()
    kept = (line.strip() for line in lines)
    return tuple(entry(line) for line in kept if line and not line.startswith("#"))
