"""Words of a ranking's prompts that its model has never seen, so that people do not take its numbers for more than they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clipcond.prompt.tokenizer import batch_ids

if TYPE_CHECKING:
    from clipcond.rerank.scorer import Scorer

_MOST = 2000  # prompts that are read for their words: more name no other kind of word


def unseen_in(prompts: Sequence[str], scorer: Scorer) -> tuple[str, ...]:
    """Return the words of some prompts that the scorer's model never learned, each once."""
    from clipcond.encode.unseen_words import unseen_words
    from clipcond.prompt.plan import plan

    if not scorer.dual.reads_clip_tokens:  # of other vocabularies it is not known which rows were never trained
        return ()
    distinct = list(dict.fromkeys(prompts))
    ids = batch_ids(distinct, scorer.dual.normalisation)
    unknown = scorer.dual.text.untrained({each for row in ids for each in row})
    if not unknown:  # every pretrained model, without a look at a word
        return ()
    some = [prompt for prompt, row in zip(distinct, ids, strict=True) if not unknown.isdisjoint(row)][:_MOST]
    plans = (plan(prompt, dialect="plain").encoders["clip_l"] for prompt in some)
    tokens = [token for encoder in plans for chunk in encoder.chunks for token in chunk.tokens]
    return unseen_words(scorer.dual.text, tokens)


def unseen_line(words: Sequence[str], model: str) -> str:
    """Say so in one line, with a pretrained model that lies in the local cache; empty for no words."""
    from clipcond.encode.unseen_words import tell_unseen
    from clipcond.models.catalogue import pretrained_here

    if not words:
        return ""
    other = pretrained_here("rerank")
    return tell_unseen(words, model, f"--model {other}" if other and other != model else "")
