"""Fooocus: JSON or an infotext in `parameters` or UserComment; Fooocus-MRE: JSON in the comment.

The prompt is the one that the user typed, not the one that styles were added to.
"""

from __future__ import annotations

from collections.abc import Mapping

from clipcond.images.metadata.image_prompt import ImagePrompt
from clipcond.images.metadata.json_text import image_prompt, json_object, plain_text
from clipcond.prompt.infotext import parse_infotext

_MARKS = frozenset({"full_prompt", "base_model", "fooocus_v2_expansion", "metadata_scheme", "real_prompt"})
_LARGEST = 1 << 17  # characters of an infotext


def read_fooocus(fields: Mapping[str, str]) -> ImagePrompt | None:
    """Return Fooocus's prompt, or None."""
    for field in ("parameters", "UserComment"):
        values = json_object(fields.get(field))
        if values is not None and (_ours(fields) or _MARKS & values.keys()):
            return _from_json(field, values)
        if values is None and field in fields:
            found = _from_infotext(field, fields[field])
            if found is not None:
                return found
    for field in ("Comment", "comment") if "parameters" not in fields else ():
        values = json_object(fields.get(field))
        if values is not None and isinstance(values.get("prompt"), str) and "uc" not in values:
            return _from_json(field, values)
    return None


def _ours(fields: Mapping[str, str]) -> bool:
    scheme = fields.get("fooocus_scheme") or fields.get("exif:MakerNote")
    return scheme == "fooocus" or fields.get("exif:Software", "").startswith("Fooocus")


def _from_json(field: str, values: Mapping[str, object]) -> ImagePrompt | None:
    lower = {
        name.lower().replace(" ", "_"): value for name, value in values.items()
    }  # an old log has `Negative Prompt`
    if not isinstance(lower.get("prompt"), str):
        return None
    return image_prompt(
        tool="Fooocus",
        field=field,
        prompt=plain_text(lower["prompt"]),
        negative_prompt=plain_text(lower.get("negative_prompt")),
        dialect="a1111",
        settings={name: value for name, value in values.items() if name.lower() not in ("prompt", "negative_prompt")},
    )


def _from_infotext(field: str, text: str) -> ImagePrompt | None:
    """An infotext that says which prompt the user typed."""
    if len(text) > _LARGEST or "Raw prompt" not in text:
        return None
    found = parse_infotext(text)
    if "Raw prompt" not in found.settings:
        return None
    return image_prompt(
        tool="Fooocus",
        field=field,
        prompt=plain_text(found.settings["Raw prompt"]),
        negative_prompt=plain_text(found.settings.get("Raw negative prompt", found.negative_prompt)),
        dialect="a1111",
        settings=found.settings,
    )
