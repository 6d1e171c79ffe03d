"""Tensors checked at public edges: their axes in words, and that their values are finite.

`check_axes("hidden", x, "B T D")` gives sizes or says what is wrong.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clipcond.errors import ModelError, ShapeError


def check_axes(name: str, tensor: Tensor, axes: str, **expected: int) -> dict[str, int]:
    """The sizes of a tensor's axes by letter.

    tensor: any dtype and device.   axes: letters parted by blanks, one per axis.   expected: sizes that letters must
    have. Raises ShapeError when the number of axes or one of the expected sizes differs.
    """
    letters = axes.split()
    form = f"({', '.join(letters)})"
    if tensor.ndim != len(letters):
        raise ShapeError(f"{name}: {tensor.ndim} axes of {tuple(tensor.shape)}, expected {len(letters)} as in {form}")
    sizes = dict(zip(letters, tensor.shape, strict=True))
    for letter, size in expected.items():
        if sizes[letter] != size:
            raise ShapeError(f"{name}: axis {letter} is {sizes[letter]}, expected {size} in {form}")
    return sizes


def check_finite(tower: str, vectors: Tensor) -> None:
    """Raise ModelError where a vector of the named tower holds a NaN or an infinity, which no score survives.

    vectors: (N, …), any float dtype and device.
    """
    finite = torch.isfinite(vectors).flatten(1).all(dim=1)
    if not bool(finite.all()):
        raise ModelError(
            f"the {tower} encoder gave {int((~finite).sum())} of {len(finite)} vectors with values that are not finite; "
            "its weights are damaged, or overflow in their dtype: load another copy, or use float32"
        )
