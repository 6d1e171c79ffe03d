"""The parts of tiny pipelines, one function for each kind: text encoders, denoisers, autoencoders, adapters."""

from __future__ import annotations

from typing import Any

from tiny_pipelines.tokenizers import clip_tokenizer

# text encoders


def clip(width: int, *, projection: bool, act: str = "quick_gelu") -> Any:
    """A CLIP text model of a width, with eos_token_id 2 as the published configs have it."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=4,
        projection_dim=width,
        hidden_act=act,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def t5(width: int, vocabulary: int) -> Any:
    """A T5 encoder of a width."""
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(vocab_size=vocabulary, d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
                 feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    )  # fmt: skip


def llama(vocabulary: int) -> Any:
    """A Llama of width 16."""
    from transformers import LlamaConfig, LlamaModel

    return LlamaModel(
        LlamaConfig(vocab_size=vocabulary, hidden_size=16, intermediate_size=16, num_hidden_layers=3,
                    num_attention_heads=2, pad_token_id=0)
    )  # fmt: skip


def qwen(vocabulary: int) -> Any:
    """A Qwen 2.5 VL of width 16."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = {"vocab_size": vocabulary, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}}  # fmt: skip
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))


# image encoders


def clip_vision(width: int) -> Any:
    """A CLIP image encoder of a projected width, for pictures of 32."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                         image_size=32, patch_size=16, projection_dim=width)
    )  # fmt: skip


def clip_pictures(size: int = 32) -> Any:
    """The processor of `clip_vision`."""
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


def siglip_vision() -> Any:
    """A SigLIP image encoder for pictures of 32."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    return SiglipVisionModel(
        SiglipVisionConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                           image_size=32, patch_size=16)
    )  # fmt: skip


def siglip_pictures() -> Any:
    """The processor of `siglip_vision`."""
    from transformers import SiglipImageProcessor

    return SiglipImageProcessor(size={"height": 32, "width": 32})


def depth() -> Any:
    """A depth estimator for pictures of 32."""
    from transformers import DPTConfig, DPTForDepthEstimation

    return DPTForDepthEstimation(
        DPTConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=32,
                  patch_size=16, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8],
                  fusion_hidden_size=8, is_hybrid=False)
    )  # fmt: skip


def depth_pictures() -> Any:
    """The processor of `depth`."""
    from transformers import DPTImageProcessor

    return DPTImageProcessor(size={"height": 32, "width": 32})


# U-Nets and what stands beside them


def unet(cross: int, **more: Any) -> Any:
    """A U-Net that reads states of a width."""
    from diffusers import UNet2DConditionModel

    blocks: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (16, 16),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
    }
    return UNet2DConditionModel(
        **{**blocks, **more},
        cross_attention_dim=cross,
        attention_head_dim=8,
        norm_num_groups=8,
    )


def xl_ids(ids: int = 6) -> dict[str, Any]:
    """What SDXL's denoiser reads beside its states: the pooled vector of 40 and so many numbers."""
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 8 * ids + 40,
    }


def unet_3d() -> Any:
    """The U-Net of the first video pipelines."""
    from diffusers import UNet3DConditionModel

    return UNet3DConditionModel(
        sample_size=8, block_out_channels=(16, 16), down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"), layers_per_block=1, cross_attention_dim=32,
        attention_head_dim=4, norm_num_groups=8,
    )  # fmt: skip


def unet_i2vgen() -> Any:
    """The U-Net of I2VGen-XL."""
    from diffusers.models.unets.unet_i2vgen_xl import I2VGenXLUNet

    return I2VGenXLUNet(
        sample_size=8, block_out_channels=(16, 16), down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"), layers_per_block=1, cross_attention_dim=32,
        attention_head_dim=4, norm_num_groups=8,
    )  # fmt: skip


def controlnet(cross: int, kind: str = "ControlNetModel", **more: Any) -> Any:
    """A ControlNet beside `unet`."""
    import diffusers

    return getattr(diffusers, kind)(
        block_out_channels=(16, 16), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), layers_per_block=1,
        cross_attention_dim=cross, attention_head_dim=8, norm_num_groups=8, conditioning_embedding_out_channels=(8, 16),
        **more,
    )  # fmt: skip


