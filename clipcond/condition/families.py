"""The conditioning of each model family: its layer of each encoder, the source of its pooled vector, and the way from the
states of several encoders to one tensor.

| family | token states | layer | pooled |
|---|---|---|---|
| `sd15` `sd2` | the one encoder's | the last, with the final norm | – |
| `sdxl` | L ‖ G on the width | the penultimate, without the norm | G, projected |
| `sdxl` refiner | G | the penultimate, without the norm | G, projected |
| `sd3` | L ‖ G, zeros up to T5's width; T5 after them, as further tokens | CLIP as `sdxl`; T5's output | L ‖ G, projected |
| `flux` | T5 | its output | L, not projected |
| `hidream` | T5, to which padding is masked; a language model's, by the pipeline itself | its output | L ‖ G, projected |
| `cascade` | G, to which padding is masked | the last, without the norm | G, projected |
| `hunyuan-video` `kandinsky5` `kandinsky6` | a language model's, by the pipeline itself | – | L, not projected |
| `cascade` Würstchen | G, to which padding is masked | the last, with the final norm | – |
| `sd15` unCLIP | one chunk of the one encoder's, with a mask of the text | the last, with the final norm | L, projected |
| `sd15` aMUSEd | the one encoder's | the penultimate, without the norm | L, projected |
| `sd15` latent upscaler | the one encoder's | the last, without the norm | L, not projected |

Layers are counted back from the family's own by `clip_skip`: 0 is the layer of the table, 1 the one before, on both sides
of guidance.

| meant | clipcond | diffusers | A1111 | ComfyUI |
|---|---|---|---|---|
| SD 1 and 2: last layer | 0 | None or 0 | 1 | -1 |
| SD 1 and 2: penultimate | 1 | 1 | 2 | -2 |
| SDXL, SD3: penultimate, their own | 0 | None or 0 | 2 | -2 |
| SDXL, SD3: one layer lower | 1 | 1 | 3 | -3 |

Lengths that differ are made equal by exact repetition (`lcm`) where cross-attention reads the text alone. In SD3 and Flux
text and picture share one softmax: repeating the text there would weigh it up against the picture, so these get empty
chunks instead (`pad_empty`), as they were trained on padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from clipcond.condition.lengths import Lengths
from clipcond.encode.shapes import check_axes
from clipcond.errors import ConfigError, ShapeError

T5 = "t5"
PooledFrom = Literal["pooled", "projected"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyLayout:
    """The parts that the conditioning of a family is made of.

    encoders: all of them, in the order of the pipeline.   concat_width: the CLIP encoders whose states are concatenated
    on the width.   append_tokens: T5's states follow on the token axis.   skip, final_norm: the CLIP layer of clip_skip 0.
    pooled, pooled_from: the CLIP encoders of the pooled vector, and which of their vectors.   joint_mean: a weighting
    that restores a mean takes it over all encoders of `concat_width`.   lengths: the default way to equal lengths.
    masks_padding: the encoders in which nothing attends to what stands behind the EOS.   one_chunk: the denoiser has places
    for the states of one chunk, and a mask tells it which of them are text.
    """

    encoders: tuple[str, ...]
    concat_width: tuple[str, ...]
    append_tokens: bool = False
    skip: int = 0
    final_norm: bool = True
    pooled: tuple[str, ...] = ()
    pooled_from: PooledFrom = "projected"
    joint_mean: bool = False
    lengths: Lengths = "lcm"
    masks_padding: tuple[str, ...] = ()
    one_chunk: bool = False


LAYOUTS: Mapping[str, FamilyLayout] = {
    "sd15": FamilyLayout(encoders=("clip_l",), concat_width=("clip_l",)),
    "sd2": FamilyLayout(encoders=("clip_h",), concat_width=("clip_h",)),
    "sdxl": FamilyLayout(
        encoders=("clip_l", "clip_g"), concat_width=("clip_l", "clip_g"), skip=1, final_norm=False, pooled=("clip_g",)
    ),
    "refiner": FamilyLayout(
        encoders=("clip_g",), concat_width=("clip_g",), skip=1, final_norm=False, pooled=("clip_g",)
    ),
    "upscaler": FamilyLayout(
        encoders=("clip_l",), concat_width=("clip_l",), final_norm=False, pooled=("clip_l",), pooled_from="pooled"
    ),
    "pooled": FamilyLayout(
        encoders=("clip_l",), concat_width=(), pooled=("clip_l",), pooled_from="pooled", lengths="pad_empty"
    ),
    "cascade": FamilyLayout(
        encoders=("clip_g",),
        concat_width=("clip_g",),
        final_norm=False,
        pooled=("clip_g",),
        lengths="pad_empty",  # text and picture share one softmax, as in SD3
        masks_padding=("clip_g",),
    ),
    "wuerstchen": FamilyLayout(
        encoders=("clip_g",), concat_width=("clip_g",), lengths="pad_empty", masks_padding=("clip_g",)
    ),
    "unclip": FamilyLayout(
        encoders=("clip_l",), concat_width=("clip_l",), pooled=("clip_l",), lengths="pad_empty", one_chunk=True
    ),
    "amused": FamilyLayout(
        encoders=("clip_l",), concat_width=("clip_l",), skip=1, final_norm=False, pooled=("clip_l",)
    ),
    "hidream": FamilyLayout(
        encoders=("clip_l", "clip_g", T5),
        concat_width=(),
        append_tokens=True,
        pooled=("clip_l", "clip_g"),
        lengths="pad_empty",
        masks_padding=(T5,),
    ),
    "sd3": FamilyLayout(
        encoders=("clip_l", "clip_g", T5),
        concat_width=("clip_l", "clip_g"),
        append_tokens=True,
        skip=1,
        final_norm=False,
        pooled=("clip_l", "clip_g"),
        joint_mean=True,
        lengths="pad_empty",
    ),
    "flux": FamilyLayout(
        encoders=("clip_l", T5),
        concat_width=(),
        append_tokens=True,
        pooled=("clip_l",),
        pooled_from="pooled",
        lengths="pad_empty",
    ),
}


def layer(layout: FamilyLayout, encoder: str, clip_skip: int) -> tuple[int, bool]:
    """Return the layer of an encoder as (layers before its last one, final norm). T5 and Flux's CLIP give their output only.

    Raises ConfigError for a clip_skip below 0, and above 0 for a family that takes no CLIP states.
    """
    if clip_skip < 0 or (clip_skip and not layout.concat_width):
        most = "0 or more" if layout.concat_width else "0: this family takes no token states of CLIP"
        raise ConfigError(f"clip_skip is {clip_skip}, expected {most}")
    return (layout.skip + clip_skip, layout.final_norm) if encoder in layout.concat_width else (0, True)


def assemble(
    concat_width: Sequence[Tensor],
    append_tokens: Tensor | None,
    *,
    width: int | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Return one tensor from the states of a prompt's encoders.

    concat_width: (T, Dᵢ) each, concatenated on the width and cast to `dtype`; zeros fill them up to `width`.
    append_tokens: (T', D), further tokens.
    Returns (T + T', D), in the wider of the two dtypes. Raises ShapeError when lengths or widths do not fit.
    """
    if not concat_width:
        if append_tokens is None:
            raise ShapeError("states: of no encoder, expected those of one or more")
        return append_tokens
    length = check_axes("concat_width 0", concat_width[0], "T D")["T"]
    for number, states in enumerate(concat_width):
        check_axes(f"concat_width {number}", states, "T D", T=length)
    joined = torch.cat(list(concat_width), dim=-1)
    joined = joined if dtype is None else joined.to(dtype)
    if width is not None and width < joined.shape[-1]:
        raise ShapeError(f"concat_width: {joined.shape[-1]} wide together, expected {width} at most")
    if width is not None and width > joined.shape[-1]:
        joined = pad(joined, (0, width - joined.shape[-1]))
    if append_tokens is None:
        return joined
    check_axes("append_tokens", append_tokens, "T D", D=joined.shape[-1])
    return torch.cat([joined, append_tokens.to(joined.device)])
