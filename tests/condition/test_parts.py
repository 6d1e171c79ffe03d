"""Parts of a prompt put together, against the formulas written out."""

from __future__ import annotations

import pytest
import torch

from clipcond.condition.parts import join, mix, only, wants_empty
from clipcond.errors import ShapeError
from clipcond.prompt.plan import Part, plan

E = torch.arange(12.0).reshape(3, 4)  # L 3, D 4


def states(chunks: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(chunks, 3, 4, generator=torch.Generator().manual_seed(seed)).to(dtype)


def parts(how: str, *weights: float) -> list[Part]:
    return [Part(weight=weight, how=how) for weight in weights]  # type: ignore[arg-type]


def test_a_whole_prompt_is_its_chunks_end_to_end() -> None:
    one = states(2, 0)
    assert torch.equal(join([one], parts("concatenate", 1)), one.reshape(6, 4))


def test_concatenated_parts_lie_end_to_end_each_by_its_weight() -> None:
    one, two = states(1, 0), states(2, 1)
    out = join([one, two], parts("concatenate", 1, 0.25), E)
    expected = torch.cat([one[0], *(E + (chunk - E) * 0.25 for chunk in two)])
    torch.testing.assert_close(out, expected)
    assert torch.equal(out[:3], one[0])  # untouched at weight 1
    assert join([one, two], parts("concatenate", 1, 1)).shape == (9, 4)


@pytest.mark.parametrize(("how", "divisor"), [("blend", 2.0), ("sum", 1.0)])
def test_blended_parts_are_filled_up_and_added(how: str, divisor: float) -> None:
    one, two = states(1, 0), states(2, 1)
    out = join([one, two], parts(how, 0.5, 1.5), E)
    expected = (0.5 * torch.cat([one[0], E]) + 1.5 * two.reshape(6, 4)) / divisor
    torch.testing.assert_close(out, expected)


def test_weights_that_add_up_to_nothing_are_not_divided_by() -> None:
    one, two = states(1, 0), states(1, 1)
    torch.testing.assert_close(join([one, two], parts("blend", 1, -1)), (one - two)[0])


def test_pooled_vectors_are_mixed_alike() -> None:
    one, two = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 6.0])
    torch.testing.assert_close(mix([one, two], parts("blend", 1, 3)), torch.tensor([2.5, 5.0]))
    torch.testing.assert_close(mix([one, two], parts("sum", 1, 1)), torch.tensor([4.0, 8.0]))


def test_half_precision_is_kept_and_computed_in_float32() -> None:
    one, two = states(1, 0, torch.float16), states(1, 1, torch.float16)
    out = join([one, two], parts("blend", 1, 2))
    assert out.dtype == torch.float16
    assert torch.equal(out, ((one.float() + 2 * two.float()) / 3)[0].half())


def test_when_the_empty_prompt_is_wanted() -> None:
    assert not wants_empty(parts("concatenate", 1), [3])
    assert not wants_empty(parts("concatenate", 1, 1), [1, 2])
    assert wants_empty(parts("concatenate", 1, 0.5), [1, 1])
    assert not wants_empty(parts("blend", 1, 0.5), [2, 2])
    assert wants_empty(parts("blend", 1, 0.5), [1, 2])


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ShapeError, match="states: of 1 parts, expected 2"):
        join([states(1, 0)], parts("blend", 1, 1))
    with pytest.raises(ShapeError, match="empty: None, but parts of these weights and lengths want the empty prompt"):
        join([states(1, 0), states(2, 0)], parts("blend", 1, 1))
    with pytest.raises(ShapeError, match="part 0: 2 axes"):
        join([states(1, 0)[0]], parts("concatenate", 1))


def test_one_part_alone_is_a_plan_like_any() -> None:
    whole = plan("a red fox AND a bird :0.5", dialect="a1111", family="sdxl")
    second = only(whole, 1)
    assert second.parts == ()
    for encoder in second.encoders.values():
        (chunk,) = encoder.chunks
        assert (chunk.index, chunk.part, encoder.content_tokens) == (0, 0, 2)
        assert [token.text for token in chunk.tokens] == ["a", "bird"]
    assert whole.encoders["clip_l"].chunks[1].part == 1  # the whole is left as it was
