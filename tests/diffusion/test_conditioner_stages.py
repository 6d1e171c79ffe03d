"""Pipelines that draw in stages or by tokens: unCLIP, Würstchen and aMUSEd, tiny; and those whose stages read the prompt."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from clipcond.diffusion.conditioner import Conditioner
from clipcond.diffusion.conditioning import Conditioning
from clipcond.diffusion.generate import generate
from clipcond.errors import ConfigError, ModelError

from .conftest import clip, seeded, unet, vae

SHORT = "a red fox in the snow, soft light"
LONG = "a red fox, " * 40  # 160 content tokens: three chunks
pytestmark = pytest.mark.filterwarnings("ignore:.*:FutureWarning")  # of deprecated classes


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def unclip(clip_tokenizers: tuple[Any, Any]) -> Any:
    import diffusers
    from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel

    def upscaler() -> Any:
        return diffusers.UNet2DModel(
            sample_size=8, layers_per_block=1, in_channels=6, out_channels=3, block_out_channels=(8, 8), norm_num_groups=4,
            down_block_types=("ResnetDownsampleBlock2D",) * 2, up_block_types=("ResnetUpsampleBlock2D",) * 2,
        )  # fmt: skip

    def scheduler(variance: str, prediction: str) -> Any:
        return diffusers.UnCLIPScheduler(variance_type=variance, prediction_type=prediction)

    def make() -> Any:
        return diffusers.UnCLIPPipeline(
            prior=diffusers.PriorTransformer(num_attention_heads=2, attention_head_dim=8, num_layers=1, embedding_dim=32),
            decoder=diffusers.UNet2DConditionModel(
                sample_size=8, in_channels=3, out_channels=6, layers_per_block=1, block_out_channels=(16, 16),
                down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
                up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
                mid_block_type="UNetMidBlock2DSimpleCrossAttn", cross_attention_dim=16, attention_head_dim=4,
                resnet_time_scale_shift="scale_shift", class_embed_type="identity", norm_num_groups=4,
            ),
            text_encoder=clip(32, projection=True),
            tokenizer=clip_tokenizers[0],
            text_proj=UnCLIPTextProjModel(clip_embeddings_dim=32, time_embed_dim=64, cross_attention_dim=16),
            super_res_first=upscaler(),
            super_res_last=upscaler(),
            prior_scheduler=scheduler("fixed_small_log", "sample"),
            decoder_scheduler=scheduler("learned_range", "epsilon"),
            super_res_scheduler=scheduler("fixed_small_log", "epsilon"),
        )  # fmt: skip

    return seeded(make)


def unclip_stock(pipe: Any, prompt: Any) -> tuple[torch.Tensor, ...]:
    """Pooled vectors, states, and the mask of the text."""
    with torch.no_grad():
        return pipe._encode_prompt(prompt, "cpu", 1, False)  # type: ignore[no-any-return]


def test_unclip_equals_its_own_encoding(unclip: Any) -> None:
    out = Conditioner.from_pipeline(unclip)(["", SHORT, "fox " * 75], num_images_per_prompt=2)
    assert out.kwargs.keys() == {"text_model_output", "text_attention_mask"}
    pooled, states, mask = (each.repeat_interleave(2, dim=0) for each in unclip_stock(unclip, ["", SHORT, "fox " * 75]))
    ours = out.kwargs["text_model_output"]
    close(ours[0], pooled)
    close(ours[1], states)
    assert out.kwargs["text_attention_mask"].equal(mask)
    assert mask.sum(dim=1).tolist() == [2, 2, 11, 11, 77, 77]
    assert out.findings == ()


def test_unclip_draws_the_picture_of_its_prompt(unclip: Any, tmp_path: Any) -> None:
    out = Conditioner.from_pipeline(unclip)(SHORT)
    how: Any = {"output_type": "np", "prior_num_inference_steps": 2, "decoder_num_inference_steps": 2,
                "super_res_num_inference_steps": 2}  # fmt: skip
    drawn = [
        torch.from_numpy(unclip(**text, **how, generator=torch.Generator().manual_seed(0)).images)
        for text in (out.kwargs, {"prompt": SHORT})
    ]
    close(*drawn)
    out.save(tmp_path / "fox.safetensors")
    for pipe in (None, unclip):
        loaded = Conditioning.load(tmp_path / "fox.safetensors", pipe).kwargs
        assert loaded["text_attention_mask"].equal(out.kwargs["text_attention_mask"])
        assert all(
            a.equal(b) for a, b in zip(loaded["text_model_output"], out.kwargs["text_model_output"], strict=True)
        )


def test_the_end_of_a_prompt_that_unclip_has_no_place_for_is_said(unclip: Any) -> None:
    conditioner = Conditioner.from_pipeline(unclip)
    out = conditioner([LONG, SHORT])
    close(out.prompt_embeds, unclip_stock(unclip, [LONG, SHORT])[1])
    (found,) = out.findings
    assert (found.code, found.index) == ("cut-by-encoder", 0)
    assert "UnCLIPPipeline has places for 75 tokens, and the last 85 are lost" in found.message
    assert LONG[found.start : found.end] == ", a red fox" * 21 + ","  # of 40: the chunk ends in one
    mean = conditioner([LONG, SHORT], pooled="mean")
    assert (mean.kwargs["text_model_output"][0] - out.kwargs["text_model_output"][0])[0].abs().max() > 0.01
    parts = conditioner(f'("{LONG}", "a bird").blend(0.5, 0.5)', dialect="compel", chunking="hard")
    assert parts.kwargs["text_attention_mask"].sum() == 77
    assert [each.code for each in parts.findings] == ["cut-by-encoder"]


def test_what_unclip_cannot_do_is_said(unclip: Any) -> None:
    conditioner = Conditioner.from_pipeline(unclip)
    assert [found.code for found in conditioner(SHORT, "blurry").findings] == ["negative-unused"]
    assert conditioner("a (red:1.4) fox", dialect="a1111", weighting="no_norm").findings == ()
    with pytest.raises(
        ModelError, match="the call of UnCLIPPipeline takes no num_inference_steps; in Python give it a"
    ):
        generate(unclip, SHORT)
    with pytest.raises(ConfigError, match="UnCLIPPipeline has no negative side that AND could be composed against"):
        conditioner.compose("a fox AND a bird")
    with pytest.raises(ConfigError, match="takes no callback_on_step_end, so that its prompt cannot change"):
        conditioner("a [red:blue:0.5] fox", dialect="a1111", steps=4)


@pytest.fixture(scope="module")
def wuerstchen(clip_tokenizers: tuple[Any, Any]) -> Any:
    import diffusers
    from diffusers.pipelines.deprecated.wuerstchen import WuerstchenPrior

    return seeded(
        lambda: diffusers.WuerstchenPriorPipeline(
            tokenizer=clip_tokenizers[0],
            text_encoder=clip(32, projection=False, act="gelu"),
            prior=WuerstchenPrior(c_in=2, c=8, depth=1, c_cond=32, c_r=8, nhead=2),
            scheduler=diffusers.DDPMWuerstchenScheduler(),
        )
    )


def test_wuerstchen_equals_its_own_encoding_and_draws(wuerstchen: Any) -> None:
    conditioner = Conditioner.from_pipeline(wuerstchen)
    out = conditioner([SHORT, "a bird"], "blurry", num_images_per_prompt=2)
    with torch.no_grad():
        theirs = wuerstchen.encode_prompt("cpu", 2, True, [SHORT, "a bird"], ["blurry"] * 2)
    assert out.kwargs.keys() == {"prompt_embeds", "negative_prompt_embeds"}
    close(out.kwargs["prompt_embeds"], theirs[0])
    close(out.kwargs["negative_prompt_embeds"], theirs[1])
    out = conditioner(LONG + "(blue:1.3)", "blurry", dialect="a1111")
    assert out.prompt_embeds.shape == (1, 3 * 77, 32)
    made = wuerstchen(**out.kwargs, height=64, width=64, num_inference_steps=2, output_type="pt").image_embeddings
    assert bool(torch.isfinite(made).all())


@pytest.fixture(scope="module")
def amused(clip_tokenizers: tuple[Any, Any]) -> Any:
    import diffusers

    return seeded(
        lambda: diffusers.AmusedPipeline(
            vqvae=diffusers.VQModel(
                act_fn="silu", block_out_channels=[8], down_block_types=["DownEncoderBlock2D"], latent_channels=8,
                norm_num_groups=8, num_vq_embeddings=8, up_block_types=["UpDecoderBlock2D"],
            ),
            tokenizer=clip_tokenizers[0],
            text_encoder=clip(32, projection=True),
            transformer=diffusers.UVit2DModel(
                hidden_size=8, use_bias=False, hidden_dropout=0.0, cond_embed_dim=32, micro_cond_encode_dim=2,
                micro_cond_embed_dim=10, encoder_hidden_size=32, vocab_size=32, codebook_size=8, in_channels=8,
                block_out_channels=8, num_res_blocks=1, downsample=True, upsample=True, block_num_heads=1,
                num_hidden_layers=1, num_attention_heads=1, attention_dropout=0.0, intermediate_size=8, layer_norm_eps=1e-06,
                ln_elementwise_affine=True, sample_size=8,
            ),
            scheduler=diffusers.AmusedScheduler(mask_token_id=31),
        )
    )  # fmt: skip


def test_amused_reads_what_it_would_encode_itself(amused: Any) -> None:
    """Its call encodes for itself: what its denoiser is given tells."""
    given: list[dict[str, torch.Tensor]] = []
    hook = amused.transformer.register_forward_pre_hook(
        lambda _module, _args, more: given.append(more), with_kwargs=True
    )
    how: Any = {"num_inference_steps": 1, "output_type": "latent"}
    out = Conditioner.from_pipeline(amused)([SHORT, "a bird"], "blurry")
    try:
        amused([SHORT, "a bird"], negative_prompt=["blurry"] * 2, **how)
        amused(**out.kwargs, **how)
        amused(**Conditioner.from_pipeline(amused)([LONG, SHORT], "blurry").kwargs, **how)
    finally:
        hook.remove()
    theirs, ours, long = given
    for name in ("pooled_text_emb", "encoder_hidden_states"):
        close(ours[name], theirs[name])
    assert long["encoder_hidden_states"].shape == (4, 3 * 77, 32)
    assert out.kwargs.keys() == {
        "prompt_embeds", "encoder_hidden_states", "negative_prompt_embeds", "negative_encoder_hidden_states",
    }  # fmt: skip


STAGES = {  # class: the line that refuses it
    "StableUnCLIPPipeline": "takes prompt_embeds in place of the prompt, which its prior then lacks",
    "KandinskyPriorPipeline": "takes no prompt_embeds",
    "KandinskyV22PriorPipeline": "takes no prompt_embeds",
    "KandinskyV22PriorEmb2EmbPipeline": "takes no prompt_embeds",
    "KandinskyV22CombinedPipeline": "takes no prompt_embeds",
    "UnCLIPImageVariationPipeline": "takes no prompt_embeds",
    "WuerstchenDecoderPipeline": "takes no prompt_embeds",
    "VersatileDiffusionTextToImagePipeline": "takes no prompt_embeds",
}


@pytest.mark.parametrize("kind", STAGES)
def test_a_class_that_reads_the_prompt_itself_is_named_with_what_it_lacks(kind: str) -> None:
    import inspect

    import diffusers

    real = getattr(diffusers, kind)
    parts = [name for name in inspect.signature(real.__init__).parameters if name != "self"]
    made = type(kind, (), {"components": dict.fromkeys(parts, object()), "__call__": real.__call__})()
    with pytest.raises(ModelError, match=f"{kind} {STAGES[kind]}"):
        Conditioner.from_pipeline(made)


def test_a_decoder_that_reads_the_prompt_itself_is_named(wuerstchen: Any) -> None:
    import diffusers

    parts = {"prior_prior": wuerstchen.prior, "prior_text_encoder": wuerstchen.text_encoder, "text_encoder": object()}
    made = type("Combined", (), {"components": parts, "__call__": diffusers.WuerstchenCombinedPipeline.__call__})()
    with pytest.raises(ModelError, match="the decoder of Combined reads the prompt itself; condition its prior_pipe"):
        Conditioner.from_pipeline(made)


def test_stable_unclip_varies_a_picture_under_its_text(clip_tokenizers: tuple[Any, Any]) -> None:
    import diffusers
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    tiny = {"hidden_size": 16, "intermediate_size": 16, "projection_dim": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "image_size": 8, "patch_size": 4}  # fmt: skip
    pipe = seeded(
        lambda: diffusers.StableUnCLIPImg2ImgPipeline(
            feature_extractor=None,
            image_encoder=CLIPVisionModelWithProjection(CLIPVisionConfig(**tiny)),
            image_normalizer=StableUnCLIPImageNormalizer(embedding_dim=16),
            image_noising_scheduler=diffusers.DDPMScheduler(),
            tokenizer=clip_tokenizers[1],
            text_encoder=clip(32, projection=False, act="gelu"),
            unet=unet(32, class_embed_type="projection", projection_class_embeddings_input_dim=32),
            scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
            vae=vae(),
        )
    )
    conditioner = Conditioner.from_pipeline(pipe)
    assert conditioner.family == "sd2"
    image = torch.randn(1, 16, generator=torch.Generator().manual_seed(1))
    how: Any = {"image_embeds": image, "num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "latent"}
    drawn = [
        pipe(**text, **how, generator=torch.Generator().manual_seed(0)).images
        for text in (conditioner(SHORT, "blurry").kwargs, {"prompt": SHORT, "negative_prompt": "blurry"})
    ]
    close(*drawn)
    long = pipe(**conditioner(LONG, "blurry").kwargs, **how).images
    assert bool(torch.isfinite(long).all())
