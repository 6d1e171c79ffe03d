"""Prompts that change over the steps: what every call of the denoiser gets, in each family and with each kind of scheduler."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback

from clipcond.diffusion.conditioner import Conditioner
from clipcond.diffusion.conditioning import Conditioning
from clipcond.diffusion.prompt_plans import Sides
from clipcond.diffusion.timeline import step_of_call, timeline
from clipcond.errors import ConfigError

# numpy's, of diffusers' schedulers
pytestmark = pytest.mark.filterwarnings("ignore:__array.* implementation doesn't|__array_wrap__:DeprecationWarning")

LONG = "a red fox in the snow, " * 16
STEPS = 4
SWITCH = "a [fox:bird:.5] in snow"
FIRST, SECOND = "a fox in snow", "a bird in snow"


@contextmanager
def swapped(pipe: Any, scheduler: str, **options: Any) -> Iterator[None]:
    """The pipeline with another scheduler for a while."""
    before = pipe.scheduler
    pipe.scheduler = getattr(diffusers, scheduler).from_config(before.config, **options)
    try:
        yield
    finally:
        pipe.scheduler = before


def calls_of(
    pipe: Any, out: Conditioning, steps: int = STEPS, **options: Any
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """The input of every call of the denoiser, and the picture."""
    denoiser = pipe.transformer if getattr(pipe, "transformer", None) is not None else pipe.unet
    seen: list[dict[str, Any]] = []

    def note(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        added = kwargs.get("added_cond_kwargs") or {}
        seen.append(
            {
                "states": kwargs["encoder_hidden_states"],
                "pooled": added.get("text_embeds", kwargs.get("pooled_projections")),
            }
        )

    handle = denoiser.register_forward_pre_hook(note, with_kwargs=True)
    try:
        arguments = {"height": 16, "width": 16, **options}
        picture = pipe(
            **out.kwargs,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(3),
            output_type="np",
            callback_on_step_end=out.callback,
            callback_on_step_end_tensor_inputs=out.callback_on_step_end_tensor_inputs,
            **arguments,
        ).images
    finally:
        handle.remove()
    return seen, picture


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Encoded in another batch, states are the same up to rounding."""
    return a.shape == b.shape and torch.allclose(a, b, atol=1e-5)


def texts_of(seen: list[dict[str, Any]], known: dict[str, Conditioning], guided: bool) -> list[str]:
    """The one of some conditionings that each call got: its states, on both sides, and its pooled vectors."""
    found = []
    for each in seen:
        names = []
        for name, one in known.items():
            sides = [one.negative_prompt_embeds, one.prompt_embeds] if guided else [one.prompt_embeds]
            same = close(each["states"], torch.cat([side for side in sides if side is not None]))
            if one.pooled_prompt_embeds is not None:
                pooled = (
                    [one.negative_pooled_prompt_embeds, one.pooled_prompt_embeds]
                    if guided
                    else [one.pooled_prompt_embeds]
                )
                same &= close(each["pooled"], torch.cat([side for side in pooled if side is not None]))
            if same:
                names.append(name)
        (name,) = names
        found.append(name)
    return found


SCHEDULERS = {
    "DDIMScheduler": "1122",
    "EulerDiscreteScheduler": "1122",
    "HeunDiscreteScheduler": "1111222",
    "KDPM2DiscreteScheduler": "1111222",
    "PNDMScheduler": "11122",
    "DPMSolverMultistepScheduler": "1122",
}


@pytest.mark.parametrize("guidance", [1.0, 5.0])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_call_of_every_scheduler(scheduler: str, guidance: float, pipes: Callable[[str], Any]) -> None:
    pipe = pipes("sd15")
    make = Conditioner.from_pipeline(pipe)
    out = make(SWITCH, "grey", dialect="a1111", steps=STEPS)
    known = {"1": make(FIRST, "grey"), "2": make(SECOND, "grey")}
    options = {"skip_prk_steps": True} if scheduler == "PNDMScheduler" else {}
    with swapped(pipe, scheduler, **options):
        seen, _ = calls_of(pipe, out, guidance_scale=guidance)
    assert "".join(texts_of(seen, known, guidance > 1)) == SCHEDULERS[scheduler]


