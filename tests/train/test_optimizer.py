import pytest
import torch

from clipcond.errors import ConfigError
from clipcond.models.open_clip_folder import read_open_clip_folder
from clipcond.train.config import TrainConfig
from clipcond.train.model import freeze, text_features
from clipcond.train.optimizer import Optimizer, clip_gradients, layer_factors, learning_rate_at, split_by_decay

IDS = torch.tensor([[49406, 300, 301, 49407], [49406, 300, 49407, 49407]])
GIVEN = {"data": "x", "model": "x", "out": "x"}


@pytest.fixture
def model(dual_folder):
    return read_open_clip_folder(dual_folder)


def test_the_rate_at_first_middle_and_last_step():
    rates = [learning_rate_at(step, 110, 2.0, 10) for step in range(110)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == pytest.approx(2.0)
    assert rates[60] == pytest.approx(1.0)
    assert 0 < rates[109] < 0.001
    assert learning_rate_at(0, 5, 1.0, 0) == 1.0


def test_only_matrices_decay(model):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    matrices, rest = ([names[id(p)] for p in group] for group in split_by_decay(model))
    assert "visual.conv1.weight" in matrices
    assert "text_projection" in matrices
    assert "transformer.resblocks.0.attn.in_proj_weight" in matrices
    assert {"logit_scale", "positional_embedding", "visual.positional_embedding", "visual.class_embedding"} <= set(rest)
    assert not [name for name in matrices if "ln_" in name or name.endswith("bias")]
    assert len(matrices) + len(rest) == len(names) - 1, "all but the token table"


def test_the_token_table_moves_in_the_rows_of_the_batch_alone(model):
    before = model.token_embedding.weight.detach().clone()
    optimizer = Optimizer(model, TrainConfig(**GIVEN))
    text_features(model, IDS)[:, 0].sum().backward()
    assert model.token_embedding.weight.grad.is_sparse
    assert optimizer.clip(1.0) > 0
    optimizer.step(1e-2)
    moved = (model.token_embedding.weight != before).any(dim=1).nonzero().squeeze(1)
    assert moved.tolist() == [300, 301, 49406, 49407]


def test_the_learning_rate_falls_from_block_to_block(model):
    config = TrainConfig(**GIVEN, layer_decay=0.5, weight_decay=0.0)
    factors = layer_factors(model, 0.5)
    assert factors["transformer.resblocks.1.mlp.c_fc.weight"] == factors["text_projection"] == 1.0
    assert factors["visual.transformer.resblocks.0.mlp.c_fc.weight"] == 0.5
    assert (
        factors["token_embedding.weight"] == factors["visual.conv1.weight"] == factors["positional_embedding"] == 0.25
    )
    assert set(layer_factors(model, 1.0).values()) == {1.0}
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = Optimizer(model, config)
    text_features(model, IDS)[:, 0].sum().backward()
    optimizer.step(1e-2)
    for name, factor in factors.items():
        moved = (dict(model.named_parameters())[name].detach() - before[name]).abs().max()
        if not name.startswith("visual.") and name != "logit_scale":  # Adam's first step is the rate itself
            assert float(moved) == pytest.approx(1e-2 * factor, rel=0.02), name


def test_the_last_blocks_train_alone(model):
    freeze(model, [], text_blocks=1)
    trains = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    text = {name for name in trains if not name.startswith("visual.")}
    assert {name.split(".")[2] for name in text if "resblocks" in name} == {"1"}
    assert {name for name in text if "resblocks" not in name} == {
        "ln_final.weight", "ln_final.bias", "text_projection", "logit_scale",
    }  # fmt: skip
    with pytest.raises(ConfigError, match="train_blocks is 3, the text tower has 2 blocks"):
        freeze(model, [], text_blocks=3)


def test_a_frozen_table_has_no_gradient_and_no_state(model):
    freeze(model, ["text"])
    optimizer = Optimizer(model, TrainConfig(**GIVEN))
    text_features(model, IDS)[:, 0].sum().backward()
    assert model.token_embedding.weight.grad is None
    assert len(optimizer.state_dict()) == 1


def test_clipping_is_joint_over_dense_and_sparse():
    dense = torch.tensor([3.0])
    sparse = torch.sparse_coo_tensor(torch.tensor([[5]]), torch.tensor([4.0]), (9,), check_invariants=True).coalesce()
    assert float(clip_gradients([dense, sparse], 1.0)) == pytest.approx(5.0)
    assert float(dense) == pytest.approx(0.6, abs=1e-5)
    assert float(sparse.values()) == pytest.approx(0.8, abs=1e-5)
    assert float(clip_gradients([dense], 1.0)) == pytest.approx(0.6, abs=1e-5)
    assert float(dense) == pytest.approx(0.6, abs=1e-5), "below the limit nothing changes"
