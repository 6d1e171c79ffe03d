"""Pipelines that ask a language model beside CLIP: HunyuanVideo and Kandinsky 5, tiny, with tokenizers of words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_pipelines.tokenizers import word_tokenizer

from clipcond.diffusion.conditioner import Conditioner
from clipcond.diffusion.conditioning import Conditioning
from clipcond.errors import ConfigError
from clipcond.prompt.families import FAMILIES

from .conftest import clip, seeded, vae

SHORT = "a red fox in the snow"
LONG = "a red fox in the snow, " * 20  # 120 tokens of CLIP: two chunks


def close(a: torch.Tensor, b: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


def video_vae() -> Any:
    import diffusers

    return diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4, up_block_types=("HunyuanVideoUpBlock3D",) * 4,
    )  # fmt: skip


@pytest.fixture(scope="module")
def hunyuan(clip_tokenizers: tuple[Any, Any]) -> Any:
    import diffusers
    from transformers import LlamaConfig, LlamaModel

    chat = FAMILIES["hunyuan-video"]["llama"].chat
    assert chat is not None
    tokenizer = word_tokenizer(chat.before, chat.after, LONG, "a blurry grey photo of a bird")

    def make() -> Any:
        return diffusers.HunyuanVideoPipeline(
            text_encoder=LlamaModel(
                LlamaConfig(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=3,
                            num_attention_heads=2, pad_token_id=0)
            ),
            tokenizer=tokenizer,
            text_encoder_2=clip(24, projection=False),
            tokenizer_2=clip_tokenizers[0],
            transformer=diffusers.HunyuanVideoTransformer3DModel(
                in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=10, num_layers=1,
                num_single_layers=1, num_refiner_layers=1, patch_size=1, patch_size_t=1, text_embed_dim=16,
                pooled_projection_dim=24, rope_axes_dim=(2, 4, 4),
            ),
            vae=video_vae(),
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        )  # fmt: skip

    return seeded(make)


def stock(pipe: Any, prompt: Any, count: int = 1) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        found = pipe.encode_prompt(prompt, num_videos_per_prompt=count)
    return dict(zip(("prompt_embeds", "pooled_prompt_embeds", "prompt_attention_mask"), found, strict=True))


def test_hunyuan_video_equals_its_own_encoding(hunyuan: Any) -> None:
    prompts = [SHORT, "a bird"]
    out = Conditioner.from_pipeline(hunyuan)(prompts, "blurry", num_images_per_prompt=2)
    theirs = stock(hunyuan, prompts, 2)
    theirs |= {f"negative_{name}": tensor for name, tensor in stock(hunyuan, ["blurry", "blurry"], 2).items()}
    assert out.kwargs.keys() == theirs.keys()
    for name, tensor in theirs.items():
        close(out.kwargs[name], tensor)
    assert out.findings == ()


def test_no_negative_prompt_leaves_that_side_to_the_pipeline(hunyuan: Any) -> None:
    out = Conditioner.from_pipeline(hunyuan)(SHORT)
    assert out.kwargs.keys() == stock(hunyuan, SHORT).keys()


def test_a_weighted_prompt_is_plain_words_to_the_language_model_and_pooled_whole(hunyuan: Any) -> None:
    conditioner = Conditioner.from_pipeline(hunyuan)
    out = conditioner(f"(a red fox:1.4) in the snow, {LONG}", dialect="a1111", chunking="hard")
    words = f"a red fox in the snow, {LONG}"
    close(out.prompt_embeds, stock(hunyuan, words)["prompt_embeds"])
    close(out.pooled_prompt_embeds, stock(hunyuan, words)["pooled_prompt_embeds"])  # of the first chunk
    assert (conditioner(words, pooled="mean").pooled_prompt_embeds - out.pooled_prompt_embeds).abs().max() > 0.01
    assert [found.code for found in out.findings] == ["weights-unused"]


def test_what_the_language_model_does_not_read_is_said(hunyuan: Any) -> None:
    prompt = LONG + "the blue bird"
    words = prompt.split()
    positions = [at for at, _ in Conditioner.from_pipeline(hunyuan).pipeline.language_tokenizer.rows(
        prompt, FAMILIES["hunyuan-video"]["llama"].chat)]  # fmt: skip
    keep = positions[-1]  # one less than the prompt needs
    out = Conditioner.from_pipeline(hunyuan)(prompt, max_sequence_length=keep)
    (found,) = out.findings
    assert (found.code, prompt[found.start : found.end]) == ("cut-by-encoder", words[-1])
    ids = hunyuan.tokenizer(FAMILIES["hunyuan-video"]["llama"].chat.before + prompt).input_ids
    assert len(ids) == keep + 1 + FAMILIES["hunyuan-video"]["llama"].chat.crop
    assert Conditioner.from_pipeline(hunyuan)(prompt, max_sequence_length=keep + 1).findings == ()


def test_hunyuan_video_draws_and_its_conditioning_is_saved(hunyuan: Any, tmp_path: Any) -> None:
    out = Conditioner.from_pipeline(hunyuan)([SHORT, LONG], "a blurry grey photo of a bird")
    frames = hunyuan(
        **out.kwargs, height=16, width=16, num_frames=5, num_inference_steps=2, true_cfg_scale=2.0, output_type="latent"
    ).frames
    assert len(frames) == 2
    assert bool(torch.isfinite(frames).all())
    out.save(tmp_path / "fox.safetensors")
    loaded = Conditioning.load(tmp_path / "fox.safetensors", hunyuan)
    assert all(loaded.kwargs[name].equal(each) for name, each in out.kwargs.items())
    with pytest.raises(ConfigError, match="has no negative side that AND could be composed against"):
        Conditioner.from_pipeline(hunyuan).compose("a fox AND a bird")
    with pytest.raises(ConfigError, match="reads a language model: its text cannot change over the steps"):
        Conditioner.from_pipeline(hunyuan)("a [red:blue:0.5] fox", dialect="a1111", steps=4)


@pytest.fixture(scope="module")
def kandinsky(clip_tokenizers: tuple[Any, Any]) -> Callable[[str], Any]:
    import diffusers
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    def get(kind: str) -> Any:
        family = "kandinsky5-video" if "2V" in kind else "kandinsky5"
        chat = FAMILIES[family]["qwen"].chat
        assert chat is not None
        tokenizer = word_tokenizer(chat.before, chat.after, LONG, "a blurry grey photo of a bird")
        text = {"vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
                "num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1,
                "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}}  # fmt: skip
        vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}

        def make() -> Any:
            encoder = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))
            return getattr(diffusers, kind)(
                text_encoder=encoder,
                tokenizer=tokenizer,
                text_encoder_2=clip(24, projection=False),
                tokenizer_2=clip_tokenizers[0],
                transformer=diffusers.Kandinsky5Transformer3DModel(
                    in_visual_dim=4, in_text_dim=16, in_text_dim2=24, time_dim=16, out_visual_dim=4, model_dim=16,
                    ff_dim=16, num_text_blocks=1, num_visual_blocks=1, axes_dims=(2, 2, 4), attention_type="regular",
                ),
                vae=video_vae() if "2V" in kind else vae(),
                scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
            )  # fmt: skip

        return seeded(make)

    return get


@pytest.mark.parametrize("kind", ["Kandinsky5T2IPipeline", "Kandinsky5T2VPipeline"])
def test_kandinsky_5_equals_its_own_encoding(kandinsky: Callable[[str], Any], kind: str, tmp_path: Any) -> None:
    pipe = kandinsky(kind)
    conditioner = Conditioner.from_pipeline(pipe)
    out = conditioner([SHORT, "a bird"], "blurry")
    names = ("prompt_embeds_qwen", "prompt_embeds_clip", "prompt_cu_seqlens")
    with torch.no_grad():
        theirs = dict(zip(names, pipe.encode_prompt([SHORT, "a bird"]), strict=True))
        negative = pipe.encode_prompt(["blurry", "blurry"])
    theirs |= {f"negative_{name}": tensor for name, tensor in zip(names, negative, strict=True)}
    assert out.kwargs.keys() == theirs.keys()
    for name, tensor in theirs.items():
        close(out.kwargs[name], tensor)
    out.save(tmp_path / "fox.safetensors")
    loaded = Conditioning.load(tmp_path / "fox.safetensors", pipe)
    assert all(loaded.kwargs[name].equal(each) for name, each in out.kwargs.items())


def test_each_picture_has_the_vector_of_its_own_prompt(kandinsky: Callable[[str], Any]) -> None:
    """Kandinsky's own encoding gives pictures 2 and 3 one another's (diffusers 0.42)."""
    conditioner = Conditioner.from_pipeline(kandinsky("Kandinsky5T2IPipeline"))
    one, two = conditioner([SHORT, "a bird"]).kwargs, conditioner([SHORT, "a bird"], num_images_per_prompt=2).kwargs
    for name in ("prompt_embeds_qwen", "prompt_embeds_clip"):
        close(two[name], one[name].repeat_interleave(2, dim=0))
    lengths = one["prompt_cu_seqlens"].diff()
    assert lengths[0] == lengths[1] + 4  # six words and two
    assert two["prompt_cu_seqlens"].diff().equal(lengths.repeat_interleave(2))
