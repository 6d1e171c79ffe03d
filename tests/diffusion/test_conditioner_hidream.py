"""HiDream-I1, tiny: pooled vectors of CLIP towers of more than 77 positions, T5's states, and those of all layers of Llama."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_pipelines.stage_parts import long_clip
from tiny_pipelines.tokenizers import word_tokenizer

from clipcond.diffusion.conditioner import Conditioner
from clipcond.diffusion.conditioning import Conditioning
from clipcond.diffusion.explain.explain import explain_prompt
from clipcond.diffusion.generate import generate
from clipcond.diffusion.pipeline_shapes import repeated_rows
from clipcond.errors import ConfigError, ModelError
from clipcond.prompt.operations import Gain, Lerp, Vary

from .conftest import seeded, t5, vae

SHORT = "a red fox in the snow"
MIDDLE = "a red fox in the snow " * 16  # 96 content tokens of CLIP: one chunk here, two of 75
LONG = "a red fox in the snow " * 30  # 180: two chunks here
NAMES = ("prompt_embeds_t5", "negative_prompt_embeds_t5", "prompt_embeds_llama3", "negative_prompt_embeds_llama3",
         "pooled_prompt_embeds", "negative_pooled_prompt_embeds")  # fmt: skip


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def llama_tokenizer() -> Any:
    """Words behind a BOS, as Llama's tokenizer has it; its EOS is for the pipeline to pad with."""
    from tokenizers import processors

    tokenizer = word_tokenizer("<|begin_of_text|><|eot_id|>", LONG, "a blurry grey photo of a bird")
    tokenizer.eos_token = "<|eot_id|>"
    begin = ("<|begin_of_text|>", tokenizer.convert_tokens_to_ids("<|begin_of_text|>"))
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin[0]} $A", special_tokens=[begin]
    )
    return tokenizer


@pytest.fixture(scope="module")
def hidream(clip_tokenizers: tuple[Any, Any], t5_tokenizer: Any) -> Any:
    import diffusers
    from transformers import LlamaConfig, LlamaForCausalLM

    words = llama_tokenizer()

    def make() -> Any:
        pipe = diffusers.HiDreamImagePipeline(
            text_encoder=long_clip(24, 248),
            tokenizer=clip_tokenizers[0],
            text_encoder_2=long_clip(40, 218),
            tokenizer_2=clip_tokenizers[1],
            text_encoder_3=t5(32, max(t5_tokenizer.get_vocab().values()) + 1),
            tokenizer_3=t5_tokenizer,
            text_encoder_4=LlamaForCausalLM(
                LlamaConfig(vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=3,
                            num_attention_heads=2, attn_implementation="eager")
            ),
            tokenizer_4=words,
            transformer=diffusers.HiDreamImageTransformer2DModel(
                patch_size=2, in_channels=4, out_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=8,
                num_attention_heads=2, caption_channels=[32, 16], text_emb_dim=64, axes_dims_rope=(4, 2, 2),
                max_resolution=(8, 8), llama_layers=(0, 2), force_inference_output=True,
            ),
            vae=vae(),
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        )  # fmt: skip
        pipe.default_sample_size = 8
        return pipe

    return seeded(make)


@torch.no_grad()
def stock(pipe: Any, prompt: Any, negative: Any = None, count: int = 1, **more: Any) -> dict[str, torch.Tensor]:
    found = pipe.encode_prompt(prompt, negative_prompt=negative, num_images_per_prompt=count, **more)
    return dict(zip(NAMES, found, strict=True))


def test_hidream_equals_its_own_encoding(hidream: Any) -> None:
    conditioner = Conditioner.from_pipeline(hidream)
    out = conditioner([SHORT, MIDDLE], "blurry", num_images_per_prompt=2)
    theirs = stock(hidream, [SHORT, MIDDLE], ["blurry", "blurry"], 2)
    assert out.kwargs.keys() == theirs.keys()
    for name, tensor in theirs.items():
        close(out.kwargs[name], tensor)
    assert out.kwargs["prompt_embeds_llama3"].shape == (3, 4, 128, 16)
    assert out.findings == ()
    assert [len(each.chunks) for each in out.plans[1].encoders.values()] == [1, 1, 1, 1]  # Llama among them
    for name, tensor in stock(hidream, SHORT).items():  # no negative prompt is the empty one
        close(conditioner(SHORT).kwargs[name], tensor)


