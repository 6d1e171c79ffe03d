import sys

import pytest

from clipcond.cli.train_lines import LiveLine, PlainLines, training_lines
from clipcond.train.run_log import Progress
from clipcond.workflows.events import Finished, Note, Started
from clipcond.workflows.train_events import Evaluated, StepDone, StepTaken, TrainingStarted

STARTED = TrainingStarted(
    step=0, resumed=False, steps=400, steps_per_epoch=2, warmup=1, images=8, captions=8, trainable=1000, device="cpu"
)
RECALLS = {"R@1": 0.25, "R@5": 0.5}
EVALUATED = Evaluated(step=0, images=8, image_to_text=RECALLS, text_to_image=RECALLS | {"R@1": 0.75})


def step(number: int) -> Progress:
    stages = {"data": 12_345_678.0, "forward_backward": 431.4, "step": 5120.0}
    return Progress(
        step=number, steps=400, loss=1.25, learning_rate=1e-3, temperature=0.0143, pairs_per_second=412.0,
        by_stage=stages, seconds_left=3725.0,
    )  # fmt: skip


def done(number: int) -> StepDone:
    return StepDone(
        step=number, loss=1.0, learning_rate=1e-3, logit_scale=14.0, grad_norm=1.0, pairs_per_second=5.0,
        by_stage={"data": 1e9, "step": 99.6},
    )  # fmt: skip


def test_the_live_line_says_where_the_run_is_from_the_first_moment_on():
    lines = LiveLine()
    assert lines._said().startswith("starting … 0 s")
    lines(Started("loading torch"))
    assert lines._said().startswith("loading torch … ")
    lines(Finished())
    assert lines._said().startswith("first step … ")
    lines(StepTaken(step(3)))
    told = (
        "step 3/400  1:02:05 left  loss 1.2500  temperature 0.0143  412 pairs/s (data 12.3M, towers 431, update 5.12k)"
    )
    assert lines._said() == told


def test_the_live_line_has_the_recall_and_what_takes_a_while(capsys: pytest.CaptureFixture[str]):
    lines = LiveLine()
    lines(EVALUATED)
    lines(StepTaken(step(4)))
    lines(Started("measuring"))
    assert "  loss 1.2500  R@1 50.0 %  temperature" in lines._said()
    assert lines._said().endswith("5.12k)  measuring …")


def test_on_a_terminal_notes_stay_and_of_the_steps_the_last_alone(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    lines = training_lines()
    assert isinstance(lines, LiveLine)
    with lines:
        for event in (STARTED, StepTaken(step(1)), done(1), Note("two rows are left out"), StepTaken(step(2)), done(2)):
            lines(event)
    said = capsys.readouterr().err
    assert said.count("note: two rows are left out") == 1
    assert said.count("step 2/400  loss 1.0000") == 1
    assert "step 1/400  loss 1.0000" not in said
    assert "1,000 weights train on cpu" in said


def test_a_pipe_gets_a_line_for_each_line_of_the_log_and_none_for_a_step(capsys):
    lines = training_lines()
    assert type(lines) is PlainLines
    with lines:
        for event in (
            Started("loading torch"), STARTED, Started("storing features"), EVALUATED, StepTaken(step(1)), done(1),
            Started("measuring"), StepTaken(step(2)),
        ):  # fmt: skip
            lines(event)
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("8 images, 8 captions; ")
    assert told[1] == "storing features"
    assert told[2] == "step 0  R@1/5 25.0/50.0 % image to text, R@1/5 75.0/50.0 % text to image, among 8"
    assert told[3].startswith("step 1/400  loss 1.0000  ")
    assert told[3].endswith("  5 pairs/s (data over 999M, update 100)  1:02:05 left")
    assert len(told) == 4
