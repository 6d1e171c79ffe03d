import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clipcond.errors import ConfigError
from clipcond.models.load import load_dual
from clipcond.models.trainable import load_trainable
from clipcond.score.drift import kinds_of_positions
from clipcond.train.loop import train
from clipcond.train.retention import EMPTY, Read, TargetReader, retention_parts
from clipcond.train.retention_weights import PARTS, parse_weights

PROMPTS = ["a red circle", "two cats asleep on a sofa in the sun", "fog"]


def naive(now, then, kinds, pooled_now, pooled_then):
    """Each part again, place by place in float64, from its definition."""
    found = {}
    for number, name in enumerate(("bos", "words", "eos", "padding", "empty")):
        values = [
            ((now[n, at] - then[n, at]) ** 2).sum() / (then[n, at] ** 2).sum()
            for n in range(len(now))
            for at in range(now.shape[1])
            if kinds[n, at] == number
        ]
        if values:
            found[name] = sum(values) / len(values)
    found["pooled"] = sum(
        1 - (a * b).sum() / (a.norm() * b.norm()) for a, b in zip(pooled_now, pooled_then, strict=True)
    ) / len(now)
    means = []
    for states in (now, then):
        rows = []
        for n in range(len(states)):
            inside = [states[n, at] for at in range(states.shape[1]) if int(kinds[n, at]) in (1, 2, EMPTY)]
            rows.append(sum(inside) / len(inside))
        means.append(rows)
    total = 0.0
    for i in range(len(now)):
        for j in range(len(now)):
            cosines = [(m[i] * m[j]).sum() / (m[i].norm() * m[j].norm()) for m in means]
            total = total + (cosines[0] - cosines[1]) ** 2
    found["gram"] = total / len(now) ** 2
    return found


def test_every_part_and_its_gradient_equal_a_naive_reference():
    draw = torch.Generator().manual_seed(3)
    now, then = (torch.randn(4, 6, 5, generator=draw, dtype=torch.float64) for _ in range(2))
    pooled_now, pooled_then = (torch.randn(4, 3, generator=draw, dtype=torch.float64) for _ in range(2))
    kinds = kinds_of_positions(torch.tensor([1, 3, 5, 2]), 6)
    kinds[0] = EMPTY
    mine = now.float().requires_grad_(), pooled_now.float().requires_grad_()
    theirs = now.requires_grad_(), pooled_now.requires_grad_()
    parts = retention_parts(Read(states=mine[0], pooled=mine[1]), Read(states=then, pooled=pooled_then), kinds)
    expected = naive(theirs[0], then, kinds, theirs[1], pooled_then)
    assert parts.keys() == expected.keys() == set(PARTS)
    for name, value in parts.items():
        assert float(value.detach()) == pytest.approx(float(expected[name].detach()), rel=1e-5), name
        gradients = torch.autograd.grad(value, mine, retain_graph=True, allow_unused=True)
        wanted = torch.autograd.grad(expected[name], theirs, retain_graph=True, allow_unused=True)
        for one, other in zip(gradients, wanted, strict=True):
            assert (one is None) == (other is None)
            assert one is None or torch.allclose(one, other.float(), rtol=1e-4, atol=1e-7), name


@pytest.mark.parametrize(
    ("target", "skip", "norm", "pooled", "pad"),
    [("sd15", 0, True, None, 49407), ("sd2", 0, True, None, 0), ("sdxl-l", 1, False, None, 49407),
     ("sdxl-g", 1, False, "projected", 0), ("sd3-l", 1, False, "projected", 49407), ("flux", None, None, "pooled", 49407)],
)  # fmt: skip
def test_a_target_sets_layer_norm_pooled_vector_and_padding(dual_folder, target, skip, norm, pooled, pad):
    reader = TargetReader(load_trainable(str(dual_folder)).model, target, "it")
    ids = reader.ids(PROMPTS)
    assert ids.shape == (3, 77)
    assert set(ids[:, -1].tolist()) == {pad}
    tower = load_dual(str(dual_folder)).text
    with torch.no_grad():
        read = reader(ids)
    if skip is None:
        assert read.states is None
        skip, norm = 0, True
    else:
        assert torch.allclose(read.states, tower.encode(ids, clip_skip=skip, final_norm=norm).hidden, atol=1e-4)
    if pooled is None:
        assert read.pooled is None
    else:
        assert torch.allclose(
            read.pooled, getattr(tower.encode(ids, clip_skip=skip, final_norm=norm), pooled), atol=1e-4
        )


