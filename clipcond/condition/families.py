"""What each model family is conditioned on: which layer of which encoder, where the pooled vector comes from, and how the
states of several encoders become one tensor.

| family | token states | layer | pooled |
|---|---|---|---|
| `sd15` `sd2` | the one encoder's | the last, with the final norm | – |
| `sdxl` | L ‖ G on the width | the penultimate, without the norm | G, projected |
| `sdxl` refiner | G | the penultimate, without the norm | G, projected |
| `sd3` | L ‖ G, zeros up to T5's width; T5 behind them, as further tokens | CLIP as `sdxl`; T5's output | L ‖ G, projected |
| `flux` | T5 | its output | L, not projected |

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

from collections.abc import Mapping
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
    """How a family is conditioned.

    encoders: all of them, in the order of the pipeline.   beside: CLIP encoders whose states lie side by side.
    behind: whether T5's states follow on the token axis.   skip, final_norm: the CLIP layer of clip_skip 0.
    pooled: the CLIP encoders of the pooled vector, and which of their vectors.   joint_mean: whether a weighting that
    restores a mean takes it over all encoders that lie side by side.   lengths: how they are made equal by default.
    """

    encoders: tuple[str, ...]
    beside: tuple[str, ...]
    behind: bool = False
    skip: int = 0
    final_norm: bool = True
    pooled: tuple[str, ...] = ()
    pooled_from: PooledFrom = "projected"
    joint_mean: bool = False
    lengths: Lengths = "lcm"


LAYOUTS: Mapping[str, FamilyLayout] = {
    "sd15": FamilyLayout(encoders=("clip_l",), beside=("clip_l",)),
    "sd2": FamilyLayout(encoders=("clip_h",), beside=("clip_h",)),
    "sdxl": FamilyLayout(
        encoders=("clip_l", "clip_g"), beside=("clip_l", "clip_g"), skip=1, final_norm=False, pooled=("clip_g",)
    ),
    "refiner": FamilyLayout(encoders=("clip_g",), beside=("clip_g",), skip=1, final_norm=False, pooled=("clip_g",)),
    "sd3": FamilyLayout(
        encoders=("clip_l", "clip_g", T5),
        beside=("clip_l", "clip_g"),
        behind=True,
        skip=1,
        final_norm=False,
        pooled=("clip_l", "clip_g"),
        joint_mean=True,
        lengths="pad_empty",
    ),
    "flux": FamilyLayout(
        encoders=("clip_l", T5),
        beside=(),
        behind=True,
        pooled=("clip_l",),
        pooled_from="pooled",
        lengths="pad_empty",
    ),
}


def layer(shape: FamilyLayout, encoder: str, clip_skip: int) -> tuple[int, bool]:
    """The layer of an encoder as (layers before its last one, final norm). T5 and Flux's CLIP give their output only.

    Raises ConfigError for a clip_skip below 0, and above 0 for a family that takes no CLIP states.
    """
    if clip_skip < 0 or (clip_skip and not shape.beside):
        most = "0 or more" if shape.beside else "0: this family takes no token states of CLIP"
        raise ConfigError(f"clip_skip is {clip_skip}, expected {most}")
    return (shape.skip + clip_skip, shape.final_norm) if encoder in shape.beside else (0, True)


def assemble(
    beside: list[Tensor], behind: Tensor | None, *, width: int | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """One tensor from the states of a prompt's encoders.

    beside: (T, Dᵢ) each, joined on the width.   behind: (T', D), further tokens.   width: of the result; zeros fill up
    what lies beside.   dtype: what lies beside is cast to it before anything follows it.
    Returns (T + T', D), in the wider of the two dtypes. Raises ShapeError when lengths or widths do not fit.
    """
    if not beside:
        if behind is None:
            raise ShapeError("states: of no encoder, expected those of one or more")
        return behind
    length = check_axes("beside 0", beside[0], "T D")["T"]
    for number, states in enumerate(beside):
        check_axes(f"beside {number}", states, "T D", T=length)
    joined = torch.cat(beside, dim=-1)
    joined = joined if dtype is None else joined.to(dtype)
    if width is not None and width < joined.shape[-1]:
        raise ShapeError(f"beside: {joined.shape[-1]} wide together, expected {width} at most")
    if width is not None and width > joined.shape[-1]:
        joined = pad(joined, (0, width - joined.shape[-1]))
    if behind is None:
        return joined
    check_axes("behind", behind, "T D", D=joined.shape[-1])
    return torch.cat([joined, behind.to(joined.device)])
