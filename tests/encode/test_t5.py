"""T5Tower: equality with transformers' own forward, masks, vectors, and every refusal."""

from __future__ import annotations

import pytest
import torch
from encoders import close

from clipcond.encode.rows import TokenSequence
from clipcond.encode.t5 import T5Tower
from clipcond.errors import ConfigError, ModelError, ShapeError
from clipcond.runtime.torchvision_repair import repair

repair()

from transformers import T5Config, T5EncoderModel  # noqa: E402


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(3)
    config = T5Config(vocab_size=100, d_model=24, d_kv=8, d_ff=32, num_layers=2, num_heads=3, dropout_rate=0.0)
    return T5EncoderModel(config).eval()


@pytest.fixture(scope="module")
def tower(model: torch.nn.Module) -> T5Tower:
    return T5Tower.from_transformers(model)


ROWS = [TokenSequence((5, 6, 7, 1, 0, 0)), TokenSequence((9, 1, 0, 0, 0, 0)), TokenSequence((5, 6, 8, 11, 12, 1))]


@torch.no_grad()
def test_plain_rows_call_the_model_as_a_pipeline_does(model: torch.nn.Module, tower: T5Tower) -> None:
    out = tower.encode_rows(ROWS)
    assert torch.equal(out.hidden, model(torch.tensor([row.ids for row in ROWS]))[0])
    assert out.pooled is None
    assert out.projected is None
    close(tower.encode_rows(ROWS, max_tokens=7).hidden, out.hidden)


@torch.no_grad()
def test_masked_positions_are_the_attention_mask_of_the_model(model: torch.nn.Module, tower: T5Tower) -> None:
    out = tower.encode_rows([TokenSequence(ROWS[0].ids, masked=(1, 2)), ROWS[1]])
    mask = torch.tensor([[1, 0, 0, 1, 1, 1]])
    close(out.hidden[:1], model(torch.tensor([ROWS[0].ids]), attention_mask=mask)[0])
    close(out.hidden[1:], tower.encode_rows(ROWS[1:2]).hidden)


def test_a_vector_stands_where_the_token_s_own_would(model: torch.nn.Module, tower: T5Tower) -> None:
    vector = model.shared.weight[8].detach()
    out = tower.encode_rows([TokenSequence((5, 6, 700, 1), vectors=((2, "v"),))], vectors={"v": vector})
    close(out.hidden, tower.encode_rows([TokenSequence((5, 6, 8, 1))]).hidden)


def test_says_what_it_is(tower: T5Tower) -> None:
    assert (tower.width, tower.device, tower.dtype) == (24, torch.device("cpu"), torch.float32)
    assert tower.fingerprint() == tower.fingerprint()


@pytest.mark.parametrize(
    ("name", "value"),
    [("layer_norm_epsilon", 0.5), ("relative_attention_max_distance", 9), ("feed_forward_proj", "gated-gelu")],
)
def test_settings_that_no_weight_shows_are_in_the_fingerprint(
    model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    before = T5Tower.from_transformers(model).fingerprint()
    monkeypatch.setattr(model.config, name, value)
    assert T5Tower.from_transformers(model).fingerprint() != before


def test_refuses_misfits(tower: T5Tower) -> None:
    with pytest.raises(ConfigError, match="clip_skip is 1 and final_norm True, expected 0 and True"):
        tower.encode_rows(ROWS, clip_skip=1)
    with pytest.raises(ConfigError, match="clip_skip is 0 and final_norm False, expected 0 and True"):
        tower.encode_rows(ROWS, final_norm=False)
    with pytest.raises(ShapeError, match="rows: 0 positions, expected 1 or more"):
        tower.encode_rows([TokenSequence(())])
    with pytest.raises(ModelError, match="Linear is no T5 encoder of transformers"):
        T5Tower.from_transformers(torch.nn.Linear(2, 2))


def test_states_that_are_not_finite_name_the_tower() -> None:
    config = T5Config(vocab_size=100, d_model=24, d_kv=8, d_ff=32, num_layers=2, num_heads=3, dropout_rate=0.0)
    broken = T5EncoderModel(config).eval()
    with torch.no_grad():
        broken.shared.weight[8] = float("inf")
    with pytest.raises(ModelError, match="the T5 encoder gave 1 of 3 vectors with values that are not finite"):
        T5Tower.from_transformers(broken).encode_rows(ROWS)
