"""Plans of one prompt in short, for a terminal or a page: encoders that agree, warnings, cuts, weighted passages."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clipcond.prompt.findings import Finding
    from clipcond.prompt.plan import Chunk, EncoderPlan, PromptPlan

_CUTS = {"full": "all places are taken", "break": "BREAK", "backtrack": "early, so that what follows stays whole"}


def encoder_groups(plans: Sequence[PromptPlan]) -> list[tuple[str, list[EncoderPlan]]]:
    """Return the encoders of one prompt's plans, grouped by equal chunks, each group with its label.

    A label is `sdxl · clip_l, clip_g`, or with several families `sd15, sdxl · clip_l; sd2 · clip_h`.
    """
    found: list[list[tuple[str, EncoderPlan]]] = []
    for plan in plans:
        for encoder in plan.encoders.values():
            same = next((group for group in found if _alike(group[0][1], encoder)), None)
            if same is None:
                found.append([(plan.family, encoder)])
            else:
                same.append((plan.family, encoder))
    return [(_label(group), [encoder for _, encoder in group]) for group in found]


def _alike(one: EncoderPlan, other: EncoderPlan) -> bool:
    return (one.limit, one.unknown, one.chunks) == (other.limit, other.unknown, other.chunks)


def _label(group: Sequence[tuple[str, EncoderPlan]]) -> str:
    families: dict[str, list[str]] = {}
    for family, encoder in group:
        families.setdefault(encoder.name, []).append(family)
    encoders: dict[str, list[str]] = {}
    for name, of in families.items():
        encoders.setdefault(", ".join(of), []).append(name)
    return "; ".join(f"{of} · {', '.join(names)}" for of, names in encoders.items())


def all_warnings(plans: Sequence[PromptPlan]) -> list[Finding]:
    """Return the warnings of all plans of one prompt, each once, by their places in it."""
    return sorted(
        dict.fromkeys(found for plan in plans for found in plan.warnings), key=lambda found: (found.start, found.end)
    )


def cut_reason(chunks: Sequence[Chunk], index: int) -> str:
    """Say in words why a chunk ends; empty at the end of the prompt."""
    chunk, after = chunks[index], chunks[index + 1 : index + 2]
    if chunk.cut == "end":
        return ""
    if chunk.cut == "break" and after and after[0].part != chunk.part:
        return "AND"
    return _CUTS.get(chunk.cut, chunk.cut)


def weighted_passages(prompt: str, encoder: EncoderPlan) -> list[tuple[str, float]]:
    """Return the passages of a prompt with a weight other than 1, in order; neighbours of one weight are one passage."""
    tokens = [token for chunk in encoder.chunks for token in chunk.tokens]
    passages = []
    for weight, same in groupby(tokens, key=lambda token: token.weight):
        run = list(same)
        if weight != 1:
            passages.append((prompt[run[0].start : run[-1].end], weight))
    return passages
