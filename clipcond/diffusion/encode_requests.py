"""The two sides of a conditioning from the states of its requests: tensors by the names of arguments, plans, findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from clipcond.diffusion.batch import Batch
from clipcond.diffusion.conditioning import PlacedFinding
from clipcond.diffusion.requests import Encoded, Request
from clipcond.prompt.findings import Finding
from clipcond.prompt.plan import PromptPlan


def sides_of(batch: Batch, encoded: Sequence[Encoded], count: int, *, zeros: bool = False) -> dict[str, Tensor]:
    """The tensors of both sides, of one length, by the names of arguments.

    encoded: `count` prompts, then their negative prompts, if there are any.   zeros: a negative side of zeros.
    """
    states, mask = batch.stack(encoded)
    sides = _named(states[:count], None if mask is None else mask[:count], encoded[:count], "")
    if len(encoded) > count:
        sides |= _named(states[count:], None if mask is None else mask[count:], encoded[count:], "negative_")
    return sides | ({f"negative_{name}": _blank(tensor) for name, tensor in sides.items()} if zeros else {})


def others_of(requests: Sequence[Request]) -> dict[str, tuple[PromptPlan, ...]]:
    """The plans of further texts by the name of their argument."""
    names = [name for name in requests[0].texts if name[-1].isdigit()] if requests else []
    return {name: tuple(each.texts[name] for each in requests) for name in names}


def findings_of(
    batch: Batch, requests: Sequence[Request], encoded: Sequence[Encoded], count: int
) -> Iterator[PlacedFinding]:
    """What is odd about each text, in the order of the `count` prompts, positive side first."""
    for number, (request, made) in enumerate(zip(requests, encoded, strict=True)):
        told = [*batch.unused_weights(number), *((plan, _near_zero(*span)) for plan, span in made.near_zero)]
        read = {id(plan) for plan in request.plans.values()}
        for argument, planned in request.texts.items():
            own = [finding for plan, finding in told if plan is planned]
            if id(planned) not in read and planned.prompt:
                message = f"the pipeline has no encoder that reads {argument}"
                own.append(Finding("text-unused", message, 0, len(planned.prompt)))
            for found in dict.fromkeys([*planned.warnings, *own]):
                yield PlacedFinding(found.code, found.message, found.start, found.end, argument, number % count)


def as_written(
    sides: Sequence[Sequence[Request]], found: Iterable[PlacedFinding], number: Callable[[int], int]
) -> list[PlacedFinding]:
    """What is odd about texts as they were written, and each once what was found in the texts that were made of them.

    sides: the requests as written.   found: of the texts that were encoded; the place of theirs is the whole text.
    number: from the index of an encoded request to that of the written one.
    """
    known = {
        (argument, index): planned
        for side in sides
        for index, request in enumerate(side)
        for argument, planned in request.texts.items()
    }
    placed = [
        PlacedFinding(each.code, each.message, each.start, each.end, argument, index)
        for (argument, index), planned in known.items()
        for each in planned.warnings
    ]
    told = {(each.code, each.argument, each.index) for each in placed}
    for each in found:
        place = each.argument, number(each.index)
        if place in known and (each.code, *place) not in told:
            told.add((each.code, *place))
            placed.append(PlacedFinding(each.code, each.message, 0, len(known[place].prompt), *place))
    return placed


def unread(negative: Sequence[Request], reason: str) -> Iterator[PlacedFinding]:
    """A finding for each negative text that nothing reads."""
    for number, request in enumerate(negative):
        for argument, planned in request.texts.items():
            if planned.prompt:
                yield PlacedFinding("negative-unused", reason, 0, len(planned.prompt), argument, number)


def _named(states: Tensor, mask: Tensor | None, encoded: Sequence[Encoded], side: str) -> dict[str, Tensor]:
    """The tensors of one side by the names of their arguments."""
    named = {f"{side}prompt_embeds": states}
    pooled = [each.pooled for each in encoded if each.pooled is not None]
    if pooled:
        named[f"{side}pooled_prompt_embeds"] = torch.stack(pooled)
    return named if mask is None else named | {f"{side}prompt_attention_mask": mask}


def _blank(tensor: Tensor) -> Tensor:
    """Zeros for states and pooled vectors; a mask stays."""
    return tensor if tensor.dtype == torch.bool else torch.zeros_like(tensor)


def _near_zero(start: int, end: int) -> Finding:
    message = "the mean of the weighted states is near zero; it is not restored, and the states stay as they are"
    return Finding("mean-near-zero", message, start, end)
