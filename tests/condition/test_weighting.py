"""Each weighting against its recorded numbers, against its formula in plain loops, and its properties."""

from __future__ import annotations

import json
import math
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from clipcond.condition.masked_chunks import compel_terms, down_terms, tan_share
from clipcond.condition.weighting import (
    DEFAULTS,
    METHODS,
    MODIFIERS,
    MaskedChunk,
    Method,
    Weighed,
    needs,
    parse_method,
    variant_row,
    weigh,
)
from clipcond.encode.rows import TokenSequence
from clipcond.errors import ConfigError, ShapeError
from clipcond.prompt.plan import Dialect

VECTORS = Path(__file__).parents[1] / "vectors" / "weighting.json"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "reference" / "vectors" / "weighting.json"
D = 6
Rows = list[list[float]]

# recorded numbers


def _vectors(method: str) -> list[Any]:
    recorded = json.loads(VECTORS.read_text("utf-8"))["vectors"]
    return [pytest.param(vector, id=vector["prompt"]) for vector in recorded if vector["method"] == method]


@pytest.mark.skipif(not SHARED.is_file(), reason="../shared/reference is not beside this checkout")
def test_the_vectors_here_are_the_reference() -> None:
    ours = json.loads(VECTORS.read_text("utf-8"))
    del ours["version"]
    assert ours == json.loads(SHARED.read_text("utf-8"))


@pytest.mark.parametrize("vector", _vectors("compel_down_share"))
def test_the_share_of_the_masked_encoding(vector: dict[str, Any]) -> None:
    weight = vector["input"]["weight"]
    hidden, masked, empty = torch.zeros(3, 1, 4, D).double()
    masked += 1
    out = weigh(
        hidden,
        torch.tensor([[1, weight, 1, 1]]),
        torch.tensor([[-1, 0, -1, -1]]),
        method=Method("compel"),
        empty=empty[0],
        variants={MaskedChunk(0, (1,), "masked"): masked[0]},
    ).hidden
    share = torch.full((D,), vector["expected"]).double()
    torch.testing.assert_close(out[0, 2], share, rtol=0, atol=vector["tolerance"])


@pytest.mark.parametrize("vector", _vectors("adv_length_norm"))
def test_a_weight_spread_over_the_tokens_of_its_piece(vector: dict[str, Any]) -> None:
    weight, tokens = vector["input"]["weight"], vector["input"]["tokens"]
    weights, segments = torch.ones(1, tokens + 3), torch.tensor([[-1, *[4] * tokens, 5, -1]])
    weights[0, 1 : 1 + tokens] = weight
    hidden = torch.ones(1, tokens + 3, D)
    out = weigh(hidden, weights, segments, method=parse_method("no_norm+length_norm")).hidden
    expected = torch.tensor([1, *[vector["expected"]] * tokens, 1, 1])
    torch.testing.assert_close(out[0, :, 0], expected, rtol=0, atol=vector["tolerance"])


@pytest.mark.parametrize("vector", _vectors("adv_down_masks"))
def test_the_factors_of_nested_masks(vector: dict[str, Any]) -> None:
    first, *others = vector["expected"]
    terms = down_terms([[1.0, *vector["input"]["unique_weights"], 1.0]], [[-1, 0, 1, 2, -1]])
    assert [variant.positions for _, variant in terms] == [(1,), (1, 2)]
    assert [factor for factor, _ in terms] == pytest.approx(others, abs=vector["tolerance"])
    assert 1 - sum(factor for factor, _ in terms) == pytest.approx(first, abs=vector["tolerance"])


# names


