"""The packed pass: the tree against a plain dictionary, states against the models' own forwards, adapters and hooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from encoders import EOS, clip_model, close, open_clip_model, row_of
from hypothesis import given, settings
from hypothesis import strategies as st

from clipcond.encode import text_rows
from clipcond.encode.fingerprint import running_device
from clipcond.encode.packed import attention as packed_attention
from clipcond.encode.packed import stack as packed
from clipcond.encode.packed.layers import clip_stack, open_clip_stack
from clipcond.encode.packed.prefix_tree import prefix_tree
from clipcond.encode.rows import TokenSequence
from clipcond.encode.text import TextTower
from clipcond.encode.tower import TextStates

WIDTH = 32
VECTORS = {"u": torch.linspace(-1, 1, WIDTH), "v": torch.linspace(1, -1, WIDTH)}


def variants(seed: int = 0) -> list[TokenSequence]:
    """Two prompts that begin alike, variants of one with masks and vectors, a cut variant, one twice and a lone one."""
    row, other = row_of(60, seed=seed), row_of(40, seed=seed)
    return [
        other,
        TokenSequence(row.ids, masked=(4, 5)),
        row,
        TokenSequence(row.ids, masked=(30, 31, 32)),
        TokenSequence(row.ids, masked=(76,)),
        TokenSequence(row.ids, vectors=((20, "u"),)),
        TokenSequence(row.ids, vectors=((20, "v"), (21, "u"))),
        TokenSequence(row.ids, masked=(20,), vectors=((20, "v"), (21, "u"))),
        TokenSequence((*row.ids[:50], 267, *row.ids[51:])),
        row,
        row_of(30, seed=seed + 1),
    ]


@contextmanager
def own_forward_only(tower: TextTower) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tower._backend, "packing", lambda: None)
        yield


def alike(ours: TextStates, theirs: TextStates, atol: float = 1e-5) -> None:
    close(ours.hidden, theirs.hidden, atol)
    close(ours.pooled, theirs.pooled, atol)
    if theirs.projected is not None:
        close(ours.projected, theirs.projected, atol)


def compare(tower: TextTower, rows: list[TokenSequence], atol: float = 1e-5, **options: Any) -> None:
    ours = tower.encode_rows(rows, vectors=VECTORS, **options)
    with own_forward_only(tower):
        alike(ours, tower.encode_rows(rows, vectors=VECTORS, **options), atol)


@pytest.fixture(scope="module", params=["nested or with projection", "flat", "open_clip", "sequence first"])
def tower(request: pytest.FixtureRequest) -> TextTower:
    if request.param == "open_clip":
        return TextTower.from_open_clip(open_clip_model())
    if request.param == "sequence first":
        model = open_clip_model()
        model.transformer.batch_first = False
        for block in model.transformer.resblocks:
            block.attn.batch_first = False
        return TextTower.from_open_clip(model)
    return TextTower.from_transformers(clip_model(projection=request.param != "flat"))


def test_equals_the_models_own_masked_forward(tower: TextTower) -> None:
    for skip in range(4):
        for norm in (True, False):
            compare(tower, variants(), clip_skip=skip, final_norm=norm)


def test_splits_change_nothing(tower: TextTower) -> None:
    for limit in (1, 80, 150, 300):
        compare(tower, variants(), max_tokens=limit)


def test_computes_each_beginning_once(tower: TextTower, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    def counting(stack: Any, x: torch.Tensor, *rest: Any) -> Any:
        counted.append(len(x))
        return packed.layer_and_last(stack, x, *rest)

    monkeypatch.setattr(text_rows, "layer_and_last", counting)
    row = row_of(60)
    tower.encode_rows(
        [row, TokenSequence(row.ids, masked=(40, 41)), TokenSequence(row.ids, masked=(70,)), row_of(60, seed=5)]
    )
    assert counted == [77 + 37 + 7 + 76]  # all in one pass; the last row has nothing but BOS in common


def test_plain_rows_that_have_little_in_common_stay_as_the_pipeline_has_them() -> None:
    model = clip_model(projection=False)
    rows = [
        row_of(20, seed=7),
        row_of(60, seed=8),
        TokenSequence((*row_of(20, seed=7).ids[:7], *row_of(20, seed=9).ids[7:])),
    ]
    with torch.no_grad():
        theirs = model(torch.tensor([row.ids for row in rows]))[0]
    assert torch.equal(TextTower.from_transformers(model).encode_rows(rows).hidden, theirs)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_half_precision(dtype: torch.dtype, atol: float) -> None:
    half = TextTower.from_transformers(clip_model().to(dtype))
    out = half.encode_rows(variants(), vectors=VECTORS)
    assert out.hidden.dtype == dtype
    exact = TextTower.from_transformers(clip_model()).encode_rows(variants(), vectors=VECTORS)
    close(out.hidden.float(), exact.hidden, atol)


def test_wears_lora_adapters() -> None:
    peft = pytest.importorskip("peft")
    model = clip_model()
    plain = TextTower.from_transformers(model).encode_rows(variants(), vectors=VECTORS).hidden
    targets = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        config = peft.LoraConfig(r=4, target_modules=targets, init_lora_weights=False)
        peft.inject_adapter_in_model(config, model)
    tower = TextTower.from_transformers(model.eval())
    assert tower._backend.packing() is not None
    compare(tower, variants())
    assert (tower.encode_rows(variants(), vectors=VECTORS).hidden - plain).abs().max() > 0.01


def test_weights_on_the_meta_device_between_calls() -> None:
    accelerate = pytest.importorskip("accelerate")
    model = clip_model()
    expected = TextTower.from_transformers(model).encode_rows(variants(), vectors=VECTORS)
    accelerate.cpu_offload(model, torch.device("cpu"), offload_buffers=True)
    tower = TextTower.from_transformers(model)
    assert next(model.parameters()).device.type == "meta"
    assert tower.device == torch.device("cpu")
    assert tower._backend.packing() is not None
    alike(tower.encode_rows(variants(), vectors=VECTORS), expected)
    alike(tower.pool_rows(variants(), vectors=VECTORS), _pooled_only(expected))
    assert next(model.parameters()).device.type == "meta"


def test_calls_the_hook_of_an_offloaded_model_as_a_forward_does() -> None:
    hooks = pytest.importorskip("accelerate.hooks")
    calls: list[str] = []

    class Watching(hooks.ModelHook):  # type: ignore[misc]
        execution_device = torch.device("cpu")

        def pre_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
            calls.append("to the device")
            return args, kwargs

        def post_forward(self, module: torch.nn.Module, output: Any) -> Any:
            calls.append("done")
            return output

    model = clip_model()
    hooks.add_hook_to_module(model, Watching())
    rows = variants()[:-1]
    TextTower.from_transformers(model).encode_rows(rows, vectors=VECTORS)
    assert calls == ["to the device", "done"]


def test_norm_and_projection_follow_the_states_when_a_forward_has_taken_their_weights_away() -> None:
    backend = TextTower.from_transformers(clip_model())._backend
    away = torch.zeros(2, WIDTH, device="meta")  # stands for a GPU
    projected = backend.project(away)
    assert projected is not None
    assert backend.norm(away).device.type == projected.device.type == "meta"
    assert backend.parameter().device.type == "cpu"


def test_group_offloading_goes_the_model_s_own_way() -> None:
    hooks = pytest.importorskip("diffusers.hooks")
    model = clip_model()
    expected = TextTower.from_transformers(model).encode_rows(variants(), vectors=VECTORS)
    cpu = torch.device("cpu")
    hooks.apply_group_offloading(model, onload_device=cpu, offload_device=cpu, offload_type="leaf_level")
    tower = TextTower.from_transformers(model)
    assert tower.device == cpu
    assert tower._backend.packing() is None
    alike(tower.encode_rows(variants(), vectors=VECTORS), expected)


def test_the_device_is_the_one_that_offload_hooks_bring_the_weights_to() -> None:
    hooks = pytest.importorskip("accelerate.hooks")
    model, weight = torch.nn.Linear(2, 2), torch.zeros(1)
    assert running_device(model, weight) == torch.device("cpu")
    model._diffusers_hook = SimpleNamespace(
        hooks={"group": SimpleNamespace(group=SimpleNamespace(onload_device="meta"))}
    )
    assert running_device(model, weight) == torch.device("meta")
    del model._diffusers_hook
    aligning = hooks.AlignDevicesHook(execution_device="meta")
    model._hf_hook = hooks.SequentialHook(hooks.ModelHook(), aligning)
    assert running_device(model, weight) == torch.device("meta")
    model._hf_hook = aligning
    assert running_device(model, weight) == torch.device("meta")


class _Hooked:
    """What diffusers' group offloading leaves on the modules it moves."""


