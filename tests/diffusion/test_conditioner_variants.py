"""Variants of the pipelines, offloading, dtypes: exactly the arguments that a call takes, where `encode_prompt` works."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

from clipcond.diffusion.conditioner import Conditioner
from clipcond.diffusion.pipeline_view import PipelineView
from clipcond.encode.tower import TextStates
from clipcond.errors import ConfigError, ModelError

Pipes = Callable[[str], Any]
SHORT = "a red fox in the snow, soft light"
SD = ["prompt_embeds", "negative_prompt_embeds"]
FOUR = [*SD, "pooled_prompt_embeds", "negative_pooled_prompt_embeds"]


def close(a: torch.Tensor, b: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


VARIANTS = {
    "StableDiffusionImg2ImgPipeline": ("sd15", SD),
    "StableDiffusionInpaintPipeline": ("sd15", SD),
    "StableDiffusionControlNetPipeline": ("sd15", SD),
    "StableDiffusionAdapterPipeline": ("sd15", SD),
    "LatentConsistencyModelPipeline": ("sd15", SD[:1]),
    "StableDiffusionXLPipeline": ("sdxl", FOUR),
    "StableDiffusionXLImg2ImgPipeline": ("sdxl", FOUR),
    "StableDiffusionXLInpaintPipeline": ("sdxl", FOUR),
    "StableDiffusionXLControlNetPipeline": ("sdxl", FOUR),
    "StableDiffusionXLAdapterPipeline": ("sdxl", FOUR),
    "StableDiffusion3Pipeline": ("sd3", FOUR),
    "StableDiffusion3Img2ImgPipeline": ("sd3", FOUR),
    "StableDiffusion3InpaintPipeline": ("sd3", FOUR),
    "StableDiffusion3ControlNetPipeline": ("sd3", FOUR),
    "FluxPipeline": ("flux", FOUR),
    "FluxImg2ImgPipeline": ("flux", FOUR),
    "FluxInpaintPipeline": ("flux", FOUR),
    "FluxControlNetPipeline": ("flux", FOUR),
    "FluxKontextPipeline": ("flux", FOUR),
    "FluxFillPipeline": ("flux", [FOUR[0], FOUR[2]]),
    "FluxControlPipeline": ("flux", [FOUR[0], FOUR[2]]),
}


def variant(pipes: Pipes, name: str) -> Any:
    """A pipeline of a class around the parts of its family; what the class needs besides, prompts do without."""
    import diffusers

    family, _ = VARIANTS[name]
    parts = pipes(family).components
    kind = getattr(diffusers, name)
    wanted = inspect.signature(kind.__init__).parameters
    more: dict[str, Any] = {"requires_safety_checker": False, "add_watermarker": False}
    if "controlnet" in wanted:
        more["controlnet"] = torch.nn.Identity()
        more["controlnet"].config = more["controlnet"].extra_conditioning_channels = None
    if "adapter" in wanted:
        more["adapter"] = torch.nn.Identity()
    given = {key: part for key, part in {**parts, **more}.items() if key in wanted}
    return kind(**given)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_arguments_are_those_of_the_call(pipes: Pipes, name: str) -> None:
    family, names = VARIANTS[name]
    pipe = variant(pipes, name)
    out = Conditioner.from_pipeline(pipe)(SHORT, "blurry")
    assert sorted(out.kwargs) == sorted(names)
    reference = Conditioner.from_pipeline(pipes(family))(SHORT, "blurry").kwargs
    for key, tensor in out.kwargs.items():
        close(tensor, reference[key])
    found = {(each.code, each.argument) for each in out.findings}
    assert found == (set() if SD[1] in names else {("negative-unused", "negative_prompt")})


def test_img2img_takes_what_it_is_given(pipes: Pipes) -> None:
    image = torch.zeros(1, 3, 16, 16)
    for name in ("StableDiffusionImg2ImgPipeline", "StableDiffusionXLImg2ImgPipeline", "FluxImg2ImgPipeline"):
        pipe = variant(pipes, name)
        pipe.set_progress_bar_config(disable=True)
        out = Conditioner.from_pipeline(pipe)("a fox, " * 40, "blurry")
        size = {"height": 16, "width": 16} if name.startswith("Flux") else {}
        made = pipe(**out.kwargs, **size, image=image, strength=0.5, num_inference_steps=4, output_type="np").images
        assert made.shape == (1, 16, 16, 3)


def test_the_refiner_takes_what_it_is_given(pipes: Pipes) -> None:
    pipe = pipes("refiner")
    out = Conditioner.from_pipeline(pipe)("a fox, " * 40, "blurry")
    image = torch.zeros(1, 3, 16, 16)
    made = pipe(**out.kwargs, image=image, strength=0.5, num_inference_steps=4, output_type="np").images
    assert made.shape == (1, 16, 16, 3)
    with pytest.raises(ConfigError, match="prompt_2 is given, but StableDiffusionXLImg2ImgPipeline has no encoder"):
        Conditioner.from_pipeline(pipe)("a fox", prompt_2="a bird")


def test_an_empty_list_for_another_encoder_is_no_text(pipes: Pipes) -> None:
    conditioner = Conditioner.from_pipeline(pipes("sdxl"))
    close(conditioner(SHORT, prompt_2="").prompt_embeds, conditioner(SHORT).prompt_embeds)
    with pytest.raises(ConfigError, match="0 texts of prompt_2 for 2 prompts; give one for all or one for each"):
        conditioner([SHORT, SHORT], prompt_2=[])


def test_flux_may_guide_with_a_negative_side(pipes: Pipes) -> None:
    pipe = pipes("flux")
    out = Conditioner.from_pipeline(pipe)("a fox", "fox " * 80, max_sequence_length=64)
    assert out.negative_prompt_embeds is not None
    assert out.prompt_embeds.shape == out.negative_prompt_embeds.shape == (1, 81, 96)
    close(out.prompt_embeds[:, :64], Conditioner.from_pipeline(pipe)("a fox", max_sequence_length=64).prompt_embeds)
    made = pipe(**out.kwargs, true_cfg_scale=2.0, height=16, width=16, num_inference_steps=2, output_type="np").images
    assert made.shape == (1, 16, 16, 3)
    assert "negative_prompt_embeds" not in Conditioner.from_pipeline(pipe)("a fox").kwargs


def test_no_negative_prompt_is_zeros_where_sdxls_config_says_so(fresh: Pipes) -> None:
    pipe = fresh("sdxl")
    conditioner = Conditioner.from_pipeline(pipe)
    zeros = conditioner([SHORT, "fox " * 80])
    assert (zeros.negative_prompt_embeds == 0).all()  # type: ignore[union-attr]
    assert (zeros.negative_pooled_prompt_embeds == 0).all()  # type: ignore[union-attr]
    empty = conditioner(SHORT, "")
    assert (empty.negative_prompt_embeds != 0).any()  # type: ignore[union-attr]
    named = conditioner(SHORT, negative_prompt_2="blurry")  # a text is never lost
    close(named.negative_prompt_embeds[..., 24:], conditioner(SHORT, "blurry").negative_prompt_embeds[..., 24:])  # type: ignore[index]
    pipe.register_to_config(force_zeros_for_empty_prompt=False)
    close(conditioner(SHORT).negative_prompt_embeds, empty.negative_prompt_embeds)  # type: ignore[arg-type]


# where weights are


@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3", "flux"])
@pytest.mark.parametrize("way", ["meta", "group"])
def test_offloaded_encoders(fresh: Pipes, pipes: Pipes, family: str, way: str) -> None:
    pipe = fresh(family)
    for name in ("text_encoder", "text_encoder_2", "text_encoder_3"):
        if (module := getattr(pipe, name, None)) is None:
            continue
        if way == "meta":
            from accelerate import cpu_offload

            cpu_offload(module, torch.device("cpu"), offload_buffers=True)
            assert {weight.device.type for weight in module.parameters()} == {"meta"}
        else:
            from diffusers.hooks import apply_group_offloading

            apply_group_offloading(module, onload_device=torch.device("cpu"), offload_type="leaf_level")
    options = {} if family == "flux" else {"clip_skip": 1}
    ours = Conditioner.from_pipeline(pipe)([SHORT, "fox " * 80], "blurry", **options)
    theirs = Conditioner.from_pipeline(pipes(family))([SHORT, "fox " * 80], "blurry", **options)
    for name, tensor in theirs.kwargs.items():
        assert ours.kwargs[name].device.type == "cpu"
        close(ours.kwargs[name], tensor)


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
def test_encoders_of_different_dtypes(fresh: Pipes, family: str) -> None:
    pipe = fresh(family)
    pipe.text_encoder_2.to(torch.bfloat16)
    out = Conditioner.from_pipeline(pipe)(SHORT, "blurry").kwargs
    with torch.no_grad():
        theirs = pipe.encode_prompt(SHORT, *([None, None] if family == "sd3" else []))
    assert out["prompt_embeds"].dtype == theirs[0].dtype
    assert out["pooled_prompt_embeds"].dtype == theirs[1 if family == "flux" else 2].dtype
    close(out["prompt_embeds"], theirs[0], 2e-2)


def test_encoders_on_different_devices(fresh: Pipes, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, meta = fresh("sd3"), torch.device("meta")
    conditioner = Conditioner.from_pipeline(pipe)
    monkeypatch.setattr(PipelineView, "device", property(lambda _: meta))
    tower = conditioner.pipeline.encoders["clip_l"].tower
    encode = tower.encode_rows

    def elsewhere(*rows: Any, **options: Any) -> TextStates:  # meta stands for a GPU
        out = encode(*rows, **options)
        return TextStates(**{name: getattr(out, name).to(meta) for name in ("hidden", "pooled", "projected")})

    monkeypatch.setattr(tower, "encode_rows", elsewhere)
    for weighting in ("none", "no_norm", "comfy", "compel", "comfy_pp"):
        out = conditioner("a (red:1.2) fox in the (snow:0.5)", "blurry", dialect="a1111", weighting=weighting)
        assert {tensor.device for tensor in out.tensors.values()} == {meta}


# what is lacking


@pytest.mark.parametrize(
    ("family", "part"),
    [
        ("sdxl", "text_encoder_2"),
        ("sdxl", "tokenizer"),
        ("sd3", "text_encoder"),
        ("flux", "text_encoder_2"),
        ("flux", "tokenizer"),
    ],
)
def test_a_missing_part_is_named(fresh: Pipes, family: str, part: str) -> None:
    pipe = fresh(family)
    setattr(pipe, part, None)
    with pytest.raises(ModelError, match=rf"^{type(pipe).__name__} has no {part}; supported are"):
        Conditioner.from_pipeline(pipe)


def test_a_base_model_without_its_first_encoder_is_no_refiner(fresh: Pipes) -> None:
    pipe = fresh("sdxl")
    pipe.text_encoder = pipe.tokenizer = None
    with pytest.raises(ModelError, match=r"its U-Net reads states of width 64 where text_encoder_2 gives 40; load it"):
        Conditioner.from_pipeline(pipe)


def test_encoders_of_other_kinds_are_named(fresh: Pipes) -> None:
    pipe = fresh("flux")
    pipe.text_encoder_2 = pipe.text_encoder
    with pytest.raises(ModelError, match="FluxPipeline has a text encoder of class CLIPTextModel as text_encoder_2"):
        Conditioner.from_pipeline(pipe)
    pipe = fresh("flux")
    pipe.tokenizer_2 = pipe.tokenizer
    with pytest.raises(
        ModelError, match="FluxPipeline has a tokenizer_2 that is not T5's: the pipeline's tokenizer is"
    ):
        Conditioner.from_pipeline(pipe)

    class Slow: ...

    pipe.tokenizer_2 = Slow()
    with pytest.raises(ModelError, match="FluxPipeline has a slow tokenizer_2 of class Slow; load the fast one"):
        Conditioner.from_pipeline(pipe)


def test_a_pooled_vector_that_is_not_there_is_named(fresh: Pipes) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    pipe = fresh("sdxl")
    tiny = {"hidden_size": 40, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    pipe.text_encoder_2 = CLIPTextModel(CLIPTextConfig(**tiny))
    with pytest.raises(ModelError, match="gives no projected vector"):
        Conditioner.from_pipeline(pipe)(SHORT)


def test_what_is_no_pipeline_and_no_cache_is_named(pipes: Pipes) -> None:
    with pytest.raises(ModelError, match=r"'mini' is the name of a pipeline; load it first: clipcond.load_pipeline\("):
        Conditioner.from_pipeline("mini")
    with pytest.raises(ConfigError, match=r"expected a clipcond\.Cache"):
        Conditioner.from_pipeline(pipes("sd15"), cache="states")  # type: ignore[arg-type]


def test_no_clip_skip_is_none_of_it(pipes: Pipes) -> None:
    conditioner = Conditioner.from_pipeline(pipes("sd15"))
    assert conditioner(SHORT, clip_skip=None).prompt_embeds.equal(conditioner(SHORT).prompt_embeds)
