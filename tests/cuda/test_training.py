"""Training on the device: steps of the CPU in float32, half precision near them, memory as planned, and going on after a kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from measures import within

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(device: str, scenes: Path, tmp_path: Path) -> Any:
    """Six steps of eight pairs of the embedded model, which knows the right ones: captions are those of other pictures."""
    from clipcond.train.config import TrainConfig

    return TrainConfig(
        data=str(scenes / "wrong.csv"), model="mini", out=str(tmp_path / "run"), steps=6, batch_size=8,
        learning_rate=1e-4, warmup=2, save_every=2, log_every=1, eval_every=100, keep=3, device=device,
    )  # fmt: skip


def changed(config: Any, out: str, **settings: Any) -> Any:
    from dataclasses import replace

    return replace(config, out=str(Path(config.out).parent / out), **settings)


def trained(config: Any) -> tuple[dict[str, Any], list[float]]:
    """The weights and the losses of a run."""
    from safetensors.torch import load_file

    from clipcond.train.loop import train

    losses: list[float] = []
    train(config, report=lambda line: losses.append(line["loss"]) if "loss" in line else None)
    return load_file(Path(config.out) / "model" / "open_clip_model.safetensors"), losses


def difference(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    return max(float((ours[name].float() - value.float()).abs().max()) for name, value in theirs.items())


@pytest.fixture
def first_gradients() -> Callable[..., tuple[float, dict[str, Any]]]:
    """The loss and the gradients of the first step: Adam would make a whole step of each rounding error."""

    def get(config: Any) -> tuple[float, dict[str, Any]]:
        from clipcond.train.job import prepare

        job = prepare(config)
        for stored in job.stores:
            stored.fill()
        losses = job.objective.backward(job.batches[0])
        grads = {name: p.grad for name, p in job.model.named_parameters() if p.grad is not None}
        factor = job.scaling.scale if job.scaling is not None else 1.0
        return losses.total, {
            name: (grad.to_dense() if grad.is_sparse else grad).float().cpu() / factor for name, grad in grads.items()
        }

    return get


SETTINGS: dict[
    str, tuple[dict[str, Any], float]
] = {  # of a step, and how far gradients may be from the CPU's in float32
    "float32": ({}, 2e-4),
    "siglip": ({"loss": "siglip"}, 2e-4),
    "grad_cache": ({"grad_cache": 3}, 2e-4),
    "grad_checkpointing": ({"grad_checkpointing": True}, 2e-4),
    "chunks": ({"chunk_size": 3, "positives": "count", "label_smoothing": 0.1}, 2e-4),
    "lora": ({"lora_rank": 4}, 2e-4),
    "lock_image": ({"lock_image": True}, 2e-4),
    "retention": ({"target": "sd15", "retention": 1.0, "retention_batch": 4}, 1e-3),
    "denoising": ({"denoise_weight": 1.0, "pipeline": "mini", "denoise_batch": 4}, 1e-3),
    "teacher": ({"teacher": "mini"}, 2e-4),
    "unseen": ({"unseen_rate": 1e-3, "freeze": ("text",)}, 2e-4),
    "bf16": ({"precision": "bf16"}, 8e-2),
    "fp16": ({"precision": "fp16"}, 2e-2),
    "fp16, parts": ({"precision": "fp16", "grad_cache": 3, "grad_checkpointing": True}, 2e-2),
}


@pytest.mark.parametrize("name", list(SETTINGS))
def test_gradients_are_the_cpu_s(
    name: str, device: str, config: Any, first_gradients: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a share of the gradient's length, over all weights."""
    import torch

    settings, allowed = SETTINGS[name]
    if settings.get("precision") == "fp16" and device == "cpu":
        pytest.skip("fp16 is for a GPU")
    exact = {key: value for key, value in settings.items() if key != "precision"}
    denoisers = {}
    if "pipeline" in settings:
        from clipcond.diffusion.denoising_loss import load_denoising_loss
        from clipcond.train import job

        denoisers = {where: load_denoising_loss("mini", device=where) for where in {device, "cpu"}}
        prepare = job.prepare
        monkeypatch.setattr(job, "prepare", lambda config: prepare(config, denoisers[config.device]))
    loss, ours = first_gradients(changed(config, "ours", **settings))
    other, theirs = first_gradients(changed(config, "theirs", device="cpu", **exact))
    assert ours.keys() == theirs.keys()
    length = float(torch.stack([each.norm() for each in theirs.values()]).norm())
    apart = float(torch.stack([(ours[each] - theirs[each]).norm() for each in theirs]).norm()) / length
    within(abs(loss - other) / abs(other), allowed, f"{name}: loss of a step")
    within(apart, allowed, f"{name}: gradients of a step")


