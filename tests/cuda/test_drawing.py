"""Pictures of the embedded pipeline on the device: those of the CPU for the same seed, whoever draws them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from measures import close, within

SCENE = "a red circle at the top left, a blue square in the center, a green star at the bottom right"
LEVELS = 1.0  # of 255, in the mean: what float32 of two devices leaves of a picture after ten steps


def levels(one: Any, other: Any) -> float:
    """The mean difference of two pictures in levels of 255."""
    import numpy as np

    return float(np.abs(np.asarray(one, dtype=np.float32) - np.asarray(other, dtype=np.float32)).mean())


def same(one: Any, other: Any, what: str, allowed: float = LEVELS) -> None:
    within(levels(one, other), allowed, f"{what}: levels of 255 in the mean")


def test_the_same_seed_gives_the_same_picture(device: str, mini: Callable[[str], Any]) -> None:
    from clipcond.diffusion.generate import generate

    ours, theirs = (list(generate(mini(where), SCENE, count=3, steps=10, batch_size=2)) for where in (device, "cpu"))
    for one, other in zip(ours, theirs, strict=True):
        same(one.image, other.image, f"seed {one.seed}")
    assert levels(ours[0].image, ours[1].image) > 3 * LEVELS, "two seeds gave one picture"


def test_half_precision_draws_the_same_scene(device: str, mini: Callable[[str], Any]) -> None:
    import torch

    import clipcond
    from clipcond.diffusion.generate import generate

    theirs = next(iter(generate(mini("cpu"), SCENE, count=1, steps=10))).image
    for name in ("bfloat16", "float16"):
        if name == "float16" and device == "cpu":
            continue
        pipe = clipcond.load_pipeline("mini", device=device, dtype=getattr(torch, name))
        pipe.set_progress_bar_config(disable=True)
        same(next(iter(generate(pipe, SCENE, count=1, steps=10))).image, theirs, name, allowed=10.0)


def test_the_command(device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    from clipcond.cli import main

    for where, out in ((device, "ours"), ("cpu", "theirs")):
        words = ["generate", SCENE, "-n", "2", "--steps", "8", "--seed", "7", "--device", where]
        assert main([*words, "--out", str(tmp_path / out), "--json"]) == 0, capsys.readouterr().err
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert all(row.get("device") == where for row in rows), f"--json names {rows[0].get('device')!r}, not {where}"
    for one, other in zip(*(sorted((tmp_path / out).glob("*.png")) for out in ("ours", "theirs")), strict=True):
        with Image.open(one) as ours, Image.open(other) as theirs:
            same(ours, theirs, one.name)


def test_kept_pictures_are_ranked_on_the_device(
    device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from clipcond.cli import main

    words = ["generate", SCENE, "-n", "4", "--keep", "2", "--steps", "6", "--device", device, "--out", str(tmp_path)]
    assert main([*words, "--json"]) == 0, capsys.readouterr().err
    assert len(capsys.readouterr().out.splitlines()) >= 2


def test_an_explanation_has_the_cpu_s_maps(device: str, mini: Callable[[str], Any]) -> None:
    from clipcond.diffusion.explain.explain import explain_prompt
    from clipcond.diffusion.explain.settings import ExplainSettings

    ours, theirs = (
        explain_prompt(mini(where), SCENE, "a black ring", settings=ExplainSettings(steps=6))
        for where in (device, "cpu")
    )
    assert str(ours.maps.device) == "cpu"
    close(ours.maps, theirs.maps, relative=1e-2, what="maps")
    assert [each.where for each in ours.phrases] == [each.where for each in theirs.phrases]
    for one, other in zip(ours.phrases, theirs.phrases, strict=True):
        assert one.strength == pytest.approx(other.strength, rel=1e-2), f"strength of {one.text!r}"


@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3", "flux"])
def test_explanations_of_families(family: str, device: str, fresh: Callable[[str], Any]) -> None:
    from clipcond.diffusion.explain.explain import explain_prompt
    from clipcond.diffusion.explain.settings import ExplainSettings

    settings = ExplainSettings(steps=2, stock=False)
    ours, theirs = (
        explain_prompt(fresh(family).to(where), "a red fox, snow", settings=settings) for where in (device, "cpu")
    )
    close(ours.maps, theirs.maps, relative=2e-2, what=f"maps of {family}")


def test_an_explanation_out_of_memory_halves_its_rows(
    cuda: str, mini: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A denoiser that has no room for more than four rows."""
    import torch

    from clipcond.diffusion.explain.explain import explain_prompt
    from clipcond.diffusion.explain.settings import ExplainSettings

    pipe = mini(cuda)
    whole = explain_prompt(pipe, SCENE, settings=ExplainSettings(steps=4))
    forward, most = pipe.unet.forward, []

    def crowded(sample: Any, *args: Any, **kwargs: Any) -> Any:
        most.append(len(sample))
        if len(sample) > 4:
            torch.empty(1 << 50, dtype=torch.uint8, device=cuda)
        return forward(sample, *args, **kwargs)

    monkeypatch.setattr(pipe.unet, "forward", crowded)
    halved = explain_prompt(pipe, SCENE, settings=ExplainSettings(steps=4))
    assert max(most) > 4
    close(halved.maps, whole.maps, relative=1e-3, what="maps, four rows at a time")


@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3", "flux"])
def test_steering_draws_the_cpu_s_picture(family: str, device: str, fresh: Callable[[str], Any]) -> None:
    import torch

    from clipcond.diffusion.conditioner import Conditioner
    from clipcond.diffusion.counterfactual.drawing import draw_steered

    pictures = []
    for where in (device, "cpu"):
        pipe = fresh(family).to(where)
        negative = None if family == "flux" else "grey"
        steering = Conditioner.from_pipeline(pipe).counterfactual(
            "a (red:1.5) fox, (snow:0.5)", negative, dialect="a1111"
        )
        made = draw_steered(
            pipe, steering, num_inference_steps=2, generator=torch.Generator().manual_seed(3), output_type="pt",
            height=16, width=16,
        )  # fmt: skip
        pictures.append(torch.as_tensor(made.images))
    close(pictures[0], pictures[1], relative=2e-2, what=f"{family}: a steered picture")


def test_steering_and_regions_of_mini(device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    from clipcond.cli import main

    weighted = "a (red:1.5) circle at the top left, a blue star in the center"
    jobs = {
        "counterfactual": ["generate", weighted, "--dialect", "a1111", "--weighting", "counterfactual"],
        "and": ["generate", "a red circle in the center AND a blue star in the top left", "--dialect", "a1111"],
    }
    for name, words in jobs.items():
        for where in (device, "cpu"):
            out = tmp_path / f"{name}-{where.replace(':', '')}"
            code = main([*words, "-n", "1", "--steps", "8", "--device", where, "--out", str(out)])
            assert code == 0, capsys.readouterr().err
        found = [
            next(iter(sorted((tmp_path).glob(f"{name}-{each}/*.png")))) for each in (device.replace(":", ""), "cpu")
        ]
        with Image.open(found[0]) as ours, Image.open(found[1]) as theirs:
            same(ours, theirs, name, allowed=2 * LEVELS)