def test_names_and_modifiers_are_read() -> None:
    assert parse_method("comfy") == Method("comfy")
    assert parse_method("a1111 + length_norm+mean_norm") == Method("a1111", ("length_norm", "mean_norm"))
    assert [str(parse_method(name)) for name in METHODS] == list(METHODS)
    assert str(parse_method("counterfactual")) == "counterfactual"
    assert str(parse_method("compel+mean_norm")) == "compel+mean_norm"
    assert list(DEFAULTS) == list(get_args(Dialect))
    assert {parse_method(name).name for name in DEFAULTS.values()} < set(METHODS)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("comfi", "unknown weighting 'comfi'; did you mean 'comfy'?"),
        ("", "unknown weighting ''; there are none, a1111, no_norm, comfy, comfy_pp, compel, sd_embed, counterfactual"),
        ("comfy+lengthnorm", "unknown modifier of a weighting 'lengthnorm'; did you mean 'length_norm'?"),
        ("comfy+", "unknown modifier of a weighting ''; there are length_norm, mean_norm"),
        ("comfy+mean_norm+mean_norm", "weighting 'comfy+mean_norm+mean_norm' has a modifier twice; once is enough"),
    ],
)
def test_a_wrong_name_is_told(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_method(text)
    assert str(raised.value) == problem


# each formula once more, by loops

CASES = {
    "up": ([[1, 1.3, 1.3, 1, 1, 1]], [[-1, 0, 0, 1, -1, -1]]),
    "down": ([[1, 0.4, 0.4, 1, 1, 1]], [[-1, 0, 0, 1, -1, -1]]),
    "both, two chunks": (
        [[1, 1.5, 1, 0.4, 1.2, 1], [1, 1.2, 0.4, 0.7, 1, 1]],
        [[-1, 0, 1, 2, 3, -1], [-1, 3, 4, 5, -1, -1]],
    ),
    "a fragment over a border": (
        [[1, 1, 0.5, 0.5, 1, 1], [1, 0.5, 0.8, 1, 1, 1], [1, 0.8, 1, 1, 1, 1]],
        [[-1, 0, 1, 1, -1, -1], [-1, 1, 2, 3, -1, -1], [-1, 4, 5, -1, -1, -1]],
    ),
    "zero and below": ([[1, 0, -0.5, 2, 1, 1]], [[-1, 0, 1, 2, -1, -1]]),
    "no special tokens": ([[0.5, 1.5, 1, 0.25]], [[0, 1, 2, 3]]),
    "an empty chunk": ([[1, 1, 1], [1, 0.5, 1]], [[-1, -1, -1], [-1, 0, -1]]),
}


class Encoder:
    """Made-up states that depend on the chunk, the position and what is hidden."""

    def __init__(self, chunks: int, length: int, dtype: torch.dtype = torch.float32) -> None:
        self.generator = torch.Generator().manual_seed(7)
        self.hidden = self._states(chunks, length).to(dtype)
        self.empty = self._states(length).to(dtype)
        self.known: dict[MaskedChunk, Tensor] = {}
        self.dtype, self.length = dtype, length

    def _states(self, *sizes: int) -> Tensor:
        return torch.randn(*sizes, D, generator=self.generator) + 1

    def variant(self, variant: MaskedChunk) -> Tensor:
        """As a causal encoder's: other than the chunk's from the first hidden position on."""
        if variant not in self.known:
            states = self._states(self.length).to(self.dtype)
            first = variant.positions[0]
            self.known[variant] = torch.cat([self.hidden[variant.chunk, :first], states[first:]])
        return self.known[variant]


def weighed(encoder: Encoder, weights: Tensor, segments: Tensor, name: str) -> Weighed:
    """`weigh` with exactly what `needs` asks for."""
    method = parse_method(name)
    wanted = needs(weights, segments, method)
    return weigh(
        encoder.hidden,
        weights,
        segments,
        method=method,
        empty=encoder.empty if wanted.empty else None,
        variants={each: encoder.variant(each) for each in wanted.variants},
    )


def _slow(name: str, encoder: Encoder, weights: Rows, segments: list[list[int]]) -> Tensor:
    """The states by loops over rows."""
    z, e = encoder.hidden.double(), encoder.empty.double()
    return {
        "none": lambda: z,
        "no_norm": lambda: _each(z, weights, lambda row, w, _: row * w),
        "sd_embed": lambda: _each(z, weights, lambda row, w, _: row * torch.tensor(w).half().item()),
        "a1111": lambda: _slow_a1111(z, weights),
        "comfy": lambda: _slow_comfy(z, weights, e),
        "compel": lambda: _slow_compel(encoder, weights, segments),
        "comfy_pp": lambda: _slow_comfy_pp(encoder, weights, segments),
    }[name]()


def _each(z: Tensor, weights: Rows, change: Any) -> Tensor:
    out = z.clone()
    for chunk, row in enumerate(weights):
        for position, weight in enumerate(row):
            out[chunk, position] = change(z[chunk, position], weight, position)
    return out


def _slow_comfy(z: Tensor, weights: Rows, e: Tensor) -> Tensor:
    return _each(z, weights, lambda row, w, position: e[position] + w * (row - e[position]))


def _slow_a1111(z: Tensor, weights: Rows) -> Tensor:
    y = _each(z, weights, lambda row, w, _: row * w)
    return torch.stack([after * before.mean() / after.mean() for before, after in zip(z, y, strict=True)])


def _slow_compel(encoder: Encoder, weights: Rows, segments: list[list[int]]) -> Tensor:
    """Over flat positions, as compel: a range from a fragment's first token to its last, but never BOS or the last EOS."""
    length, z, e = len(weights[0]), encoder.hidden.double(), encoder.empty.double()
    inside = [
        (at, weight)
        for at, (weight, segment) in enumerate(zip(chain(*weights), chain(*segments), strict=True))
        if segment >= 0
    ]
    fragments: list[tuple[float, int, int]] = []
    joined = False
    for at, weight in inside:
        if joined and fragments[-1][0] == weight:
            fragments[-1] = (weight, fragments[-1][1], at)
        else:
            fragments.append((weight, at, at))
        joined = True
    base = _slow_comfy(z, weights, e)
    above, below = base.clone(), 1.0
    for weight, first, last in fragments:
        if weight >= 1:
            continue
        chunks = z.clone()
        for chunk in range(len(z)):
            flat = range(max(first, chunk * length), min(last, chunk * length + length - 1) + 1)
            hidden = tuple(at % length for at in flat if at in (first, last) or at % length not in (0, length - 1))
            if hidden:
                chunks[chunk] = encoder.variant(MaskedChunk(chunk, hidden, "masked")).double()
        share = math.tan((1 - max(1e-5, weight)) * math.pi / 2)
        above += share * _slow_comfy(chunks, weights, e)
        below += share
    return above / below


def _slow_comfy_pp(encoder: Encoder, weights: Rows, segments: list[list[int]]) -> Tensor:
    z = encoder.hidden.double()
    out = torch.zeros_like(z)
    levels = sorted({min(weight, 1.0) for row in weights for weight in row} | {1.0})
    for number, level in enumerate(levels):  # over the whole prompt, where the code goes chunk by chunk
        factor = level - (levels[number - 1] if number else 0)
        for chunk, row in enumerate(weights):
            lower = tuple(at for at, w in enumerate(row) if w < level and segments[chunk][at] >= 0)
            states = encoder.variant(MaskedChunk(chunk, lower, "replaced")) if lower else encoder.hidden[chunk]
            out[chunk] += factor * states.double()
    for chunk, row in enumerate(weights):
        for at, weight in enumerate(row):
            if weight > 1:
                same = tuple(other for other, mark in enumerate(segments[chunk]) if mark == segments[chunk][at])
                replaced = encoder.variant(MaskedChunk(chunk, same, "replaced")).double()
                out[chunk, at] += (weight - 1) * (z[chunk, at] - replaced[at])
    return out


def _slow_modified(weights: Rows, segments: list[list[int]], modifiers: tuple[str, ...]) -> Rows:
    for modifier in modifiers:
        flat = [(w, s) for row, marks in zip(weights, segments, strict=True) for w, s in zip(row, marks, strict=True)]
        inside = [w for w, s in flat if s >= 0]
        mean = sum(inside) / max(1, len(inside))
        changed = []
        for weight, segment in flat:
            if segment < 0:
                changed.append(weight)
            elif modifier == "mean_norm":
                changed.append(weight + (1 - mean))
            else:
                n = sum(1 for _, other in flat if other == segment)
                changed.append(1 + math.copysign(math.sqrt((weight - 1) ** 2 / n), weight - 1))
        length = len(weights[0])
        weights = [changed[at : at + length] for at in range(0, len(changed), length)]
    return weights


@pytest.mark.parametrize("modifiers", ["", "+length_norm", "+mean_norm", "+length_norm+mean_norm"])
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_formula_by_loops(case: tuple[Rows, list[list[int]]], name: str, modifiers: str) -> None:
    weights, segments = torch.tensor(case[0], dtype=torch.float32), torch.tensor(case[1])
    encoder = Encoder(*weights.shape)
    got = weighed(encoder, weights, segments, name + modifiers)
    changed = _slow_modified(weights.tolist(), case[1], parse_method(name + modifiers).modifiers)
    # float32 as the code, so that pieces of one weight are found to be of one weight
    expected = _slow(name, encoder, torch.tensor(changed, dtype=torch.float32).tolist(), case[1])
    for chunk in range(len(weights)):
        if chunk not in got.near_zero:
            torch.testing.assert_close(got.hidden[chunk].double(), expected[chunk], rtol=1e-4, atol=1e-5)
    assert len(got.near_zero) < len(weights)


# properties

tokens = st.lists(
    st.tuples(st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0, 1.0, 1.2, 2.0, -0.4]), st.integers(1, 4)),
    min_size=1,
    max_size=8,
)
names = st.builds(
    lambda name, modifiers: "+".join([name, *modifiers]),
    st.sampled_from(METHODS),
    st.lists(st.sampled_from(MODIFIERS), unique=True),
)
LENGTH = 8