def test_leaves_to_the_model_what_a_packed_pass_would_walk_around() -> None:
    model = clip_model(projection=False)
    stack = getattr(model, "text_model", model)
    layer = stack.encoder.layers[1]
    assert clip_stack(model, stack) is not None
    model(torch.tensor([row_of(3).ids]), output_hidden_states=True)  # transformers leaves hooks of its own
    assert clip_stack(model, stack) is not None
    handle = layer.register_forward_hook(lambda *_: None)
    assert clip_stack(model, stack) is None
    handle.remove()
    layer._hf_hook = _Hooked()
    assert clip_stack(model, stack) is None
    del layer._hf_hook
    layer.mlp._diffusers_hook = _Hooked()
    assert clip_stack(model, stack) is None
    del layer.mlp._diffusers_hook
    layer.self_attn.dropout = 0.5
    assert clip_stack(model, stack) is not None
    model.train()
    assert clip_stack(model, stack) is None


def test_other_layers_go_the_model_s_own_way() -> None:
    from transformers.models.clip.modeling_clip import CLIPEncoderLayer

    class OtherLayer(CLIPEncoderLayer):  # type: ignore[misc]
        def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            return super().forward(hidden_states * 2, *args, **kwargs)

    model = clip_model(projection=False)
    stack = getattr(model, "text_model", model)
    stack.encoder.layers[0].__class__ = OtherLayer
    assert clip_stack(model, stack) is None
    rows = [row_of(60), TokenSequence(row_of(60).ids, masked=(50,))]
    with torch.no_grad():
        theirs = model(torch.tensor([rows[0].ids]))[0]
    assert torch.equal(TextTower.from_transformers(model).encode_rows(rows).hidden[:1], theirs)