def test_pndm_with_its_runge_kutta_steps(pipes: Callable[[str], Any]) -> None:
    pipe = pipes("sd15")
    make = Conditioner.from_pipeline(pipe)
    out = make("a [fox:bird:3] in snow", dialect="a1111", steps=6)
    known = {"1": make(FIRST), "2": make(SECOND)}
    with swapped(pipe, "PNDMScheduler", skip_prk_steps=False):
        seen, _ = calls_of(pipe, out, steps=6)
    assert "".join(texts_of(seen, known, True)) == "1" * 12 + "222"


@pytest.mark.parametrize("guidance", [1.0, 5.0])
@pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl", "sd3", "sd3-no-t5"])
def test_states_and_pooled_vectors_of_both_sides(family: str, guidance: float, pipes: Callable[[str], Any]) -> None:
    pipe = pipes(family)
    make = Conditioner.from_pipeline(pipe)
    out = make(["a [red|blue] fox", "a bird"], "[soft:grey:1] light", dialect="a1111", steps=STEPS)
    texts = [
        ("a red fox", "soft light"),
        ("a blue fox", "grey light"),
        ("a red fox", "grey light"),
        ("a blue fox", "grey light"),
    ]
    known = {f"{text} / {other}": make([text, "a bird"], other) for text, other in texts}
    seen, _ = calls_of(pipe, out, guidance_scale=guidance)
    if guidance > 1:
        assert texts_of(seen, known, True) == [f"{text} / {other}" for text, other in texts]
    else:
        firsts = {text: make([text, "a bird"], "soft light") for text in ("a red fox", "a blue fox")}
        assert texts_of(seen, firsts, False) == [text for text, _ in texts]
    assert out.prompts == ("a [red|blue] fox", "a bird")
    assert out.negative_prompts == ("[soft:grey:1] light",) * 2


def test_flux_changes_its_states_and_keeps_the_first_pooled_vector(pipes: Callable[[str], Any]) -> None:
    pipe = pipes("flux")
    make = Conditioner.from_pipeline(pipe)
    out = make(SWITCH, dialect="a1111", steps=STEPS)
    first, second = make(FIRST), make(SECOND)
    seen, _ = calls_of(pipe, out)
    assert [close(each["states"], first.prompt_embeds) for each in seen] == [True, True, False, False]
    assert [close(each["states"], second.prompt_embeds) for each in seen] == [False, False, True, True]
    assert all(close(each["pooled"], first.pooled_prompt_embeds) for each in seen)
    assert [found.code for found in out.findings] == ["schedule-pooled"]
    with pytest.raises(ConfigError, match="FluxPipeline does not take negative_prompt_embeds back from a callback"):
        make("a fox", SWITCH, dialect="a1111", steps=STEPS)


def test_the_picture_is_the_one_made_by_hand(pipes: Callable[[str], Any]) -> None:
    pipe = pipes("sdxl")
    make = Conditioner.from_pipeline(pipe)
    out = make(SWITCH, "grey", dialect="a1111", steps=STEPS)
    _, ours = calls_of(pipe, out)
    first, second = make(FIRST, "grey"), make(SECOND, "grey")

    def by_hand(pipeline: Any, step: int, time: Any, state: dict[str, Any]) -> dict[str, Any]:
        if step == 1:
            state["prompt_embeds"] = torch.cat([second.negative_prompt_embeds, second.prompt_embeds])
            state["add_text_embeds"] = torch.cat([second.negative_pooled_prompt_embeds, second.pooled_prompt_embeds])
        return state

    theirs = pipe(
        **first.kwargs, num_inference_steps=STEPS, generator=torch.Generator().manual_seed(3), output_type="np",
        height=16, width=16, callback_on_step_end=by_hand,
        callback_on_step_end_tensor_inputs=["prompt_embeds", "add_text_embeds"],
    ).images  # fmt: skip
    assert np.array_equal(ours, theirs)
    _, again = calls_of(pipe, out)  # the callback can be used again
    assert np.array_equal(ours, again)
    _, plain = calls_of(pipe, first)
    assert not np.allclose(ours, plain, atol=1e-4)