def _laid(pieces: list[tuple[float, int]]) -> tuple[Tensor, Tensor]:
    """Pieces of a weight and a number of tokens in chunks of six tokens with BOS and EOS."""
    flat = [(weight, number) for number, (weight, count) in enumerate(pieces) for _ in range(count)]
    chunks = [flat[at : at + LENGTH - 2] for at in range(0, len(flat), LENGTH - 2)]
    weights, segments = torch.ones(len(chunks), LENGTH), torch.full((len(chunks), LENGTH), -1)
    for chunk, inside in enumerate(chunks):
        weights[chunk, 1 : 1 + len(inside)] = torch.tensor([weight for weight, _ in inside])
        segments[chunk, 1 : 1 + len(inside)] = torch.tensor([number for _, number in inside])
    return weights, segments


@pytest.mark.property
@given(st.integers(1, 3), names, st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]))
def test_weights_of_one_leave_the_very_tensor(chunks: int, name: str, dtype: torch.dtype) -> None:
    encoder = Encoder(chunks, LENGTH, dtype)
    weights, segments = torch.ones(chunks, LENGTH), torch.zeros(chunks, LENGTH, dtype=torch.int64)
    assert needs(weights, segments, parse_method(name)).variants == ()
    assert not needs(weights, segments, parse_method(name)).empty
    assert weighed(encoder, weights, segments, name).hidden is encoder.hidden


