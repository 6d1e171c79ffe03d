"""The embedded model: a small text-to-image system trained on pictures that clipcond draws itself."""

from __future__ import annotations

from pathlib import Path


def path() -> Path:
    """The diffusers folder of the embedded pipeline, for `from_pretrained`. Raises ResourceMissing if it is not there."""
    from clipcond.resources import embedded

    return embedded("pipeline")
