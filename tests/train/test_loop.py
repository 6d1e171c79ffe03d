import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import clipcond
from clipcond.errors import ConfigError, DataError, ModelError, OutputExists
from clipcond.models.load import load_dual
from clipcond.models.open_clip_folder import read_open_clip_folder, write_open_clip_folder
from clipcond.train import checkpoints
from clipcond.train.batches import Batches
from clipcond.train.data import read_pairs
from clipcond.train.loop import train

from .pictures import png, write_tar
from .pictures import said as captions_of


def weights(out):
    return load_file(Path(out) / "model" / "open_clip_model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def lines(out):
    return [json.loads(line) for line in (Path(out) / "log.jsonl").read_text().splitlines()]


def test_a_run_learns_its_pairs_and_writes_a_model_that_loads(config, pairs_csv):
    said = []
    config = replace(
        config, steps=160, batch_size=12, learning_rate=3e-3, val_data=str(pairs_csv), eval_every=999, log_every=40
    )
    result = clipcond.train(config, report=said.append)
    assert (result.steps, result.interrupted, result.model) == (160, False, Path(config.out) / "model")
    logged = [line["loss"] for line in said if "loss" in line]
    assert len(logged) == 4
    assert logged[-1] < 0.5 * logged[0]
    assert result.retrieval.image_to_text[1] > 0.5
    assert said == lines(config.out)
    before, after = (line for line in said if line.get("event") == "evaluation")
    assert (before["step"], after["step"]) == (0, 160)
    assert before["text_to_image"]["R@1"] < after["text_to_image"]["R@1"]
    assert [line["event"] for line in said if "event" in line] == [
        "start", *["note"] * 3, "evaluation", "evaluation", "done",
    ]  # fmt: skip
    dual = load_dual(config.out)
    assert dual.logit_scale <= 100
    measured = clipcond.evaluate(dual, pairs_csv)
    assert measured.image_to_text[1] == pytest.approx(result.retrieval.image_to_text[1], abs=0.05)


@pytest.mark.parametrize("changes", [{}, {"precision": "bf16"}, {"freeze": ("text",)}, {"cache_gib": 0.0}])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(config, changes, tmp_path):
    config = replace(config, **changes)
    whole = replace(config, out=str(tmp_path / "whole"), save_every=100)
    train(whole)
    stop_at(config, 7)  # four steps make an epoch
    result = train(config)
    assert result.steps == 9
    assert same(weights(config.out), weights(whole.out))
    assert [line["step"] for line in lines(config.out) if line.get("event") == "resume"] == [7]


def stop_at(config, step):
    """Run until a signal arrives at the end of `step`."""

    def report(line):
        if line["step"] == step and "loss" in line:
            os.kill(os.getpid(), signal.SIGTERM)

    result = train(replace(config, log_every=1), report=report)
    assert (result.steps, result.interrupted, result.model) == (step, True, None)


KILLED = """import os, sys
from clipcond.train.config import TrainConfig
from clipcond.train.loop import train
def report(line):
    if line.get("step") == 8:
        os.kill(os.getpid(), 9)
train(TrainConfig(**eval(sys.argv[1])), report=report)
"""


def test_a_killed_process_goes_on_from_its_last_checkpoint(config, tmp_path):
    settings = {name: tuple(v) if isinstance(v, list) else v for name, v in config.to_dict().items()}
    killed = subprocess.run([sys.executable, "-c", KILLED, repr(settings)], capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    kept = [path.name for path in checkpoints.existing(Path(config.out) / "checkpoints")]
    assert kept == ["step-00000003.pt", "step-00000006.pt"]
    whole = replace(config, out=str(tmp_path / "whole"))
    train(whole)
    assert train(config).steps == 9
    assert same(weights(config.out), weights(whole.out))


def test_a_finished_run_is_left_as_it_is(config):
    train(config)
    before = weights(config.out)
    result = train(config)
    assert (result.steps, result.loss) == (9, None)
    assert same(before, weights(config.out))


def test_frozen_parts_stay_and_the_rest_moves(config, dual_folder):
    train(replace(config, freeze=("text",)))
    before, after = load_file(dual_folder / "open_clip_model.safetensors"), weights(config.out)
    moved = {name for name in after if not torch.equal(after[name], before[name].float())}
    assert {name for name in moved if not name.startswith("visual.")} == {"text_projection", "logit_scale"}
    assert "visual.conv1.weight" in moved


def test_a_changed_setting_refuses_to_resume_unless_told(config, pairs_tars):
    train(replace(config, steps=9))
    with pytest.raises(ConfigError, match=r"step-00000009\.pt was made with other settings: steps 9 → 12\. Choose"):
        train(replace(config, steps=12))
    with pytest.raises(ConfigError, match="the content of the training data"):
        train(replace(config, data=str(pairs_tars)))
    assert train(replace(config, log_every=7, keep=9)).steps == 9
    assert train(replace(config, steps=12), allow_changes=True).steps == 12


def test_a_damaged_checkpoint_is_named(config):
    train(config)
    last = checkpoints.existing(Path(config.out) / "checkpoints")[-1]
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(ConfigError, match=r"step-00000009\.pt cannot be read .*delete it to go on from the one before"):
        train(config)
    last.unlink()
    assert train(config).steps == 9


def test_a_model_without_checkpoints_is_never_overwritten(config):
    train(config)
    for path in checkpoints.existing(Path(config.out) / "checkpoints"):
        path.unlink()
    with pytest.raises(OutputExists, match="model is there, but no checkpoint to go on from"):
        train(config)


def test_a_folder_with_a_config_that_no_run_wrote_is_left_alone(config):
    theirs = Path(config.out) / "config.json"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("{}")
    with pytest.raises(OutputExists, match=r"config\.json is there, but .* is no training run"):
        train(config)
    assert theirs.read_text() == "{}"


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_checkpoint(config, monkeypatch):
    from clipcond.train import contrastive

    whole, seen = contrastive.info_nce, []

    def poisoned(*features, **settings):
        seen.append(1)
        return whole(*features, **settings) * (float("nan") if len(seen) == 5 else 1.0)

    monkeypatch.setattr(contrastive, "info_nce", poisoned)
    with pytest.raises(
        ConfigError, match=r"the loss is nan at step 5; the last good checkpoint is .*step-00000003\.pt"
    ):
        train(config)
    kept = json.loads((Path(config.out) / "not-finite-step-5.json").read_text())
    assert (kept["step"], kept["what"], kept["data"]) == (5, "loss", config.data)
    rows = Batches(read_pairs(config.data), None, batch_size=5, seed=0).rows(4).tolist()
    assert [pair["row"] for pair in kept["pairs"]] == rows
    assert [Path(pair["image"]).name for pair in kept["pairs"]] == [f"{row}.png" for row in rows]
    assert all(pair["caption"] in captions_of(pair["row"]) for pair in kept["pairs"])
    seen[:] = [1] * 4
    with pytest.raises(
        ConfigError, match=r"nan at step 1; there is no checkpoint yet; lower the learning rate \(0\.001\)"
    ):
        train(replace(config, out=config.out + "2"))


def test_a_gradient_that_is_not_finite_spoils_no_weight(config, monkeypatch):
    from clipcond.train import contrastive

    whole = contrastive.info_nce
    monkeypatch.setattr(
        contrastive, "info_nce", lambda *f, **s: torch.sqrt(whole(*f, **s) - whole(*f, **s).detach()) + 1.0
    )
    with pytest.raises(ConfigError, match="the gradient's norm is nan at step 1; there is no checkpoint yet"):
        train(config)


def test_a_picture_found_bad_on_the_way_saves_first(config, dual_folder, tmp_path, monkeypatch):
    from clipcond.train import batches

    whole = batches.Batches.__getitem__

    def failing(self, step):
        if step == 4:
            raise DataError("cannot decode this.png: broken")
        return whole(self, step)

    monkeypatch.setattr(batches.Batches, "__getitem__", failing)
    with pytest.raises(DataError, match=r"cannot decode this\.png"):
        train(config)
    assert checkpoints.existing(Path(config.out) / "checkpoints")[-1].name == "step-00000004.pt"


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"warmup": 9}, ConfigError, "warmup is 9 steps, the whole run 9; expected fewer"),
        ({"device": "warp"}, ConfigError, "device is 'warp', which torch cannot use here"),
        ({"model": "no/such/folder"}, ModelError, "no/such/folder"),
        ({"val_count": 24}, DataError, "val_count is 24"),
    ],
)
def test_unusable_settings_fail_before_anything_is_written(config, changes, kind, message):
    with pytest.raises(kind, match=message):
        train(replace(config, **changes))
    assert not Path(config.out).exists()


