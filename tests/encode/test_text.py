"""TextTower: equality with both libraries on tiny random models, and every refusal."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from encoders import BOS, clip_model, open_clip_model

from clipcond.encode.rows import TokenSequence
from clipcond.encode.text import TextTower
from clipcond.errors import ConfigError, ModelError, ShapeError
from clipcond.models.to_transformers import clip_text_config, open_clip_text_to_transformers
from clipcond.runtime.torchvision_repair import repair

repair()

import open_clip  # noqa: E402
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection  # noqa: E402

VISION = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 3}
EOS = 49407


def ids_of(*counts: int, pad: int = EOS) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(counts))
    ids = torch.full((len(counts), 77), pad)
    for row, count in enumerate(counts):
        words = torch.randint(1, 49000, (count,), generator=generator)
        ids[row, : count + 2] = torch.tensor([49406, *words.tolist(), EOS])
    return ids


@pytest.fixture(scope="module")
def dual() -> torch.nn.Module:
    torch.manual_seed(1)
    return open_clip.CLIP(embed_dim=24, vision_cfg=VISION, text_cfg=TEXT).eval()


@pytest.fixture(scope="module")
def exported(dual: torch.nn.Module) -> CLIPTextModelWithProjection:
    config = clip_text_config(dual)
    model = CLIPTextModelWithProjection(CLIPTextConfig(**config)).eval()
    model.load_state_dict(open_clip_text_to_transformers(dual.state_dict(), 4), strict=False)
    return model


@pytest.fixture(scope="module")
def towers(dual: torch.nn.Module, exported: CLIPTextModelWithProjection) -> dict[str, TextTower]:
    return {"open_clip": TextTower.from_open_clip(dual), "transformers": TextTower.from_transformers(exported)}


@pytest.fixture(params=["open_clip", "transformers"])
def tower(request: pytest.FixtureRequest, towers: dict[str, TextTower]) -> TextTower:
    return towers[request.param]


def close(a: torch.Tensor, b: torch.Tensor, atol: float = 1e-6) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


@torch.no_grad()
def test_equals_transformers_at_every_layer(exported: CLIPTextModelWithProjection) -> None:
    ids, tower = ids_of(0, 5, 75), TextTower.from_transformers(exported)
    theirs = exported(ids, output_hidden_states=True)
    out = tower.encode(ids)
    close(out.hidden, theirs.last_hidden_state)
    assert out.projected is not None
    close(out.projected, theirs.text_embeds)
    norm = getattr(exported, "text_model", exported).final_layer_norm
    for skip in range(4):
        raw = theirs.hidden_states[-1 - skip]
        close(tower.encode(ids, clip_skip=skip, final_norm=False).hidden, raw)
        skipped = tower.encode(ids, clip_skip=skip)
        close(skipped.hidden, norm(raw))
        close(skipped.pooled, out.pooled)  # clip skip never moves the pooled vector
        close(skipped.projected, out.projected)


@torch.no_grad()
def test_equals_a_flat_text_model_without_projection() -> None:
    torch.manual_seed(2)
    config = CLIPTextConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, eos_token_id=EOS
    )
    model = CLIPTextModel(config).eval()
    ids, out = ids_of(3, 40), TextTower.from_transformers(model).encode(ids_of(3, 40))
    theirs = model(ids)
    close(out.hidden, theirs.last_hidden_state)
    close(out.pooled, theirs.pooler_output)
    assert out.projected is None


@torch.no_grad()
@pytest.mark.parametrize("pad", [0, EOS])
def test_equals_open_clip(dual: torch.nn.Module, pad: int) -> None:
    ids = ids_of(0, 5, 75, pad=pad)
    projected = TextTower.from_open_clip(dual).encode(ids).projected
    assert projected is not None
    close(projected, dual.encode_text(ids), 1e-5)


@torch.no_grad()
def test_takes_a_custom_text_clip() -> None:
    torch.manual_seed(4)
    model = open_clip.CustomTextCLIP(embed_dim=24, vision_cfg=VISION, text_cfg=TEXT).eval()
    projected = TextTower.from_open_clip(model).encode(ids_of(9)).projected
    assert projected is not None
    close(projected, model.encode_text(ids_of(9)), 1e-5)


def test_both_libraries_agree_at_every_layer(towers: dict[str, TextTower]) -> None:
    ids = ids_of(0, 11, 75)
    for skip in range(4):
        for norm in (False, True):
            ours, theirs = (t.encode(ids, clip_skip=skip, final_norm=norm) for t in towers.values())
            close(ours.hidden, theirs.hidden, 1e-5)
            close(ours.pooled, theirs.pooled, 1e-5)


def test_neighbours_and_batch_limits_change_nothing(tower: TextTower) -> None:
    ids = ids_of(0, 5, 75, 20, 33)
    together = tower.encode(ids)
    for limit in (1, 2, 5):
        split = tower.encode(ids, max_batch=limit)
        close(split.hidden, together.hidden)
        close(split.projected, together.projected)
    close(tower.encode(ids[3:4]).hidden, together.hidden[3:4])


def test_rows_may_end_at_their_eos(tower: TextTower) -> None:
    ids = ids_of(5, 8)
    whole, cut = tower.encode(ids), tower.encode(ids[:, :10])
    close(cut.hidden, whole.hidden[:, :10], 1e-5)
    close(cut.projected, whole.projected, 1e-5)


def test_pools_at_the_first_eos_and_not_at_the_largest_id(tower: TextTower) -> None:
    ids = ids_of(5)
    out = tower.encode(ids)
    close(out.pooled, out.hidden[:, 6])
    ids[0, 20:30] = EOS
    close(tower.encode(ids).pooled, out.pooled)


def test_an_added_token_does_not_win_over_eos() -> None:
    config = CLIPTextConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=49410
    )
    ids = ids_of(5)
    ids[0, 2] = 49409
    out = TextTower.from_transformers(CLIPTextModel(config).eval()).encode(ids)
    close(out.pooled, out.hidden[:, 6])


def test_keeps_no_graph_unless_asked(tower: TextTower) -> None:
    assert not tower.encode(ids_of(2)).hidden.requires_grad
    assert tower.encode(ids_of(2), grad=True).hidden.requires_grad
    with torch.no_grad():
        assert not tower.encode(ids_of(2), grad=True).hidden.requires_grad


def test_says_what_it_is(tower: TextTower) -> None:
    assert (tower.width, tower.context, tower.layers, tower.vocabulary) == (32, 77, 3, 49408)
    assert tower.device == torch.device("cpu")
    assert tower.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_half(dtype: torch.dtype, exported: CLIPTextModelWithProjection) -> None:
    half = CLIPTextModelWithProjection(exported.config).eval()
    half.load_state_dict(exported.state_dict())
    out = TextTower.from_transformers(half.to(dtype)).encode(ids_of(4))
    assert out.hidden.dtype == dtype
    close(out.hidden.float(), TextTower.from_transformers(exported).encode(ids_of(4)).hidden, 0.1)


def test_refuses_misfits(tower: TextTower) -> None:
    with pytest.raises(ShapeError, match=r"ids: 1 axes of \(77,\), expected 2 as in \(N, L\)"):
        tower.encode(ids_of(1)[0])
    with pytest.raises(ShapeError, match="axis L is 78, expected 1 to 77"):
        tower.encode(torch.full((1, 78), EOS))
    with pytest.raises(ShapeError, match=r"row 1 holds no EOS \(49407\)"):
        tower.encode(torch.tensor([[49406, EOS], [49406, 320]]))
    with pytest.raises(ConfigError, match=r"clip_skip is 4, expected 0 \(last layer\) to 3"):
        tower.encode(ids_of(1), clip_skip=4)
    with pytest.raises(ConfigError, match="max_batch is 0"):
        tower.encode(ids_of(1), max_batch=0)


def test_refuses_models_without_a_clip_text_stack() -> None:
    with pytest.raises(ModelError, match="Linear is no CLIP text model of transformers"):
        TextTower.from_transformers(torch.nn.Linear(2, 2))
    with pytest.raises(ModelError, match="Linear holds no CLIP text tower of open_clip"):
        TextTower.from_open_clip(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("oddity", [{"no_causal_mask": True}, {"pool_type": "last"}, {"embed_cls": True}])
def test_refuses_towers_that_do_not_pool_at_eos(oddity: dict[str, object]) -> None:
    model = open_clip.CustomTextCLIP(embed_dim=24, vision_cfg=VISION, text_cfg={**TEXT, **oddity})
    with pytest.raises(ModelError, match="CustomTextCLIP's text tower is not a causal CLIP transformer pooled at EOS"):
        TextTower.from_open_clip(model)


@pytest.mark.parametrize("build", [clip_model, open_clip_model])
def test_states_that_are_not_finite_name_the_tower(build: Any) -> None:
    broken = build()
    with torch.no_grad():
        next(weight for name, weight in broken.named_parameters() if "token_embedding" in name)[320] = float("nan")
    tower = TextTower.from_transformers(broken) if build is clip_model else TextTower.from_open_clip(broken)
    rows = [TokenSequence((BOS, word, EOS)) for word in (320, 2368)]
    for encode in (tower.encode_rows, tower.pool_rows):
        with pytest.raises(
            ModelError, match=r"the CLIP text encoder gave [12] of 2 vectors with values that are not finite"
        ):
            encode(rows)


def test_token_embeddings_stand_for_their_tokens_and_the_graph_goes_back_to_them(tower: TextTower) -> None:
    words = tower.token_embeddings([320, 1125]).requires_grad_(True)
    row = TokenSequence((BOS, 0, 0, EOS), vectors=((1, "a"), (2, "b")))
    given = {"a": words[0], "b": words[1]}
    out, plain = (
        tower.pool_rows([row], vectors=given, grad=True),
        tower.pool_rows([TokenSequence((BOS, 320, 1125, EOS))]),
    )
    assert out.projected is not None
    assert plain.projected is not None
    close(out.projected.detach(), plain.projected)
    (slope,) = torch.autograd.grad(out.projected.sum(), words)
    step = 1e-2 * torch.randn(words.shape, generator=torch.Generator().manual_seed(0)) * words.detach().std()
    ends = [
        tower.pool_rows([row], vectors={"a": moved[0], "b": moved[1]}).projected
        for moved in (words + step, words - step)
    ]
    assert float((ends[0] - ends[1]).sum() / 2) == pytest.approx(float((slope * step).sum()), rel=0.02)
    assert not tower.pool_rows([row], vectors=given).projected.requires_grad
    with pytest.raises(ShapeError, match="ids: 0 to 60000, expected 0 to 49407"):
        tower.token_embeddings([0, 60000])


def test_a_projection_that_was_taken_away_is_computed_beside_its_hooks() -> None:
    """As streamed group offloading leaves it: a hook that knows weights by identity, here also below an adapter's wrapper."""
    tower = TextTower.from_transformers(clip_model())
    linear = tower._backend._projection  # type: ignore[attr-defined]
    weight, known = linear.weight, {id(each) for each in linear.parameters()}

    def hooked(x: torch.Tensor) -> torch.Tensor:
        assert all(id(each) in known for each in linear.parameters())
        assert x.device == linear.weight.device
        return torch.nn.functional.linear(x, linear.weight)

    linear.forward = hooked
    x = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    expected = (x @ weight.T).detach()
    for module in (linear, torch.nn.Sequential(linear)):
        tower._backend._projection = module  # type: ignore[attr-defined]
        assert torch.equal(tower._backend.project(x), expected)  # type: ignore[arg-type]
        away = tower._backend.project(x.to("meta"))
        assert away is not None
        assert (away.device.type, away.shape) == ("meta", (2, 24))
        assert linear.weight is weight
        assert linear.forward is hooked


def test_weights_in_8_bits_are_computed_in_the_dtype_of_the_states() -> None:
    tower = TextTower.from_transformers(clip_model())
    linear = tower._backend._projection  # type: ignore[attr-defined]
    linear.to(torch.float8_e4m3fn)
    x = torch.randn(2, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
    made = tower._backend.project(x)
    assert made is not None
    assert torch.equal(made, x @ linear.weight.float().T)
    made.sum().backward()
    assert torch.equal(x.grad, linear.weight.detach().float().sum(0).expand(2, -1))  # type: ignore[arg-type]
    assert linear.weight.dtype == torch.float8_e4m3fn
