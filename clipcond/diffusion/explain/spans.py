"""The phrases that are explained: those of the analyzer, the words, or those that the user names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal, get_args

from clipcond.errors import ConfigError
from clipcond.prompt.analysis.phrases import analyse, words
from clipcond.prompt.plan import EncoderPlan, PromptPlan
from clipcond.wording import visible

By = Literal["phrase", "word"]
BY = get_args(By)
Side = Literal["prompt", "negative_prompt"]
_NAMED = 6  # phrases that an error lists


@dataclass(frozen=True, slots=True, kw_only=True)
class PhraseSpan:
    """A passage of a prompt, its text as it was typed. part: the part of an AND that it stands in, from 0."""

    text: str
    start: int
    end: int
    side: Side = "prompt"
    part: int = 0


def phrase_spans(
    plan: PromptPlan, *, by: str = "phrase", asked: Sequence[str] | None = None, side: Side = "prompt"
) -> tuple[PhraseSpan, ...]:
    """Return the phrases of a plan, in the order of the prompt.

    by: `phrase`, those between commas, full stops, BREAKs and ANDs, brackets never cut; or `word`.
    asked: the user's own in their place, each wherever it stands, in any case; in their order.
    Raises ConfigError for another `by`, and for a phrase that the prompt does not have.
    """
    if by not in BY:
        raise ConfigError(f"by is {by!r}, expected {' or '.join(BY)}")
    encoder = next(iter(plan.encoders.values()))
    if asked is not None:
        places = [span for phrase in dict.fromkeys(asked) for span in passages(plan.prompt, phrase)]
    elif by == "word":
        places = list(words(plan))
    else:
        places = [(each.start, each.end) for each in analyse(plan).phrases]
    spans = [PhraseSpan(text=plan.prompt[start:end], start=start, end=end, side=side) for start, end in places]
    return tuple(replace(each, part=_part(encoder, each)) for each in spans)


def check_asked(plans: Sequence[PromptPlan], asked: Sequence[str]) -> None:
    """Raise ConfigError for a phrase that none of the prompts has, naming what there is."""
    for phrase in asked:
        if not any(_pattern(phrase) and _found(plan.prompt, phrase) for plan in plans):
            there = [each.text for plan in plans for each in phrase_spans(plan)]
            near = get_close_matches(phrase, there, n=1, cutoff=0.5)
            named = near or there[:_NAMED]
            more = ", …" if not near and len(there) > _NAMED else ""
            known = ", ".join(f"“{visible(each)}”" for each in named)
            raise ConfigError(f"the prompt has no “{visible(phrase)}” in it; there is {known}{more}")


def passages(prompt: str, phrase: str) -> list[tuple[int, int]]:
    """(start, end) of each place where a prompt has a phrase, as whole words in any case."""
    return [match.span() for match in _found(prompt, phrase)]


def _found(prompt: str, phrase: str) -> list[re.Match[str]]:
    pattern = _pattern(phrase)
    return list(re.finditer(pattern, prompt, re.IGNORECASE)) if pattern else []


def _pattern(phrase: str) -> str:
    """A phrase as whole words, with any white space between them; empty for a blank one."""
    parts = phrase.split()
    inner = r"\s+".join(map(re.escape, parts))
    before = r"(?<!\w)" if parts and parts[0][0].isalnum() else ""
    after = r"(?!\w)" if parts and parts[-1][-1].isalnum() else ""
    return f"{before}{inner}{after}" if parts else ""


def _part(encoder: EncoderPlan, span: PhraseSpan) -> int:
    """The part of an AND that a passage begins in."""
    return next(
        (
            chunk.part
            for chunk in encoder.chunks
            for token in chunk.tokens
            if token.start < span.end and span.start < token.end
        ),
        0,
    )


def tokens_of(encoder: EncoderPlan, span: PhraseSpan) -> Iterator[tuple[int, int]]:
    """Yield (chunk, content token) of each token that was written in a passage, both from 0."""
    for chunk in encoder.chunks:
        for number, token in enumerate(chunk.tokens):
            if token.start < span.end and span.start < token.end:
                yield chunk.index, number
