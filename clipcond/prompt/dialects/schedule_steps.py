"""The items of a scheduled prompt at one step, and at the step that reads most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from clipcond.prompt.dialects.schedules import last_step
from clipcond.prompt.items import Adapter, Break, Compose, Embedding, Item, Schedule, Swap, Words
from clipcond.prompt.layout import joined
from clipcond.prompt.tokenizer import count_tokens

_Leaf = Words | Break | Compose | Embedding


def items_at(items: Sequence[Item], step: int, steps: int) -> tuple[Item, ...]:
    """Return the items with each schedule showing what it says at a step (from 1) of a base pass of so many steps."""
    return tuple([_at(item, step, steps) if isinstance(item, Schedule) else item for item in items])


def longest_items(items: Sequence[Item], steps: int) -> tuple[Item, ...]:
    """Return the items at the first step whose text has most tokens of CLIP, the vectors of embeddings among them."""
    if not any(isinstance(item, Schedule) for item in items):
        return tuple(items)
    candidates = [items_at(items, step, steps) for step in _first_steps(items, steps)]
    return max(candidates, key=_tokens)


def _at(schedule: Schedule, step: int, steps: int) -> Schedule:
    options = schedule.options
    turn = (step - 1) % len(options) if schedule.kind == "alternate" else int(step > last_step(schedule.when, steps))
    return replace(schedule, options=(items_at(options[turn], step, steps),))


def _first_steps(items: Sequence[Item], steps: int) -> Sequence[int]:
    """Return the first steps of the runs in which nothing changes; with an alternation every step may differ."""
    schedules = [*_schedules(items)]
    if any(each.kind == "alternate" for each in schedules):
        return range(1, steps + 1)
    lasts = {last_step(each.when, steps) for each in schedules}
    return [1, *sorted(last + 1 for last in lasts if 0 < last < steps)]


def _schedules(items: Sequence[Item]) -> Iterator[Schedule]:
    for item in items:
        if isinstance(item, Schedule):
            yield item
            for option in item.options:
                yield from _schedules(option)


def _tokens(items: Sequence[Item]) -> int:
    texts: list[str] = []
    vectors = 0
    for item in joined(_leaves(items)):
        if isinstance(item, Words):
            texts.append(item.text)
        elif isinstance(item, Embedding):
            vectors += item.vectors
    return vectors + sum(count_tokens(texts))


def _leaves(items: Sequence[Item]) -> Iterator[_Leaf]:
    for item in items:
        if isinstance(item, (Schedule, Swap)):
            yield from _leaves(item.items)
        elif not isinstance(item, Adapter):
            yield item
