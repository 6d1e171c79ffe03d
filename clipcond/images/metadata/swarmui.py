"""SwarmUI: `parameters`, UserComment or, of old versions, EXIF Model hold `{"sui_image_params": {…}}`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from clipcond.images.metadata.image_prompt import ImagePrompt
from clipcond.images.metadata.json_text import image_prompt, json_object, mapping, plain_text

_PARTS = re.compile(r"<(?:segment|object|region)[:\[]")  # what follows is drawn into a part of the picture


def read_swarmui(fields: Mapping[str, str]) -> ImagePrompt | None:
    """Return SwarmUI's prompt, or None. Prompts of single parts of the picture are in the setting `Part prompts`."""
    for field in ("parameters", "UserComment", "exif:Model"):
        values = json_object(fields.get(field))
        if values is None or not isinstance(values.get("sui_image_params"), dict):
            continue
        written = mapping(values["sui_image_params"])
        prompt = plain_text(written.get("prompt"))
        found = _PARTS.search(prompt)
        settings = {name: value for name, value in written.items() if name not in ("prompt", "negativeprompt")}
        if found:
            settings["Part prompts"] = prompt[found.start() :]
        return image_prompt(
            tool="SwarmUI",
            field=field,
            prompt=prompt[: found.start()].strip() if found else prompt,
            negative_prompt=plain_text(written.get("negativeprompt")),
            dialect="a1111",
            settings=settings,
        )
    return None
