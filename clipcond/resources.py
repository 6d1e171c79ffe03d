"""Files that ship with clipcond, found by path: pipelines, prompt lists, and the embedded model's weights."""

from __future__ import annotations

from pathlib import Path

from clipcond.errors import ResourceMissing

_HERE = Path(__file__).resolve().parent


def bundled(kind: str, name: str) -> Path:
    """Find a shipped data file: the wheel's copy first, then the checkout's.

    kind: `pipelines` or `prompts`. Raises ResourceMissing with the places that were looked at.
    """
    places = [_HERE / "_bundled" / kind / name]
    if (
        _HERE.parent / "pyproject.toml"
    ).is_file():  # a checkout or editable install; in site-packages a sibling is not ours
        places.append(_HERE.parent / kind / name)
    for place in places:
        if place.is_file():
            return place
    raise ResourceMissing(f"no {kind} file named {name!r}; looked in {', '.join(map(str, places))}")


def embedded(part: str) -> Path:
    """The folder of a part of the embedded model: `clip` (both encoders, open_clip) or `pipeline` (diffusers)."""
    folder = _HERE / "mini" / "weights" / part
    if not folder.is_dir():
        raise ResourceMissing(f"the embedded model is incomplete: {folder} is not there; reinstall clipcond")
    return folder