def test_a_run_s_losses_are_the_cpu_s(device: str, config: Any) -> None:
    ours, losses = trained(changed(config, "ours"))
    theirs, others = trained(changed(config, "theirs", device="cpu"))
    within(max(abs(one - other) for one, other in zip(losses, others, strict=True)), 5e-3, "losses of six steps")
    within(difference(ours, theirs), 1e-3, "weights after six steps of a rate of 1e-4")


@pytest.mark.parametrize(
    "settings",
    [{}, {"precision": "bf16"}, {"precision": "fp16"}, {"grad_cache": 3, "ema": 0.9}, {"unseen_rate": 1e-3}],
    ids=lambda each: " ".join(map(str, each.values())) or "float32",
)
def test_a_resumed_run_equals_an_uninterrupted_one(settings: dict[str, Any], device: str, config: Any) -> None:
    """To the bit where the device repeats itself to the bit, which atomic sums of some kernels do not."""
    if settings.get("precision") == "fp16" and device == "cpu":
        pytest.skip("fp16 is for a GPU")
    whole, _ = trained(changed(config, "whole", **settings))
    again, _ = trained(changed(config, "again", **settings))
    parts = changed(config, "parts", **settings)
    stop_at(parts, 4)
    resumed, _ = trained(parts)
    repeated, gone_on = difference(again, whole), difference(resumed, whole)
    within(gone_on, 3 * repeated, f"{settings or 'float32'}: a resumed run, to 3 times a repetition of the whole")


def stop_at(config: Any, step: int) -> None:
    """Run in this process until its signal arrives at the end of `step`."""
    import signal

    from clipcond.train.loop import train

    def report(line: dict[str, Any]) -> None:
        if line["step"] == step and "loss" in line:
            os.kill(os.getpid(), signal.SIGTERM)

    assert train(config, report=report).interrupted


def test_what_the_device_draws_goes_on_where_it_stopped(device: str, config: Any, tmp_path: Path) -> None:
    """Patches that are left out at random are drawn on the device."""
    import torch

    from clipcond.resources import embedded

    folder = tmp_path / "dropping"
    folder.mkdir()
    for path in embedded("clip").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    record = json.loads((folder / "open_clip_config.json").read_text())
    record["model_cfg"]["vision_cfg"]["patch_dropout"] = 0.5
    (folder / "open_clip_config.json").write_text(json.dumps(record))
    config = changed(config, "x", model=str(folder))
    whole, _ = trained(changed(config, "whole"))
    again, _ = trained(changed(config, "again"))
    parts = changed(config, "parts")
    stop_at(parts, 4)
    torch.rand(100, device=device)  # another process would stand elsewhere, too
    resumed, _ = trained(parts)
    repeated, gone_on = difference(again, whole), difference(resumed, whole)
    within(gone_on, 3 * repeated, "random patches: a resumed run, to 3 times a repetition of the whole")


KILLED = """import os, sys
from clipcond.train.config import TrainConfig
from clipcond.train.loop import train
def report(line):
    if line.get("step") == 5:
        os.kill(os.getpid(), 9)
train(TrainConfig(**eval(sys.argv[1])), report=report)
"""


def settings_of(config: Any) -> dict[str, Any]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in config.to_dict().items()}


