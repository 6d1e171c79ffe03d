"""The tree of bracket groups, and the weight inside each of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from clipcond.prompt.dialects.weights import HEAVIEST, bounded


@dataclass(slots=True)
class BracketGroups:
    """Bracket groups by number. Node 0 is the prompt; a parent's number is smaller than its children's.

    A node's factor may become known only where it closes: `settle` works out the weights when everything is read.
    """

    parent: list[int]
    factor: list[float]  # of the parent's weight
    opened: list[int]  # the place of the bracket
    fixed: dict[int, float]  # node -> a weight that holds whatever is around it
    blamed: set[int]  # nodes whose own number was warned about
    weights: list[float]  # settled: the weight inside the node
    numbers: list[int]  # settled: the innermost closed group around, -1 outside of all

    def __init__(self) -> None:
        self.parent, self.factor, self.opened = [0], [1.0], [-1]
        self.fixed, self.blamed, self.weights, self.numbers = {}, set(), [], []

    def open(self, parent: int, place: int, factor: float) -> int:
        """Open a group at `place`; return its number."""
        self.parent.append(parent)
        self.factor.append(factor)
        self.opened.append(place)
        return len(self.parent) - 1

    def settle(self, unclosed: Iterable[int] = ()) -> None:
        """Work out weights and numbers. `unclosed` nodes weigh, but are no groups that could be kept whole."""
        loose, fixed, blamed = set(unclosed), self.fixed, self.blamed
        weights, numbers = [1.0], [-1]
        for node, parent in enumerate(islice(self.parent, 1, None), 1):
            weight = fixed[node] if node in fixed else weights[parent] * self.factor[node]
            weights.append(weight if -HEAVIEST <= weight <= HEAVIEST else bounded(weight))
            numbers.append(numbers[parent] if node in loose else node)
            if parent in blamed and node not in fixed:
                blamed.add(node)
        self.weights, self.numbers = weights, numbers