def test_only_open_clip_s_plain_blocks_are_packed() -> None:
    model = open_clip_model()
    assert open_clip_stack(model) is not None
    model.transformer.resblocks[0].attn.dropout = 0.5
    assert open_clip_stack(model.train()) is None
    assert open_clip_stack(open_clip_model(norm_kwargs={}, block_type="custom")) is None


symbols = st.tuples(st.sampled_from([5, 6]), st.sampled_from(["", "masked", "u", "v"]))


@settings(max_examples=200)
@given(st.lists(st.lists(symbols, min_size=7, max_size=7), min_size=1, max_size=12), st.data())
@pytest.mark.property
def test_a_tree_gives_each_beginning_one_number(listed: list[list[tuple[int, str]]], data: st.DataObject) -> None:
    rows = [
        TokenSequence(
            tuple(token for token, _ in places),
            tuple(at for at, (_, kind) in enumerate(places) if kind == "masked"),
            tuple((at, kind) for at, (_, kind) in enumerate(places) if kind in "uv" and kind),
        )
        for places in listed
    ]
    ends = data.draw(st.none() | st.lists(st.integers(1, 7), min_size=len(rows), max_size=len(rows)))
    whole = prefix_tree(rows, ends)
    assert sorted(whole.order) == list(range(len(rows)))
    limit = data.draw(st.integers(1, 90))
    for part in packed.split_tree(whole, limit):
        attention_mask: dict[tuple[object, ...], int] = {}
        for place, number in enumerate(part.order):
            # a vector makes the id meaningless
            kinds = [(kind if kind in ("u", "v") else token, kind) for token, kind in listed[number]]
            for at in range(7 if ends is None else ends[number]):
                assert (
                    attention_mask.setdefault(tuple(kinds[: at + 1]), int(part.nodes[place, at]))
                    == part.nodes[place, at]
                )
        assert sorted(attention_mask.values()) == list(range(part.size)) == list(range(len(part.first_places[0])))
        assert part.size <= limit or len(part.order) == 1
    assert [at for part in packed.split_tree(whole, limit) for at in part.order] == list(whole.order)


@settings(max_examples=25)
@given(st.data())
@pytest.mark.property
def test_any_rows_equal_the_own_forward(data: st.DataObject) -> None:
    tower = _random_tower()
    rows = []
    for _ in range(data.draw(st.integers(1, 8))):
        row = row_of(data.draw(st.integers(0, 18)), seed=data.draw(st.integers(0, 1)), length=20)
        masked = tuple(sorted(data.draw(st.sets(st.integers(1, 19), max_size=4))))
        at = data.draw(st.none() | st.integers(1, row.ids.index(EOS)))
        vectors = ((at, "u"),) if at is not None and row.ids[at] != EOS else ()
        rows.append(TokenSequence(row.ids, masked, vectors))
    with own_forward_only(tower):
        expected = tower.encode_rows(rows, vectors=VECTORS)
    alike(tower.encode_rows(rows, vectors=VECTORS, max_tokens=data.draw(st.integers(1, 200))), expected)
    alike(tower.pool_rows(rows, vectors=VECTORS, max_tokens=data.draw(st.integers(1, 200))), _pooled_only(expected))


_TOWERS: list[TextTower] = []


def _random_tower() -> TextTower:
    if not _TOWERS:
        _TOWERS.append(TextTower.from_transformers(clip_model()))
    return _TOWERS[0]


def _pooled_only(states: TextStates) -> TextStates:
    return TextStates(hidden=states.hidden[:, :0], pooled=states.pooled, projected=states.projected)


