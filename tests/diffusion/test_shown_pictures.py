"""Language models that read the picture with the prompt: tiny HunyuanVideo-I2V and Kandinsky 5 I2I."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_pipelines.tokenizers import word_tokenizer

from clipcond.diffusion.conditioner import Conditioner
from clipcond.diffusion.conditioning import Conditioning
from clipcond.errors import ConfigError
from clipcond.prompt.families import FAMILIES

from .conftest import clip, seeded, vae
from .test_conditioner_language import LONG, SHORT, video_vae

NAMES = {
    "hunyuan-video-i2v": ("prompt_embeds", "pooled_prompt_embeds", "prompt_attention_mask"),
    "kandinsky5-i2i": ("prompt_embeds_qwen", "prompt_embeds_clip", "prompt_cu_seqlens"),
}


def close(a: torch.Tensor, b: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


def picture(seed: int, size: tuple[int, int] = (56, 112)) -> Any:
    noise = torch.randint(0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(noise.to(torch.uint8).numpy())


@pytest.fixture(scope="module")
def hunyuan(clip_tokenizers: tuple[Any, Any]) -> Any:
    """Llava that sees 24 by 24 patches, as the pipeline counts them."""
    import diffusers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    chat = FAMILIES["hunyuan-video-i2v"]["llama"].chat
    assert chat is not None
    tokenizer = word_tokenizer(chat.before, chat.after, LONG, "a blurry grey photo of a bird")
    text = LlamaConfig(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=3,
                       num_attention_heads=2, pad_token_id=0)  # fmt: skip
    vision = CLIPVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
                              image_size=48, patch_size=2, projection_dim=16)  # fmt: skip

    def make() -> Any:
        config = LlavaConfig(
            vision_config=vision,
            text_config=text,
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
            pad_token_id=0,
        )
        return diffusers.HunyuanVideoImageToVideoPipeline(
            text_encoder=LlavaForConditionalGeneration(config),
            tokenizer=tokenizer,
            text_encoder_2=clip(24, projection=False),
            tokenizer_2=clip_tokenizers[0],
            transformer=diffusers.HunyuanVideoTransformer3DModel(
                in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=10, num_layers=1,
                num_single_layers=1, num_refiner_layers=1, patch_size=1, patch_size_t=1, text_embed_dim=16,
                pooled_projection_dim=24, rope_axes_dim=(2, 4, 4), image_condition_type="latent_concat",
            ),
            vae=video_vae(),
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
            image_processor=CLIPImageProcessor(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}),
        )  # fmt: skip

    return seeded(make)


@pytest.fixture(scope="module")
def kandinsky(clip_tokenizers: tuple[Any, Any]) -> Any:
    import diffusers
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    chat = FAMILIES["kandinsky5-i2i"]["qwen"].chat
    assert chat is not None
    words = word_tokenizer(chat.before, chat.after, LONG, "a blurry grey photo of a bird <|video_pad|>")
    ids = {name: words.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "video_pad", "vision_start")}
    text = {"vocab_size": len(words), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}}  # fmt: skip
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}

    def make() -> Any:
        config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, image_token_id=ids["image_pad"],
                                  video_token_id=ids["video_pad"], vision_start_token_id=ids["vision_start"])  # fmt: skip
        made = diffusers.Kandinsky5I2IPipeline(
            text_encoder=Qwen2_5_VLForConditionalGeneration(config),
            tokenizer=Qwen2_5_VLProcessor(
                image_processor=Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=10**6), tokenizer=words,
                video_processor=Qwen2VLVideoProcessor(),
            ),
            text_encoder_2=clip(24, projection=False),
            tokenizer_2=clip_tokenizers[0],
            transformer=diffusers.Kandinsky5Transformer3DModel(
                in_visual_dim=4, in_text_dim=16, in_text_dim2=24, time_dim=16, out_visual_dim=4, model_dim=16, ff_dim=16,
                num_text_blocks=1, num_visual_blocks=1, axes_dims=(2, 2, 4), attention_type="regular", visual_cond=True,
            ),
            vae=vae(),
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        )  # fmt: skip
        made.resolutions = [(32, 32)]
        return made

    return seeded(make)


@pytest.fixture(params=NAMES)
def pipe(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param.partition("-")[0].partition("5")[0])


def stock(pipe: Any, prompts: list[str], pictures: list[Any], **more: Any) -> Iterator[tuple[str, torch.Tensor]]:
    names = next(each for family, each in NAMES.items() if family.startswith(type(pipe).__name__[:7].lower()))
    with torch.no_grad():
        yield from zip(names, pipe.encode_prompt(prompt=prompts, image=pictures, **more), strict=True)


def test_both_sides_equal_the_pipelines_own_encoding(pipe: Any, tmp_path: Any) -> None:
    """HunyuanVideo-I2V shows a black picture to the negative prompt, Kandinsky the same one."""
    prompts, pictures = [SHORT, "a bird"], [picture(1), picture(2)]
    out = Conditioner.from_pipeline(pipe)(prompts, "blurry", image=pictures)
    black = [Image.new("RGB", (64, 32))] * 2 if "Hunyuan" in type(pipe).__name__ else pictures
    theirs = dict(stock(pipe, prompts, pictures))
    theirs |= {f"negative_{name}": each for name, each in stock(pipe, ["blurry", "blurry"], black)}
    assert out.kwargs.keys() == theirs.keys()
    for name, tensor in theirs.items():
        close(out.kwargs[name], tensor)
    assert out.findings == ()
    other = Conditioner.from_pipeline(pipe)(prompts, "blurry", image=pictures[::-1])
    assert (other.prompt_embeds - out.prompt_embeds).abs().max() > 1e-3  # the picture is read
    out.save(tmp_path / "fox.safetensors")
    loaded = Conditioning.load(tmp_path / "fox.safetensors", pipe)
    assert all(loaded.kwargs[name].equal(each) for name, each in out.kwargs.items())


def test_one_picture_for_all_and_several_films_of_each(pipe: Any) -> None:
    conditioner, shown = Conditioner.from_pipeline(pipe), picture(1)
    one = conditioner([SHORT, "a bird"], image=shown).kwargs
    two = conditioner([SHORT, "a bird"], image=[shown, shown], num_images_per_prompt=2).kwargs
    for name, tensor in one.items():
        if name == "prompt_cu_seqlens":
            assert two[name].diff().equal(tensor.diff().repeat_interleave(2))
        else:
            close(two[name], tensor.repeat_interleave(2, dim=0))


def test_a_long_weighted_prompt_is_cut_where_hunyuan_video_stops_reading(hunyuan: Any) -> None:
    """Its own cut, of one prompt at a time, leaves 4 positions of the maximum to the end of the chat."""
    conditioner, shown = Conditioner.from_pipeline(hunyuan), picture(1)
    tokenizer, encoder = conditioner.pipeline.language_tokenizer, FAMILIES["hunyuan-video-i2v"]["llama"]
    assert tokenizer is not None
    assert encoder.chat is not None
    front = tokenizer.rows("a", encoder.chat)[0][0]
    words = ["red", "fox", "snow"] * 60
    read = 64 - 4 - front  # words with max_sequence_length=64
    for count in (read, read + 1, read + 30):
        prompt = " ".join(words[:count])
        out = conditioner([prompt, SHORT], image=shown, max_sequence_length=64)
        (theirs, *_), _, (mask, *_) = (each for _, each in stock(hunyuan, [prompt], [shown], max_sequence_length=64))
        close(out.prompt_embeds[0], theirs)
        assert out.prompt_attention_mask[0].equal(mask)
        codes = [each.code for each in out.findings]
        assert codes == ([] if count == read else ["cut-by-encoder"])
        if count > read:
            assert out.findings[0].start == len(" ".join(words[:read])) + 1
    marked = conditioner("a (red fox:1.4)", image=shown, dialect="a1111")
    close(marked.prompt_embeds, conditioner("a red fox", image=shown).prompt_embeds)
    assert [each.code for each in marked.findings] == ["weights-unused"]


def test_a_long_prompt_leaves_kandinsky_its_picture(kandinsky: Any) -> None:
    """A picture of 112 by 224 is read at half its size, in 2 by 4 positions; its chat ends with 3 more."""
    conditioner, shown = Conditioner.from_pipeline(kandinsky), picture(1, (112, 224))
    tokenizer, encoder = conditioner.pipeline.language_tokenizer, FAMILIES["kandinsky5-i2i"]["qwen"]
    assert tokenizer is not None
    assert encoder.chat is not None
    front = tokenizer.rows("a", encoder.chat)[0][0]
    read = 64 - 3 - 8 - front
    words = ["red", "fox", "snow"] * 60
    whole = dict(stock(kandinsky, [" ".join(words[:read])], [shown], max_sequence_length=64))
    for count in (read, read + 1, read + 30):
        prompt = " ".join(words[:count])
        out = conditioner(prompt, image=shown, max_sequence_length=64)
        close(out.kwargs["prompt_embeds_qwen"], whole["prompt_embeds_qwen"])
        assert out.kwargs["prompt_embeds_qwen"].shape[1] == 64
        assert [each.code for each in out.findings] == ([] if count == read else ["cut-by-encoder"])
    with pytest.raises(ConfigError, match="the picture takes 8 of the 5 positions of Kandinsky5I2IPipeline"):
        conditioner(SHORT, image=shown, max_sequence_length=8)


def test_both_draw_from_long_weighted_prompts(hunyuan: Any, kandinsky: Any) -> None:
    shown = picture(1)
    out = Conditioner.from_pipeline(hunyuan)(f"{LONG} (bird:1.3)", "blurry", image=shown, dialect="a1111")
    frames = hunyuan(
        image=shown, **out.kwargs, height=16, width=16, num_frames=5, num_inference_steps=2, true_cfg_scale=2.0,
        output_type="latent",
    ).frames  # fmt: skip
    assert bool(torch.isfinite(frames).all())
    out = Conditioner.from_pipeline(kandinsky)(f"{LONG} (bird:1.3)", "blurry", image=shown, dialect="a1111")
    latents = torch.randn(1, 1, 4, 4, 9, generator=torch.Generator().manual_seed(3))
    made = kandinsky(
        image=shown, **out.kwargs, height=32, width=32, num_inference_steps=2, latents=latents, output_type="latent"
    ).image
    assert bool(torch.isfinite(made).all())


def test_what_is_wrong_with_a_picture_is_said(pipe: Any, pipes: Any) -> None:
    conditioner, name = Conditioner.from_pipeline(pipe), type(pipe).__name__
    for image, said in (
        (None, f"the language model of {name} reads the picture with the prompt; give it as image="),
        ("fox.png", "image is or holds a str, expected a picture of Pillow"),
        ([picture(1)] * 3, "3 pictures for 2 prompts; give one for all or one for each"),
    ):
        with pytest.raises(ConfigError, match=said):
            conditioner([SHORT, "a bird"], image=image)
    with pytest.raises(
        ConfigError, match="no text encoder of StableDiffusionPipeline reads it; give it to the pipeline"
    ):
        Conditioner.from_pipeline(pipes("sd15"))(SHORT, image=picture(1))
