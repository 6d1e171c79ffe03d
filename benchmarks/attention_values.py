"""Weights on the values of cross-attention, as other tools have them, on the embedded model: for `weighting_effect.py`.

`values`: the values of a phrase's own rows times its weight; keys stay.   `negpip`: the prompt stays as it is, and the phrase is
encoded apart, its rows behind the prompt's with values times the weight, which is negative (sd-webui-negpip).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from clipcond.prompt.plan import plan


class Valued:
    """A plain attention processor whose cross-attention has values of other sizes, and rows that nothing looks at."""

    def __init__(self, factors: torch.Tensor, seen: torch.Tensor) -> None:
        """factors: (2B, T), of the values.   seen: (2B, T) bool. The negative sides come first."""
        self.factors, self.bias = factors, torch.where(seen, 0.0, float("-inf"))

    def __call__(
        self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor | None = None, **_: Any
    ) -> torch.Tensor:
        crosses = encoder_hidden_states is not None
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        key, value = attn.to_k(text), attn.to_v(text)
        if crosses:
            value = value * self.factors[..., None]
        query, key, value = (attn.head_to_batch_dim(each) for each in (attn.to_q(hidden_states), key, value))
        bias = self.bias.repeat_interleave(attn.heads, dim=0)[:, None] if crosses else 0
        shares = (query @ key.transpose(-1, -2) * attn.scale + bias).softmax(dim=-1)
        out: torch.Tensor = attn.to_out[0](attn.batch_to_head_dim(shares @ value))
        return out


@contextmanager
def valued(unet: Any, factors: torch.Tensor, seen: torch.Tensor) -> Iterator[None]:
    """factors, seen: (B, T) of the prompts; negative sides have values as they are, and see the rows that `seen` has of all."""
    own = unet.attn_processors
    plain = seen.all(dim=0, keepdim=True).expand_as(seen)
    unet.set_attn_processor(Valued(torch.cat([torch.ones_like(factors), factors]), torch.cat([plain, seen])))
    try:
        yield
    finally:
        unet.set_attn_processor(own)


def own_values(prompts: Sequence[str], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`values`: the weights of A1111's prompts as factors (B, T), and all rows seen."""
    factors = torch.ones(len(prompts), length)
    for number, prompt in enumerate(prompts):
        (chunk,) = plan(prompt, dialect="a1111").encoders["clip_l"].chunks
        factors[number, 1 : 1 + len(chunk.tokens)] = torch.tensor([token.weight for token in chunk.tokens])
    return factors, torch.ones(len(prompts), length, dtype=torch.bool)


def negated(
    conditioner: Any, captions: Sequence[str], phrases: Sequence[str], weight: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """`negpip`: the states of both sides (B, T, D), rows of the phrases behind the prompts' own; factors and seen (B, T)."""
    whole = conditioner(list(captions))
    apart = conditioner(list(phrases)).prompt_embeds
    counts = [len(plan(each).encoders["clip_l"].chunks[0].tokens) for each in phrases]
    size, most = whole.prompt_embeds.shape[1], max(counts)
    positive = torch.cat([whole.prompt_embeds, apart[:, 1 : 1 + most]], dim=1)
    negative = torch.cat([whole.negative_prompt_embeds, apart[:, 1 : 1 + most]], dim=1)
    factors = torch.ones(len(captions), size + most)
    factors[:, size:] = weight
    seen = torch.zeros(len(captions), size + most, dtype=torch.bool)
    seen[:, :size] = True
    for number, count in enumerate(counts):
        seen[number, size : size + count] = True
    return positive, negative, factors, seen
