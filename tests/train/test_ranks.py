"""Several processes over gloo: one step is the step of one process, and a run of two goes on bit for bit.

The processes come from one fork server that has the model libraries loaded already.
"""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from clipcond.errors import ConfigError
from clipcond.train import checkpoints
from clipcond.train.job import prepare
from clipcond.train.loop import train
from clipcond.train.ranks import ALONE, Ranks
from clipcond.train.shards import divide_blocks, whole

from .pictures import picture, said

STEPS = {
    "infonce": {"positives": "count", "label_smoothing": 0.1},
    "cached": {"grad_cache": 2, "chunk_size": 3},
    "siglip": {"loss": "siglip"},
}
DIVIDED = {  # by fsdp, and what of it differs from a run whose weights are whole
    "shares": {"target": "sd15", "retention": 1.0, "retention_batch": 4, "grad_checkpointing": True},
    "shares-cached": {"grad_cache": 2, "train_blocks": 1, "precision": "bf16"},
}


def one_step(config, ranks):
    """The loss, the norm before clipping, and the gradients after it, of the first step."""
    job = prepare(config, ranks=ranks)
    for stored in job.stores:
        stored.fill()
    losses = job.objective.backward(job.batches[0])
    parameters = dict(job.model.named_parameters())
    ranks.sum_gradients([p for p in parameters.values() if p.requires_grad])
    norm = float(job.optimizer.clip(0.1))
    grads = whole({name: p.grad for name, p in parameters.items() if p.grad is not None}, keep=True)
    dense = {name: g.to_dense() if g.is_sparse else g for name, g in grads.items()}
    return {"loss": losses.total, "norm": norm, "gradients": dense}


write_checkpoint = checkpoints.write


def slow_disk(*args, **kwargs):
    time.sleep(0.3)
    return write_checkpoint(*args, **kwargs)


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def work(rank, configs, out):
    """In process `rank` of four: steps by four and by two, then a run of two that a signal interrupts."""
    torch.set_num_threads(1)
    for count in (4, 2):
        if rank >= count:
            break
        store = dist.FileStore(f"{out}/meet-{count}", count)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=count)
        for name, config in (configs["steps"] | (configs["divided"] if count == 2 else {})).items():
            found = one_step(config, Ranks(rank, count))
            if rank == count - 1:
                torch.save(found, f"{out}/{name}-{count}.pt")
        if count == 2:
            train(configs["whole"])
            train(configs["shares"])
            checkpoints.write = slow_disk

            def stop(line):
                if line["step"] == 2 and "loss" in line:
                    os.kill(os.getpid(), signal.SIGTERM)  # the first of two alone

            for name in ("parts", "shares-on"):
                assert train(configs[name], report=stop).interrupted
                train(configs[name])
            checkpoints.write = full_disk
            try:
                train(configs["full"])
            except (ConfigError, OSError) as error:
                Path(f"{out}/full-disk-{rank}.json").write_text(json.dumps(str(error)))
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def related_csv(tmp_path_factory):
    folder = tmp_path_factory.mktemp("related")
    rows = ["image,caption,negative,negative_image,group"]
    for number in range(16):
        picture(number).save(folder / f"{number}.png")
        wrong = f"{(number + 1) % 16}.png" if number % 3 == 0 else ""
        words = f"no square {number}" if number % 5 else ""
        rows.append(f'{number}.png,"{said(number)[0]}",{words},{wrong},{"first" if number < 4 else ""}')
    (folder / "related.csv").write_text("\n".join(rows) + "\n")
    return folder / "related.csv"


@pytest.fixture(scope="module")
def plain_csv(related_csv):
    """The same pictures, without hard negatives."""
    path = related_csv.parent / "plain.csv"
    path.write_text("image,caption\n" + "".join(f'{number}.png,"{said(number)[0]}"\n' for number in range(16)))
    return path