def test_random_weights_must_be_asked_for(config, dual_folder, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "open_clip_config.json").write_bytes((dual_folder / "open_clip_config.json").read_bytes())
    with pytest.raises(ModelError, match="random weights must be asked for by name"):
        train(replace(config, model=str(bare)))
    one = train(replace(config, model=str(bare), init="random"))
    other = train(replace(config, model=str(bare), init="random", out=config.out + "2", seed=1))
    assert not same(weights(one.model.parent), weights(other.model.parent))


def test_long_captions_are_counted_and_held_out_images_come_from_the_data(config, tmp_path):
    members = {}
    for number in range(8):
        members |= {f"{number}.png": png(number), f"{number}.txt": b"red " * (90 if number % 2 else 3)}
    data = write_tar(tmp_path / "long.tar", members)
    result = train(replace(config, data=str(data), batch_size=2, val_count=2, steps=3, save_every=3))
    assert result.retrieval.images == 2
    start, *_, last = (line for line in lines(config.out) if line.get("event") in ("start", None))
    assert start["images"] == 6
    assert 0 < last["cut_captions"] < 1


def test_it_runs_outside_the_main_thread_where_no_signal_can_be_caught(config):
    results = []
    thread = threading.Thread(target=lambda: results.append(train(config)))
    thread.start()
    thread.join(60)
    assert results[0].steps == 9


