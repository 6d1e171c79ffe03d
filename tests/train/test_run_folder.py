import json
import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

import clipcond
from clipcond.errors import ModelError, OutputExists
from clipcond.train import checkpoints
from clipcond.train.loop import train
from clipcond.train.run_folder import RunFolder, held

HOLDER = """import sys
from pathlib import Path
from clipcond.train.run_folder import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_in_one_folder_is_told_who_holds_it(config):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, config.out], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        words = rf"{re.escape(config.out)} is in use by process {holder.pid} on .+, since 20.+; wait for it, or choose another"
        with pytest.raises(OutputExists, match=words):
            train(config)
        holder.kill()
    assert train(config).steps == 9, "a lock ends with its process"
    assert not (Path(config.out) / "run.lock").exists()


def test_two_runs_of_one_process_do_not_share_a_folder(tmp_path):
    with held(tmp_path), pytest.raises(OutputExists, match=rf"in use by process {os.getpid()} "), held(tmp_path):
        pass


def test_one_of_many_at_once_holds_a_folder(tmp_path):
    inside, most, wrong = [], [], []

    def work():
        for _ in range(50):
            try:
                with held(tmp_path / "run"):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
            except OutputExists:
                pass
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert max(most) == 1


def test_folders_made_for_nothing_are_taken_away(tmp_path):
    with held(tmp_path / "a" / "b"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_run_is_no_model(config, pairs_csv):
    unfinished = Path(config.out)
    train(config)
    shutil.rmtree(unfinished / "model")
    words = r"run is a training run that is not finished.*; go on with it, then name it as a model"
    with pytest.raises(ModelError, match=words + "|" + r"it is at step-00000009\.pt"):
        train(replace(config, model=config.out, out=config.out + "2"))
    with pytest.raises(ModelError, match=words):
        clipcond.evaluate(config.out, pairs_csv)


def test_files_that_a_killed_run_left_unfinished_are_taken_away(config):
    train(config)
    left = Path(config.out) / "checkpoints" / ".step-00000012.pt.abc.unfinished"
    left.write_bytes(b"half")
    train(config)
    assert not left.exists()


def test_a_line_cut_by_a_kill_is_taken_off_the_log(config):
    train(config)
    log = Path(config.out) / "log.jsonl"
    whole = log.read_text()
    log.write_text(whole + '{"step": 9, "ti')
    train(config)
    assert log.read_text().startswith(whole)
    assert all(json.loads(line) for line in log.read_text().splitlines())


FULL = """import resource, signal, sys
from clipcond.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the limit of a file's size stands in for a full disk")
def test_a_full_disk_names_the_checkpoint_and_loses_nothing(config, tmp_path):
    pytest.importorskip("resource")
    toml = tmp_path / "run.toml"
    settings = {name: value for name, value in config.to_dict().items() if value is not None}
    toml.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))
    train(replace(config, steps=3, warmup=2))
    kept = checkpoints.existing(Path(config.out) / "checkpoints")
    command = [sys.executable, "-c", FULL, "100000", "train", str(toml), "--steps", "9", "--allow-changes"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 3, ended.stderr
    assert re.fullmatch(r"error: .*step-00000006\.pt: File too large", ended.stderr.splitlines()[-1])
    assert "Traceback" not in ended.stderr
    assert checkpoints.existing(Path(config.out) / "checkpoints") == kept
    assert not [path for path in Path(config.out).rglob("*") if path.name.endswith(".unfinished")]
    assert train(replace(config, steps=9), allow_changes=True).steps == 9


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_log_on_a_full_disk_is_named(tmp_path):
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError, match=rf"No space left on device: '{tmp_path}/log\.jsonl'"):
        RunFolder(tmp_path).log({"step": 1})