@pytest.fixture(scope="module")
def processes(related_csv, plain_csv, dual_folder, tmp_path_factory):
    """Run the four processes; return the configs, and the folder of what they found."""
    from clipcond.train.config import TrainConfig

    out = tmp_path_factory.mktemp("ranks")
    config = TrainConfig(
        data=str(related_csv), model=str(dual_folder), out=str(out / "alone"), steps=4, batch_size=8, warmup=0,
        learning_rate=1e-3, threads=1, log_every=1, save_every=2, teacher=str(dual_folder),
    )  # fmt: skip
    (out / "alone").mkdir()
    divided = replace(config, data=str(plain_csv), teacher=None, fsdp=True, val_count=4, keep_best=True, eval_every=2)
    configs = {
        "steps": {name: replace(config, **changes) for name, changes in STEPS.items()},
        "divided": {name: replace(divided, **changes) for name, changes in DIVIDED.items()},
        "shares": replace(divided, out=str(out / "shares"), save_every=100),
        "shares-on": replace(divided, out=str(out / "shares-on")),
        "whole": replace(config, out=str(out / "whole"), save_every=100),
        "parts": replace(config, out=str(out / "parts")),
        "full": replace(config, out=str(out / "full")),
    }
    prepare(config).stores[0].fill()  # so that the processes only read
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["clipcond.train.loop", "open_clip", "torch.distributed.fsdp"])
    workers = [server.Process(target=work, args=(rank, configs, str(out))) for rank in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    return configs, out


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("name", STEPS)
def test_a_step_of_several_processes_is_that_of_one(processes, name, count):
    configs, out = processes
    alone = one_step(configs["steps"][name], ALONE)
    found = torch.load(out / f"{name}-{count}.pt")
    assert found["loss"] == pytest.approx(alone["loss"], rel=1e-6)
    assert found["norm"] == pytest.approx(alone["norm"], rel=1e-5)
    assert alone["norm"] > 0.1, "clipping has something to do"
    assert found["gradients"].keys() == alone["gradients"].keys()
    for each, there in alone["gradients"].items():
        assert (found["gradients"][each] - there).abs().max() <= 1e-6, each


@pytest.mark.parametrize("name", DIVIDED)
def test_a_step_of_divided_towers_is_that_of_whole_ones(processes, name):
    configs, out = processes
    alone = one_step(replace(configs["divided"][name], fsdp=False), ALONE)
    found = torch.load(out / f"{name}-2.pt")
    assert found["loss"] == pytest.approx(alone["loss"], rel=1e-6)
    assert found["norm"] == pytest.approx(alone["norm"], rel=1e-5)
    assert alone["norm"] > 0.1, "clipping has something to do"
    assert found["gradients"].keys() == alone["gradients"].keys()
    for each, there in alone["gradients"].items():
        assert found["gradients"][each].shape == there.shape
        assert (found["gradients"][each] - there).abs().max() <= 1e-6, each


def test_a_run_of_divided_towers_is_that_of_whole_ones_and_goes_on_bit_for_bit(processes, tmp_path):
    configs, _ = processes
    train(alone := replace(configs["shares"], fsdp=False, out=str(tmp_path / "alone")))
    one, other, whole_ones = (
        load_file(Path(config.out) / "model" / "open_clip_model.safetensors")
        for config in (configs["shares"], configs["shares-on"], alone)
    )
    assert one.keys() == other.keys() == whole_ones.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    for name, value in one.items():
        if "in_proj_bias" not in name:  # a key's bias has no gradient, and Adam makes a step of what rounding leaves
            assert (value - whole_ones[name]).abs().max() <= 1e-4, name
    kept, theirs = (
        checkpoints.read(checkpoints.existing(Path(config.out) / "checkpoints")[-1])
        for config in (configs["shares"], alone)
    )
    assert {n: v.shape for n, v in kept.model.items()} == {n: v.shape for n, v in theirs.model.items()}
    shapes = [
        sorted(tuple(m["exp_avg"].shape) for part in each.optimizer for m in part["state"].values())
        for each in (kept, theirs)
    ]
    assert shapes[0] == shapes[1]
    lines = [json.loads(line) for line in (Path(configs["shares"].out) / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line.get("event") == "evaluation"] == [0, 2, 4]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lora_rank": 4}, "fsdp divides the weights, and lora_rank is small enough"),
        ({"ema": 0.9}, "and ema averages whole weights; leave one out"),
        ({"precision": "fp16"}, "and precision is fp16, and overflows of a share"),
    ],
)
def test_what_needs_whole_weights_is_refused_beside_shares(config, changes, said):
    with pytest.raises(ConfigError, match=said):
        replace(config, fsdp=True, **changes)


def test_shares_of_one_process_and_uneven_ones_are_refused(config, related_csv, monkeypatch):
    with pytest.raises(
        ConfigError, match="fsdp divides weights among processes, and this run has one: start it with torchrun"
    ):
        prepare(replace(config, fsdp=True))
    with pytest.raises(ConfigError, match="fsdp divides the blocks of towers that train, and there are none"):
        divide_blocks(SimpleNamespace(visual=None), torch.device("cpu"), 2)
    monkeypatch.setattr("clipcond.train.start.divide_blocks", lambda *_: None)
    with pytest.raises(
        ConfigError, match=r"related\.csv brings hard negatives, of which each process would have another"
    ):
        prepare(replace(config, fsdp=True, data=str(related_csv)))


def test_two_processes_go_on_bit_for_bit_and_only_the_first_writes(processes):
    configs, _ = processes
    whole, parts = (
        load_file(Path(configs[name].out) / "model" / "open_clip_model.safetensors") for name in ("whole", "parts")
    )
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
    lines = [json.loads(line) for line in (Path(configs["parts"].out) / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    assert [line["processes"] for line in lines if line.get("event") in ("start", "resume")] == [2, 2]
    assert any(line.get("event") == "interrupted" for line in lines)


def test_where_the_first_process_cannot_save_the_others_end_with_a_line(processes):
    _, out = processes
    said = json.loads((out / "full-disk-1.json").read_text())
    assert said == "the first process could not write its checkpoint; its line says why"
    assert json.loads((out / "full-disk-0.json").read_text()) == "[Errno 28] No space left on device"


def test_another_number_of_processes_is_refused_unless_allowed(processes):
    configs, _ = processes
    more = replace(configs["parts"], steps=5)
    with pytest.raises(ConfigError, match="made with other settings: steps 4 → 5"):
        train(more)
    with pytest.raises(ConfigError, match=r"was made by 2 processes, this run has 1; start as many, or allow"):
        train(configs["parts"])
    notes = []
    train(configs["parts"], report=lambda line: notes.append(line.get("note")), allow_changes=True)
    assert "1 in place of 2 processes: random numbers start anew" in notes


def test_a_batch_that_cannot_be_shared_is_said(config):
    with pytest.raises(ConfigError, match="batch_size is 5, expected a multiple of the 2 processes"):
        prepare(config, ranks=Ranks(0, 2))
