"""Wildcard lists: text files of folders, found by name, and read when a prompt first draws from them.

A list is read as lines; of a line only its weight is looked at until it is drawn. Lists of any number are drawn from as
if they were one, without putting them together.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import translate
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple, overload

from clipcond.errors import ResourceMissing
from clipcond.prompt.templates import UNIT, Template, entry, summed_odds, weight
from clipcond.resources import bundled

LARGEST_LIST = 64 << 20  # bytes of a list that is read
MOST_READ = 256 << 20  # bytes of all lists that one expansion reads
_REMEMBERED = 64 << 20  # bytes of lists that are kept for the next expansion
_PROBLEMS = 50  # of one name that are told one by one
_CANDIDATES = 30  # names that are compared with an unknown one letter by letter


@dataclass(frozen=True, slots=True, eq=False)
class WildcardList:
    """The lines of a list, without empty ones and comments, and their odds, summed up."""

    name: str
    lines: Sequence[str]
    odds: Sequence[int]

    def template(self, number: int) -> Template:
        """The template of a line, without the weight in front of it."""
        return _template(self.lines[number])


@lru_cache(maxsize=4096)
def _short_template(line: str) -> Template:
    return entry(line)[1]


def _template(line: str) -> Template:
    return _short_template(line) if len(line) <= 1000 else entry(line)[1]


class Pool(Sequence[int]):
    """Lists that are drawn from as one, some of them left out. As a sequence: the odds of their lines, summed up."""

    def __init__(self, matches: Matches, left_out: Iterable[int] = ()) -> None:
        self._matches = matches
        self._gaps: list[int] = []  # where in the numbering of the pool lists are left out
        self._lines, self._odds = [0], [0]  # lines and odds that are left out before each gap and behind the last
        for at in sorted(left_out):
            self._gaps.append(matches.starts[at] - self._lines[-1])
            self._lines.append(self._lines[-1] + matches.starts[at + 1] - matches.starts[at])
            self._odds.append(self._odds[-1] + matches.before[at + 1] - matches.before[at])
        self._length = matches.starts[-1] - self._lines[-1]
        alike = not self._gaps and matches.unit == 1
        self.odds: Sequence[int] = range(1, self._length + 1) if alike else self

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, number: int) -> int: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[int]: ...
    def __getitem__(self, number: int | slice) -> int | Sequence[int]:
        if isinstance(number, slice):
            return [self[at] for at in range(*number.indices(self._length))]
        if number < 0:
            number += self._length
        if not 0 <= number < self._length:
            raise IndexError(number)
        gap = bisect_right(self._gaps, number)
        which, line = self._matches.locate(number + self._lines[gap])
        found = self._matches.lists[which].odds
        scale = self._matches.unit if isinstance(found, range) else 1
        return self._matches.before[which] + found[line] * scale - self._odds[gap]

    def line(self, number: int) -> tuple[WildcardList, int]:
        """The list that holds a line of the pool, and its number there."""
        which, line = self._matches.locate(number + self._lines[bisect_right(self._gaps, number)])
        return self._matches.lists[which], line


class ListProblem(NamedTuple):
    """The code and the message of the warning that a list earns."""

    code: str
    message: str


class Matches:
    """The lists that one name, or a pattern with stars, means, and the problems that some of them have."""

    def __init__(self, lists: Sequence[WildcardList], problems: Sequence[ListProblem] = ()) -> None:
        self.lists, self.problems = lists, tuple(problems)  # (code, message)
        self.places = {found.name: at for at, found in enumerate(lists)}
        self.unit = 1 if all(isinstance(found.odds, range) for found in lists) else UNIT
        sums = [found.odds[-1] * (self.unit if isinstance(found.odds, range) else 1) for found in lists]
        self.starts = [0, *accumulate(len(found.lines) for found in lists)]
        self.before = [0, *accumulate(sums)]
        self._whole = Pool(self)

    def locate(self, number: int) -> tuple[int, int]:
        """The list of a line, and its number there."""
        which = bisect_right(self.starts, number) - 1
        return which, number - self.starts[which]

    def without(self, names: Iterable[str]) -> Pool:
        """All lists but those of some names."""
        left_out = [self.places[name] for name in names if name in self.places]
        return Pool(self, left_out) if left_out else self._whole


class WildcardLists:
    """The lists of some folders, by name: the path below the folder without `.txt`, in any case.

    Raises ResourceMissing for a folder that is not there.
    """

    def __init__(self, folders: Sequence[str | Path]) -> None:
        self._folders = [Path(folder) for folder in folders]
        for folder in self._folders:
            if not folder.is_dir():
                raise ResourceMissing(f"{folder}: no such folder; give one with wildcard lists, a .txt file for each")
        self._paths: dict[str, Path] | None = None
        self._parts: list[tuple[str, list[str]]] = []
        self._matches: dict[str, Matches | None] = {}
        self._known: dict[str, WildcardList | ListProblem] = {}
        self.compared = 0  # names with patterns so far
        self._near: _NearNames | None = None
        self._read = 0  # bytes so far

    def find(self, name: str) -> Matches | None:
        """The lists that a name, or a pattern with stars, means; None where there are none of it."""
        key = _key(name)
        if key not in self._matches:
            names = self._named(key)
            self._matches[key] = self._load(names) if names else None
        return self._matches[key]

    def hint(self, name: str) -> str:
        """The end of a message: the name that the user may have meant."""
        if self._near is None:
            self._near = _NearNames(list(self._index()))
        close = self._near.nearest(_key(name)[:80])
        return f"; did you mean {close!r}?" if close else ""

    def _index(self) -> dict[str, Path]:
        """Name → file, in the order of the names. Looked up at the first name: most prompts have none."""
        if self._paths is None:
            paths: dict[str, Path] = {}
            for folder in (*self._folders, bundled("prompts", "wildcards/colours.txt").parent):
                for below in sorted(_text_files(folder)):
                    paths.setdefault(_key(below[: -len(".txt")]), folder / below)
            self._paths = dict(sorted(paths.items()))
        return self._paths

    def _named(self, key: str) -> Sequence[str]:
        if "*" not in key:
            return (key,) if key in self._index() else ()
        if not self._parts:
            self._parts = [(name, name.split("/")) for name in self._index()]
        self.compared += len(self._parts)
        matches = _pattern(key)
        return [name for name, parts in self._parts if matches(parts)]

    def _load(self, names: Sequence[str]) -> Matches:
        """The lists of some names that can be read and have entries."""
        lists: list[WildcardList] = []
        problems: list[ListProblem] = []
        for name in names:
            if name not in self._known:
                self._known[name] = self._list(name)
            found = self._known[name]
            if isinstance(found, WildcardList):
                lists.append(found)
            else:
                problems.append(found)
        return Matches(lists, problems[:_PROBLEMS])

    def _list(self, name: str) -> WildcardList | ListProblem:
        """Return a list that has entries, or why there is none."""
        try:
            found = self._open(name)
        except OSError as error:
            return ListProblem("unreadable-wildcard", f"the list {name!r} cannot be read: {error.strerror or error}")
        return found if found.lines else ListProblem("empty-wildcard", f"the list {name!r} has no entries")

    def _open(self, name: str) -> WildcardList:
        """Read a list. Raises OSError for a file that cannot be read, is too large or no regular file."""
        path = self._index()[name]
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise OSError("it is no regular file")
        if state.st_size > LARGEST_LIST:
            raise OSError(f"it has {state.st_size:,} bytes, more than {LARGEST_LIST:,}")
        self._read += state.st_size
        if self._read > MOST_READ:
            raise OSError(f"the lists of this prompt have more than {MOST_READ:,} bytes")
        return _remembered.read(name, path, state)


class _Remembered:
    """The lists that were read last, as long as their files do not change."""

    def __init__(self) -> None:
        self._lists: dict[tuple[str, str, int, int], WildcardList] = {}
        self._size = 0

    def read(self, name: str, path: Path, state: os.stat_result) -> WildcardList:
        """A list, read from its file unless that was done before."""
        key = (name, str(path), state.st_mtime_ns, state.st_size)
        if key not in self._lists:
            found = _read(name, path)
            if self._size + state.st_size > _REMEMBERED:
                self._lists.clear()
                self._size = 0
            if state.st_size > _REMEMBERED:
                return found
            self._lists[key] = found
            self._size += state.st_size
        return self._lists[key]


_remembered = _Remembered()


def _read(name: str, path: Path) -> WildcardList:
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    lines = [line for each in text.splitlines() if (line := each.strip()) and line[0] != "#"]
    odds = summed_odds([weight(line) for line in lines]) if "::" in text else range(1, len(lines) + 1)
    return WildcardList(name, lines, odds)


def _text_files(folder: Path) -> Iterator[str]:
    """The `.txt` files below a folder, as paths from there; hidden files and folders are passed over."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(place).relative_to(folder).as_posix()
        for name in files:
            if name.endswith(".txt") and not name.startswith("."):
                yield name if below == "." else f"{below}/{name}"


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip()).casefold()