@pytest.mark.parametrize("through", ["conditioner", "pipeline"])
def test_several_pictures_of_a_prompt(through: str, pipes: Callable[[str], Any]) -> None:
    pipe = pipes("sdxl")
    make = Conditioner.from_pipeline(pipe)
    options = {"num_images_per_prompt": 2}
    here, there = (options, {}) if through == "conditioner" else ({}, options)
    out = make([SWITCH, "a bird"], dialect="a1111", steps=STEPS, **here)
    known = {"1": make([FIRST, "a bird"], **options), "2": make([SECOND, "a bird"], **options)}
    seen, picture = calls_of(pipe, out, **there)
    assert len(picture) == 4
    assert "".join(texts_of(seen, known, True)) == "1122"


def test_texts_of_different_lengths_are_made_equal(pipes: Callable[[str], Any]) -> None:
    pipe = pipes("sd15")
    make = Conditioner.from_pipeline(pipe)
    out = make(f"[{LONG}:a fox:2]", "grey", dialect="a1111", steps=STEPS)
    seen, _ = calls_of(pipe, out)
    assert {each["states"].shape[1] for each in seen} == {154}
    short = make("a fox", "grey")
    assert close(seen[-1]["states"][1], short.prompt_embeds[0].repeat(2, 1))


def test_all_texts_are_encoded_in_one_pass(pipes: Callable[[str], Any]) -> None:
    pipe, batches = pipes("sd15"), []
    handle = pipe.text_encoder.register_forward_pre_hook(
        lambda module, args, kwargs: batches.append((args[0] if args else kwargs["input_ids"]).shape), with_kwargs=True
    )
    try:
        Conditioner.from_pipeline(pipe)(["[a|b|c] fox", "a bird"], "[x:y:2]", dialect="a1111", steps=6)
    finally:
        handle.remove()
    assert [shape[0] for shape in batches] == [6]


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "HeunDiscreteScheduler"])
def test_image_to_image_counts_the_steps_that_it_runs(scheduler: str, pipes: Callable[[str], Any]) -> None:
    pipe = diffusers.StableDiffusionImg2ImgPipeline(**pipes("sd15").components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    make = Conditioner.from_pipeline(pipe)
    options = {"image": torch.zeros(1, 3, 16, 16), "strength": 0.5, "height": None, "width": None}
    options = {key: value for key, value in options.items() if value is not None}
    known = {"1": make(FIRST), "2": make(SECOND)}

    def run(out: Conditioning) -> list[dict[str, Any]]:
        seen: list[dict[str, Any]] = []
        handle = pipe.unet.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append({"states": kwargs["encoder_hidden_states"], "pooled": None}),
            with_kwargs=True,
        )
        try:
            pipe(
                **out.kwargs, **options, num_inference_steps=8, callback_on_step_end=out.callback, output_type="latent"
            )
        finally:
            handle.remove()
        return seen

    with swapped(pipe, scheduler):
        seen = run(make(SWITCH, dialect="a1111", steps=4))
        assert "".join(texts_of(seen, known, True)) == SCHEDULERS[scheduler]
        with pytest.raises(ConfigError, match="was made for 8 steps, and the pipeline runs 4; say steps=4"):
            run(make(SWITCH, dialect="a1111", steps=8))


def test_beside_other_callbacks(pipes: Callable[[str], Any]) -> None:
    class Counting(PipelineCallback):
        tensor_inputs: list[str] = ["latents"]  # noqa: RUF012
        seen = 0

        def callback_fn(self, pipeline: Any, step: int, time: Any, state: dict[str, Any]) -> dict[str, Any]:
            Counting.seen += 1
            return state

    pipe = pipes("sd15")
    out = Conditioner.from_pipeline(pipe)(SWITCH, dialect="a1111", steps=STEPS)
    _, alone = calls_of(pipe, out)
    both = pipe(
        **out.kwargs, num_inference_steps=STEPS, generator=torch.Generator().manual_seed(3), output_type="np",
        callback_on_step_end=MultiPipelineCallbacks([Counting(), out.callback]),
    ).images  # fmt: skip
    assert Counting.seen == STEPS
    assert np.array_equal(alone, both)