@pytest.mark.property
@given(tokens, names)
def test_what_is_asked_for_is_enough_and_nothing_is_written_into(pieces: list[tuple[float, int]], name: str) -> None:
    weights, segments = _laid(pieces)
    encoder = Encoder(*weights.shape)
    given_tensors = [encoder.hidden.clone(), encoder.empty.clone(), weights.clone(), segments.clone()]
    out = weighed(encoder, weights, segments, name).hidden  # with nothing but what `needs` named
    assert out.shape == encoder.hidden.shape
    assert out.isfinite().all()
    for before, after in zip(given_tensors, [encoder.hidden, encoder.empty, weights, segments], strict=True):
        assert torch.equal(before, after)


@pytest.mark.property
@given(tokens, names)
def test_each_row_that_is_asked_for_is_wanted(pieces: list[tuple[float, int]], name: str) -> None:
    weights, segments = _laid(pieces)
    method = parse_method(name)
    encoder = Encoder(*weights.shape)
    wanted = needs(weights, segments, method)
    assert len(set(wanted.variants)) == len(wanted.variants)
    states = {each: encoder.variant(each) for each in wanted.variants}
    for left_out in wanted.variants:
        some = {each: states[each] for each in wanted.variants if each != left_out}
        with pytest.raises(ConfigError, match="encode the rows that `needs` names"):
            weigh(encoder.hidden, weights, segments, method=method, empty=encoder.empty, variants=some)
    if wanted.empty:
        with pytest.raises(ConfigError, match=r"empty: None, but .* wants the empty prompt's states"):
            weigh(encoder.hidden, weights, segments, method=method, variants=states)