def _pattern(key: str) -> Callable[[list[str]], bool]:
    """A test of paths, given as parts: `*` is any text in one part, `**` any parts."""
    wanted = key.split("/")
    tests = [None if part == "**" else re.compile(translate(part)).match for part in wanted]
    plain = [test for test in tests if test is not None]

    def matches_plainly(parts: list[str]) -> bool:
        return len(parts) == len(plain) and all(test(part) for test, part in zip(plain, parts, strict=True))

    def matches(parts: list[str]) -> bool:
        reached = {0}  # how many parts of the path the pattern has used up so far
        for number, test in enumerate(tests):
            if test is None:
                least = 1 if number == len(tests) - 1 else 0  # at the end it means the lists in a folder
                reached = set(range(min(reached) + least, len(parts) + 1)) if reached else reached
            else:
                reached = {used + 1 for used in reached if used < len(parts) and test(parts[used])}
        return len(parts) in reached

    return matches_plainly if len(plain) == len(tests) else matches


class _NearNames:
    """Names by their pairs of letters, so that an unknown one is compared with few of them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._pairs: dict[str, list[int]] = {}
        for number, name in enumerate(names):
            for pair in _pairs(name):
                self._pairs.setdefault(pair, []).append(number)

    def nearest(self, name: str) -> str | None:
        """The name that is most like another; None where none is."""
        shared = Counter(number for pair in _pairs(name) for number in self._pairs.get(pair, ()))
        best = sorted(shared, key=lambda number: (-shared[number] / (len(self._names[number]) + len(name)), number))
        close = get_close_matches(name, [self._names[number] for number in best[:_CANDIDATES]], 1)
        return close[0] if close else None


def _pairs(name: str) -> set[str]:
    """The pairs of neighbouring letters of a name, its ends included."""
    ended = f" {name} "
    return {ended[at : at + 2] for at in range(len(ended) - 1)}
