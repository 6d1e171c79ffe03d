"""Language models that read a picture with the prompt: HunyuanVideo-I2V and Kandinsky 5 I2I.

As beside CLIP alone (`clipcond.diffusion.language_models`), the pipeline's own `encode_prompt` asks the model. The prompt is cut
where the pipeline would stop reading it: Kandinsky's own cut of a long prompt (diffusers 0.42) takes the picture's place in the
chat away, and HunyuanVideo-I2V's knows one prompt at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from clipcond.errors import ConfigError
from clipcond.prompt.families import Encoder
from clipcond.prompt.language import LanguageTokenizer

Show = Callable[[Any, Sequence[str], Sequence[Any], str, Tensor, int, int], dict[str, Tensor]]
"""(pipeline, N texts, N pictures, prefix of the side, (N · images, P) pooled vectors, images of each, positions) → tensors."""


def hunyuan_video_i2v(
    pipe: Any, texts: Sequence[str], pictures: Sequence[Any], prefix: str, pooled: Tensor, images: int, length: int
) -> dict[str, Tensor]:
    """The states of Llava and their mask, the picture's in front; on the negative side of a black picture."""
    from PIL import Image

    kind = getattr(pipe.transformer.config, "image_condition_type", None)
    every = 2 if prefix or kind == "latent_concat" else 4  # of the picture's states, as the pipeline's call takes them
    shown = [Image.new("RGB", each.size) for each in pictures] if prefix else list(pictures)
    states, _, mask = pipe.encode_prompt(
        shown, list(texts), pooled_prompt_embeds=pooled, max_sequence_length=length, image_embed_interleave=every
    )
    found = {"prompt_embeds": states, "prompt_attention_mask": mask}
    # the method takes a number of films for each, and ignores it
    return {name: each.repeat_interleave(images, dim=0) for name, each in found.items()}


def kandinsky5_i2i(
    pipe: Any, texts: Sequence[str], pictures: Sequence[Any], prefix: str, pooled: Tensor, images: int, length: int
) -> dict[str, Tensor]:
    """Qwen's states and the ends of the texts laid end to end, on both sides of the same picture."""
    states, _, ends = pipe.encode_prompt(
        list(texts), image=list(pictures), num_images_per_prompt=images, max_sequence_length=length
    )
    return {"prompt_embeds": states, "prompt_cu_seqlens": ends}


SHOW: Mapping[str, Show] = {"hunyuan-video-i2v": hunyuan_video_i2v, "kandinsky5-i2i": kandinsky5_i2i}


def pictures_of(name: str, shown: bool, image: Any, count: int) -> tuple[Any, ...]:
    """Return a picture for each of `count` prompts. name: of the pipeline.   shown: its language model reads pictures.

    Raises ConfigError for one that is not read, for none where one is, for what is no picture, and for another number of them.
    """
    if not shown:
        if image is not None:
            raise ConfigError(f"image is given, but no text encoder of {name} reads it; give it to the pipeline's call")
        return ()
    if image is None:
        raise ConfigError(f"the language model of {name} reads the picture with the prompt; give it as image=…")
    found = list(image) if isinstance(image, (list, tuple)) else [image] * count
    for each in found:
        if not hasattr(each, "resize") or not hasattr(each, "mode"):
            raise ConfigError(
                f"image is or holds a {type(each).__name__}, expected a picture of Pillow: PIL.Image.open(…)"
            )
    if len(found) != count:
        raise ConfigError(f"{len(found)} pictures for {count} prompts; give one for all or one for each")
    return tuple(found)


def picture_positions(pipe: Any, pictures: Sequence[Any]) -> int:
    """Return the positions of the largest picture that are taken from the prompt's: none in HunyuanVideo-I2V.

    Kandinsky 5 I2I shows its language model each picture at half its size.
    """
    reader = getattr(getattr(pipe, "tokenizer", None), "image_processor", None)
    if not pictures or reader is None:
        return 0
    halved = [
        each.resize((each.size[0] // 2, each.size[1] // 2)) for each in {id(each): each for each in pictures}.values()
    ]
    grids = reader(images=halved, return_tensors="pt")["image_grid_thw"]
    return int(grids.prod(dim=-1).max()) // int(reader.merge_size) ** 2


def within(text: str, encoder: Encoder, tokenizer: LanguageTokenizer | None) -> str:
    """Return a text as far as it is read. encoder: with its limit.   tokenizer: None leaves the text as it is."""
    if tokenizer is None or encoder.chat is None:
        return text
    read = [end for position, (_, _, _, end) in tokenizer.rows(text, encoder.chat) if position < encoder.limit]
    return text[: max(read, default=0)]
