"""Equal lengths without changing a picture: token states are repeated to the least common multiple.

A U-Net takes prompt and negative prompt as one batch, so both need the same number of rows T. Softmax attention does
not notice when *every* key and value occurs n times: each weight is divided by n and counted n times. Appending
padding, zeros or an empty prompt's states instead would draw attention away from the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm

from torch import Tensor

from clipcond.encode.shapes import check_axes
from clipcond.errors import ShapeError


def common_length(lengths: Sequence[int]) -> int:
    """The least common multiple of lengths. Raises ShapeError when there are none or one is below 1."""
    if not lengths or min(lengths) < 1:
        raise ShapeError(f"lengths: {list(lengths)}, expected at least one and all of them 1 or more")
    return lcm(*lengths)


def repeat_to(states: Tensor, length: int) -> Tensor:
    """Repeat token states along their own axis.

    states: (B, T, D), any dtype and device.   length: a multiple of T.
    Returns (B, length, D), the same tensor when T is the length already. Raises ShapeError when T does not divide it.
    """
    size = check_axes("states", states, "B T D")["T"]
    if size < 1 or length < 1 or length % size:
        raise ShapeError(f"states: axis T is {size}, which does not divide the wanted length of {length}")
    return states if length == size else states.repeat(1, length // size, 1)


def equalise(*sides: Tensor) -> tuple[Tensor, ...]:
    """Bring token states to one length by repetition, exactly as far as softmax cross-attention is concerned.

    sides: (B, T, D) each, of one width D; B and T may differ.
    Returns them in order as (B, T', D), where T' is the least common multiple of all T. Raises ShapeError when widths
    differ.
    """
    sizes = [check_axes(f"side {number}", side, "B T D") for number, side in enumerate(sides)]
    length = common_length([size["T"] for size in sizes])
    for number, side in enumerate(sides):
        check_axes(f"side {number}", side, "B T D", D=sizes[0]["D"])
    return tuple(repeat_to(side, length) for side in sides)
