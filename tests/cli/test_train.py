import inspect
import json
import os
import re
import signal
import subprocess
import sys

import pytest

from clipcond.cli import main
from clipcond.cli.train import _OWN, _show, train
from clipcond.train.config import TrainConfig
from clipcond.train.loop import TrainResult


@pytest.fixture
def toml(dual_folder, tmp_path):
    """A config beside a CSV of eight pictures, and its output folder."""
    from PIL import Image

    rows = ["image\tcaption"]
    for number in range(8):
        Image.new("RGB", (32, 32), (30 * number, 0, 0)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png\tpicture {number}")
    (tmp_path / "pairs.tsv").write_text("\n".join(rows) + "\n")
    path = tmp_path / "run.toml"
    settings = {
        "data": str(tmp_path / "pairs.tsv"), "model": str(dual_folder), "out": str(tmp_path / "run"),
        "val_data": str(tmp_path / "pairs.tsv"), "batch_size": 4, "steps": 4,
        "learning_rate": 5e-5, "threads": 1, "log_every": 2,
    }  # fmt: skip
    path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))
    return path


def test_training_says_its_progress_on_stderr_and_the_model_on_stdout(toml, capsys):
    assert main(["train", str(toml)]) == 0
    said = capsys.readouterr()
    model = toml.parent / "run" / "model"
    assert said.out == f"{model}\n"
    assert (model / "open_clip_model.safetensors").is_file()
    told = said.err.splitlines()
    assert told[0].startswith("8 images, 8 captions; 2 steps an epoch; 4 steps, 1 of warm-up; ")
    assert told[1].startswith("note: 8 held-out images of 8 trained on as well; ")
    assert told[2] == "note: clipcond train --check says more of the data"
    assert told[3] == "measuring before the first step"
    assert told[4].startswith("step 0  R@1/5")
    assert told[5].startswith("step 2/4  loss ")
    assert re.search(r"\d pairs/s \(data .*, towers .*, update .*\)  0:0\d left$", told[5])
    assert told[7].startswith("step 4  R@1/5")
    assert "\r" not in said.err