UNION = {"num_control_type": 2, "num_trans_channel": 16, "num_trans_head": 2, "num_proj_channel": 16}


def controlnet_xs(cross: int, **more: Any) -> Any:
    """A ControlNet-XS adapter beside `unet`."""
    from diffusers import ControlNetXSAdapter

    return ControlNetXSAdapter(
        block_out_channels=(8, 8), base_block_out_channels=(16, 16), conditioning_embedding_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), sample_size=8, cross_attention_dim=cross,
        num_attention_heads=2, max_norm_num_groups=4, learn_time_embedding=True, **more,
    )  # fmt: skip


def sparse_controlnet() -> Any:
    """AnimateDiff's sparse ControlNet."""
    from diffusers import SparseControlNetModel

    return SparseControlNetModel(
        block_out_channels=(16, 16), down_block_types=("DownBlockMotion", "CrossAttnDownBlockMotion"), layers_per_block=1,
        cross_attention_dim=32, attention_head_dim=8, norm_num_groups=8, motion_num_attention_heads=2,
        conditioning_embedding_out_channels=(8, 16), concat_conditioning_mask=True, use_simplified_condition_embedding=True,
        conditioning_channels=4,
    )  # fmt: skip


def motion_adapter(**more: Any) -> Any:
    """AnimateDiff's motion modules beside `unet`."""
    from diffusers import MotionAdapter

    return MotionAdapter(
        block_out_channels=(16, 16), motion_layers_per_block=1, motion_mid_block_layers_per_block=1,
        motion_norm_num_groups=4, motion_num_attention_heads=2, **more,
    )  # fmt: skip


def t2i_adapter() -> Any:
    """A T2I adapter beside `unet`."""
    from diffusers import T2IAdapter

    return T2IAdapter(in_channels=3, channels=[16, 16], num_res_blocks=1, downscale_factor=2)


def gligen_projection() -> Any:
    """GLIGEN's way from image embeddings to the denoiser."""
    from diffusers.pipelines.stable_diffusion import CLIPImageProjection

    return CLIPImageProjection(hidden_size=32)


def gligen_processor() -> Any:
    """GLIGEN's processor of phrases and pictures."""
    from transformers import CLIPProcessor

    return CLIPProcessor(clip_pictures(), clip_tokenizer())


def unclip_normalizer(width: int) -> Any:
    """The mean and spread of image embeddings."""
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer

    return StableUnCLIPImageNormalizer(embedding_dim=width)


# transformers


def sd3_transformer(**more: Any) -> Any:
    """The transformer of Stable Diffusion 3, for states of 96 and pooled vectors of 64."""
    from diffusers import SD3Transformer2DModel

    given: dict[str, Any] = {"num_layers": 1, "in_channels": 4, "out_channels": 4}
    return SD3Transformer2DModel(
        sample_size=8, patch_size=2, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=96,
        caption_projection_dim=16, pooled_projection_dim=64, pos_embed_max_size=16, **{**given, **more},
    )  # fmt: skip


def sd3_controlnet(**more: Any) -> Any:
    """A ControlNet beside `sd3_transformer`."""
    from diffusers import SD3ControlNetModel

    return SD3ControlNetModel(
        sample_size=8, patch_size=2, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=96, caption_projection_dim=16, pooled_projection_dim=64, out_channels=4,
        pos_embed_max_size=16, **more,
    )  # fmt: skip


def flux_transformer(channels: int = 16, out: int = 16) -> Any:
    """The transformer of Flux, for states of 96 and pooled vectors of 24."""
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(
        patch_size=1, in_channels=channels, out_channels=out, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=96, pooled_projection_dim=24, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip


def flux_controlnet() -> Any:
    """A ControlNet beside `flux_transformer`."""
    from diffusers import FluxControlNetModel

    return FluxControlNetModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=96, pooled_projection_dim=24, axes_dims_rope=[4, 4, 8],
    )  # fmt: skip