def in_a_process(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    where = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", **environment}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=where, timeout=120)


def test_a_killed_process_is_gone_on_from(device: str, config: Any) -> None:
    whole, _ = trained(changed(config, "whole"))
    again, _ = trained(changed(config, "again"))
    killed = in_a_process("-c", KILLED, repr(settings_of(config)))
    assert killed.returncode == -9, killed.stderr
    resumed, _ = trained(config)
    repeated, gone_on = difference(again, whole), difference(resumed, whole)
    within(gone_on, 3 * repeated, "killed: a resumed run, to 3 times a repetition of the whole")


def test_compiled_blocks(cuda: str, config: Any, first_gradients: Any) -> None:
    """Within float32's rounding; without Triton torch has no compiler for a GPU."""
    pytest.importorskip("triton", reason="triton is not installed")
    import torch

    loss, ours = first_gradients(changed(config, "compiled", compile=True, freeze=("image",)))
    other, theirs = first_gradients(changed(config, "plain", freeze=("image",)))
    length = float(torch.stack([each.norm() for each in theirs.values()]).norm())
    apart = float(torch.stack([(ours[each] - theirs[each]).norm() for each in theirs]).norm()) / length
    within(abs(loss - other) / abs(other), 1e-3, "compiled: loss of a step")
    within(apart, 1e-3, "compiled: gradients of a step")


def test_float16_leaves_out_a_step_that_overflows(cuda: str, config: Any) -> None:
    """The scale starts at 65,536 and doubles only after 2,000 steps, so a loss that is scaled too far is made by hand."""
    import torch

    from clipcond.train.job import prepare

    job = prepare(changed(config, "fp16", precision="fp16"))
    assert job.scaling is not None
    job.scaling.load_state_dict({**job.scaling.state_dict(), "scale": 2.0**60})
    before = {name: value.clone() for name, value in job.model.state_dict().items()}
    job.objective.backward(job.batches[0])
    taken = job.scaling.take_step(lambda: job.optimizer.step(1e-3))
    assert not taken, "a step with infinite gradients was taken"
    assert job.scaling.scale == 2.0**59
    assert all(torch.equal(value, before[name]) for name, value in job.model.state_dict().items())


LAUNCHED = """import os, sys
import torch, torch.distributed as dist
from clipcond.train.config import TrainConfig
from clipcond.train.loop import train
on_gpu = torch.cuda.is_available()
if sys.argv[2] == "two":  # on one GPU, which NCCL does not allow
    dist.init_process_group("gloo")
else:  # blocks in shares of one process: all that FSDP and NCCL do, and nothing to divide
    from torch.distributed import device_mesh
    from clipcond.train import shards, start
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    mesh = device_mesh.init_device_mesh
    device_mesh.init_device_mesh = lambda kind, shape: mesh(kind, (1,))
    start.divide_blocks = lambda model, device, count: shards.divide_blocks(model, device, 2)
if on_gpu:
    torch.cuda.set_device(0)
train(TrainConfig(**eval(sys.argv[1])))
dist.destroy_process_group()
"""


@pytest.mark.parametrize("way", ["shares", "two"])
def test_torchrun(way: str, device: str, config: Any, tmp_path: Path) -> None:
    """One process with its blocks in shares over NCCL, and two processes that share the batches of one GPU over gloo."""
    from safetensors.torch import load_file

    theirs, others = trained(changed(config, "alone"))
    script = tmp_path / "launched.py"
    script.write_text(LAUNCHED, encoding="utf-8")
    count = 2 if way == "two" else 1
    words = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", str(script)]
    settings = settings_of(changed(config, "run", fsdp=way == "shares"))
    done = in_a_process(*words, repr(settings), way, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr[-2500:]
    ours = load_file(Path(config.out) / "model" / "open_clip_model.safetensors")
    lines = map(json.loads, (Path(config.out) / "log.jsonl").read_text().splitlines())
    losses = [line["loss"] for line in lines if "loss" in line]
    apart = max(abs(one - other) for one, other in zip(losses, others, strict=True))
    within(apart, 5e-3, f"torchrun, {way}: losses")
    within(difference(ours, theirs), 1e-3, f"torchrun, {way}: weights")


MEASURED = {
    "float32": {"batch_size": 256},
    "bf16": {"batch_size": 256, "precision": "bf16"},
    "checkpointed": {"batch_size": 256, "precision": "bf16", "grad_checkpointing": True},
    "grad_cache": {"batch_size": 256, "grad_cache": 64},
}


@pytest.mark.parametrize("name", list(MEASURED))
def test_the_plan_s_memory_is_what_a_step_takes(name: str, cuda: str, tmp_path: Path) -> None:
    """A ViT-B/32 of random weights, 256 pairs of captions of full length; the plan's share for CUDA itself left out."""
    import gc

    import torch
    from PIL import Image

    from clipcond.train.config import TrainConfig
    from clipcond.train.job import prepare
    from clipcond.workflows.train_plan import PlanOptions
    from clipcond.workflows.train_plan import run as plan

    rows = ["filepath,title"]
    for number in range(256):
        Image.new("RGB", (64, 64), (number, 3 * number % 256, 7 * number % 256)).save(tmp_path / f"{number}.png")
        rows.append(f'{number}.png,"{"a red fox in the snow " * 12}{number}"')
    (tmp_path / "pairs.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    given = {"data": str(tmp_path / "pairs.csv"), "model": "ViT-B-32", "init": "random", "steps": 2, **MEASURED[name]}
    memory = plan(PlanOptions(settings=given, gpus=1)).memory
    planned = memory.peak - memory.base
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    job = prepare(TrainConfig(**given, out=str(tmp_path / "run"), device=cuda))
    for step in range(2):
        job.optimizer.zero_grad()
        job.objective.backward(job.batches[step])
        job.optimizer.clip(1.0)
        job.optimizer.step(1e-5)
    measured = torch.cuda.max_memory_allocated() - held
    told = f"{name}: planned {planned / 2**30:.2f} GiB, measured {measured / 2**30:.2f}, ratio {planned / measured:.2f}"
    parts = {part: round(size / 2**30, 2) for part, size in memory.parts().items()}
    within(abs(planned / measured - 1), 0.25, f"{told}; planned by part {parts}")