@pytest.mark.property
@given(tokens, names)
def test_variants_hide_content_and_what_they_say(pieces: list[tuple[float, int]], name: str) -> None:
    weights, segments = _laid(pieces)
    for each in needs(weights, segments, parse_method(name)).variants:
        assert each.how == ("masked" if name.startswith("compel") else "replaced")
        assert list(each.positions) == sorted(set(each.positions))
        marks = segments[each.chunk, list(each.positions)]
        assert marks[0] >= 0
        assert 0 not in each.positions
        assert LENGTH - 1 not in each.positions
        if each.how == "replaced":
            assert (marks >= 0).all()


@pytest.mark.property
@given(tokens, st.sampled_from(["comfy", "no_norm", "sd_embed"]), st.sampled_from([torch.float16, torch.bfloat16]))
def test_rows_of_weight_one_stay_to_the_last_bit(
    pieces: list[tuple[float, int]], name: str, dtype: torch.dtype
) -> None:
    weights, segments = _laid(pieces)
    encoder = Encoder(*weights.shape, dtype)
    out = weighed(encoder, weights, segments, name).hidden
    assert out.dtype == dtype
    assert torch.equal(out[weights == 1], encoder.hidden[weights == 1])


@pytest.mark.property
@given(tokens)
def test_compel_leaves_what_a_fragment_cannot_reach(pieces: list[tuple[float, int]]) -> None:
    weights, segments = _laid(pieces)
    encoder = Encoder(*weights.shape)
    out = weighed(encoder, weights, segments, "compel").hidden
    comfy = weighed(encoder, weights, segments, "comfy").hidden
    for chunk in range(len(weights)):
        below = (weights[chunk] < 1).nonzero().flatten().tolist()
        reached = below[0] if below else LENGTH
        assert torch.equal(out[chunk, :reached], comfy[chunk, :reached])


@pytest.mark.property
@given(tokens, names, st.integers(0, 5))
def test_numbers_of_segments_are_only_names(pieces: list[tuple[float, int]], name: str, seed: int) -> None:
    weights, segments = _laid(pieces)
    encoder = Encoder(*weights.shape)
    order = torch.randperm(len(pieces), generator=torch.Generator().manual_seed(seed)) * 3
    renamed = torch.where(segments >= 0, order[segments.clamp(min=0)], segments)
    first = weighed(encoder, weights, segments, name).hidden
    assert torch.equal(first, weighed(encoder, weights, renamed, name).hidden)


@pytest.mark.property
@given(st.lists(tokens, min_size=2, max_size=3), names)
def test_other_prompts_in_between_change_nothing(prompts: list[list[tuple[float, int]]], name: str) -> None:
    laid = [_laid(pieces) for pieces in prompts]
    encoders = [Encoder(*weights.shape) for weights, _ in laid]
    alone = weighed(encoders[0], *laid[0], name).hidden.clone()
    for encoder, (weights, segments) in zip(encoders[1:], laid[1:], strict=True):
        weighed(encoder, weights, segments, name)
    assert torch.equal(alone, weighed(encoders[0], *laid[0], name).hidden)


@pytest.mark.property
@given(tokens, st.integers(0, 99))
def test_a1111_keeps_the_mean_of_each_chunk_or_says_so(pieces: list[tuple[float, int]], seed: int) -> None:
    weights, segments = _laid(pieces)
    hidden = torch.randn(*weights.shape, D, generator=torch.Generator().manual_seed(seed)) + 0.2
    out = weigh(hidden, weights, segments, method=Method("a1111"))
    for chunk, states in enumerate(out.hidden):
        if chunk in out.near_zero:
            assert torch.equal(states, hidden[chunk] * weights[chunk, :, None])
        else:
            torch.testing.assert_close(states.mean(), hidden[chunk].mean(), rtol=2e-3, atol=1e-5)
    alone = [
        weigh(hidden[k : k + 1], weights[k : k + 1], segments[k : k + 1], method=Method("a1111"))
        for k in range(len(hidden))
    ]
    torch.testing.assert_close(torch.cat([one.hidden for one in alone]), out.hidden)


