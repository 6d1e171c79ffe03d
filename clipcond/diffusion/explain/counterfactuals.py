"""Counterfactual texts: the tokens of a prompt encoded again with one phrase masked, all in one pass of each encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from clipcond.diffusion.conditioner import Conditioner
from clipcond.diffusion.encode_plans import encode_plans
from clipcond.diffusion.explain.spans import PhraseSpan
from clipcond.diffusion.prompt_plans import EncodeOptions, PromptPlans, Sides

TextRow = Mapping[str, Tensor]  # `prompt_embeds` (T, D), and where there is one `pooled_prompt_embeds` (P)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartTexts:
    """One text that the denoiser reads: a prompt, or one part of an AND, with its phrases masked one by one.

    weight: of the part, 1 for a prompt that is one.   phrases: the numbers of the phrases in it.
    masked: of each of these, the text with the phrase hidden.
    """

    weight: float
    whole: TextRow
    empty: TextRow
    phrases: tuple[int, ...]
    masked: tuple[TextRow, ...]
    plans: PromptPlans


def encode_counterfactuals(
    conditioner: Conditioner,
    sides: Sides[PromptPlans],
    empty: PromptPlans,
    spans: Sequence[PhraseSpan],
    options: EncodeOptions,
) -> Sides[PartTexts]:
    """Encode both sides of one picture's prompt, whole and with each phrase masked.

    sides: one plan on each side, or none on the negative one.   empty: of the empty prompt.
    All rows are of one length, that which a call of the Conditioner gives the two sides.
    """
    texts = [*_texts(sides.positive, spans, "prompt"), *_texts(sides.negative, spans, "negative_prompt")]
    rows = [empty]
    for plans, _, own in texts:
        rows += [plans, *(replace(plans, hidden=((spans[n].start, spans[n].end),)) for n in own)]
    (encoded,) = encode_plans(
        conditioner.pipeline,
        [Sides(tuple(rows), ())],
        options,
        inversions=conditioner.inversions,
        cache=conditioner.cache,
    )
    made = [{name: each[at] for name, each in encoded.tensors.items()} for at in range(len(rows))]
    parts, at = [], 1
    for plans, weight, own in texts:
        parts.append(
            PartTexts(
                weight=weight,
                whole=made[at],
                empty=made[0],
                phrases=own,
                masked=tuple(made[at + 1 : at + 1 + len(own)]),
                plans=plans,
            )
        )
        at += 1 + len(own)
    count = sum(1 for _ in _texts(sides.positive, spans, "prompt"))
    return Sides(tuple(parts[:count]), tuple(parts[count:]))


def _texts(
    side: Sequence[PromptPlans], spans: Sequence[PhraseSpan], name: str
) -> list[tuple[PromptPlans, float, tuple[int, ...]]]:
    """The texts of one side, each with its weight and the numbers of its phrases."""
    found = []
    for plans in side:
        plan = next(iter(plans.by_argument.values()))
        own = [number for number, each in enumerate(spans) if each.side == name]
        if not plan.parts or plan.parts[0].how != "noise":
            found.append((plans, 1.0, tuple(own)))
            continue
        for number, part in enumerate(plan.parts):
            inside = tuple(each for each in own if spans[each].part == number)
            found.append((plans.part(number), part.weight, inside))
    return found
