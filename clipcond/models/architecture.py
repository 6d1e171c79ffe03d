"""A model's architecture without its weights: tensors that have shapes and no memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from clipcond.errors import ModelError
from clipcond.models.checks import check_numbers, one_line_errors
from clipcond.models.folder_models import folder_named
from clipcond.models.open_clip_build import buildable, builder
from clipcond.models.open_clip_folder import read_config
from clipcond.models.spec import did_you_mean, parse_spec
from clipcond.runtime.torchvision_repair import repair


@contextmanager
def without_memory(spec: str) -> Iterator[Any]:
    """Build the open_clip model that a spec names from its config, while every tensor has a shape and a device alone.

    spec: as of `load_trainable`; of `NAME/PRETRAINED` and `NAME@CHECKPOINT` no weights have to be there, and a bare `NAME`
    will do. Tensors made while it is open are of this kind too. Raises ModelError.
    """
    with one_line_errors(spec):
        config, quick = _config(spec)
        check_numbers(spec, config)
        from torch._subclasses.fake_tensor import FakeTensorMode

        with buildable(spec, config) as changed:
            build = builder(changed, quick_gelu=quick)
            with FakeTensorMode():
                yield build()


def _config(spec: str) -> tuple[Mapping[str, Any], bool | None]:
    """Return the `model_cfg` of a spec, and whether its weights want quick GELU where they say so."""
    named = parse_spec(spec)
    base, quick = named.base, named.overrides.quick_gelu
    if (folder := folder_named(base)) is not None:
        return read_config(folder)["model_cfg"], quick
    repair()
    import open_clip

    name, tag = re.split("[/@]", f"{base}/", maxsplit=1)
    if name not in open_clip.list_models():
        raise ModelError(
            f"no model {base!r}: there is no such folder, and open_clip knows no {name!r}{did_you_mean(base)}"
        )
    published = open_clip.get_pretrained_cfg(name, tag.rstrip("/")) or {}
    config = dict(open_clip.get_model_config(name) or {})
    if named.overrides.size is not None:
        config["vision_cfg"] = {**config["vision_cfg"], "image_size": named.overrides.size}
    return config, True if quick is None and published.get("quick_gelu") else quick
