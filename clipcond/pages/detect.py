"""The page of a detection: each picture with boxes and the heat of a label over it; one HTML file."""

from __future__ import annotations

import base64
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

import numpy as np

from clipcond.errors import ImageError
from clipcond.images.colour import to_rgb
from clipcond.images.decode import decoded, quiet_pillow
from clipcond.pages.heat import RAMP
from clipcond.pages.inline import picture_uri, safe_json
from clipcond.wording import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from clipcond.find.detect import DetectedPicture, Found
    from clipcond.workflows.detect import DetectResult

_SHOWN = 6  # labels in the title


def detection_page(result: DetectResult) -> str:
    """Return the HTML document. It loads nothing from anywhere; a picture that went away since has an empty frame."""
    names = [visible(name) for name in result.labels]
    with quiet_pillow():
        most = heights(result.pictures, len(names))
        pictures = [_picture(each, result.labels, most) for each in result.pictures]
    template = Template(files("clipcond.pages").joinpath("templates/detect.html").read_text(encoding="utf-8"))
    more = "" if len(names) <= _SHOWN else f" and {len(names) - _SHOWN} more"
    return template.substitute(
        title=escape(", ".join(names[:_SHOWN]) + more),
        header=escape(_header(result)),
        data=safe_json({"ramp": RAMP, "labels": names, "pictures": pictures}),
        errors="".join(f"<li>{escape(visible(f'{each.path}: {each.error}'))}</li>" for each in result.unread),
        errors_hidden="" if result.unread else "hidden",
    )


def _header(result: DetectResult) -> str:
    count, places = len(result.pictures), sum(len(each.found) for each in result.pictures)
    pictures, found = f"{count:,} picture{'s' * (count != 1)}", f"{places:,} place{'s' * (places != 1)}"
    return f"{pictures}, {found} · {visible(result.model)}, by {result.method}"


def _picture(picture: DetectedPicture, labels: tuple[str, ...], most: NDArray[np.float32]) -> dict[str, object]:
    """A picture with its boxes and, where there is heat, its maps as bytes."""
    heat = picture.heat
    return {
        "src": _uri_of(picture),
        "path": visible(str(picture.path)),
        "width": picture.width,
        "height": picture.height,
        "found": [_found(each, labels) for each in picture.found],
        "absent": [labels.index(name) for name in picture.absent],
        "rows": 0 if heat is None else heat.shape[1],
        "columns": 0 if heat is None else heat.shape[2],
        "maps": "" if heat is None else base64.b64encode(heat_levels(heat, most).tobytes()).decode(),
    }


def _found(found: Found, labels: tuple[str, ...]) -> dict[str, object]:
    return {
        "label": labels.index(found.label),
        "score": round(found.score, 4),
        "box": found.box,
        "place": found.place,
        "rather": None if found.rather is None else labels.index(found.rather),
    }


def heights(pictures: Sequence[DetectedPicture], count: int) -> NDArray[np.float32]:
    """(L,) the highest peak of each label over the median of its map, among all pictures."""
    most = np.zeros(count, dtype=np.float32)
    for picture in pictures:
        if picture.heat is not None:
            most = np.maximum(most, picture.heat.max(axis=(1, 2)) - np.median(picture.heat, axis=(1, 2)))
    return most


def heat_levels(heat: NDArray[np.float32], most: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(L, h, w) heat as numbers from 0, at each map's median and below, to 255, where it is `most` higher."""
    over = heat - np.median(heat, axis=(1, 2), keepdims=True)
    share = over / np.where(most > 0, most, 1)[:, None, None]
    numbers: NDArray[np.uint8] = np.round(255 * share.clip(0, 1)).astype(np.uint8)
    return numbers


def _uri_of(picture: DetectedPicture) -> str:
    try:
        with decoded(picture.path) as image:
            return picture_uri(to_rgb(image))
    except ImageError:
        return ""
