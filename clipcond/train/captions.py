"""Captions as rows of token ids: BOS, at most 75 content tokens, EOS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from clipcond.prompt.tokenizer import BOS, CONTENT, EOS, batch_ids


def id_rows(
    texts: Sequence[str], normalisation: Literal["openai", "transformers"] = "openai"
) -> tuple[np.ndarray, int]:
    """(B, L) int64 ids, L that of the longest row, padded with EOS; and how many texts were cut to 75 tokens."""
    rows = batch_ids(list(texts), normalisation)
    length = min(CONTENT, max(map(len, rows))) + 2
    ids = np.full((len(rows), length), EOS, dtype=np.int64)
    ids[:, 0] = BOS
    for row, content in zip(ids, rows, strict=True):
        kept = content[:CONTENT]
        row[1 : 1 + len(kept)] = kept
    return ids, sum(len(content) > CONTENT for content in rows)
