"""Prompts that travel over the frames of a film, in tiny pipelines of AnimateDiff."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch

import clipcond
from clipcond.diffusion.conditioner import Conditioner
from clipcond.diffusion.travel import travelled
from clipcond.diffusion.travel_prompts import over_frames
from clipcond.errors import ConfigError

from .conftest import seeded

FRAMES = 6
FILM = {0: "a red fox", 4: "a blue bird"}
LONG = "a red fox, " * 40
Kind = Callable[..., Any]


def close(a: torch.Tensor, b: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


@pytest.fixture(scope="module")
def animated(pipes: Callable[[str], Any]) -> Kind:
    """A pipeline of AnimateDiff around the parts of a family: (class name, family, further parts) → pipeline."""
    import diffusers

    def get(name: str = "AnimateDiffPipeline", family: str = "sd15", **more: Any) -> Any:
        parts = {part: each for part, each in pipes(family).components.items() if part != "safety_checker"}

        def make() -> Any:
            adapter = diffusers.MotionAdapter(
                block_out_channels=(16, 16), motion_layers_per_block=1, motion_norm_num_groups=8,
                motion_num_attention_heads=2, use_motion_mid_block=False,
            )  # fmt: skip
            return getattr(diffusers, name)(**parts, motion_adapter=adapter, **more)

        return seeded(make)

    return get


@pytest.fixture(scope="module")
def pipe(animated: Kind) -> Any:
    return animated()


def draw(pipe: Any, frames: Any = FRAMES, **more: Any) -> torch.Tensor:
    latents = torch.randn(1, 4, frames, 8, 8, generator=torch.Generator().manual_seed(3))
    made: torch.Tensor = pipe(
        height=16, width=16, num_inference_steps=2, output_type="latent", latents=latents, **more
    ).frames
    return made


def drawn(pipe: Any, travel: Any, **more: Any) -> torch.Tensor:
    with travelled(pipe, travel):
        return draw(pipe, travel.frames, **travel.kwargs, **more)


def test_a_travel_to_nowhere_is_the_film_of_the_prompt(pipe: Any) -> None:
    conditioner = Conditioner.from_pipeline(pipe)
    settings: dict[str, Any] = {"dialect": "a1111", "clip_skip": 1}
    prompt = f"{LONG} (blue bird:1.3)"
    travel = conditioner.travel(prompt, "blurry", frames=FRAMES, **settings)
    assert travel.states.shape == travel.negative.shape == (FRAMES, 3 * 77, 32)
    plain = conditioner(prompt, "blurry", **settings)
    close(drawn(pipe, travel), draw(pipe, **plain.kwargs, num_frames=FRAMES))
    assert travel.findings == plain.findings


@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_free_noise_draws_the_film_of_its_own_prompts_by_frame(animated: Kind, guidance: float) -> None:
    pipe = animated()
    pipe.enable_free_noise(context_length=4, context_stride=2)
    negative = {0: "blurry", 3: "grey"}
    theirs = draw(pipe, prompt=dict(FILM), negative_prompt=dict(negative), num_frames=FRAMES, guidance_scale=guidance)
    travel = Conditioner.from_pipeline(pipe).travel(FILM, negative, frames=FRAMES)
    assert travel.kwargs == {"prompt": "", "num_frames": FRAMES}
    close(drawn(pipe, travel, guidance_scale=guidance), theirs, 1e-4)
    long = Conditioner.from_pipeline(pipe).travel({0: LONG, 4: "(fox:1.4)"}, negative, frames=FRAMES, dialect="a1111")
    other = drawn(pipe, long, guidance_scale=guidance)
    assert bool(torch.isfinite(other).all())
    assert (other - theirs).abs().max() > 1e-3


def test_without_free_noise_each_frame_reads_its_own_text(pipe: Any) -> None:
    """The denoiser is called once more by hand, with the rows that a travel should give it."""
    conditioner = Conditioner.from_pipeline(pipe)
    travel = conditioner.travel(FILM, "blurry", frames=FRAMES)
    ends = conditioner(list(FILM.values()), "blurry").kwargs
    shares = [0, 0.25, 0.5, 0.75, 1, 1]
    for frame, t in enumerate(shares):
        close(travel.states[frame], (1 - t) * ends["prompt_embeds"][0] + t * ends["prompt_embeds"][1])
        close(travel.negative[frame], ends["negative_prompt_embeds"][0])
    seen: list[torch.Tensor] = []
    handle = pipe.unet.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["encoder_hidden_states"]), with_kwargs=True, prepend=False
    )
    with travelled(pipe, travel):
        probe = pipe.unet.register_forward_pre_hook(
            lambda _, args, kwargs: seen.append(kwargs["encoder_hidden_states"]), with_kwargs=True
        )
        first = draw(pipe, **travel.kwargs)
        probe.remove()
    handle.remove()
    assert len(seen) == 4
    close(seen[1], torch.cat([travel.negative, travel.states]))
    close(seen[0], torch.cat([travel.negative[:1], travel.states[:1]]).repeat_interleave(FRAMES, dim=0))
    assert not pipe.unet._forward_pre_hooks
    still = drawn(pipe, conditioner.travel(FILM[0], "blurry", frames=FRAMES))
    assert (first - still).abs().amax(dim=(0, 1, 3, 4))[4] > 1e-3


@pytest.mark.parametrize("how", ["linear", "slerp", "hold"])
def test_interpolations_keep_the_prompts_own_frames(how: str) -> None:
    generator = torch.Generator().manual_seed(0)
    ends, empty = torch.randn(3, 2, 8, generator=generator), torch.zeros(2, 8)
    ends = ends / ends.norm(dim=-1, keepdim=True)
    made = over_frames(ends, [0, 3, 5], 8, how, empty)
    for frame, own in ((0, 0), (3, 1), (5, 2), (7, 2)):
        assert made[frame].equal(ends[own])
    if how == "hold":
        assert made[2].equal(ends[0])
    elif how == "linear":
        close(made[4], (ends[1] + ends[2]) / 2, 1e-6)
    else:  # on the unit sphere, half way
        middle = ends[1] + ends[2]
        close(made[4], middle / middle.norm(dim=-1, keepdim=True))


def test_sdxl_travels_and_says_that_its_pooled_vector_does_not(animated: Kind) -> None:
    pipe = animated("AnimateDiffSDXLPipeline", "sdxl")
    conditioner = Conditioner.from_pipeline(pipe)
    travel = conditioner.travel(FILM, frames=FRAMES, interpolation="slerp")
    assert [each.code for each in travel.findings] == ["travel-pooled"]
    assert not travel.negative.any()  # zeros where there is no negative prompt
    assert travel.pooled is not None
    assert travel.pooled.shape == (1, 40)
    still = conditioner.travel(FILM[0], frames=FRAMES)
    close(drawn(pipe, still), draw(pipe, **conditioner(FILM[0]).kwargs, num_frames=FRAMES), 1e-4)
    assert (drawn(pipe, travel) - drawn(pipe, still)).abs().max() > 1e-3


def test_a_controlnet_reads_each_frames_text_too(animated: Kind, pipes: Callable[[str], Any]) -> None:
    from diffusers import ControlNetModel
    from PIL import Image

    net = ControlNetModel.from_unet(pipes("sd15").unet, conditioning_embedding_out_channels=(16, 16))
    torch.nn.init.normal_(net.controlnet_mid_block.weight, generator=torch.Generator().manual_seed(5))
    pipe = animated("AnimateDiffControlNetPipeline", controlnet=net)
    shown: dict[str, Any] = {"conditioning_frames": [Image.new("RGB", (16, 16), "red")] * FRAMES}
    conditioner = Conditioner.from_pipeline(pipe)
    still = drawn(pipe, conditioner.travel(FILM[0], frames=FRAMES), **shown)
    close(still, draw(pipe, **conditioner(FILM[0]).kwargs, num_frames=FRAMES, **shown))
    seen: list[torch.Tensor] = []
    travel = conditioner.travel(FILM, frames=FRAMES)
    with travelled(pipe, travel):
        probe = net.register_forward_pre_hook(
            lambda _, args, kwargs: seen.append(kwargs["encoder_hidden_states"]), with_kwargs=True
        )
        with suppress(RuntimeError):  # diffusers 0.42 adds the residuals of one side to the rows of two
            draw(pipe, **travel.kwargs, **shown, guess_mode=True)
        probe.remove()
    close(seen[0], travel.states)  # of the positive side alone


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("AnimateDiffPAGPipeline", {"pag_applied_layers": "mid"}, {"pag_scale": 2.0}),
        ("AnimateDiffVideoToVideoPipeline", {}, {"strength": 0.9}),
    ],
)
def test_other_pipelines_of_films_travel(animated: Kind, name: str, more: dict[str, Any], said: dict[str, Any]) -> None:
    """To one prompt the film of that prompt, to two another; each frame's rows reach the denoiser on all sides."""
    pipe = animated(name, **more)
    conditioner = Conditioner.from_pipeline(pipe)
    still, moved = (conditioner.travel(film, "blurry", frames=FRAMES) for film in (FILM[0], FILM))
    count = {"num_frames": FRAMES} if "PAG" in name else {}
    plain = draw(pipe, **conditioner(FILM[0], "blurry").kwargs, **count, **said)
    close(drawn(pipe, still, **said), plain, 1e-4)
    if not count:
        with pytest.raises(ConfigError, match=f"frames is not given, and {name} takes a film; say frames="):
            conditioner.travel(FILM)
    assert (drawn(pipe, moved, **said) - plain).abs().max() > 1e-3