def redux_embedder() -> Any:
    """Redux's way from image encoder to states of 96."""
    from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder

    return ReduxImageEncoder(redux_dim=32, txt_in_features=96)


def cascade_unet(**more: Any) -> Any:
    """A denoiser of Stable Cascade for states of 32."""
    from diffusers.models import StableCascadeUNet

    return StableCascadeUNet(
        conditioning_dim=16, block_out_channels=(16, 16), num_attention_heads=(2, 2), down_num_layers_per_block=(1, 1),
        up_num_layers_per_block=(1, 1), **more,
    )  # fmt: skip


def cascade_prior() -> Any:
    """The prior of Stable Cascade."""
    return cascade_unet(
        switch_level=(False,), clip_text_in_channels=32, clip_text_pooled_in_channels=32, clip_image_in_channels=24
    )


def cascade_decoder() -> Any:
    """The decoder of Stable Cascade, of the latents of `paella`."""
    plain = ("SDCascadeResBlock", "SDCascadeTimestepBlock")
    return cascade_unet(
        in_channels=4,
        out_channels=4,
        patch_size=2,
        switch_level=(True,),
        effnet_in_channels=16,
        clip_text_pooled_in_channels=32,
        block_types_per_layer=(plain, (*plain, "SDCascadeAttnBlock")),
    )


def hunyuan_transformer(
    channels: int = 4, out: int = 4, kind: str = "HunyuanVideoTransformer3DModel", **more: Any
) -> Any:
    """The transformer of HunyuanVideo."""
    import diffusers

    return getattr(diffusers, kind)(
        in_channels=channels, out_channels=out, num_attention_heads=2, attention_head_dim=10, num_layers=1,
        num_single_layers=1, num_refiner_layers=1, patch_size_t=1, text_embed_dim=16,
        pooled_projection_dim=24, rope_axes_dim=(2, 4, 4), **{"patch_size": 1, **more},
    )  # fmt: skip


def kandinsky_transformer(channels: int = 4, **more: Any) -> Any:
    """The transformer of Kandinsky 5."""
    from diffusers import Kandinsky5Transformer3DModel

    return Kandinsky5Transformer3DModel(
        in_visual_dim=channels, in_text_dim=16, in_text_dim2=24, time_dim=16, out_visual_dim=channels, model_dim=16,
        ff_dim=16, num_text_blocks=1, num_visual_blocks=1, axes_dims=(2, 2, 4), attention_type="regular", **more,
    )  # fmt: skip


def kandinsky6_transformer(**more: Any) -> Any:
    """The transformer of Kandinsky 6, without sound."""
    from diffusers import Kandinsky6Transformer3DModel

    return Kandinsky6Transformer3DModel(
        in_visual_dim=4, in_text_dim=16, in_text_dim2=24, time_dim=16, out_visual_dim=4, model_dim=16,
        ff_dim=16, num_text_blocks=1, num_visual_blocks=1, axes_dims=(2, 2, 4), **more,
    )  # fmt: skip


# autoencoders


def vae(latents: int = 4, blocks: int = 2, outputs: int = 3) -> Any:
    """An autoencoder that halves pictures once, or oftener with more blocks."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=outputs,
        out_channels=outputs,
        block_out_channels=(8,) * blocks,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        latent_channels=latents,
        norm_num_groups=4,
        shift_factor=0.0,
    )


def video_vae() -> Any:
    """The autoencoder of HunyuanVideo: an eighth of the picture, a quarter of the frames."""
    from diffusers import AutoencoderKLHunyuanVideo

    return AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4, up_block_types=("HunyuanVideoUpBlock3D",) * 4,
    )  # fmt: skip


def paella() -> Any:
    """The autoencoder of Stable Cascade."""
    from diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model import PaellaVQModel

    return PaellaVQModel(num_vq_embeddings=32, levels=2, embed_dim=8, bottleneck_blocks=1)
