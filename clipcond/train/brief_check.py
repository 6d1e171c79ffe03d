"""The short look at the data before the first step of every run: no picture is read for it."""

from __future__ import annotations

from clipcond.encode.unseen_words import TokenRows
from clipcond.prompt.tokenizer import CONTENT
from clipcond.train.caption_checks import captions_of, check_lengths, check_words, ids_of
from clipcond.train.check import OK
from clipcond.train.config import TrainConfig
from clipcond.train.data import Pairs
from clipcond.train.picture_checks import check_leakage

_MOST = 20_000  # pictures whose captions are read


def brief_check(
    config: TrainConfig, pairs: Pairs, held_out: Pairs | None, table: TokenRows, content: int = CONTENT
) -> tuple[str, ...]:
    """Return a line for each thing that is not as it should be: captions that are cut, unseen words, leaked pictures.

    table: of the text tower, which reads `content` tokens.
    """
    captions = captions_of(pairs, _MOST)
    ids = ids_of(captions)
    checks = [check_lengths(captions, ids, content), check_words(captions, ids, table, config)]
    if held_out is not None:
        checks.append(check_leakage(pairs, held_out, by_bytes=False))
    told = [f"{check.text}: {check.examples[0]}" for check in checks if check.verdict != OK]
    return (*told, "clipcond train --check says more of the data") if told else ()
