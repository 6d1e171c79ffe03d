"""Rows to states: each row once, the cache asked first, every length; a pass with the rows that weights need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from clipcond.condition.cache import Cache
from clipcond.condition.encoder_input import EncoderInput, empty_row, encoder_input
from clipcond.condition.encoder_pass import EncoderPass, encode, weigh_together, weighted_alike
from clipcond.condition.weighting import parse_method
from clipcond.encode.rows import MAX_TOKENS, TokenSequence
from clipcond.encode.tower import TextStates, Tower
from clipcond.prompt.plan import plan
from clipcond.prompt.tokenizer import EOS


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


def pass_of(tower: Counting, method: str) -> EncoderPass:
    return EncoderPass(
        tower, method=parse_method(method), comma=267, empty_row=lambda length: empty_row(EOS, length=length)
    )


def input_of(prompt: str) -> EncoderInput:
    return encoder_input(plan(prompt, dialect="a1111").encoders["clip_l"])


def test_the_empty_prompt_is_encoded_only_where_it_is_needed() -> None:
    weighted = input_of("a (red:1.3) fox")
    for method, rows in (("a1111", 1), ("comfy", 2)):
        tower = Counting()
        own = pass_of(tower, method)
        own.add(weighted)
        own.add(weighted)
        own.run(clip_skip=0, final_norm=True, cache=None)
        assert [len(each) for each in tower.asked] == [rows]
        assert (own.empty(77) is None) == (method == "a1111")


def test_no_other_row_stands_in_for_an_empty_prompt_that_was_not_encoded() -> None:
    own = pass_of(Counting(), "a1111")
    own.add(input_of("a (red:1.3) fox"))
    own.run(clip_skip=0, final_norm=True, cache=None)
    assert own.empty(77) is None
    own.add_empty(77)
    own.run(clip_skip=0, final_norm=True, cache=None)
    empty = own.empty(77)
    assert empty is not None
    assert empty[:, 0].tolist() == list(empty_row(EOS).ids)


def test_encoders_are_weighed_together_as_if_they_were_one() -> None:
    weighted = input_of("a (red:1.3) fox")
    passes = [pass_of(Counting(), "comfy") for _ in range(2)]
    for each in passes:
        each.add(weighted)
        each.run(clip_skip=0, final_norm=True, cache=None)
    (both, same), failed = weigh_together(passes, [weighted, weighted], method=parse_method("comfy"))
    ((alone,), _) = weigh_together(passes[:1], [weighted], method=parse_method("comfy"))
    assert torch.equal(both, same)
    assert torch.equal(both, alone)
    assert not torch.equal(alone, passes[0].hidden(weighted))
    assert failed == ()


def test_inputs_of_other_weights_or_parts_are_not_alike() -> None:
    first = input_of("a (red:1.3) fox")
    assert weighted_alike([first, input_of("a (blue:1.3) fox")])
    assert not weighted_alike([first, input_of("a (red:1.4) fox")])
    assert not weighted_alike([first, input_of("a (red:1.3) fox AND a bird")])