def test_findings_stand_in_the_user_s_own_string(pipes: Callable[[str], Any]) -> None:
    prompt = "[a:b:2] (fox:1.2.3)"
    out = Conditioner.from_pipeline(pipes("sd15"))(prompt, dialect="a1111", steps=STEPS)
    places = {found.code: prompt[found.start : found.end] for found in out.findings}
    assert places["bad-weight"] == ":1.2.3"
    assert all(found.argument == "prompt" and found.index == 0 for found in out.findings)


def test_what_is_not_scheduled_has_no_callback(pipes: Callable[[str], Any]) -> None:
    make = Conditioner.from_pipeline(pipes("sd15"))
    assert make("a [fox]", dialect="a1111", steps=STEPS).callback is None
    plain = make(SWITCH, steps=STEPS)  # brackets are text there
    assert plain.callback is None
    assert plain.callback_on_step_end_tensor_inputs == ["latents"]


def test_a_schedule_needs_its_steps(pipes: Callable[[str], Any]) -> None:
    make = Conditioner.from_pipeline(pipes("sd15"))
    with pytest.raises(ConfigError, match=r"the prompt 'a \[fox:bird:.5\] in snow' changes over the steps; say steps="):
        make(SWITCH, dialect="a1111")
    with pytest.raises(ConfigError, match=r"changes over the steps; say steps="):
        make("a", SWITCH, dialect="a1111")
    with pytest.raises(ConfigError, match="a pass of 0 steps cannot be scheduled"):
        make(SWITCH, dialect="a1111", steps=0)


def test_a_pipeline_without_the_callback_says_so(pipes: Callable[[str], Any]) -> None:
    class Bare(diffusers.StableDiffusionPipeline):
        def __call__(self, prompt_embeds: Any = None, negative_prompt_embeds: Any = None) -> None: ...

    pipe = Bare(**pipes("sd15").components, requires_safety_checker=False)
    with pytest.raises(ConfigError, match="Bare takes no callback_on_step_end"):
        Conditioner.from_pipeline(pipe)(SWITCH, dialect="a1111", steps=STEPS)


def test_the_steps_of_calls() -> None:
    class Second:
        order = 2

    assert [step_of_call(call, Second()) for call in range(7)] == [1, 1, 2, 2, 3, 3, 4]
    assert [step_of_call(call, object()) for call in range(3)] == [1, 2, 3]


