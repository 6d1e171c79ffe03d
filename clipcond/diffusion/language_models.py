"""Language models beside CLIP: the pipeline's own `encode_prompt` asks them, in the words that they were trained on.

clipcond gives them the prompt without the marks of its dialect, tells what they cut, and sets its own pooled CLIP vector
beside their states; a weight in the prompt changes nothing there, and a finding says so.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from clipcond.errors import ConfigError
from clipcond.prompt.dialects.translate import translate
from clipcond.prompt.plan import PromptPlan

Ask = Callable[[Any, Sequence[str], Tensor, int, int], dict[str, Tensor]]
"""(pipeline, N texts, (N · images, P) pooled vectors, images of each, positions) → tensors by our names, (N · images, …)."""


def hunyuan_video(pipe: Any, texts: Sequence[str], pooled: Tensor, images: int, length: int) -> dict[str, Tensor]:
    """Llama's states and mask, as HunyuanVideo, FramePack and SkyReels read them."""
    states, _, mask = pipe.encode_prompt(
        list(texts), num_videos_per_prompt=images, pooled_prompt_embeds=pooled, max_sequence_length=length
    )
    return {"prompt_embeds": states, "prompt_attention_mask": mask}


def kandinsky5(pipe: Any, texts: Sequence[str], pooled: Tensor, images: int, length: int) -> dict[str, Tensor]:
    """Qwen's states and the ends of the texts laid end to end, as Kandinsky 5 reads them."""
    names = inspect.signature(pipe.encode_prompt).parameters
    count = {next(name for name in names if name.endswith("_per_prompt")): images}
    states, _, ends = pipe.encode_prompt(list(texts), max_sequence_length=length, **count)
    return {"prompt_embeds": states, "prompt_cu_seqlens": ends}


def kandinsky6(pipe: Any, texts: Sequence[str], pooled: Tensor, images: int, length: int) -> dict[str, Tensor]:
    """Qwen's states without padding, as Kandinsky 6 reads them: its call takes no mask.

    Raises ConfigError for texts of different lengths.
    """
    states, _, mask, *_ = pipe.encode_prompt(
        list(texts), do_classifier_free_guidance=False, num_videos_per_prompt=images, max_sequence_length=length
    )
    lengths = [states.shape[1]] if mask is None else mask.sum(dim=1).tolist()
    if len(set(lengths)) > 1:
        raise ConfigError(
            f"the prompts have {' and '.join(map(str, sorted(set(lengths))))} tokens, and the call of "
            f"{type(pipe).__name__} takes no mask for their padding; call for each"
        )
    return {"prompt_embeds": states[:, : lengths[0]]}


def hidream(pipe: Any, texts: Sequence[str], pooled: Tensor, images: int, length: int) -> dict[str, Tensor]:
    """The states of every layer of Llama, (layers, N · images, S, D), as HiDream-I1 reads them."""
    nothing = torch.zeros(len(texts), 1, 1)  # in place of T5's states and pooled vectors, which are not asked for
    _, _, states, *_ = pipe.encode_prompt(
        list(texts), prompt_embeds_t5=nothing, pooled_prompt_embeds=nothing[:, 0], do_classifier_free_guidance=False,
        num_images_per_prompt=images, max_sequence_length=length,
    )  # fmt: skip
    return {"prompt_embeds_llama3": states}


def words_of(plan: PromptPlan) -> str:
    """Return what a prompt says without the marks of its dialect."""
    return translate(plan.prompt, plan.dialect, "plain").text


ASK: Mapping[str, Ask] = {
    "hunyuan-video": hunyuan_video,
    "kandinsky5": kandinsky5,
    "kandinsky6": kandinsky6,
    "hidream": hidream,
}
