"""Draws without replacement from any number of alternatives with odds, and the two ways to choose: chance and in turn.

Alternatives are known by number. Their odds come summed up: `odds[i]` is the sum of those of the alternatives 0 to i, as
whole numbers, so that taking one away is exact.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from typing import Protocol


class Draw:
    """Alternatives of which some are taken. Each question takes time logarithmic in their number, a new draw none."""

    def __init__(self, odds: Sequence[int]) -> None:
        self._odds = odds
        self.left = len(odds)  # alternatives
        self.odds_left = odds[-1] if odds else 0
        self._taken: dict[int, int] = {}  # Fenwick tree of the alternatives that were taken
        self._taken_odds: dict[int, int] = {}  # and of their odds

    def at_place(self, place: int) -> int:
        """The alternative that has `place` others before it, of those that are left."""
        at, step = 0, 1 << len(self._odds).bit_length()
        while step := step >> 1:
            following = at + step
            if following <= len(self._odds) and (passed := step - self._taken.get(following, 0)) <= place:
                at, place = following, place - passed
        return at

    def at_odds(self, mark: int) -> int:
        """The first alternative whose odds, summed up over those that are left, are above a mark."""
        odds = self._odds
        if not self._taken:
            return bisect_right(odds, mark)
        at, before, step = 0, 0, 1 << len(odds).bit_length()
        while step := step >> 1:
            following = at + step
            if following > len(odds):
                continue
            here = odds[following - 1]
            if (passed := here - before - self._taken_odds.get(following, 0)) <= mark:
                at, before, mark = following, here, mark - passed
        return at

    def take(self, number: int) -> None:
        """Take an alternative away."""
        odds = self._odds[number] - (self._odds[number - 1] if number else 0)
        self.left -= 1
        self.odds_left -= odds
        at = number + 1
        while at <= len(self._odds):
            self._taken[at] = self._taken.get(at, 0) + 1
            self._taken_odds[at] = self._taken_odds.get(at, 0) + odds
            at += at & -at


class Picker(Protocol):
    """A way to choose."""

    def pick(self, draw: Draw) -> int:
        """The number of one of the alternatives that are left."""
        ...


class Dice:
    """Picks at random. Only `random()` is used, which no version of Python changes."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(str(seed)).random  # as text: the number alone would lose its sign

    def pick(self, draw: Draw) -> int:
        """One by its odds; any where all have none."""
        total = draw.odds_left
        if total <= 0:
            return draw.at_place(int(self._random() * draw.left))
        return draw.at_odds(min(int(self._random() * total), total - 1))


class Counter:
    """Picks everything in turn, like the wheels of a mileage counter; odds mean nothing."""

    def __init__(self) -> None:
        self._wheels: list[list[int]] = []  # [picked, of how many], in the order of the picks
        self._at = 0

    def pick(self, draw: Draw) -> int:
        """The one that the wheel of this pick shows."""
        if self._at == len(self._wheels):
            self._wheels.append([0, draw.left])
        self._at += 1
        return draw.at_place(self._wheels[self._at - 1][0])

    def advance(self) -> bool:
        """Go to the next combination; False when that was the last."""
        self._at = 0
        while self._wheels and self._wheels[-1][0] + 1 == self._wheels[-1][1]:
            self._wheels.pop()
        if not self._wheels:
            return False
        self._wheels[-1][0] += 1
        return True
