"""The input of an encoder from its plan: ids, weights, segments, and the vectors of embeddings."""

from __future__ import annotations

import pytest
import torch

from clipcond.condition.encoder_input import empty_row, encoder_input
from clipcond.encode.rows import TokenSequence
from clipcond.prompt.families import FAMILIES, Frame
from clipcond.prompt.plan import plan
from clipcond.prompt.tokenizer import BOS, EOS, token_ids


def test_a_short_prompt_is_one_row_with_weights_at_its_places() -> None:
    encoder = plan("a (red:1.3) fox", dialect="a1111").encoders["clip_l"]
    found = encoder_input(encoder)
    assert found.rows == (TokenSequence((BOS, *token_ids("a red fox"), EOS, *[EOS] * 72)),)
    expected = torch.ones(1, 77)
    expected[0, 2] = 1.3
    assert found.weights.dtype == torch.float32
    assert torch.equal(found.weights, expected)
    assert found.segments[0, :6].tolist() == [-1, 0, 1, 2, -1, -1]
    assert (found.segments[0, 4:] == -1).all()
    assert (found.part_numbers, found.counts, found.weighted) == ((0,), (3,), ((3, 6),))


def test_a_plain_prompt_is_one_segment_without_weights() -> None:
    found = encoder_input(plan("w " * 80).encoders["clip_l"])
    assert (found.weights == 1).all()
    assert found.segments[1, :7].tolist() == [-1, 0, 0, 0, 0, 0, -1]
    assert (found.counts, found.weighted) == ((75, 5), (None, None))


def test_the_pad_id_is_that_of_the_encoder() -> None:
    encoders = plan("a fox", family="sdxl").encoders
    assert encoder_input(encoders["clip_l"]).rows[0].ids[4:] == (EOS,) * 73
    assert encoder_input(encoders["clip_g"]).rows[0].ids[3:] == (EOS, *[0] * 73)


def test_embeddings_become_ids_or_digests_in_every_chunk() -> None:
    prompt = "w " * 74 + "toy w"
    encoder = plan(prompt, embeddings={"toy": 3}).encoders["clip_l"]
    by_id = encoder_input(encoder, vector_names={"toy": (49408, 49409, 49410)})
    assert by_id.counts == (74, 4)
    assert by_id.rows[1].ids[:6] == (BOS, 49408, 49409, 49410, *token_ids("w"), EOS)
    assert by_id.rows[1].vectors == ()
    by_digest = encoder_input(encoder, vector_names={"toy": ("x", "y", "z")})
    assert by_digest.rows[1].ids[1:4] == (0, 0, 0)
    assert by_digest.rows[1].vectors == ((1, "x"), (2, "y"), (3, "z"))
    assert by_digest.rows[0] == by_id.rows[0]


def test_parts_are_told_apart_and_can_be_taken_out() -> None:
    found = encoder_input(plan('("a red fox", "a bird+").and()', dialect="compel").encoders["clip_l"])
    assert found.part_numbers == (0, 1)
    second = found.of_part(1)
    assert (second.rows, second.counts) == (found.rows[1:], (2,))
    assert torch.equal(second.weights, found.weights[1:])
    assert second.weighted == found.weighted[1:] != (None,)


def test_a_prompt_that_is_one_is_its_own_part() -> None:
    found = encoder_input(plan("w " * 80).encoders["clip_l"])
    assert found.by_part == (found,)
    assert (found.end_to_end, found.joined_chunks, found.length) == (True, 2, 77)


@pytest.mark.parametrize(("how", "end_to_end", "chunks"), [("and", True, 3), ("blend", False, 2)])
def test_parts_have_inputs_of_their_own(how: str, end_to_end: bool, chunks: int) -> None:
    planned = plan(f'("a red fox", "{"w " * 80}").{how}()', dialect="compel")
    found = encoder_input(planned.encoders["clip_l"], parts=planned.parts)
    assert [each.counts for each in found.by_part] == [(3,), (75, 5)]
    assert (found.end_to_end, found.joined_chunks) == (end_to_end, chunks)


def test_the_empty_row_is_the_row_of_the_empty_prompt() -> None:
    for encoder in plan("", family="sdxl").encoders.values():
        assert (empty_row(encoder.pad_id),) == encoder_input(encoder).rows
    t5 = Frame(opening=None, closing=1, length=8)
    assert empty_row(0, frame=t5) == TokenSequence((1, *[0] * 7))
    assert empty_row(0, frame=t5, length=3) == TokenSequence((1, 0, 0))
    assert FAMILIES["flux"]["t5"].pad_id == 0