def test_what_no_travel_can_do_is_said(pipe: Any, pipes: Callable[[str], Any]) -> None:
    conditioner = Conditioner.from_pipeline(pipe)
    assert conditioner.travel(FILM).frames == 16  # the default of the call
    refused: list[tuple[Any, dict[str, Any], str]] = [
        ({0: "a", 16: "b"}, {}, "frames is 16, and the last prompt is at frame 16; say frames=17 or more"),
        (FILM, {"frames": "16"}, "frames is '16', expected a whole number"),
        (FILM, {"frames": 10**9}, "rows of 77 tokens would take"),
        (FILM, {"interpolation": "cubic"}, "interpolation is 'cubic', expected one of linear, slerp, hold"),
        (FILM, {"weighting": "counterfactual"}, "which steers pictures, and no travel; leave it out"),
        ("a [red:blue:0.5] fox", {"dialect": "a1111"}, "changes over the steps, which no travel does"),
        ("a fox AND a bird", {"dialect": "a1111"}, "a prompt has AND in it"),
        ("a fox.swap(bird)", {"dialect": "compel"}, "a prompt has .swap"),
    ]
    for prompts, more, said in refused:
        with pytest.raises(ConfigError, match=said.replace("(", r"\(").replace("[", r"\[")):
            conditioner.travel(prompts, **more)
    with pytest.raises(ConfigError, match="StableDiffusionPipeline has no motion_adapter: prompts cannot travel"):
        Conditioner.from_pipeline(pipes("sd15")).travel(FILM)
    found = conditioner.travel({0: "a fox", 4: "a (red fox"}, frames=FRAMES, dialect="a1111").findings
    assert {each.argument for each in found} == {"prompt at frame 4"}