class _Bias:
    """xformers' block-diagonal causal masks: block i lets its queries see its keys, aligned at the end or the start."""

    def __init__(self, queries: list[int], keys: list[int], from_the_end: bool) -> None:
        blocks = []
        for many, of in zip(queries, keys, strict=True):
            blocks.append(torch.ones(many, of, dtype=torch.bool).tril(of - many if from_the_end else 0))
        self.mask = torch.block_diag(*(block.int() for block in blocks)).bool()


def _stand_in(used: list[str]) -> Any:
    """The part of `xformers.ops` that is used, on any device."""

    class Causal(_Bias):
        @classmethod
        def from_seqlens(cls, queries: list[int], keys: list[int] | None = None, *, device: object = None) -> _Bias:
            assert device == torch.device("cpu")
            used.append("causal")
            return cls(queries, keys or queries, from_the_end=False)

    class FromBottomRight(_Bias):
        @classmethod
        def from_seqlens(cls, queries: list[int], keys: list[int] | None = None, *, device: object = None) -> _Bias:
            assert device == torch.device("cpu")
            used.append("from the end")
            return cls(queries, keys or queries, from_the_end=True)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, attn_bias: _Bias, scale: float) -> torch.Tensor:
        heads = (states.transpose(1, 2) for states in (q, k, v))
        out = torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=attn_bias.mask, scale=scale)
        return out.transpose(1, 2)

    biases = SimpleNamespace(BlockDiagonalCausalMask=Causal, BlockDiagonalCausalFromBottomRightMask=FromBottomRight)
    return SimpleNamespace(memory_efficient_attention=attend, fmha=SimpleNamespace(attn_bias=biases))


def test_blocks_without_padding_equal_the_padded_pass(tower: TextTower, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        row_of(9),
        row_of(75),
        row_of(9),
        row_of(0),
        row_of(12, seed=4),
        TokenSequence(row_of(9).ids, vectors=((4, "u"),)),
    ]
    padded = [tower.encode_rows(some, vectors=VECTORS) for some in (rows, rows[:1])]
    used: list[str] = []
    monkeypatch.setattr(packed_attention, "xformers_ops", lambda *_: _stand_in(used))
    alike(tower.pool_rows(rows, vectors=VECTORS), _pooled_only(padded[0]))
    alike(tower.encode_rows(rows, vectors=VECTORS), padded[0])
    alike(tower.pool_rows(rows[:1], vectors=VECTORS), _pooled_only(padded[1]))
    assert used == ["from the end", "from the end", "causal"]
    compare(tower, [TokenSequence(row.ids, masked=(2,)) for row in rows])  # masks go the dense way
    assert len(used) == 3


def test_blocks_are_for_gpus() -> None:
    assert packed_attention.xformers_ops(torch.device("cpu"), torch.float32, 64) is None


def test_a_broken_library_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_attention, "find_spec", lambda _: object())

    def broken(_: str) -> None:
        raise ImportError("built for another torch")

    monkeypatch.setattr(packed_attention, "import_module", broken)
    assert packed_attention.xformers_ops(torch.device("cuda", 99), torch.float32, 8) is None


@pytest.mark.skipif(
    not torch.cuda.is_available() or find_spec("xformers") is None, reason="there is no CUDA device with xformers"
)
def test_xformers_on_a_gpu_equals_the_padded_pass() -> None:
    tower = TextTower.from_transformers(clip_model().cuda())
    assert packed_attention.xformers_ops(tower.device, torch.float32, 8) is not None
    alike(tower.pool_rows(variants()[:1], vectors=VECTORS), _pooled_only(tower.encode_rows(variants()[:1])), 1e-4)


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("limit", [1, 100, 10_000])
def test_pooling_alone_equals_the_padded_pass(tower: TextTower, packing: bool, limit: int) -> None:
    rows = [*variants(), row_of(0), row_of(75), row_of(3, pad=0), TokenSequence(row_of(9).ids, masked=(3, 40))]
    padded = tower.encode_rows(rows, vectors=VECTORS)
    if packing:
        out = tower.pool_rows(rows, vectors=VECTORS, max_tokens=limit)
    else:
        with own_forward_only(tower):
            out = tower.pool_rows(rows, vectors=VECTORS, max_tokens=limit)
    alike(out, _pooled_only(padded))


def test_a_whole_width_encoder_s_numbers_stay_close() -> None:
    model = clip_model(hidden_size=256, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=4)
    vectors = {name: vector.repeat(8) for name, vector in VECTORS.items()}
    tower = TextTower.from_transformers(model)
    ours = tower.encode_rows(variants(), vectors=vectors)
    with own_forward_only(tower):
        alike(ours, tower.encode_rows(variants(), vectors=vectors))
