"""Files that ship with clipcond, found by path: pipelines, prompt lists, and the embedded models' weights."""

from __future__ import annotations

from pathlib import Path

from clipcond.errors import ResourceMissing

_HERE = Path(__file__).resolve().parent
_PARTS = {"clip": "mini/weights/clip", "pipeline": "mini/weights/pipeline", "emoji": "emoji"}
EMBEDDED = {
    "mini": ("clip", "pipeline"),
    "emoji": ("emoji",),
}  # the models that ship, and their parts, the encoders first


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
    """The folder of an embedded model: `clip` (both encoders of `mini`, open_clip), `pipeline` (its pipeline, diffusers)
    or `emoji` (both encoders, open_clip)."""
    folder = _HERE / _PARTS.get(part, part)
    if not folder.is_dir():
        raise ResourceMissing(f"the embedded model is incomplete: {folder} is not there; reinstall clipcond")
    return folder


def embedded_dual(name: str) -> Path | None:
    """The folder of a dual encoder that ships, by the name of its model; None for any other name. Raises ResourceMissing."""
    return embedded(EMBEDDED[name][0]) if name in EMBEDDED else None
