"""Operations in every family: identities, an encoder's own part, files, and `mini` along a slider."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clipcond.diffusion.conditioner import Conditioner
from clipcond.diffusion.conditioning import Conditioning
from clipcond.errors import ConfigError, DataError
from clipcond.mini import world
from clipcond.prompt.operations import Gain, Lerp, Operation, Slerp, Vary, slider

FAMILIES = ("sd15", "sdxl", "sd3", "flux")
FOX, BIRD = "a red fox in the snow", "a blue bird and soft light"
NAMES = ("prompt_embeds", "pooled_prompt_embeds")


def positive(made: Conditioning) -> list[torch.Tensor]:
    return [made.tensors[name] for name in NAMES if name in made.tensors]


def equal(one: Conditioning, other: Conditioning) -> bool:
    """Up to the rounding of batches of another size; the arithmetic itself is exact (tests/condition/test_algebra.py)."""
    return all(torch.allclose(a, b, atol=1e-5) for a, b in zip(positive(one), positive(other), strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_identities(family: str, pipes: Callable[[str], Any]) -> None:
    make = Conditioner.from_pipeline(pipes(family))
    fox, bird = make(FOX), make(BIRD)
    encoders = list(make.pipeline.encoders)
    same: list[Operation] = [Lerp(BIRD, 0), Slerp(BIRD, 0), slider("red", "blue", 0), Vary(0, 3)]
    same += [Gain(name, 1) for name in encoders]
    for each in (*[[one] for one in same], same):
        assert equal(make(FOX, operations=each), fox)
    for to_bird in (Lerp(BIRD, 1), Slerp(BIRD, 1), Slerp(BIRD, 1, "zero")):
        assert equal(make(FOX, operations=[to_bird]), bird)
    assert equal(make(FOX, operations=[slider("red", "blue", 1)]), make("a blue fox in the snow"))
    assert equal(
        make(FOX, operations=[slider("grey fox", "blue fox", 0, at="red fox")]), make("a grey fox in the snow")
    )
    assert equal(make(FOX, operations=[Gain(name, 0) for name in encoders]), make(""))
    changed = make(FOX, "grey", operations=[Lerp(BIRD, 0.5), Vary(0.1, 1)])
    assert not equal(changed, fox)
    assert torch.equal(changed.tensors["negative_prompt_embeds"], make(FOX, "grey").tensors["negative_prompt_embeds"])


def test_each_encoder_has_its_own_gain(pipes: Callable[[str], Any]) -> None:
    for family, parts in (
        ("sdxl", {"clip_l": (slice(None), slice(24)), "clip_g": (slice(None), slice(24, 64))}),
        ("sd3", {"clip_l": (slice(77), slice(24)), "clip_g": (slice(77), slice(24, 64)), "t5": (slice(77, None), slice(96))}),
    ):  # fmt: skip
        make = Conditioner.from_pipeline(pipes(family))
        plain, empty = make(FOX).prompt_embeds[0], make("").prompt_embeds[0]
        for name, (positions, columns) in parts.items():
            louder = make(FOX, operations=[Gain(name, 1.5)]).prompt_embeds[0]
            expected = plain.clone()
            expected[positions, columns] = (empty + 1.5 * (plain - empty))[positions, columns]
            assert torch.allclose(louder, expected, atol=1e-5)
            assert not torch.allclose(louder, plain, atol=1e-3)
    make = Conditioner.from_pipeline(pipes("sd3"))
    pooled, louder = (make(FOX, operations=each).pooled_prompt_embeds for each in ([], [Gain("clip_g", 2)]))
    assert pooled is not None
    assert louder is not None
    assert torch.equal(pooled[:, :24], louder[:, :24])
    assert not torch.equal(pooled[:, 24:], louder[:, 24:])


def test_several_prompts_images_lengths_and_schedules(pipes: Callable[[str], Any]) -> None:
    make = Conditioner.from_pipeline(pipes("sd15"))
    both = make([FOX, "a red bird"], num_images_per_prompt=2, operations=[slider("red", "blue", 0.5)])
    second = make("a red bird", operations=[slider("red", "blue", 0.5)])
    assert torch.allclose(both.prompt_embeds[3], second.prompt_embeds[0], atol=1e-6)
    long = make(FOX, operations=[Lerp("a blue bird, " * 30, 0.5)])
    assert long.prompt_embeds.shape == (1, 154, 32)
    masked = make("a red fox, " * 30, operations=[Lerp("a bird", 0.5)])
    assert masked.prompt_embeds.shape == (1, 154, 32)
    changing = make("a [red:blue:0.5] fox", dialect="a1111", steps=4, operations=[Lerp(BIRD, 0.5)])
    assert changing.callback is not None
    halves = [make(text, dialect="a1111", operations=[Lerp(BIRD, 0.5)]) for text in ("a red fox", "a blue fox")]
    for state, half in zip(changing.callback.states, halves, strict=True):
        assert torch.allclose(state["prompt_embeds"], half.prompt_embeds, atol=1e-6)


def test_the_file_says_what_was_done(pipes: Callable[[str], Any], tmp_path: Path) -> None:
    pipe = pipes("sd15")
    operations = (Slerp(BIRD, 0.25), Vary(0.1, 5), slider("red", "blue", 1.5))
    made = Conditioner.from_pipeline(pipe)(FOX, operations=operations)
    made.save(tmp_path / "fox.safetensors")
    again = Conditioning.load(tmp_path / "fox.safetensors", pipe)
    assert again.operations == made.operations == operations
    assert equal(again, made)
    assert "slerp 0.25" in made._repr_html_()


def test_what_is_refused(pipes: Callable[[str], Any]) -> None:
    make = Conditioner.from_pipeline(pipes("sd15"))
    for operations, says in (
        (["lerp 0.3: a"], "expected Lerp"),
        ([Gain("clip_g", 2)], "the encoders of StableDiffusionPipeline are clip_l"),
        ([slider("small", "large", 1)], "holds neither end"),
    ):
        with pytest.raises(ConfigError, match=says):
            make(FOX, operations=operations)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"\.swap"):
        make('a "fox".swap("cat")', dialect="compel", operations=[Vary(0.1)])


def test_a_damaged_file_is_told(pipes: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Conditioner.from_pipeline(pipes("sd15"))(FOX, operations=[Vary(0.1)])
    monkeypatch.setattr(Vary, "__str__", lambda self: "vary much: 3")
    made.save(tmp_path / "fox.safetensors")
    with pytest.raises(DataError, match="damaged conditioning"):
        Conditioning.load(tmp_path / "fox.safetensors")


def test_mini_goes_along_a_slider_and_leaves_the_rest() -> None:
    from clipcond.diffusion.pipelines import load_pipeline

    pipe = load_pipeline("mini", device="cpu")
    pipe.set_progress_bar_config(disable=True)
    make = Conditioner.from_pipeline(pipe)
    text = "a red circle in the top left, a yellow star in the center, on a gray background"
    made = [make(text, operations=[slider("red circle", "blue circle", t)]).prompt_embeds for t in (0, 0.25, 0.75, 1)]
    images = pipe(
        prompt_embeds=torch.cat(made),
        negative_prompt_embeds=make(text, "").tensors["negative_prompt_embeds"].expand(4, -1, -1),
        num_inference_steps=6, guidance_scale=2.0, generator=[torch.Generator().manual_seed(0) for _ in made],
    ).images  # fmt: skip
    seen = [{str(each) for each in world.look(image).objects} for image in images]
    red, blue = "red circle at top left", "blue circle at top left"
    assert ["red" if red in each else "blue" if blue in each else "" for each in seen] == ["red", "red", "blue", "blue"]
    assert all("yellow star at center" in each for each in seen)