@pytest.mark.property
@given(st.floats(-1, 1), st.floats(-1, 1))
def test_the_share_of_the_masked_encoding_falls_as_the_weight_rises(first: float, second: float) -> None:
    assume(first < second)
    low, high = tan_share(first), tan_share(second)
    assert low >= high >= 0
    assert low > high or second <= 1e-5 or second - first < 1e-9


@pytest.mark.property
@given(tokens)
def test_shares_of_a_prompt_add_up_to_less_than_one(pieces: list[tuple[float, int]]) -> None:
    weights, segments = (side.tolist() for side in _laid(pieces))
    for chunk in range(len(weights)):
        assert 0 <= sum(factor for factor, variant in compel_terms(weights, segments) if variant.chunk == chunk) < 1
        down = [factor for factor, variant in down_terms(weights, segments) if variant.chunk == chunk]
        lowest = min(weights[chunk])
        assert sum(down) == pytest.approx(1 - min(lowest, 1))


# single facts


def test_weight_zero_is_the_empty_prompts_row_for_comfy() -> None:
    weights, segments = _laid([(1.0, 2), (0.0, 3)])
    encoder = Encoder(*weights.shape)
    out = weighed(encoder, weights, segments, "comfy").hidden
    assert torch.equal(out[0, 3:6], encoder.empty[3:6])
    assert torch.equal(out[0, [0, 1, 2, 6, 7]], encoder.hidden[0, [0, 1, 2, 6, 7]])


def test_special_tokens_weigh_one_whatever_is_given() -> None:
    weights, segments = _laid([(1.0, 2)])
    encoder = Encoder(*weights.shape)
    weights[0, 0] = weights[0, -1] = 5
    for name in METHODS:
        assert weighed(encoder, weights, segments, name).hidden is encoder.hidden


def test_one_weight_over_the_whole_prompt_is_no_weight_with_mean_norm() -> None:
    weights, segments = _laid([(1.3, 2), (1.3, 7)])
    encoder = Encoder(*weights.shape)
    assert weighed(encoder, weights, segments, "comfy+mean_norm").hidden is encoder.hidden


def test_modifiers_work_in_the_order_in_which_they_are_written() -> None:
    weights, segments = _laid([(1.5, 4), (1.0, 2)])
    encoder = Encoder(*weights.shape)
    first = weighed(encoder, weights, segments, "no_norm+length_norm+mean_norm").hidden
    assert not torch.allclose(first, weighed(encoder, weights, segments, "no_norm+mean_norm+length_norm").hidden)


def test_sd_embed_rounds_its_weights() -> None:
    weights, segments = _laid([(1.0001, 2)])
    encoder = Encoder(*weights.shape)
    assert weighed(encoder, weights, segments, "sd_embed").hidden is encoder.hidden
    assert not torch.equal(weighed(encoder, weights, segments, "no_norm").hidden, encoder.hidden)


UNSOUND = {
    "no mean before": ([1.0, -1.0, 1.0, -1.0], 3.0),
    "no mean after": ([1.0, 2.0, 1.0, -2.0], 0.0),
    "another sign, up": ([1.0, -1.0, 1.0, 1.0], 5.0),
    "another sign, down": ([1.0, 1.0, -2.5, 1.0], 0.2),
}


@pytest.mark.parametrize(("states", "weight"), UNSOUND.values(), ids=UNSOUND.keys())
def test_a_mean_that_cannot_be_restored_is_told(states: list[float], weight: float) -> None:
    hidden = torch.tensor([[1.0, 2.0, 1.0, 1.0], states, states])[..., None].repeat(1, 1, D)
    weights = torch.tensor([[1, 2, 1, 1], [1, weight, 1, 1], [1, 1, 1, 1]])
    out = weigh(hidden, weights, torch.tensor([[-1, 0, 1, -1]] * 3), method=Method("a1111"))
    assert out.near_zero == (1,)
    torch.testing.assert_close(out.hidden[0].mean(), hidden[0].mean())
    assert torch.equal(out.hidden[1:], (hidden * weights[..., None])[1:])


