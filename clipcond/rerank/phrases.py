"""A plain prompt in phrases, scored one by one: which of them does a picture lack?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from clipcond.rerank.rows import PhraseScore, RankedImage
from clipcond.score.checks import groups_of
from clipcond.score.phrases import phrase_scores
from clipcond.score.similarity import cosines
from clipcond.wording import visible

if TYPE_CHECKING:
    import torch

    from clipcond.rerank.scorer import Scorer

_BORDER = re.compile(r"[,;|\n，、；。]+|[.!?]+(?=\s|$)|\b(?:BREAK|AND)\b")
_MOST = 40  # phrases of a prompt: beyond that its end is a heap of tags
_ENOUGH = 4  # pictures of a prompt that say something about a phrase
_MOSTLY = 0.75  # share of them that lack it, from which on it is the phrase and not the pictures


def split_phrases(prompt: str) -> tuple[str, ...]:
    """Return the phrases between commas, stops, line feeds, BREAK and AND, each once, without spaces at their ends."""
    parts = (" ".join(part.split()) for part in _BORDER.split(prompt))
    return tuple(dict.fromkeys(part for part in parts if any(letter.isalnum() for letter in part)))[:_MOST]


def with_phrases(
    rows: Sequence[RankedImage], vectors: torch.Tensor, scorer: Scorer, margin: float
) -> tuple[list[RankedImage], tuple[str, ...]]:
    """Return the rows with the scores of their phrases, and a note for each phrase that nearly all pictures lack.

    Such a phrase marks no picture: either none shows it, or the model does not know its words, and nobody can tell.
    vectors: (R, P) unit rows.   margin: how far below a prompt's other phrases a missing one lies.
    """
    phrases = {prompt: split_phrases(prompt) for prompt in dict.fromkeys(row.prompt or "" for row in rows)}
    found = [
        replace(row, phrases=_scored(phrases[row.prompt or ""], vectors[n : n + 1], scorer, margin))
        for n, row in enumerate(rows)
    ]
    notes = []
    for members in groups_of([row.prompt for row in found], len(found)):
        for place in _lacked_by_most([found[n] for n in members]):
            lacking = sum(found[n].phrases[place].missing for n in members)
            text = visible(found[members[0]].phrases[place].text)
            notes.append(
                f"“{text}” falls short in {lacking} of {len(members)} pictures: none shows it, or the model does not know it"
            )
            for n in members:
                each = found[n].phrases
                found[n] = replace(
                    found[n], phrases=(*each[:place], replace(each[place], missing=False), *each[place + 1 :])
                )
    return found, tuple(notes)


def _scored(phrases: Sequence[str], vector: torch.Tensor, scorer: Scorer, margin: float) -> tuple[PhraseScore, ...]:
    if not phrases:
        return ()
    each = [float(cosines(vector, text.vector)[0]) for text in scorer.texts(phrases)]
    missing = phrase_scores(each, margin=margin).missing
    return tuple(
        PhraseScore(text=text, cosine=cosine, missing=n in missing)
        for n, (text, cosine) in enumerate(zip(phrases, each, strict=True))
    )


def _lacked_by_most(rows: Sequence[RankedImage]) -> Iterator[int]:
    """The places of phrases that nearly all of a prompt's pictures lack."""
    if len(rows) >= _ENOUGH:
        for place in range(len(rows[0].phrases)):
            if sum(row.phrases[place].missing for row in rows) >= _MOSTLY * len(rows):
                yield place