def lines(config):
    return [json.loads(line) for line in (Path(config.out) / "log.jsonl").read_text().splitlines()]


def moved(config):
    return [line["measures"] for line in lines(config) if line.get("event") == "drift"][-1]


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "general.txt"
    path.write_text("\n".join(PROMPTS), encoding="utf-8")
    return str(path)


def test_retention_keeps_what_the_target_reads_and_the_log_says_so(config, prompts, tmp_path):
    config = replace(config, steps=40, log_every=10, eval_every=20, target="sd15", retention_prompts=prompts)
    free = replace(config, out=str(tmp_path / "free"), max_drift=10.0)
    held = replace(config, out=str(tmp_path / "held"), retention=30.0, max_drift=10.0)
    train(free)
    train(held)
    for kind in ("words", "eos", "padding", "empty"):
        assert moved(held)[kind] < 0.3 * moved(free)[kind], kind
    steps = [line for line in lines(held) if "loss" in line]
    assert all(set(line["terms"]) == {"contrastive", "retention"} for line in steps)
    total = steps[-1]["terms"]["contrastive"] + 30 * steps[-1]["terms"]["retention"]
    assert steps[-1]["loss"] == pytest.approx(total, rel=1e-3)


def test_a_run_with_retention_resumes_bit_for_bit(config, prompts, tmp_path):
    config = replace(config, target="sd15", retention=1.0, retention_prompts=prompts, retention_batch=2)
    whole = replace(config, out=str(tmp_path / "whole"))
    train(whole)
    stops = []

    def stop(line):
        if line["step"] == 4 and not stops:
            stops.append(1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, report=stop)
    train(config)
    assert (Path(config.out) / "model/open_clip_model.safetensors").read_bytes() == (
        Path(whole.out) / "model/open_clip_model.safetensors"
    ).read_bytes()


def test_a_collapse_of_the_general_prompts_ends_the_run(config, prompts):
    config = replace(config, steps=60, learning_rate=0.1, eval_every=20, target="sd15", retention_prompts=prompts)
    with pytest.raises(
        ConfigError, match=r"the general prompts collapsed by step \d+: .* max_drift is 0\.5; what was trained"
    ):
        train(config)
    assert not (Path(config.out) / "model").exists()
    result = train(replace(config, max_drift=100.0))
    assert (result.steps, result.model) == (60, Path(config.out) / "model")


def test_a_rate_that_collapses_pretrained_towers_is_said(config):
    train(replace(config, steps=1, warmup=0))
    assert any("fine-tuning has collapsed pretrained towers" in line.get("note", "") for line in lines(config))


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"target": "sdxl-l", "train_blocks": 1}, "sdxl-l reads the states of the layer 1 below the last, and train_blocks is 1:"),
     ({"target": "sd3-g", "train_blocks": 1}, "its projected vector alone moves"),
     ({"target": "sd15", "freeze": ("text",)}, "sd15 reads the states of the last layer, and the text trunk is frozen:"),
     ({"target": "sd15", "train_blocks": 1}, None), ({"target": "sdxl-l", "train_blocks": 2}, None)],
)  # fmt: skip
def test_training_that_the_target_cannot_see_is_said(config, changes, said):
    train(replace(config, steps=1, warmup=0, **changes))
    notes = [line["note"] for line in lines(config) if "they stay as they are" in line.get("note", "")]
    assert len(notes) == (said is not None)
    assert said is None or said in notes[0]
    states = moved(config)["words"]
    assert (states == 0) == (said is not None)


def test_weights_of_parts_are_read_by_name():
    assert parse_weights(["words=2", "gram=0"]) == {**dict.fromkeys(PARTS, 1.0), "words": 2.0, "gram": 0.0}
    for wrong in ("word=2", "words", "words=x", "words=-1", "words=nan"):
        with pytest.raises(ConfigError, match="retention_weights holds"):
            parse_weights([wrong])


def test_retention_without_a_target_is_refused(config):
    with pytest.raises(ConfigError, match="name a target: sd15, sd2"):
        replace(config, retention=1.0)
    with pytest.raises(ConfigError, match="target is 'sd1', expected one of sd15"):
        replace(config, target="sd1")
    with pytest.raises(ConfigError, match="contrastive is 0"):
        train(replace(config, contrastive=0.0))
