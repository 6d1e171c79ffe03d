"""The parts of tiny pipelines that draw in stages, by tokens, or with four text encoders: unCLIP, Würstchen, aMUSEd, HiDream."""

from __future__ import annotations

from typing import Any

from tiny_pipelines.tokenizers import T5_WORDS, word_tokenizer

# HiDream


def long_clip(width: int, positions: int) -> Any:
    """A CLIP text model of a width and so many positions."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    return CLIPTextModelWithProjection(
        CLIPTextConfig(hidden_size=width, intermediate_size=width, num_hidden_layers=2, num_attention_heads=2,
                       projection_dim=width, max_position_embeddings=positions, eos_token_id=2)
    )  # fmt: skip


def llama_tokenizer() -> Any:
    """Words behind a BOS, as Llama's tokenizer has it."""
    from tokenizers import processors

    tokenizer = word_tokenizer("<|begin_of_text|><|eot_id|>", " , ".join(T5_WORDS))
    tokenizer.eos_token = "<|eot_id|>"
    begin = ("<|begin_of_text|>", tokenizer.convert_tokens_to_ids("<|begin_of_text|>"))
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin[0]} $A", special_tokens=[begin]
    )
    return tokenizer


def llama_for_all_layers() -> Any:
    """A Llama of width 16 for `llama_tokenizer`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(vocab_size=len(llama_tokenizer()), hidden_size=16, intermediate_size=16, num_hidden_layers=3,
                    num_attention_heads=2, attn_implementation="eager")
    )  # fmt: skip


def hidream_transformer() -> Any:
    """The transformer of HiDream, for states of 96 and 16 and pooled vectors of 64."""
    from diffusers import HiDreamImageTransformer2DModel

    return HiDreamImageTransformer2DModel(
        patch_size=2, in_channels=4, out_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=8,
        num_attention_heads=2, caption_channels=[96, 16], text_emb_dim=64, axes_dims_rope=(4, 2, 2),
        max_resolution=(8, 8), llama_layers=(0, 2), force_inference_output=True,
    )  # fmt: skip


# unCLIP


def unclip_prior() -> Any:
    """The prior of unCLIP."""
    from diffusers import PriorTransformer

    return PriorTransformer(num_attention_heads=2, attention_head_dim=8, num_layers=1, embedding_dim=32)


def unclip_decoder() -> Any:
    """The decoder of unCLIP."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8, in_channels=3, out_channels=6, layers_per_block=1, block_out_channels=(16, 16),
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", cross_attention_dim=16, attention_head_dim=4,
        resnet_time_scale_shift="scale_shift", class_embed_type="identity", norm_num_groups=4,
    )  # fmt: skip


def unclip_text() -> Any:
    """What unCLIP's decoder reads of text."""
    from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel

    return UnCLIPTextProjModel(clip_embeddings_dim=32, time_embed_dim=64, cross_attention_dim=16)


def unclip_upscaler() -> Any:
    """A stage of unCLIP's that enlarges."""
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=8, layers_per_block=1, in_channels=6, out_channels=3, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("ResnetDownsampleBlock2D",) * 2, up_block_types=("ResnetUpsampleBlock2D",) * 2,
    )  # fmt: skip


# Würstchen and aMUSEd


def wuerstchen_prior() -> Any:
    """The prior of Würstchen."""
    from diffusers.pipelines.deprecated.wuerstchen import WuerstchenPrior

    return WuerstchenPrior(c_in=2, c=8, depth=1, c_cond=32, c_r=8, nhead=2)


def amused_tokens() -> Any:
    """The autoencoder of aMUSEd."""
    from diffusers import VQModel

    return VQModel(
        act_fn="silu", block_out_channels=[8, 8], down_block_types=["DownEncoderBlock2D"] * 2, latent_channels=8,
        norm_num_groups=8, num_vq_embeddings=8, up_block_types=["UpDecoderBlock2D"] * 2,
        lookup_from_codebook=True,
    )  # fmt: skip


def amused_transformer() -> Any:
    """The transformer of aMUSEd."""
    from diffusers import UVit2DModel

    return UVit2DModel(
        hidden_size=8, use_bias=False, hidden_dropout=0.0, cond_embed_dim=32, micro_cond_encode_dim=2,
        micro_cond_embed_dim=10, encoder_hidden_size=32, vocab_size=32, codebook_size=8, in_channels=8,
        block_out_channels=8, num_res_blocks=1, downsample=True, upsample=True, block_num_heads=1,
        num_hidden_layers=1, num_attention_heads=1, attention_dropout=0.0, intermediate_size=8, layer_norm_eps=1e-06,
        ln_elementwise_affine=True, sample_size=8,
    )  # fmt: skip
