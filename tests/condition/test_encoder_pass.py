"""Rows to states: each row once, the cache asked first, every length, nothing else encoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from clipcond.condition.cache import Cache
from clipcond.condition.encoder_pass import encode
from clipcond.encode.rows import MAX_TOKENS, TokenSequence
from clipcond.encode.tower import TextStates, Tower


@dataclass
class Counting:
    """A tower whose states are its ids, and which remembers what it was asked."""

    print: str = "one"
    dtype: torch.dtype = torch.float32
    pools: bool = True
    asked: list[list[TokenSequence]] = field(default_factory=list)
    width = 3
    device = torch.device("cpu")

    def fingerprint(self) -> str:
        return self.print

    def encode_rows(
        self,
        rows: Sequence[TokenSequence],
        *,
        vectors: Mapping[str, Tensor] | None = None,
        clip_skip: int = 0,
        final_norm: bool = True,
        max_tokens: int = MAX_TOKENS,
    ) -> TextStates:
        self.asked.append(list(rows))
        hidden = torch.tensor([row.ids for row in rows], dtype=self.dtype)[..., None].repeat(1, 1, 3)
        pooled = hidden[:, 0] if self.pools else None
        return TextStates(hidden=hidden, pooled=pooled, projected=None)


A, B, LONG = TokenSequence((1, 2)), TokenSequence((3, 4)), TokenSequence((1, 2, 3))


def test_each_row_is_encoded_once_and_comes_back_in_order() -> None:
    tower = Counting()
    checked: Tower = tower
    states = encode(checked, [B, A, B, A, A])
    assert list(states) == [B, A]
    assert tower.asked == [[B, A]]
    assert states[A].hidden[:, 0].tolist() == [1, 2]
    assert states[A].pooled is not None
    assert states[A].pooled.tolist() == [1, 1, 1]
    assert states[A].projected is None


def test_rows_of_each_length_go_together() -> None:
    tower = Counting(pools=False)
    states = encode(tower, [A, LONG, B])
    assert tower.asked == [[A, B], [LONG]]
    assert states[LONG].hidden.shape == (3, 3)
    assert states[LONG].pooled is None


def test_what_the_cache_holds_is_not_encoded() -> None:
    tower, cache = Counting(), Cache()
    first = encode(tower, [A], cache=cache)
    both = encode(tower, [B, A], cache=cache)
    assert tower.asked == [[A], [B]]
    assert list(both) == [B, A]
    assert torch.equal(both[A].hidden, first[A].hidden)
    assert encode(tower, [], cache=cache) == {}


def test_everything_that_states_depend_on_is_in_the_key() -> None:
    cache = Cache()
    others = [
        (Counting(), A, {}),
        (Counting(), TokenSequence(A.ids, masked=(1,)), {}),
        (Counting(), TokenSequence(A.ids, vectors=((1, "v"),)), {}),
        (Counting(), A, {"clip_skip": 1}),
        (Counting(), A, {"final_norm": False}),
        (Counting(print="two"), A, {}),
        (Counting(dtype=torch.float16), A, {}),
    ]
    for tower, row, options in others:
        encode(tower, [row], cache=cache, **options)
        assert tower.asked == [[row]]
    for tower, row, options in others:
        encode(tower, [row], cache=cache, **options)
        assert tower.asked == [[row]]


def test_states_from_disk_are_as_they_were_encoded(tmp_path: Path) -> None:
    first = encode(Counting(dtype=torch.bfloat16), [A, LONG], cache=Cache(folder=tmp_path))
    tower = Counting(dtype=torch.bfloat16)
    again = encode(tower, [A, LONG], cache=Cache(folder=tmp_path))
    assert tower.asked == []
    for row, states in first.items():
        assert torch.equal(again[row].hidden, states.hidden)
        assert again[row].hidden.dtype == torch.bfloat16


def test_states_come_to_the_tower() -> None:
    cache, tower = Cache(), Counting()
    encode(tower, [A], cache=cache)
    tower.device = torch.device("meta")
    assert encode(tower, [A], cache=cache)[A].hidden.device.type == "meta"
    assert tower.asked == [[A]]