def test_each_encoder_reads_a_text_of_its_own(hidream: Any) -> None:
    own: Any = {"prompt_2": "a bird", "prompt_3": "a grey photo", "prompt_4": "a photo of a bird"}
    out = Conditioner.from_pipeline(hidream)(SHORT, "blurry", **own)
    for name, tensor in stock(hidream, SHORT, "blurry", **own).items():
        close(out.kwargs[name], tensor)
    minus: Any = {f"negative_{name}": text for name, text in own.items()}
    out = Conditioner.from_pipeline(hidream)(SHORT, **minus)
    for name, tensor in stock(hidream, SHORT, "", **minus).items():
        close(out.kwargs[name], tensor)


@pytest.mark.parametrize("length", [64, 200, 300])
def test_rows_follow_max_sequence_length_as_far_as_the_towers_go(hidream: Any, length: int) -> None:
    out = Conditioner.from_pipeline(hidream)(SHORT, "blurry", max_sequence_length=length)
    for name, tensor in stock(hidream, SHORT, "blurry", max_sequence_length=length).items():
        close(out.kwargs[name], tensor)
    limits = [each.limit for each in out.plans[0].encoders.values()]
    assert limits == [min(length, 218) - 2, min(length, 218) - 2, length - 1, length]


def test_a_prompt_beyond_the_limit_is_whole_but_for_llama(hidream: Any) -> None:
    conditioner = Conditioner.from_pipeline(hidream)
    out = conditioner([LONG, SHORT], "blurry")
    theirs = stock(hidream, [LONG, SHORT], ["blurry"] * 2)
    close(out.kwargs["pooled_prompt_embeds"], theirs["pooled_prompt_embeds"])  # of the first chunk
    close(out.kwargs["prompt_embeds_llama3"], theirs["prompt_embeds_llama3"])
    assert out.kwargs["prompt_embeds_t5"].shape[1] == 181  # with its EOS
    assert out.kwargs["negative_prompt_embeds_t5"].shape[1] == 181
    whole = stock(hidream, LONG, max_sequence_length=181)
    close(out.kwargs["prompt_embeds_t5"][:1], whole["prompt_embeds_t5"])
    (found,) = out.findings
    assert (found.code, found.index) == ("cut-by-encoder", 0)
    assert LONG[found.start : found.end].split() == LONG.split()[127:]  # BOS and 127 words
    assert "llama reads 128 tokens, and loses the last 53" in found.message
    mean = conditioner(LONG, pooled="mean").pooled_prompt_embeds
    assert mean is not None
    assert (mean - out.pooled_prompt_embeds[:1]).abs().max() > 0.01  # type: ignore[index]


def test_weights_act_in_t5_alone(hidream: Any) -> None:
    conditioner = Conditioner.from_pipeline(hidream)
    plain, weighted = conditioner(SHORT), conditioner("a (red fox:1.4) in the snow", dialect="a1111")
    assert (weighted.prompt_embeds - plain.prompt_embeds).abs().max() > 0.01
    for name in ("pooled_prompt_embeds", "prompt_embeds_llama3"):
        close(weighted.kwargs[name], plain.kwargs[name])
    (found,) = weighted.findings
    assert (found.code, found.start, found.end) == ("weights-unused", 3, 10)
    assert found.message == "these weights change nothing in llama, which reads the words alone"