def test_the_thread_of_batches_ends_with_the_run(config):
    train(config)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and any(t.name == "clipcond-batches" for t in threading.enumerate()):
        time.sleep(0.05)
    assert not [t for t in threading.enumerate() if t.name == "clipcond-batches"]


def test_fewer_steps_than_done_are_refused_and_the_config_stays(config):
    train(config)
    before = (Path(config.out) / "config.json").read_text()
    with pytest.raises(ConfigError, match=r"step-00000009\.pt is past the 5 steps of this run; give more steps"):
        train(replace(config, steps=5), allow_changes=True)
    assert (Path(config.out) / "config.json").read_text() == before


def test_another_architecture_is_refused_even_with_allow_changes(config, dual_folder, tmp_path):
    train(config)
    before = (Path(config.out) / "config.json").read_text()
    other = tmp_path / "other"
    other.mkdir()
    described = json.loads((dual_folder / "open_clip_config.json").read_text())
    described["model_cfg"]["vision_cfg"]["layers"] = 1
    (other / "open_clip_config.json").write_text(json.dumps(described))
    with pytest.raises(
        ConfigError, match=r"step-00000009\.pt does not fit the model .*other: it is of another architecture"
    ):
        train(replace(config, model=str(other), init="random"), allow_changes=True)
    assert (Path(config.out) / "config.json").read_text() == before


def test_another_freeze_goes_on_with_new_moments_and_says_so(config):
    train(replace(config, freeze=("text",)))
    result = train(replace(config, steps=12), allow_changes=True)
    assert result.steps == 12
    notes = [line["note"] for line in lines(config.out) if line.get("event") == "note"]
    assert notes[-1] == "what trains is everything, it was all but text: the optimizer's moments start anew"


def test_pictures_of_other_content_refuse_to_resume(config, tmp_path):
    for number in range(8):
        Image.new("RGB", (32, 32), (30 * number, 0, 0)).save(tmp_path / f"{number}.png")
    data = tmp_path / "p.csv"
    data.write_text("image,caption\n" + "".join(f"{number}.png,picture {number}\n" for number in range(8)))
    config = replace(config, data=str(data), steps=3)
    train(config)
    Image.new("RGB", (32, 32), (0, 0, 200)).save(tmp_path / "3.png")
    with pytest.raises(ConfigError, match="the content of the training pictures"):
        train(config)
    assert train(config, allow_changes=True).steps == 3


RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16}


@pytest.mark.parametrize("evaluated", [False, True])
def test_a_frozen_image_tower_keeps_its_batch_statistics(config, dual_folder, pairs_csv, tmp_path, evaluated):
    folder = tmp_path / "resnet"
    folder.mkdir()
    described = json.loads((dual_folder / "open_clip_config.json").read_text())
    described["model_cfg"]["vision_cfg"] = RESNET
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    torch.manual_seed(0)
    model = read_open_clip_folder(folder, random_weights=True)
    write_open_clip_folder(model, described, folder)
    before = load_file(folder / "open_clip_model.safetensors")
    settings = {"val_data": str(pairs_csv), "eval_every": 2} if evaluated else {}
    train(replace(config, model=str(folder), freeze=("image",), **settings))
    after = weights(config.out)
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert not {name for name in moved if name.startswith("visual.")}
    assert "transformer.resblocks.0.attn.in_proj_weight" in moved
    assert any(name.endswith("running_mean") for name in after)


def test_weights_with_a_nan_are_refused_before_the_first_step(config, dual_folder, pairs_csv, tmp_path):
    folder = tmp_path / "nan"
    folder.mkdir()
    state = load_file(dual_folder / "open_clip_model.safetensors")
    state["visual.proj"][0, 0] = float("nan")
    save_file(state, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_bytes((dual_folder / "open_clip_config.json").read_bytes())
    with pytest.raises(ModelError, match=r"not finite.*visual\.proj|visual\.proj.*not finite"):
        train(replace(config, model=str(folder)))
    with pytest.raises(ModelError, match=r"(?i)image tower|image vectors|not finite|NaN"):
        clipcond.evaluate(str(folder), pairs_csv)


def test_captions_that_several_images_share_are_noted_and_masked(config, tmp_path):
    members = {}
    for number in range(8):
        members |= {f"{number}.png": png(number), f"{number}.txt": b"red" if number % 2 else b"number %d" % number}
    data = write_tar(tmp_path / "same.tar", members)
    said = []
    train(replace(config, data=str(data), batch_size=8, steps=3, log_every=1), report=said.append)
    notes = [line["note"] for line in said if line.get("event") == "note"]
    assert notes[0] == "4 of 8 images share a caption with another; within a batch such a pair is no negative"


def test_bad_rows_are_left_out_up_to_the_limit_and_noted(config, tmp_path):
    members = {"bad.png": b"no picture", "bad.txt": b"x", "alone.png": png(9)}
    for number in range(8):
        members |= {f"{number}.png": png(number), f"{number}.txt": b"number %d" % number}
    data = write_tar(tmp_path / "some.tar", members)
    config = replace(config, data=str(data), steps=3)
    with pytest.raises(DataError, match=r"bad\.png.*\(max_bad_rows is 1, and so many are left out already\)"):
        train(replace(config, max_bad_rows=1))
    said = []
    train(replace(config, max_bad_rows=2), report=said.append)
    start, note = said[:2]
    assert start["images"] == 8
    assert note["note"].startswith(f"2 rows are left out of {data}: {data}:alone.png has no caption")


def test_the_log_says_the_learning_rate_under_both_names_for_one_version(config):
    train(config)
    logged = [line for line in lines(config.out) if "loss" in line]
    assert logged[0]["learning_rate"] == logged[0]["rate"] == 1e-3


EARLY = """import os, signal, sys
from clipcond.train import loop, start
from clipcond.train.config import TrainConfig
def slow(*_, **__):
    os.kill(os.getpid(), getattr(signal, sys.argv[2]))
    raise AssertionError("it went on")
start.load_trainable = slow
try:
    loop.train(TrainConfig(**eval(sys.argv[1])))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("kind", ["SIGINT", "SIGTERM"])
def test_a_signal_before_the_first_step_ends_the_run_cleanly(config, kind):
    settings = {name: tuple(v) if isinstance(v, list) else v for name, v in config.to_dict().items()}
    ended = subprocess.run([sys.executable, "-c", EARLY, repr(settings), kind], capture_output=True, text=True)
    assert ended.returncode == 130, ended.stderr
    assert not Path(config.out).exists()
