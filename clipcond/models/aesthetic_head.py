"""Files of aesthetic heads: tensors by name out of a `.pth` or safetensors file, without running code from it."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from clipcond.errors import ModelError, ResourceMissing
from clipcond.files import write_file
from clipcond.wording import first_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MOST = 64 * 2**20  # bytes; v2.5 has 5 MB


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class HeadFile:
    """A head as it is stored: what `clipcond.score.aesthetic.aesthetic_head` takes.

    tensors: float64 by name.   metadata: strings by name, which only safetensors files hold.
    """

    name: str
    tensors: Mapping[str, NDArray[np.float64]]
    metadata: Mapping[str, str]


def read_head_file(path: str | Path) -> HeadFile:
    """Read a state dict from safetensors or, with anything but tensors refused, from what torch.save wrote.

    Raises ResourceMissing if there is no such file, ModelError if it is no state dict or larger than 64 MiB.
    """
    path = Path(path)
    try:
        found = path.stat()
    except OSError as error:
        raise ResourceMissing(f"no aesthetic head at {path}") from error
    if not stat.S_ISREG(found.st_mode):
        raise ModelError(f"{path} is not a file; expected an aesthetic head as .pth or .safetensors")
    if found.st_size > _MOST:
        raise ModelError(f"{path} has {found.st_size / 2**20:,.0f} MiB; an aesthetic head has a few: name another file")
    if path.suffix == ".safetensors":
        tensors, metadata = _from_safetensors(path)
    else:
        tensors, metadata = _from_pickle(path), {}
    wrong = [name for name, value in tensors.items() if not value.is_floating_point()]
    if wrong:
        raise ModelError(f"{path} is no aesthetic head: {wrong[0]!r} does not hold floating-point numbers")
    return HeadFile(
        name=path.name, tensors={name: value.double().numpy() for name, value in tensors.items()}, metadata=metadata
    )


def write_head_file(
    path: str | Path,
    tensors: Mapping[str, NDArray[np.float64]],
    metadata: Mapping[str, str],
    *,
    overwrite: bool = False,
) -> Path:
    """Write a head as safetensors, dtypes kept. Returns its path. Raises ModelError for another ending, OutputExists."""
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ModelError(f"{path} would hold safetensors; give it a name that ends in .safetensors")
    ordered = {name: tensors[name] for name in sorted(tensors)}
    return write_file(
        path, save(ordered, metadata={name: metadata[name] for name in sorted(metadata)}), overwrite=overwrite
    )


def _from_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is no safetensors file: {first_line(error)}") from error


def _from_pickle(path: Path) -> dict[str, Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a hostile or broken file makes the reader raise
        raise ModelError(f"{path} is no state dict that can be read safely: {first_line(error)}") from error
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ModelError(f"{path} is no state dict: expected tensors by name")
    return {str(name): value.detach() for name, value in loaded.items()}
