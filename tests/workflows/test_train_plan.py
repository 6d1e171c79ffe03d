"""`clipcond train --plan` without its command, and with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from clipcond.cli import main
from clipcond.errors import ConfigError, OptionsError
from clipcond.workflows.train_plan import PlanOptions, run


def test_a_plan_needs_a_model_alone(dual_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--plan", "--model", str(dual_folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["steps"], found["images"], found["gpus"], found["fits"]) == (None, None, 0, True)
    assert found["caption_lengths"].startswith("all of 77 positions")
    assert found["parameters"]["all"] == found["parameters"]["image"] + found["parameters"]["text"]
    assert {"weights", "gradients", "optimizer", "activations", "losses", "base"} == set(found["memory"])


def test_steps_are_of_the_data_or_of_the_number_that_is_given(dual_folder: Path, tmp_path: Path) -> None:
    rows = ["image,caption"]
    for number in range(8):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,a red circle")
    (tmp_path / "p.csv").write_text("\n".join(rows) + "\n")
    settings = {"model": str(dual_folder), "batch_size": 2, "epochs": 3.0}
    of_data = run(PlanOptions(settings={**settings, "data": str(tmp_path / "p.csv")}))
    assert (of_data.images, of_data.steps_per_epoch, of_data.steps, of_data.warmup) == (8, 4, 12, 2)
    assert of_data.lengths.endswith("5 positions in the mean")
    of_number = run(PlanOptions(settings=settings, images=100, gpus=2))
    assert (of_number.steps_per_epoch, of_number.steps, of_number.fits) == (50, 150, None)
    with pytest.raises(ConfigError, match="batch_size is 2, but there are 1 images for training"):
        run(PlanOptions(settings=settings, images=1))


def test_what_does_not_fit_exits_with_1_and_advice(dual_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["train", "--plan", "--model", str(dual_folder), "--batch-size", "8192"]
    assert main([*given, "--gpus", "2", "--gpu-memory", "1.5"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any("4096 pairs each; 1.4 GiB can be used: it does not fit" in line for line in lines)
    assert any(line.startswith("advice        --grad-cache ") for line in lines)
    assert main([*given, "--gpu-memory", "80"]) == 0
    assert "it fits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--plan"], 2, "give --model, or a CONFIG.toml that names it"),
        (["--plan", "--model", "mini", "--gpus", "0"], 2, "--gpus is 0, expected a number above 0"),
        (["--plan", "--check", "--model", "mini"], 2, "--check and --plan are two things"),
        (["--model", "mini", "--gpus", "2"], 2, "--gpus is of --plan, which is not given"),
        (["--model", "mini", "--decode", "all"], 2, "--decode is of --check, which is not given"),
        (["--plan", "--model", "mini", "--gpus", "3"], 3, "batch_size is 256, expected a multiple of the 3 processes"),
    ],
)
def test_wrong_use_is_one_line(flags: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *flags]) == code
    assert message in capsys.readouterr().err


def test_options_check_themselves() -> None:
    with pytest.raises(OptionsError, match="--gpu-memory is nan"):
        PlanOptions(settings={"model": "mini"}, gpu_memory=float("nan"))