def test_json_and_flags_that_win_over_the_file(toml, capsys):
    assert main(["train", str(toml), "--epochs", "1", "--out", str(toml.parent / "other"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["steps"], result["interrupted"]) == (2, False)
    assert result["model"] == str(toml.parent / "other" / "model")
    assert set(result["retrieval"]["text_to_image"]) == {"R@1", "R@5"}


def test_flags_alone_are_enough(toml, dual_folder, capsys):
    flags = ["--data", str(toml.parent / "pairs.tsv"), "--model", str(dual_folder), "--out", str(toml.parent / "flags")]
    assert main(["train", *flags, "--steps", "2", "--batch-size", "4", "--freeze", "text", "--threads", "1"]) == 0
    record = json.loads((toml.parent / "flags" / "config.json").read_text())
    assert (record["freeze"], record["steps"], record["learning_rate"]) == (["text"], 2, 1e-5)


def test_every_setting_has_a_flag_and_a_zero_wins_over_the_file(toml):
    toml.write_text(toml.read_text() + "cache_gib = 2.0\nlock_image = true\n")
    assert main(["train", str(toml), "--steps", "1", "--cache-gib", "4", "--weight-decay", "0", "--warmup", "0"]) == 0
    record = json.loads((toml.parent / "run" / "config.json").read_text())
    assert (record["weight_decay"], record["warmup"], record["lock_image"], record["freeze"]) == (0, 0, True, [])
    flags = set(inspect.signature(train).parameters) - {"context", *_OWN}
    assert flags == {*TrainConfig.__dataclass_fields__, "rate", "preset", "encoder", "model_2"} - {"betas"}


def test_the_toml_of_a_run_begins_the_same_run(toml, capsys):
    assert main(["train", str(toml), "--steps", "2"]) == 0
    first, second = toml.parent / "run", toml.parent / "again"
    assert main(["train", "--config", str(first / "config.toml"), "--out", str(second)]) == 0
    weights = [(folder / "model" / "open_clip_model.safetensors").read_bytes() for folder in (first, second)]
    assert weights[0] == weights[1]
    saved = [json.loads((folder / "config.json").read_text()) for folder in (first, second)]
    assert {**saved[0], "out": ""} == {**saved[1], "out": ""}
    capsys.readouterr()
    assert main(["train", str(toml), "--config", str(toml)]) == 2
    assert "are both files of settings; give one of the two" in capsys.readouterr().err


def test_a_preset_is_said_fits_the_data_and_is_won_over(toml, dual_folder, capsys):
    out = toml.parent / "small"
    given = [
        "--data",
        str(toml.parent / "pairs.tsv"),
        "--model",
        str(dual_folder),
        "--out",
        str(out),
        "--preset",
        "small",
    ]
    assert main(["train", *given, "--steps", "1", "--threads", "1", "--no-lock-image", "--weight-decay", "0"]) == 0
    told = capsys.readouterr().err.splitlines()[0]
    assert told == (
        "note: preset small: batch_size 8, learning_rate 5e-06; given otherwise: epochs, weight_decay, lock_image; "
        "without a target nothing is retained"
    )
    record = json.loads((out / "config.json").read_text())
    assert (record["batch_size"], record["lock_image"], record["weight_decay"]) == (8, False, 0)
    assert (record["steps"], record["epochs"], record["retention"]) == (1, None, 0)


def test_check_shows_a_line_for_each_thing_and_its_code_says_whether_a_run_would_stop(toml, capsys):
    assert main(["train", str(toml), "--check"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-1] == "a run would start; 2 warnings"
    assert [line.split()[0] for line in told if not line.startswith(" ")][:2] == ["ok", "ok"]
    assert not (toml.parent / "run").exists()
    table = toml.parent / "pairs.tsv"
    table.write_text(table.read_text() + "gone.png\tx\n")
    assert main(["train", "--data", str(table), "--check", "--batch-size", "4", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["stops"] is True
    (stopping,) = [check for check in document["checks"] if check["verdict"] == "stops"]
    assert (stopping["name"], stopping["numbers"]["missing_file"]) == ("rows", 1)
    assert main(["train", "--data", str(table), "--check", "--batch-size", "4", "--max-bad-rows", "1"]) == 0


def test_the_old_name_of_the_learning_rate_works_and_is_noted(toml, capsys):
    note = "note: the setting rate is now learning_rate; the old name goes with the next version\n"
    other = toml.parent / "other"
    assert main(["train", str(toml), "--rate", "1e-4", "--out", str(other), "--steps", "1", "--warmup", "0"]) == 0
    assert capsys.readouterr().err.startswith(note)
    assert json.loads((other / "config.json").read_text())["learning_rate"] == 1e-4
    toml.write_text(toml.read_text().replace("learning_rate", "rate"))
    assert main(["train", str(toml), "--steps", "1", "--warmup", "0"]) == 0
    assert capsys.readouterr().err.startswith(note)
    assert json.loads((toml.parent / "run" / "config.json").read_text())["learning_rate"] == 5e-5


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train"], 2, "give a CONFIG.toml, or --data, --model and --out"),
        (["train", "no.toml"], 3, "error: no.toml does not exist"),
        (["train", "--check"], 2, "give --data, or a CONFIG.toml that names it"),
        (["train", "--check", "--data", "x.csv", "--decode", "some"], 2, "--decode is some, expected all, none, or"),
        (
            ["train", "--check", "--data", "x.csv", "--preset", "smal"],
            3,
            "expected small, medium, scratch; did you mean small?",
        ),
        (["train", "--steps", "many"], 2, "--steps"),
        (["evaluate", "--model", "no/such", "--data", "x.csv"], 3, "error: "),
        (["evaluate"], 2, "Missing option"),
    ],
)
def test_wrong_use_and_wrong_input_have_their_codes(arguments, code, message, capsys):
    assert main(arguments) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err


def test_resuming_with_other_settings_is_refused_unless_allowed(toml, capsys):
    assert main(["train", str(toml)]) == 0
    assert main(["train", str(toml), "--steps", "6"]) == 3
    assert "steps 4 → 6" in capsys.readouterr().err
    assert main(["train", str(toml), "--steps", "6", "--allow-changes"]) == 0
    assert "goes on at step 4" in capsys.readouterr().err
    assert main(["train", str(toml), "--steps", "6", "--allow-changes"]) == 0
    assert "all steps were done before, nothing is left to train" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_exits_130(toml, kind):
    command = [sys.executable, "-m", "clipcond", "train", str(toml), "--steps", "100000", "--log-every", "1"]
    if not _runs_as_module():
        command[1:3] = ["-c", "import sys; from clipcond.cli import main; sys.exit(main())"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ})
    assert run.stderr is not None
    for line in run.stderr:
        if line.startswith("step ") and not line.startswith("step 0 "):
            break
    run.send_signal(kind)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert out == ""
    assert "the same command goes on from there" in err
    kept = sorted((toml.parent / "run" / "checkpoints").glob("step-*.pt"))
    assert len(kept) == 1
    assert not (toml.parent / "run" / "model").exists()


def _runs_as_module():
    from importlib.util import find_spec

    return find_spec("clipcond.__main__") is not None


def test_bad_rows_and_the_learning_rate_have_flags(toml, capsys):
    table = toml.parent / "pairs.tsv"
    table.write_text(table.read_text() + "gone.png\tx\n")
    assert main(["train", str(toml)]) == 3
    assert "line 10: " in capsys.readouterr().err
    given = ["train", str(toml), "--max-bad-rows", "1", "--learning-rate", "2e-3"]
    assert main(given) == 0
    assert "note: 1 row is left out of " in capsys.readouterr().err
    assert json.loads((toml.parent / "run" / "config.json").read_text())["learning_rate"] == 2e-3


def test_on_a_terminal_the_next_steps_are_told(monkeypatch, capsys, tmp_path):
    done = TrainResult(steps=4, loss=1.0, retrieval=None, model=tmp_path / "my run" / "model", interrupted=False)
    _show(done, as_json=False)
    assert capsys.readouterr() == (f"{tmp_path}/my run/model\n", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    _show(done, as_json=False)
    out, err = capsys.readouterr()
    assert out == f"{tmp_path}/my run/model\n"
    assert f"clipcond evaluate --model '{tmp_path}/my run' --data PAIRS.csv" in err
    assert f"clipcond export '{tmp_path}/my run' --to diffusers --into PIPELINE --out FOLDER" in err
