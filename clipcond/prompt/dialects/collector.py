"""Findings while they are made: a bounded list of each code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clipcond.prompt.findings import Finding

_EACH = 50  # findings of one code that are told one by one


class FindingCollector:
    """Collects findings; of a code that is found too often, the places after the fiftieth become one finding."""

    def __init__(self) -> None:
        self._found: dict[str, list[Finding]] = {}
        self._rest: dict[str, list[int]] = {}  # code -> [how many more, first start, last end]

    def add(self, code: str, message: str, start: int, end: int) -> None:
        """Note one finding about prompt[start:end]."""
        rest = self._rest.get(code)
        if rest is not None:
            rest[0] += 1
            if start < rest[1]:
                rest[1] = start
            if end > rest[2]:
                rest[2] = end
            return
        found = self._found.setdefault(code, [])
        if len(found) < _EACH:
            found.append(Finding(code, message, start, end))
        else:
            self._rest[code] = [1, start, end]

    def add_each(self, code: str, message: str, places: Sequence[int]) -> None:
        """Note the same finding about many single characters, in order."""
        for place in places[:_EACH]:
            self.add(code, message, place, place + 1)
        if rest := places[_EACH:]:
            self._rest[code] = [len(rest), rest[0], rest[-1] + 1]

    def extend(self, findings: Iterable[Finding]) -> None:
        """Note findings that were made elsewhere."""
        for one in findings:
            self.add(one.code, one.message, one.start, one.end)

    def in_order(self) -> tuple[Finding, ...]:
        """Return all findings in the order of their places."""
        found = [one for each in self._found.values() for one in each]
        for code, (count, start, end) in self._rest.items():
            found.append(Finding(code, f"and {count:,} more of the same", start, end))
        return tuple(sorted(found, key=lambda one: (one.start, one.end, one.code)))
