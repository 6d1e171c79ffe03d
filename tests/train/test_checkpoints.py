import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clipcond.errors import ConfigError
from clipcond.train import checkpoints
from clipcond.train.loop import train


@pytest.fixture
def last(config):
    """The last checkpoint of a finished run."""
    train(config)
    return checkpoints.existing(Path(config.out) / "checkpoints")[-1]


def rewrite(path, **changes):
    torch.save({**torch.load(path, weights_only=True), **changes}, path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": -5}, r"it says step -5, 0 captions cut"),
        ({"step": 10**12}, r"it says step 1000000000000"),
        ({"step": "9"}, "its step is no int"),
        ({"cut": -1}, "it says step 9, -1 captions cut"),
        ({"model": [1]}, "its model is no dict"),
        ({"model": {"a": 3}}, "its model holds more than tensors"),
        ({"rng": 3}, "its rng is no Tensor"),
        ({"device_rng": 3}, "its device_rng is no Tensor"),
        ({"optimizer": [3]}, "is no checkpoint of a run"),
        ({"optimizer": [{"state": [3]}]}, "is no checkpoint of a run"),
        ({"config": "{"}, "is no checkpoint of a run"),
        ({"config": "[]"}, "its config is no record"),
        ({"config": "[" * 100_000}, "is no checkpoint of a run"),
    ],
)
def test_a_crafted_checkpoint_is_one_line(config, last, changes, message):
    rewrite(last, **changes)
    with pytest.raises(
        ConfigError, match=rf"step-00000009\.pt .*{message}.*delete it to go on from the one before"
    ) as caught:
        train(config)
    assert "\n" not in str(caught.value)
    assert json.loads((Path(config.out) / "config.json").read_text())["steps"] == 9


def test_a_checkpoint_that_is_no_record_is_one_line(config, last):
    torch.save([1, 2], last)
    with pytest.raises(ConfigError, match=r"is no checkpoint of a run \(it holds no record\)"):
        train(config)


@pytest.mark.parametrize("changes", [{"rng": torch.zeros(3, dtype=torch.uint8)}, {"optimizer": []}, {"model": {}}])
def test_states_that_do_not_fit_are_one_line(config, last, changes):
    rewrite(last, **changes)
    with pytest.raises(ConfigError, match=r"step-00000009\.pt does not fit the model .*; choose another out"):
        train(config)


def test_a_checkpoint_with_a_nan_is_never_gone_on_from(config, last):
    model = torch.load(last, weights_only=True)["model"]
    model["text_projection"][0, 0] = float("nan")
    rewrite(last, model=model)
    with pytest.raises(
        ConfigError, match=r"step-00000009\.pt holds weights that are not finite \(text_projection\); delete"
    ):
        train(config)
    assert checkpoints.last_good(last.parent) == f"the last good checkpoint is {last.parent / 'step-00000006.pt'}"


def test_a_nan_among_the_moments_of_the_optimizer_is_never_gone_on_from(config, last):
    optimizer = torch.load(last, weights_only=True)["optimizer"]
    optimizer[0]["state"][0]["exp_avg"].fill_(float("nan"))
    rewrite(last, optimizer=optimizer)
    with pytest.raises(ConfigError, match=r"holds weights that are not finite \(the optimizer's exp_avg 0\.0\)"):
        train(config)


def test_weights_that_are_not_finite_are_never_saved(config, monkeypatch):
    from clipcond.train.optimizer import Optimizer

    whole, steps = Optimizer.step, []

    def overflowing(self, learning_rate):
        whole(self, learning_rate)
        steps.append(1)
        if len(steps) == 6:  # the loss and the gradient were finite
            self.dense[0].data.fill_(float("inf"))

    monkeypatch.setattr(Optimizer, "step", overflowing)
    with pytest.raises(ConfigError, match=r"not finite after step 6 .*the last good checkpoint is .*step-00000003\.pt"):
        train(config)
    assert [path.name for path in checkpoints.existing(Path(config.out) / "checkpoints")] == ["step-00000003.pt"]


def test_a_checkpoint_written_with_rate_goes_on(config, last, recwarn):
    state = torch.load(last, weights_only=True)
    settings = json.loads(state["config"])
    settings["rate"] = settings.pop("learning_rate")
    settings.pop("max_bad_rows")
    del state["pictures"]
    torch.save({**state, "config": json.dumps(settings)}, last)
    assert train(config).steps == 9
    with pytest.raises(ConfigError, match=r"learning_rate 0\.001 → 0\.002"):
        train(replace(config, learning_rate=2e-3))
    assert not recwarn.list


def test_names_that_no_run_writes_are_no_checkpoints(tmp_path):
    for name in (
        "step-00000002.pt",
        "step-100000000.pt",
        "step-x.pt",
        "step--0000005.pt",
        ".step-00000009.pt.unfinished",
    ):
        (tmp_path / name).touch()
    assert [path.name for path in checkpoints.existing(tmp_path)] == ["step-00000002.pt", "step-100000000.pt"]
