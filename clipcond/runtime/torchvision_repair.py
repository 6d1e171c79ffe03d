"""Let the package index's torchvision import beside a CPU-only torch.

That torchvision expects its compiled operators and fails at import with "operator torchvision::nms does not exist";
open_clip, timm and transformers' CLIP fall with it. Declaring the two operators' schemas is enough for the import. Nothing
here computes them: a call still fails, with torch's own message, and no part of clipcond calls them.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_declared: list[Any] = []  # a torch Library withdraws its schemas when it is collected


def repair() -> bool:
    """Declare what is missing, once, before the first torchvision import. True if anything had to be declared.

    Does nothing where torchvision is absent, already imported, or brings working operators.
    """
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is None or _operators_load():
        return False
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    missing = [name for name in _SCHEMAS if not hasattr(torch.ops.torchvision, name)]
    for name in missing:
        library.define(_SCHEMAS[name])  # type: ignore[no-untyped-call]
    if missing:
        _declared.append(library)
    return bool(missing)


def repaired() -> bool:
    """Return True if something had to be declared in this process."""
    return bool(_declared)


def _operators_load() -> bool:
    """True if torchvision's compiled library loads into this torch, asked as torchvision itself asks."""
    import torch

    package = importlib.util.find_spec("torchvision")
    if package is None or not package.submodule_search_locations:
        return False
    from importlib.machinery import PathFinder

    compiled = PathFinder.find_spec("_C", list(package.submodule_search_locations))
    if compiled is None or compiled.origin is None:
        return False
    try:
        torch.ops.load_library(compiled.origin)  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return hasattr(torch.ops.torchvision, "nms")
