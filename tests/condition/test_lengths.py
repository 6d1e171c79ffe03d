"""Repetition to a common length: exact for softmax attention."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from clipcond.condition import lengths
from clipcond.condition.lengths import LENGTHS, common_length, mask_to, pad_with, repeat_to, repeated_length
from clipcond.encode.shapes import check_axes
from clipcond.errors import ConfigError, ShapeError


@pytest.mark.property
@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31 - 1))
def test_attention_does_not_notice(first: int, second: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    query, *sides = (torch.randn(2, n, 8, generator=generator, dtype=torch.float64) * 3 for n in (5, first, second))
    length = common_length([first, second])
    out = [repeat_to(side, length) for side in sides]
    assert {side.shape[1] for side in out} == {length}
    for short, long in zip(sides, out, strict=True):
        torch.testing.assert_close(
            scaled_dot_product_attention(query, long, long), scaled_dot_product_attention(query, short, short)
        )


def test_what_fits_comes_back_as_it_is() -> None:
    states = torch.randn(2, 77, 4)
    assert repeat_to(states, 77) is states
    longer = repeat_to(states[:, :19], 38)
    assert longer.shape == (2, 38, 4)
    assert torch.equal(longer[:, :19], states[:, :19])
    assert torch.equal(longer[:, 19:], states[:, :19])


def test_misfits_are_named() -> None:
    with pytest.raises(ShapeError, match="axis T is 77, which does not divide the wanted length of 100"):
        repeat_to(torch.zeros(1, 77, 4), 100)
    with pytest.raises(ShapeError, match=r"states: 2 axes of \(2, 4\), expected 3"):
        repeat_to(torch.zeros(2, 4), 4)
    with pytest.raises(ShapeError, match="expected at least one"):
        common_length([])
    with pytest.raises(ShapeError, match=r"\[3, 0\], expected at least one and all of them 1 or more"):
        common_length([3, 0])


def test_axes_give_their_sizes() -> None:
    assert check_axes("x", torch.zeros(2, 3), "B T") == {"B": 2, "T": 3}


@pytest.mark.property
@given(st.integers(1, 9), st.integers(0, 9), st.integers(0, 2**31 - 1))
def test_attention_does_not_see_what_is_masked(length: int, more: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    query, states = (torch.randn(2, n, 8, generator=generator, dtype=torch.float64) * 3 for n in (5, length))
    padded, mask = mask_to(states, length + more)
    assert padded.shape == (2, length + more, 8)
    assert mask.dtype == torch.bool
    assert mask.sum(dim=1).tolist() == [length, length]
    out = scaled_dot_product_attention(query, padded, padded, attn_mask=mask[:, None, :])
    torch.testing.assert_close(out, scaled_dot_product_attention(query, states, states))


def test_the_empty_prompt_draws_attention() -> None:
    states, empty, query = torch.randn(2, 6, 8), torch.randn(3, 8), torch.randn(2, 4, 8)
    padded = pad_with(states, empty, 12)
    assert torch.equal(padded[:, :6], states)
    assert torch.equal(padded[:, 6:], torch.stack([torch.cat([empty, empty])] * 2))
    noticed = scaled_dot_product_attention(query, padded, padded)
    assert (noticed - scaled_dot_product_attention(query, states, states)).abs().max() > 1e-3


def test_nothing_is_added_to_what_is_long_enough() -> None:
    states = torch.randn(2, 6, 8)
    assert pad_with(states, states[0, :3], 6) is states
    padded, mask = mask_to(states, 6)
    assert padded is states
    assert mask.all()
    assert LENGTHS == ("lcm", "mask", "pad_empty")


def test_misfits_of_padding_are_named() -> None:
    states = torch.zeros(1, 6, 4)
    with pytest.raises(ShapeError, match="states: axis T is 6, more than the wanted length of 5"):
        mask_to(states, 5)
    with pytest.raises(ShapeError, match="states: axis T is 6, more than the wanted length of 3"):
        pad_with(states, states[0, :3], 3)
    with pytest.raises(ShapeError, match="empty: axis L is 4, which does not divide the 3 rows that are missing"):
        pad_with(states, states[0, :4], 9)
    with pytest.raises(ShapeError, match=r"empty: axis D is 3, expected 4 in \(L, D\)"):
        pad_with(states, torch.zeros(3, 3), 9)


def test_states_of_more_than_half_a_gibibyte_are_refused_before_they_are_made() -> None:
    lengths = [77, 385, 462, 539]  # of 1, 5, 6 and 7 chunks
    assert repeated_length(lengths, 64 * 64 * 4) == 16170
    with pytest.raises(
        ConfigError,
        match="meet at 16170 by repetition and take 8,085 MiB, more than 512; condition them in calls of their own",
    ):
        repeated_length(lengths, 64 * 2048 * 4)


def test_lengths_that_meet_too_far_off_are_refused() -> None:
    assert repeated_length([77, 154, 231]) == 462
    with pytest.raises(
        ConfigError, match="rows of 539, 616, 693 tokens meet at 38808 by repetition; condition them in c"
    ):
        repeated_length([693, 539, 616, 539])


def test_repetition_has_a_limit_in_bytes() -> None:
    chunks = [77, 385, 462, 539]
    assert repeated_length(chunks, 64 * 16 * 4) == 210 * 77
    with pytest.raises(
        ConfigError,
        match=r"rows of 77, 385, 462, 539 tokens meet at 16170 by repetition and take 1,011 MiB, more than 512; "
        r"condition them in calls of their own, or say lengths='pad_empty'",
    ):
        repeated_length(chunks, 128 * 128 * 4)
    assert repeated_length([77], 2**40) == 77  # nothing is repeated


def test_rows_beyond_the_machine_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lengths, "machine_memory", lambda: 2**30)
    lengths.check_memory(10, 77, 100)
    with pytest.raises(
        ConfigError, match=r"2,048 rows of 77 tokens would take 2\.0 GiB, more than the 1\.0 GiB of this"
    ):
        lengths.check_memory(2048, 77, 2**20)
    monkeypatch.setattr(lengths, "machine_memory", lambda: None)
    lengths.check_memory(2048, 77, 2**20)
