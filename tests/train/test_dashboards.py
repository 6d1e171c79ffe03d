import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from clipcond.errors import ConfigError
from clipcond.train.dashboards import TensorBoard, check_installed, scalars
from clipcond.train.loop import train

LINE = {
    "step": 4, "loss": 0.5, "terms": {"contrastive": 0.4, "retention": 0.1}, "learning_rate": 1e-4, "grad_norm": 2.0,
    "logit_scale": 50.0, "pairs_per_second": 10.0, "by_stage": {"data": 1.0}, "cut_captions": 0.0,
}  # fmt: skip


def test_the_numbers_of_a_line_have_names_in_groups():
    found = scalars(LINE)
    assert found["temperature"] == 0.02
    assert found["terms/retention"] == 0.1
    assert "step" not in found
    recalls = {
        "step": 4,
        "event": "evaluation",
        "image_to_text": {"R@1": 0.5},
        "text_to_image": {"R@1": 0.25},
        "images": 9,
    }
    assert scalars(recalls) == {"image_to_text/R@1": 0.5, "text_to_image/R@1": 0.25}
    drift = {"step": 4, "event": "drift", "spread_ratio": 0.9, "measures": {"words": 0.01}}
    assert scalars(drift) == {"drift/words": 0.01, "drift/spread_ratio": 0.9}
    assert scalars({"step": 0, "event": "note", "note": "x"}) == {}


def test_a_missing_package_is_said_with_the_command_that_brings_it(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("clipcond.train.dashboards.find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r'log_to names wandb, which is not installed: pip install "clipcond\[wandb\]"'
    ):
        train(replace(config, log_to=("wandb",)))
    assert not Path(config.out).exists()
    with pytest.raises(ConfigError, match="log_to holds 'mlflow', expected 'tensorboard' or 'wandb'"):
        replace(config, log_to=("mlflow",))


class Wandb(ModuleType):
    """A stand-in that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.settings: dict = {}
        self.logged: list[tuple[int, dict]] = []
        self.finished = 0

    def init(self, **settings):
        self.settings = settings
        return SimpleNamespace(log=lambda numbers, step: self.logged.append((step, numbers)), finish=self._finish)

    def _finish(self):
        self.finished += 1


def test_wandb_hears_every_line_with_numbers_and_the_end(config, monkeypatch):
    stand_in = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    monkeypatch.setattr("clipcond.train.dashboards.find_spec", lambda name: object())
    train(replace(config, log_to=("wandb",)))
    assert stand_in.settings["config"]["batch_size"] == 5
    assert (stand_in.settings["name"], stand_in.settings["resume"]) == ("run", "allow")
    assert len(stand_in.settings["id"]) == 16
    assert [step for step, _ in stand_in.logged] == [2, 4, 6, 8, 9]
    assert all({"loss", "temperature", "learning_rate"} <= numbers.keys() for _, numbers in stand_in.logged)
    assert stand_in.finished == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of its own libraries
def test_tensorboard_reads_what_a_run_wrote(config):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = TensorBoard(config, 0)
    board.line(LINE)
    board.line({**LINE, "step": 6, "loss": 0.25})
    board.close()
    found = EventAccumulator(str(Path(config.out) / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [(4, 0.5), (6, 0.25)]
    assert found.Scalars("temperature")[0].value == pytest.approx(0.02)


def test_what_is_installed_is_not_complained_of():
    check_installed(())
    check_installed(("json",))