def test_another_call_while_a_travel_is_open_is_refused(animated: Kind) -> None:
    pipe = animated()
    conditioner = Conditioner.from_pipeline(pipe)
    travel = conditioner.travel(FILM, frames=FRAMES)
    with travelled(pipe, travel), pytest.raises(ConfigError, match="called with another prompt while a travel is open"):
        draw(pipe, prompt="a fox", num_frames=FRAMES)
    with (
        travelled(pipe, travel),
        pytest.raises(ConfigError, match="reads 4 frames of one film, and the travel was made"),
    ):
        draw(pipe, 4, **{**travel.kwargs, "num_frames": 4})
    not_a_travel: Any = conditioner("a fox")
    with pytest.raises(ConfigError, match=r"gives, not a Conditioning"), clipcond.travelled(pipe, not_a_travel):
        pass
    pipe.enable_free_noise(context_length=4)
    with travelled(pipe, travel), pytest.raises(ConfigError, match="called with another prompt while a travel is open"):
        draw(pipe, prompt=dict(FILM), num_frames=FRAMES)
    with pytest.raises(ConfigError, match=r"takes no embeds under FreeNoise; use conditioner.travel"):
        conditioner("a fox")
    with pytest.raises(ConfigError, match=r"takes no embeds under FreeNoise; use conditioner.travel"):
        conditioner.compose("a fox")
    twice = conditioner.travel(FILM, frames=8)  # as many rows as 4 frames have on both sides
    with (
        travelled(pipe, twice),
        pytest.raises(ConfigError, match="reads 4 frames of one film, and the travel was made"),
    ):
        draw(pipe, 4, **{**twice.kwargs, "num_frames": 4})
