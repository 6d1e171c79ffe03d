"""From prompts of any length to what a Stable Diffusion pipeline takes, in one forward of its text encoder.

The prompt is cut into chunks of 75 content tokens; every different chunk of all prompts and negative prompts is
encoded once, in one batch; a prompt's chunks are laid end to end; and all rows are brought to one length by
repetition, which cross-attention does not notice. A prompt within 75 tokens gives what the pipeline's own
`encode_prompt` gives.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from clipcond.condition.lengths import common_length, repeat_to
from clipcond.diffusion.conditioning import Conditioning
from clipcond.encode.text import TextTower
from clipcond.errors import ConfigError, ModelError
from clipcond.prompt.plan import DIALECTS, PromptPlan, plan
from clipcond.prompt.tokenizer import BOS, CONTEXT, EOS, VOCABULARY

SUPPORTED = (
    "supported are pipelines of the Stable Diffusion 1 and 2 shape: one CLIP text encoder with CLIP's own vocabulary, "
    "a U-Net, prompt_embeds in the call"
)
_OTHER_FAMILIES = ("text_encoder_2", "text_encoder_3", "transformer", "prior")
Prompts = str | Sequence[str]


class Conditioner:
    """Conditions one pipeline; the pipeline is used and never changed."""

    def __init__(self, pipe: Any, tower: TextTower, *, family: str, pad_id: int) -> None:
        self._pipe, self._tower = pipe, tower
        self.family, self.pad_id = family, pad_id

    @classmethod
    def from_pipeline(cls, pipe: Any) -> Conditioner:
        """Condition a diffusers pipeline of the Stable Diffusion 1 or 2 shape (text to image, img2img, inpaint,
        ControlNet).

        pipe: a loaded pipeline, in any dtype, on any device. Raises ModelError, naming the class, for any other.
        """
        _check_shape(pipe)
        tower = TextTower.from_transformers(pipe.text_encoder)
        _check_vocabulary(pipe, tower)
        pad_id = pipe.tokenizer.pad_token_id
        return cls(pipe, tower, family="sd2" if pad_id == 0 else "sd15", pad_id=pad_id)

    @torch.no_grad()
    def __call__(
        self,
        prompt: Prompts,
        negative_prompt: Prompts | None = "",
        *,
        dialect: str = "plain",
        clip_skip: int = 0,
        num_images_per_prompt: int = 1,
    ) -> Conditioning:
        """Condition one prompt or a list of them.

        prompt: of any length.   negative_prompt: one for all prompts or one for each; None is the empty one.
        clip_skip: 0 the last layer, 1 the penultimate (diffusers' numbering), with the final norm, on both sides.
        num_images_per_prompt: how often each prompt's rows are repeated; do not give it to the pipeline as well.
        Returns a Conditioning of B = prompts × num_images_per_prompt rows, in the encoder's dtype.
        Raises ConfigError for numbers that do not fit and for a dialect other than `plain`, ModelError for a
        textual-inversion token in a prompt.
        """
        if dialect in DIALECTS and dialect != "plain":
            raise ConfigError(
                f"the Conditioner does not apply weights yet, which dialect {dialect!r} has; "
                "use dialect='plain', which reads the prompt as text"
            )
        prompts, negatives = _sides(prompt, negative_prompt)
        if num_images_per_prompt < 1:
            raise ConfigError(f"num_images_per_prompt is {num_images_per_prompt}, expected 1 or more")
        self._refuse_added_tokens([*prompts, *negatives])
        known: dict[str, PromptPlan] = {
            text: plan(text, dialect=dialect, family=self.family) for text in dict.fromkeys([*prompts, *negatives])
        }
        states = self._encode(list(known.values()), clip_skip)
        rows = dict(zip(known, states, strict=True))
        return Conditioning(
            prompt_embeds=torch.cat([rows[text] for text in prompts]).repeat_interleave(num_images_per_prompt, dim=0),
            negative_prompt_embeds=torch.cat([rows[text] for text in negatives]).repeat_interleave(
                num_images_per_prompt, dim=0
            ),
            plans=tuple(known[text] for text in prompts),
            negative_plans=tuple(known[text] for text in negatives),
            family=self.family,
            dialect=dialect,
            clip_skip=clip_skip,
        )

    def _encode(self, plans: Sequence[PromptPlan], clip_skip: int) -> list[Tensor]:
        """The states of each plan, (1, T, D) of one common T: each different chunk of all plans is encoded once."""
        chunks = [self._chunk_ids(each) for each in plans]
        places = {ids: place for place, ids in enumerate(dict.fromkeys(ids for each in chunks for ids in each))}
        hidden = self._tower.encode(torch.tensor(list(places)), clip_skip=clip_skip).hidden
        width = hidden.shape[-1]
        states = [hidden[[places[ids] for ids in each]].reshape(1, -1, width) for each in chunks]
        length = common_length([each.shape[1] for each in states])
        return [repeat_to(each, length) for each in states]

    def _chunk_ids(self, planned: PromptPlan) -> list[tuple[int, ...]]:
        (encoder,) = planned.encoders.values()
        return [tuple(chunk.ids(self.pad_id)) for chunk in encoder.chunks]

    def _refuse_added_tokens(self, texts: Sequence[str]) -> None:
        """A token that was added to the pipeline's tokenizer must not be read as ordinary text without a word."""
        added = [token for token, number in self._pipe.tokenizer.get_added_vocab().items() if number >= VOCABULARY]
        for token in added:
            if any(token.lower() in text.lower() for text in texts):
                raise ModelError(
                    f"the prompt holds {token}, a textual-inversion token of the pipeline's tokenizer; "
                    "the Conditioner does not read these yet: use the stock pipeline or leave the token out"
                )


def condition(pipe: Any, prompt: Prompts, negative_prompt: Prompts | None = "", **options: Any) -> Conditioning:
    """`Conditioner.from_pipeline(pipe)(prompt, negative_prompt, **options)` as one function, for pipeline files."""
    return Conditioner.from_pipeline(pipe)(prompt, negative_prompt, **options)


def _sides(prompt: Prompts, negative_prompt: Prompts | None) -> tuple[list[str], list[str]]:
    """Prompts and as many negative prompts."""
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts:
        raise ConfigError("the list of prompts is empty; expected one prompt or more")
    if negative_prompt is None or isinstance(negative_prompt, str):
        return prompts, [negative_prompt or ""] * len(prompts)
    negatives = list(negative_prompt)
    if len(negatives) != len(prompts):
        counts = f"{len(negatives)} negative prompts for {len(prompts)} prompts"
        raise ConfigError(f"{counts}; give one for all or one for each")
    return prompts, negatives


def _check_shape(pipe: Any) -> None:
    """Raise ModelError unless the pipeline has the parts of the Stable Diffusion 1 shape and takes embeddings."""
    name = type(pipe).__name__
    parts = getattr(pipe, "components", {})
    other = [part for part in _OTHER_FAMILIES if parts.get(part) is not None]
    if other:
        raise ModelError(f"{name} is of a family with {other[0]}, which the Conditioner does not know yet; {SUPPORTED}")
    missing = [part for part in ("tokenizer", "text_encoder", "unet") if parts.get(part) is None]
    if missing:
        raise ModelError(f"{name} has no {missing[0]}; {SUPPORTED}")
    taken = inspect.signature(type(pipe).__call__).parameters
    if not {"prompt_embeds", "negative_prompt_embeds"} <= taken.keys():
        raise ModelError(f"{name} takes no prompt_embeds; {SUPPORTED}")
    encoder = type(pipe.text_encoder).__name__
    if encoder not in ("CLIPTextModel", "CLIPTextModelWithProjection"):
        raise ModelError(f"{name} has a text encoder of class {encoder}; {SUPPORTED}")
    if getattr(pipe.text_encoder.config, "use_attention_mask", False):
        raise ModelError(f"{name} has a text encoder that masks its padding (use_attention_mask); {SUPPORTED}")


def _check_vocabulary(pipe: Any, tower: TextTower) -> None:
    """Raise ModelError unless ids mean to this pipeline what they mean to clipcond."""
    name, tokenizer = type(pipe).__name__, pipe.tokenizer
    sample = list(tokenizer("a cat").input_ids)
    if tokenizer.vocab_size != VOCABULARY or sample != [BOS, 320, 2368, EOS] or tower.vocabulary < VOCABULARY:
        raise ModelError(
            f"{name} has a tokenizer of {tokenizer.vocab_size} entries over an encoder of {tower.vocabulary}, "
            f"expected CLIP's vocabulary of {VOCABULARY}; {SUPPORTED}"
        )
    if tower.context != CONTEXT:
        raise ModelError(f"{name} has a text encoder of {tower.context} positions, expected {CONTEXT}; {SUPPORTED}")