def test_hidream_draws_and_its_conditioning_is_saved(hidream: Any, tmp_path: Any) -> None:
    how: Any = {"num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "latent"}
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    conditioner = Conditioner.from_pipeline(hidream)
    out = conditioner(SHORT, "blurry")
    image = hidream(**out.kwargs, latents=latents, **how).images
    close(image, hidream(SHORT, negative_prompt="blurry", latents=latents, **how).images)
    out = conditioner([LONG, SHORT], "a blurry grey photo of a bird")
    assert bool(torch.isfinite(hidream(**out.kwargs, latents=latents.repeat(2, 1, 1, 1), **how).images).all())
    out.save(tmp_path / "fox.safetensors")
    loaded = Conditioning.load(tmp_path / "fox.safetensors", hidream)
    assert loaded.kwargs.keys() == out.kwargs.keys()
    assert all(loaded.kwargs[name].equal(each) for name, each in out.kwargs.items())


def test_pictures_do_not_depend_on_their_batch(hidream: Any) -> None:
    how: Any = {"negative_prompt": "blurry", "count": 2, "steps": 2, "guidance_scale": 3.0}
    together, alone = (list(generate(hidream, SHORT, **how, batch_size=size)) for size in (2, 1))
    for a, b in zip(together, alone, strict=True):
        assert np.abs(np.asarray(a.image, dtype=int) - np.asarray(b.image)).max() <= 1
    made = Conditioner.from_pipeline(hidream)(SHORT, "blurry")
    given = list(generate(hidream, "", conditioning=made, **{**how, "negative_prompt": ""}, batch_size=1))
    assert [each.image.tobytes() for each in given] == [each.image.tobytes() for each in alone]


def test_ends_of_texts_are_repeated_with_their_rows() -> None:
    ends = torch.tensor([0, 5, 8], dtype=torch.int32)
    assert repeated_rows("negative_prompt_cu_seqlens", ends, 2).tolist() == [0, 5, 10, 13, 16]


def test_the_prompt_may_change_over_the_steps(hidream: Any) -> None:
    conditioner = Conditioner.from_pipeline(hidream)
    texts = [conditioner(f"a {colour} fox", "blurry").kwargs for colour in ("red", "blue")]
    names = ["prompt_embeds_t5", "prompt_embeds_llama3", "pooled_prompt_embeds"]
    seen: list[dict[str, Any]] = []
    hook = hidream.transformer.register_forward_pre_hook(lambda _m, _args, given: seen.append(given), with_kwargs=True)
    out = conditioner("a [red:blue:0.5] fox", "blurry", dialect="a1111", steps=2, num_images_per_prompt=2)
    try:
        hidream(**out.kwargs, callback_on_step_end=out.callback, num_inference_steps=2, guidance_scale=3.0,
                callback_on_step_end_tensor_inputs=out.callback_on_step_end_tensor_inputs, output_type="latent")  # fmt: skip
    finally:
        hook.remove()
    assert out.callback_on_step_end_tensor_inputs == names
    assert out.findings == ()
    for given, text in zip(seen, texts, strict=True):
        both = [text[f"{side}{names[0]}"].repeat_interleave(2, dim=0) for side in ("negative_", "")]
        close(given["encoder_hidden_states_t5"], torch.cat(both))
        both = [text[f"{side}{names[1]}"].repeat_interleave(2, dim=1) for side in ("negative_", "")]
        close(given["encoder_hidden_states_llama3"], torch.cat(both, dim=1))
        both = [text[f"{side}{names[2]}"].repeat_interleave(2, dim=0) for side in ("negative_", "")]
        close(given["pooled_embeds"], torch.cat(both))


def test_operations_reach_all_tensors(hidream: Any) -> None:
    conditioner = Conditioner.from_pipeline(hidream)
    plain, other, empty = (conditioner(text).kwargs for text in (SHORT, "a blue bird", ""))
    half = conditioner(SHORT, operations=[Lerp("a blue bird", 0.5)]).kwargs
    for name in NAMES:
        wanted = plain[name] if name.startswith("negative") else (plain[name] + other[name]) / 2
        close(half[name], wanted)
    two = conditioner([SHORT, SHORT], operations=[Vary(0.1, seed=3)]).kwargs
    noise = two["prompt_embeds_llama3"] - plain["prompt_embeds_llama3"]
    one = conditioner(SHORT, operations=[Vary(0.1, seed=4)]).kwargs["prompt_embeds_llama3"]
    close(two["prompt_embeds_llama3"][:, 1:], one)  # of its seed and its row
    assert noise.abs().max() > 0.01
    loud = conditioner(SHORT, operations=[Gain("llama", 1.5)]).kwargs
    name = "prompt_embeds_llama3"
    close(loud[name], empty[name] + (plain[name] - empty[name]) * 1.5)
    for name in ("prompt_embeds_t5", "pooled_prompt_embeds"):
        close(loud[name], plain[name])


def test_what_hidream_cannot_do_is_said(hidream: Any, pipes: Any) -> None:
    conditioner = Conditioner.from_pipeline(hidream)
    with pytest.raises(
        ConfigError, match="HiDreamImagePipeline has no negative side that AND could be composed against"
    ):
        conditioner.compose("a fox AND a bird")
    parts = {**hidream.components, "text_encoder_4": None}
    without = type("HiDreamImagePipeline", (), {"components": parts, "__call__": type(hidream).__call__})()
    with pytest.raises(ModelError, match="HiDreamImagePipeline has no text_encoder_4, which reads the prompt too"):
        Conditioner.from_pipeline(without)
    with pytest.raises(ModelError, match="the prompts of HiDreamImagePipeline cannot be explained; use a pipeline of"):
        explain_prompt(hidream, SHORT)
    with pytest.raises(ConfigError, match="the encoders of HiDreamImagePipeline are clip_l, clip_g, t5, llama"):
        conditioner(SHORT, operations=[Gain("qwen", 1.5)])
    with pytest.raises(ConfigError, match="max_sequence_length is 2, expected 3 to 512"):
        conditioner(SHORT, max_sequence_length=2)
    with pytest.raises(
        ConfigError, match="prompt_4 is given, but StableDiffusionPipeline has no encoder that reads it"
    ):
        Conditioner.from_pipeline(pipes("sd15"))(SHORT, prompt_4="a bird")
