import dataclasses

import pytest

from clipcond.errors import ConfigError
from clipcond.train.config import TrainConfig, from_mapping, from_toml

GIVEN = {"data": "pairs.csv", "model": "mini", "out": "run"}


def test_toml_is_read_and_flags_win(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        'data = "a.csv"\nmodel = "mini"\nout = "o"\nlearning_rate = 1\nbetas = [0.9, 0.95]\nfreeze = "text"\nsteps = 7\n'
    )
    config = from_toml(path, {"out": "p", "steps": None, "epochs": 2.0})
    assert (config.data, config.out, config.learning_rate, config.betas) == ("a.csv", "p", 1.0, (0.9, 0.95))
    assert (config.freeze, config.steps, config.epochs) == (("text",), None, 2.0)
    assert isinstance(config.learning_rate, float)


def test_the_record_is_complete_and_builds_the_same_config():
    config = TrainConfig(**GIVEN, freeze=("text",), steps=3)
    record = config.to_dict()
    assert set(record) == {field.name for field in dataclasses.fields(TrainConfig)}
    assert from_mapping(record) == config


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"batchsize": 3}, "unknown setting 'batchsize' in run.toml; did you mean 'batch_size'?"),
        ({"zzzzz": 3}, "unknown setting 'zzzzz' in run.toml; known are data, model"),
        ({"data": ""}, "run.toml must name data"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast' in run.toml, expected float"),
        ({"steps": 1.5}, "steps is 1.5 in run.toml, expected int"),
        ({"seed": True}, "seed is True in run.toml, expected int"),
        ({"freeze": 3}, "freeze is 3 in run.toml, expected tuple"),
        ({"steps": 3, "epochs": 1}, "steps is 3 and epochs is 1.0; give one of the two"),
        ({"val_data": "x", "val_count": 1}, "val_data and val_count are both given"),
        ({"precision": "fp8"}, "precision is 'fp8', expected 'float32' or 'bf16' or 'fp16'"),
        ({"init": "new"}, "init is 'new', expected 'weights' or 'random'"),
        ({"captions": "all"}, "captions is 'all', expected 'random' or 'first'"),
        ({"freeze": ["texts"]}, "freeze holds 'texts', expected 'text' or 'image'"),
        ({"learning_rate": 0}, "learning_rate is 0.0, expected a number above 0"),
        ({"batch_size": 1}, "batch_size is 1, expected 2 or more"),
        ({"warmup": -1}, "warmup is -1, expected 0 or more"),
        ({"betas": ["a", "b"]}, "betas is"),
        ({"max_bad_rows": -1}, "max_bad_rows is -1, expected 0 or more"),
        ({"loss": "clip"}, "loss is 'clip', expected 'infonce' or 'siglip'"),
        ({"positives": "all"}, "positives is 'all', expected 'mask' or 'count'"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0, expected 0 or more and less than 1"),
        ({"label_smoothing": 0.1, "loss": "siglip"}, "label_smoothing is of infonce, a softmax; loss is 'siglip'"),
        ({"random_crop": 0.0}, "random_crop is 0, expected a share above 0, up to 1"),
        ({"colour_jitter": 0.2, "freeze": ["image"]}, "need an image tower that trains"),
        ({"random_turn": 200.0}, "random_turn is 200, expected degrees from 0 to 180"),
        ({"random_grey": 1.5}, "random_grey is 1.5, expected a share from 0 to 1"),
        ({"grad_cache": 0}, "grad_cache is 0, expected a number above 0"),
        ({"chunk_size": -1}, "chunk_size is -1, expected a number above 0"),
        ({"betas": [0.9, 1.0]}, r"betas is \(0.9, 1.0\), expected two numbers"),
    ],
)
def test_unusable_settings_are_named(extra, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        from_mapping({**GIVEN, **extra}, source="run.toml")


def test_a_file_that_is_absent_or_no_toml_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml does not exist; expected a TOML file"):
        from_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("seed = = 3")
    with pytest.raises(ConfigError, match=r"bad\.toml is not TOML"):
        from_toml(tmp_path / "bad.toml")


def test_the_old_name_rate_works_with_a_warning_for_one_version(tmp_path):
    words = "the setting rate is now learning_rate; the old name goes with the next version"
    with pytest.warns(DeprecationWarning, match=words):
        config = TrainConfig(**GIVEN, rate=1e-3)
    assert config == TrainConfig(**GIVEN, learning_rate=1e-3)
    with pytest.warns(DeprecationWarning, match=words):
        assert config.rate == 1e-3
    with pytest.warns(DeprecationWarning, match=words):
        assert dataclasses.replace(config, rate=2e-3).learning_rate == 2e-3
    assert dataclasses.replace(config, steps=3).learning_rate == 1e-3
    with pytest.warns(DeprecationWarning, match=words):
        assert from_mapping({**GIVEN, "rate": 1e-3}) == config
    path = tmp_path / "run.toml"
    path.write_text('data = "pairs.csv"\nmodel = "mini"\nout = "run"\nrate = 5e-3\n')
    with pytest.warns(DeprecationWarning, match=words):
        assert from_toml(path, {"learning_rate": 1e-3}) == config
    path.write_text('data = "pairs.csv"\nmodel = "mini"\nout = "run"\nlearning_rate = 5e-3\n')
    with pytest.warns(DeprecationWarning, match=words):
        assert from_toml(path, {"rate": 1e-3}) == config


def test_both_names_of_one_setting_are_refused():
    with (
        pytest.warns(DeprecationWarning, match="the setting rate is now"),
        pytest.raises(
            ConfigError, match=r"rate and learning_rate are both given in run\.toml; learning_rate is the name"
        ),
    ):
        from_mapping({**GIVEN, "rate": 1e-3, "learning_rate": 1e-3}, source="run.toml")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_setting_that_is_not_finite_is_refused(value):
    with pytest.raises(ConfigError, match=f"learning_rate is {value}, expected a finite number"):
        TrainConfig(**GIVEN, learning_rate=value)


def test_a_toml_nested_without_end_is_one_line(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("a = " + "[" * 100_000)
    with pytest.raises(ConfigError, match=r"run\.toml is not TOML"):
        from_toml(path)