@pytest.mark.parametrize(("errors", "restored"), [(0.5, False), (3.0, True)])
def test_a_mean_within_its_standard_error_is_no_mean(errors: float, restored: bool) -> None:
    values = torch.randn(1, 40, D, generator=torch.Generator().manual_seed(0))
    values = (values - values.mean()) / values.std()
    hidden = values + errors / (40 * D) ** 0.5
    weights, segments = torch.ones(1, 40), torch.zeros(1, 40, dtype=torch.int64)
    weights[0, 5] = 1.001
    assert weigh(hidden, weights, segments, method=Method("a1111")).near_zero == (() if restored else (0,))


@pytest.mark.parametrize("name", METHODS[1:])
def test_huge_weights_stay_finite_in_half_precision(name: str) -> None:
    weights, segments = _laid([(1e4, 2), (-1e4, 2), (0.0, 1)])
    encoder = Encoder(*weights.shape, torch.float16)
    encoder.hidden *= 50
    assert weighed(encoder, weights, segments, name).hidden.isfinite().all()


def test_other_lengths_and_no_special_tokens() -> None:
    weights, segments = torch.ones(1, 300), torch.zeros(1, 300, dtype=torch.int64)
    weights[0, 0], segments[0, 0], segments[0, 200:] = 0.5, 1, -1
    encoder = Encoder(1, 300)
    assert needs(weights, segments, Method("compel")).variants == (MaskedChunk(0, (0,), "masked"),)
    assert not torch.equal(weighed(encoder, weights, segments, "compel").hidden[0, 299], encoder.hidden[0, 299])


def test_the_row_of_a_variant() -> None:
    row = TokenSequence((1, 2, 3, 4, 5), masked=(4,), vectors=((1, "a"), (2, "b")))
    assert variant_row(row, MaskedChunk(0, (1, 3), "masked"), 9) == TokenSequence(
        (1, 2, 3, 4, 5), (1, 3, 4), row.vectors
    )
    assert variant_row(row, MaskedChunk(0, (1, 3), "replaced"), 9) == TokenSequence((1, 9, 3, 9, 5), (4,), ((2, "b"),))


def test_what_does_not_fit_is_named() -> None:
    hidden, weights, segments = torch.zeros(2, 4, D), torch.full((2, 4), 0.5), torch.zeros(2, 4, dtype=torch.int64)
    comfy = Method("comfy")
    with pytest.raises(ShapeError, match=r"hidden: 2 axes of \(4, 6\), expected 3 as in \(K, L, D\)"):
        weigh(hidden[0], weights, segments, method=comfy)
    with pytest.raises(ShapeError, match=r"weights: axis K is 1, expected 2 in \(K, L\)"):
        weigh(hidden, weights[:1], segments, method=comfy)
    with pytest.raises(ShapeError, match=r"segments: axis L is 3, expected 4 in \(K, L\)"):
        needs(weights, segments[:, :3], comfy)
    with pytest.raises(ShapeError, match=r"empty: axis L is 3, expected 4 in \(L, D\)"):
        weigh(hidden, weights, segments, method=comfy, empty=hidden[0, :3])
    variants = dict.fromkeys(needs(weights, segments, Method("compel")).variants, hidden[0, :, :5])
    with pytest.raises(ShapeError, match=r"states of MaskedChunk\(chunk=0, .*: axis D is 5, expected 6 in \(L, D\)"):
        weigh(hidden, weights, segments, method=Method("compel"), empty=hidden[0], variants=variants)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_weight_that_is_no_number_is_refused(value: float) -> None:
    weights, segments = _laid([(1.0, 2), (1.2, 2)])
    weights[0, 2] = value
    with pytest.raises(ConfigError, match=rf"weights: {value} at \(0, 2\), expected finite numbers"):
        needs(weights, segments, Method("a1111"))
    with pytest.raises(ConfigError, match=r"expected finite numbers"):
        weigh(torch.zeros(1, LENGTH, D), weights, segments, method=Method("none"))
