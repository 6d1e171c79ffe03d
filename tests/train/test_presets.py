"""Presets under what is given, and settings as TOML."""

from __future__ import annotations

import pytest

from clipcond.errors import ConfigError
from clipcond.train.config import TrainConfig, from_mapping, from_toml
from clipcond.train.presets import PRESETS, fitting_batch, preset, preset_line
from clipcond.train.toml_text import to_toml

NEEDED = {"data": "d.csv", "model": "mini", "out": "o"}


def test_flag_wins_over_toml_over_preset_over_default(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(
        'data = "d.csv"\nmodel = "mini"\nout = "o"\npreset = "medium"\nbatch_size = 64\nlearning_rate = 3e-6\n'
    )
    config = from_toml(file, {"learning_rate": 2e-6})
    assert (config.learning_rate, config.batch_size, config.random_crop, config.label_smoothing) == (2e-6, 64, 0.9, 0)
    assert from_toml(file, {"preset": "scratch"}).init == "random"


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_makes_a_config_and_its_length_gives_way(name):
    assert from_mapping({**NEEDED, "preset": name}).epochs == PRESETS[name]["epochs"]
    config = from_mapping({**NEEDED, "preset": name, "steps": 1, "epochs": None})
    assert (config.steps, config.epochs) == (1, None)
    assert TrainConfig(**NEEDED, **preset(name)) == from_mapping({**NEEDED, "preset": name})


def test_retention_comes_with_a_target():
    assert from_mapping({**NEEDED, "preset": "small"}).retention == 0
    assert from_mapping({**NEEDED, "preset": "small", "target": "sd15"}).retention == 3
    assert from_mapping({**NEEDED, "preset": "small", "target": "sd15", "retention": 0}).retention == 0


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(ConfigError, match=r"preset is 'Smol', expected small, medium, scratch; did you mean small\?"):
        from_mapping({**NEEDED, "preset": "Smol"})
    with pytest.raises(ConfigError, match=r"preset is '3', expected small, medium, scratch$"):
        from_mapping({**NEEDED, "preset": 3})


@pytest.mark.parametrize(("images", "batch"), [(10_000, 128), (128, 128), (127, 64), (40, 32), (3, 2), (1, 2)])
def test_a_batch_is_cut_to_a_power_of_two_that_the_data_fill(images, batch):
    assert fitting_batch(128, images) == batch


def test_the_line_tells_what_is_set_and_what_is_not():
    given = {**NEEDED, "preset": "small", "target": "flux", "learning_rate": 1e-6}
    assert preset_line(given, from_mapping(given).to_dict()) == (
        "preset small: batch_size 128, epochs 10, weight_decay 0.1, lock_image yes, retention 3; given otherwise: learning_rate"
    )


def test_toml_gives_the_same_config_back(tmp_path):
    config = TrainConfig(
        data='odd "name"\\ \x7f\n😀.csv', model="mini", out="o", freeze=("text",), target="sd15", retention=0.5,
        retention_weights=("words=2", "gram=0"), lock_image=True, learning_rate=1e-7, epochs=0.25,
    )  # fmt: skip
    file = tmp_path / "run.toml"
    file.write_text(to_toml(config.to_dict()), encoding="utf-8")
    assert from_toml(file) == config


def test_bytes_that_toml_cannot_hold_stand_in_a_comment(tmp_path):
    config = TrainConfig(data="caf\udce9.csv", model="mini", out="o")
    file = tmp_path / "run.toml"
    file.write_text(to_toml(config.to_dict()), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"run\.toml must name data"):
        from_toml(file)
    assert "# data holds bytes that are no UTF-8" in file.read_text()
    assert from_toml(file, {"data": config.data}) == config
