"""Rows of token ids: what stands around a text, what fits, and what an encoder is told about padding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcond.encode.logits import LogitHead
from clipcond.encode.text_layout import TextLayout
from clipcond.encode.tokenizers import clip_layout, siglip_clean
from clipcond.errors import ModelError, ShapeError
from clipcond.prompt.tokenizer import BOS, EOS


@given(
    st.lists(st.integers(5, 99), max_size=40),
    st.sampled_from(["length", "longest"]),
    st.sampled_from(["right", "left"]),
)
def test_chunks_lose_nothing_and_rows_frame_them(ids, padded, side) -> None:
    layout = TextLayout(length=9, before=(1,), after=(2,), pad=0, padded=padded, side=side, last=(3,))
    chunks = layout.chunks(ids)
    assert [token for chunk in chunks for token in chunk] == ids
    assert all(len(chunk) == layout.content == 6 for chunk in chunks[:-1])
    rows, mask = layout.rows(chunks)
    assert {len(row) for row in rows} == {9 if padded == "length" else 3 + max(map(len, chunks))}
    for chunk, row, seen in zip(chunks, rows, mask, strict=True):
        assert [token for token, one in zip(row, seen, strict=True) if one] == [1, *chunk, 2, 3]
        assert all(token == 0 for token, one in zip(row, seen, strict=True) if not one)
        assert seen[0] == 1 or side == "left"


def test_clips_rows_are_as_long_as_the_longest() -> None:
    layout = clip_layout(77)
    assert (layout.content, layout.rows([[5], [5, 6]])[0]) == (75, [[BOS, 5, EOS, EOS], [BOS, 5, 6, EOS]])


@pytest.mark.parametrize(("length", "message"), [(2, "of 2 positions, 2 of them special"), (1 << 20, "at most 65536")])
def test_lengths_that_make_no_sense(length: int, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        TextLayout(length=length, before=(1,), after=(2,), pad=0)


def test_siglips_cleaning() -> None:
    assert siglip_clean("  A_Red, (fox)!\n ") == siglip_clean("ared fox") == "ared fox"


def test_probabilities_of_both_kinds() -> None:
    cosine = np.array([[0.3, 0.1], [-0.2, 0.4]])
    soft = LogitHead(scale=10.0).probabilities(cosine)
    assert np.allclose(soft.sum(axis=1), 1)
    assert np.allclose(soft[0, 0], 1 / (1 + np.exp(-2)))
    each = LogitHead(scale=10.0, bias=-1.0, activation="sigmoid").probabilities(cosine)
    assert np.allclose(each, 1 / (1 + np.exp(1 - 10 * cosine)))
    extreme = LogitHead(scale=1e6, activation="sigmoid").probabilities(cosine)
    assert extreme.tolist() == [[1, 1], [0, 1]]
    with pytest.raises(ShapeError, match=r"cosine has the shape \(2,\); expected \(N, M\)"):
        LogitHead(scale=1.0).probabilities(cosine[0])