def test_equal_texts_are_one_variant() -> None:
    times = timeline(Sides(("[a|b]",), ("c",)), 5)
    assert times.prompts == (("a", "c"), ("b", "c"))
    assert [times.variant(step) for step in range(1, 8)] == [0, 1, 0, 1, 0, 0, 0]


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_beside_a_controlnet(family: str, pipes: Callable[[str], Any]) -> None:
    parts = pipes(family).components
    net = diffusers.ControlNetModel.from_unet(parts["unet"], conditioning_embedding_out_channels=(8, 8))
    if family == "sdxl":
        pipe = diffusers.StableDiffusionXLControlNetPipeline(**parts, controlnet=net, add_watermarker=False)
    else:
        pipe = diffusers.StableDiffusionControlNetPipeline(**parts, controlnet=net, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    make = Conditioner.from_pipeline(pipe)
    out = make(SWITCH, "[soft:grey:1] light", dialect="a1111", steps=STEPS)
    texts = [(FIRST, "soft light"), (FIRST, "grey light"), (SECOND, "grey light"), (SECOND, "grey light")]
    known = {f"{text} / {other}": make(text, other) for text, other in texts}
    seen, _ = calls_of(pipe, out, image=torch.zeros(1, 3, 16, 16))
    assert texts_of(seen, known, True) == [f"{text} / {other}" for text, other in texts]


@pytest.mark.parametrize("guidance", [1.0, 5.0])
@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_perturbed_attention_guidance_has_the_prompt_twice(
    family: str, guidance: float, pipes: Callable[[str], Any]
) -> None:
    parts = pipes(family).components
    if family == "sdxl":
        pipe = diffusers.StableDiffusionXLPAGPipeline(**parts, add_watermarker=False, pag_applied_layers="mid")
    else:
        pipe = diffusers.StableDiffusionPAGPipeline(**parts, requires_safety_checker=False, pag_applied_layers="mid")
    pipe.set_progress_bar_config(disable=True)
    make = Conditioner.from_pipeline(pipe)
    out = make([SWITCH, "snow", "light"], "grey", dialect="a1111", steps=STEPS)
    seen, _ = calls_of(pipe, out, guidance_scale=guidance)
    for number, each in enumerate(seen):
        text = make([FIRST if number < STEPS // 2 else SECOND, "snow", "light"], "grey")
        sides = [text.negative_prompt_embeds] * (guidance > 1) + [text.prompt_embeds] * 2
        assert close(each["states"], torch.cat([side for side in sides if side is not None]))
        pooled = [text.negative_pooled_prompt_embeds] * (guidance > 1) + [text.pooled_prompt_embeds] * 2
        assert family == "sd15" or close(each["pooled"], torch.cat([side for side in pooled if side is not None]))


def test_instruct_pix2pix_has_the_prompt_first(pipes: Callable[[str], Any]) -> None:
    parts = dict(pipes("sd15").components)
    with torch.random.fork_rng(devices=[]):
        parts["unet"] = type(parts["unet"]).from_config(parts["unet"].config, in_channels=8).eval()
    pipe = diffusers.StableDiffusionInstructPix2PixPipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    make = Conditioner.from_pipeline(pipe)
    out = make(SWITCH, "grey", dialect="a1111", steps=STEPS)
    seen: list[torch.Tensor] = []
    handle = pipe.unet.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["encoder_hidden_states"]), with_kwargs=True
    )
    pipe(
        **out.kwargs, image=torch.zeros(1, 3, 16, 16), num_inference_steps=STEPS, output_type="latent",
        callback_on_step_end=out.callback,
    )  # fmt: skip
    handle.remove()
    texts = [make(FIRST, "grey")] * 2 + [make(SECOND, "grey")] * 2
    for states, text in zip(seen, texts, strict=True):
        negative = text.negative_prompt_embeds
        assert negative is not None
        assert close(states, torch.cat([text.prompt_embeds, negative, negative]))


def test_rows_that_do_not_fit_are_named(pipes: Callable[[str], Any]) -> None:
    callback = Conditioner.from_pipeline(pipes("sd15"))([SWITCH, "a"], dialect="a1111", steps=STEPS).callback
    assert callback is not None
    with pytest.raises(ConfigError, match="the pipeline has 3 rows of prompt_embeds, expected 2 or a multiple"):
        callback.callback_fn(SimpleNamespace(scheduler=None), 2, 0, {"prompt_embeds": torch.zeros(3, 77, 32)})


EXACT_CALL = (
    r"the callback is not given prompt_embeds; call pipe\(\*\*out\.kwargs, callback_on_step_end=out\.callback, "
    r"callback_on_step_end_tensor_inputs=out\.callback_on_step_end_tensor_inputs\)"
)


def test_flux_without_the_argument_names_the_exact_call(pipes: Callable[[str], Any]) -> None:
    pipe = pipes("flux")
    out = Conditioner.from_pipeline(pipe)(SWITCH, dialect="a1111", steps=STEPS)
    how = {"num_inference_steps": STEPS, "height": 16, "width": 16, "output_type": "np"}
    with pytest.raises(ConfigError, match=EXACT_CALL):
        pipe(**out.kwargs, callback_on_step_end=out.callback, **how)
    inputs = out.callback_on_step_end_tensor_inputs
    pipe(**out.kwargs, callback_on_step_end=out.callback, callback_on_step_end_tensor_inputs=inputs, **how)


def test_a_function_around_it_must_ask_for_its_tensors(pipes: Callable[[str], Any]) -> None:
    pipe = pipes("sd15")
    out = Conditioner.from_pipeline(pipe)(SWITCH, dialect="a1111", steps=STEPS)
    _, alone = calls_of(pipe, out)

    def own(*state: Any) -> Any:
        assert out.callback is not None
        return out.callback(*state)

    def draw(**more: Any) -> Any:
        generator = torch.Generator().manual_seed(3)
        how = {"num_inference_steps": STEPS, "generator": generator, "output_type": "np"}
        return pipe(**out.kwargs, **how, callback_on_step_end=own, **more).images

    with pytest.raises(ConfigError, match=EXACT_CALL):
        draw()
    inputs = out.callback_on_step_end_tensor_inputs
    assert np.array_equal(alone, draw(callback_on_step_end_tensor_inputs=inputs))
