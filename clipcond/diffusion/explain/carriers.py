"""The way of a phrase to the denoiser: through its own token states, or through those of another phrase.

A text encoder lets tokens see one another, so the states of `circle` may hold the `red` before them. Of the change that
masking p makes, the share that comes through q is what changes when only q's states are exchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clipcond.condition.families import T5, FamilyLayout
from clipcond.diffusion.explain.counterfactuals import PartTexts, TextRow
from clipcond.diffusion.explain.effects import share
from clipcond.diffusion.explain.spans import PhraseSpan, tokens_of

ALONE, OWN = 0.6, 0.2  # shares: of the one that carries a phrase alone at least, of its own states at most


@dataclass(frozen=True, slots=True)
class Exchange:
    """A text in which only the states of phrase `by` are those of the text with phrase `of` masked."""

    of: int
    by: int
    text: TextRow


def exchanges(text: PartTexts, spans: Sequence[PhraseSpan], layout: FamilyLayout, chunks: int) -> Iterator[Exchange]:
    """Yield, for each phrase of a text, the text with its own states exchanged, and with those of each later phrase.

    chunks: the most that any text of the call has in a CLIP encoder; where T5 follows, its states begin behind them.
    """
    places = {number: _positions(text, spans[number], layout, chunks) for number in text.phrases}
    causal = T5 not in layout.encoders
    whole = text.whole["prompt_embeds"]
    for number, masked in zip(text.phrases, text.masked, strict=True):
        for other in text.phrases:
            earlier = spans[other].start < spans[number].start
            if (causal and earlier) or not len(places[other]) or not len(places[number]):
                continue
            states = whole.clone()
            states[places[other]] = masked["prompt_embeds"][places[other]]
            yield Exchange(number, other, {**text.whole, "prompt_embeds": states})


def _positions(text: PartTexts, span: PhraseSpan, layout: FamilyLayout, chunks: int) -> Tensor:
    """The places of a phrase's tokens among the T positions of its text, every repetition of it counted."""
    length, found = len(text.whole["prompt_embeds"]), list[int]()
    prompt = next(iter(text.plans.by_argument.values()))
    row = max((prompt.encoders[name].chunks[0].frame.length for name in layout.concat_width), default=0)
    readers = [name for name, plan in text.plans.by_encoder.items() if plan is prompt]
    for name in (*[each for each in layout.concat_width if each in readers][:1], *([T5] if T5 in readers else [])):
        plan = prompt.encoders[name]
        if name == T5:
            found += [row * chunks + number for _, number in tokens_of(plan, span)]
            continue
        own = [row * chunk + 1 + number for chunk, number in tokens_of(plan, span)]
        period = length if layout.append_tokens else row * len(plan.chunks)
        found += [start + place for start in range(0, length, period) for place in own if start + place < length]
    return torch.tensor(found, dtype=torch.int64)


def carriers(
    made: Sequence[Exchange], whole: Tensor, masked: Mapping[int, Tensor], exchanged: Tensor
) -> dict[int, int]:
    """The phrases that act only through another one: by number, the number of the one that carries them.

    whole: (C, h, w), the prediction for the whole text.   masked: of each phrase, the prediction with it masked.
    exchanged: (N, C, h, w), the predictions for the exchanges.
    """
    if not made:
        return {}
    effects = torch.stack([masked[each.of] - whole for each in made])
    shares = share(exchanged - whole, effects).tolist()
    by_phrase: dict[int, dict[int, float]] = {}
    for each, value in zip(made, shares, strict=True):
        by_phrase.setdefault(each.of, {})[each.by] = value
    found = {}
    for number, own in by_phrase.items():
        others = {by: value for by, value in own.items() if by != number}
        if others and own.get(number, 1.0) <= OWN:
            best = max(others, key=others.__getitem__)
            if others[best] >= ALONE:
                found[number] = best
    return found
