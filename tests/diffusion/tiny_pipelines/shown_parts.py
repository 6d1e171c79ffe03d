"""The parts of tiny pipelines whose language model is shown the picture: HunyuanVideo-I2V and Kandinsky 5 I2I."""

from __future__ import annotations

from typing import Any

from clipcond.prompt.families import FAMILIES
from tiny_pipelines.parts import clip_pictures
from tiny_pipelines.tokenizers import T5_WORDS, word_tokenizer


def chat_words(family: str) -> Any:
    """A tokenizer of the words of a family's chat and of the prompts."""
    chat = next(each.chat for each in FAMILIES[family].values() if each.chat is not None)
    return word_tokenizer(chat.before, chat.after, " , ".join(T5_WORDS), "<|video_pad|>")


def llava() -> Any:
    """A Llava of width 16 that sees 24 by 24 patches, as the pipeline counts them."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    words = chat_words("hunyuan-video-i2v")
    text = LlamaConfig(vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=3,
                       num_attention_heads=2, pad_token_id=0)  # fmt: skip
    vision = CLIPVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
                              image_size=48, patch_size=2, projection_dim=16)  # fmt: skip
    image = words.convert_tokens_to_ids("<image>")
    return LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_index=image, pad_token_id=0)
    )


def llava_pictures() -> Any:
    """The processor of `llava`."""
    return clip_pictures(48)


def qwen_that_sees() -> Any:
    """A Qwen 2.5 VL of width 16 that knows the marks of pictures."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    words = chat_words("kandinsky5-i2i")
    ids = {name: words.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "video_pad", "vision_start")}
    text = {"vocab_size": len(words), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}}  # fmt: skip
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=text, vision_config=vision, image_token_id=ids["image_pad"],
                         video_token_id=ids["video_pad"], vision_start_token_id=ids["vision_start"])
    )  # fmt: skip


def qwen_processor() -> Any:
    """The processor of `qwen_that_sees`."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=10**6),
        tokenizer=chat_words("kandinsky5-i2i"),
        video_processor=Qwen2VLVideoProcessor(),
    )
