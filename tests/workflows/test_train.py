"""The job of `clipcond train`, without its command."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from clipcond.errors import ModelError, OptionsError
from clipcond.workflows.events import Event, Note, Started
from clipcond.workflows.train import TrainOptions, run
from clipcond.workflows.train_events import DriftSeen, Evaluated, StepDone, StepTaken, TrainingStarted, event_of


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rows = ["image\tcaption"]
    for number in range(8):
        Image.new("RGB", (32, 32), (30 * number, 0, 0)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png\tpicture {number}")
    (tmp_path / "pairs.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path / "pairs.tsv"


def test_log_lines_are_events(dual_folder: Path, pairs: Path, tmp_path: Path) -> None:
    settings = {
        "data": str(pairs), "model": str(dual_folder), "out": str(tmp_path / "run"), "val_data": str(pairs),
        "batch_size": 4, "steps": 2, "threads": 1, "log_every": 1,
    }  # fmt: skip
    events: list[Event] = []
    result = run(TrainOptions(settings=settings), events.append)
    assert result.model == tmp_path / "run" / "model"
    (started,) = [event for event in events if isinstance(event, TrainingStarted)]
    rest = events[events.index(started) :]
    assert (started.step, started.resumed, started.steps, started.images) == (0, False, 2, 8)
    steps = [event for event in rest if isinstance(event, StepDone)]
    assert [event.step for event in steps] == [1, 2]
    assert steps[-1].learning_rate >= 0
    taken = [event.progress for event in rest if isinstance(event, StepTaken)]
    assert [(each.step, each.steps) for each in taken] == [(1, 2), (2, 2)]
    assert taken[-1].seconds_left == 0
    assert set(taken[-1].by_stage) == {"data", "forward_backward", "step"}
    assert [event.task for event in events if isinstance(event, Started)][-1] == "measuring"
    before, evaluated = [event for event in rest if isinstance(event, Evaluated)]
    assert (before.step, evaluated.step) == (0, 2)
    assert set(evaluated.image_to_text) == {"R@1", "R@5"}


def test_a_run_with_the_denoiser_of_a_pipeline(pairs: Path, tmp_path: Path) -> None:
    settings = {
        "data": str(pairs), "model": "mini", "out": str(tmp_path / "run"), "lock_image": True, "batch_size": 4, "steps": 1,
        "threads": 1, "pipeline": "mini", "denoise_weight": 1.0, "denoise_batch": 2, "target": "sd15", "retention": 1.0,
    }  # fmt: skip
    events: list[Event] = []
    run(TrainOptions(settings=settings), events.append)
    (step,) = [event for event in events if isinstance(event, StepDone)]
    assert set(step.terms) == {"contrastive", "retention", "denoising"}
    assert all(value >= 0 for value in step.terms.values())
    (drift,) = [event for event in events if isinstance(event, DriftSeen)]
    assert {"words", "empty", "gram"} <= drift.measures.keys()


def test_a_pipeline_that_does_not_fit_is_said_before_the_first_step(
    dual_folder: Path, sd_folder: Path, pairs: Path, tmp_path: Path
) -> None:
    settings = {
        "data": str(pairs), "model": str(dual_folder), "out": str(tmp_path / "run"), "batch_size": 4, "steps": 1,
        "pipeline": str(sd_folder), "denoise_weight": 1.0,
    }  # fmt: skip
    with pytest.raises(ModelError, match=r"reads states of width 32, .* gives 16"):
        run(TrainOptions(settings=settings))
    with pytest.raises(ModelError, match="no pipeline 'nowhere'"):
        run(TrainOptions(settings={**settings, "pipeline": "nowhere"}))


def test_a_note_of_a_run_is_a_note_and_an_ending_is_told_by_the_result() -> None:
    assert event_of({"step": 0, "event": "note", "note": "two rows were left out"}) == Note("two rows were left out")
    assert event_of({"step": 4, "event": "done", "model": "run/model"}) is None


def test_settings_win_over_the_file_whatever_gives_its_length(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('data = "d.csv"\nmodel = "mini"\nout = "o"\nsteps = 4\n')
    config = TrainOptions(config=file, settings={"epochs": 1.0, "out": "p"}).train_config()
    assert (config.steps, config.epochs, config.out) == (None, 1.0, "p")
    file.write_text('data = "d.csv"\nmodel = "mini"\nout = "o"\nepochs = 4\n')
    config = TrainOptions(config=file, settings={"steps": 9}).train_config()
    assert (config.steps, config.epochs) == (9, None)


def test_a_run_needs_its_data_model_and_folder() -> None:
    with pytest.raises(OptionsError, match=r"give a CONFIG\.toml, or --data, --model and --out"):
        TrainOptions(settings={"data": "d.csv"})
