from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import clipcond
from clipcond.errors import ConfigError
from clipcond.train import checkpoints
from clipcond.train.average import Average
from clipcond.train.loop import train


def test_the_average_is_that_of_the_formula_and_lends_itself_to_the_model():
    model = torch.nn.Linear(1, 1, bias=False)
    average = Average(model, 0.5)
    expected = seen = float(model.weight.detach())
    for step in range(1, 6):
        with torch.no_grad():
            model.weight += step
        seen += step
        keep = min(0.5, step / (step + 9))
        expected = keep * expected + (1 - keep) * seen
        average.update(step)
    with average.in_place():
        assert float(model.weight.detach()) == pytest.approx(expected, rel=1e-5)
    assert float(model.weight.detach()) == pytest.approx(seen)


def test_the_averages_are_evaluated_written_and_resumed_bit_for_bit(config, pairs_csv, tmp_path):
    config = replace(config, ema=0.9, val_data=str(pairs_csv), eval_every=3, learning_rate=3e-3)
    whole = replace(config, out=str(tmp_path / "whole"))
    result = train(whole)
    assert clipcond.evaluate(whole.out, pairs_csv).image_to_text == pytest.approx(
        result.retrieval.image_to_text, abs=0.05
    )
    mine = load_file(result.model / "open_clip_model.safetensors")
    last = checkpoints.read(checkpoints.existing(Path(whole.out) / "checkpoints")[-1])
    assert all(torch.equal(mine[name], value) for name, value in last.average.items())
    assert not torch.equal(mine["text_projection"], last.model["text_projection"])

    def stop(line):
        if line["step"] == 4 and "loss" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, report=stop)
    resumed = load_file(train(config).model / "open_clip_model.safetensors")
    assert all(torch.equal(resumed[name], value) for name, value in mine.items())


def test_a_share_of_one_is_refused(config):
    with pytest.raises(ConfigError, match="ema is 1, expected a share from 0 up to 1"):
        replace(config, ema=1.0)


def test_what_batch_normalisation_measured_is_averaged_where_it_trains():
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(1, momentum=1.0), torch.nn.BatchNorm1d(1).requires_grad_(False))
    average, expected = Average(model, 0.5), 0.0
    for step in (1, 2, 3):
        model(torch.full((4, 1), float(step)))
        keep = min(0.5, step / (step + 9))
        expected = keep * expected + (1 - keep) * step
        average.update(step)
    frozen = float(model[1].running_mean)
    with average.in_place():
        assert float(model[0].running_mean) == pytest.approx(expected)
        assert float(model[1].running_mean) == frozen
    assert float(model[0].running_mean) == 3
