"""Axes in words, checked at public edges: `check_axes("hidden", x, "B T D")` gives sizes or says what is wrong."""

from __future__ import annotations

from torch import Tensor

from clipcond.errors import ShapeError


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
