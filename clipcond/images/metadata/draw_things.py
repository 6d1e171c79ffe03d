"""Draw Things: XMP whose `exif:UserComment` is JSON with `c`, the prompt, and `uc`, the negative one."""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree

from clipcond.images.metadata.image_prompt import ImagePrompt
from clipcond.images.metadata.json_text import image_prompt, json_object, plain_text
from clipcond.images.metadata.more_fields import XMP

_COMMENT = "{http://ns.adobe.com/exif/1.0/}UserComment"
_LARGEST = 1 << 20  # characters of a packet


def read_draw_things(fields: Mapping[str, str]) -> ImagePrompt | None:
    """Return Draw Things' prompt, or None."""
    for text in xmp_texts(fields.get(XMP, ""), _COMMENT):
        values = json_object(text)
        if values is not None and isinstance(values.get("c"), str):
            return image_prompt(
                tool="Draw Things",
                field="XMP UserComment",
                prompt=plain_text(values["c"]),
                negative_prompt=plain_text(values.get("uc")),
                dialect="a1111",
                settings={name: value for name, value in values.items() if name not in ("c", "uc")},
            )
    return None


def xmp_texts(packet: str, name: str) -> tuple[str, ...]:
    """Return the texts of a property, `{namespace}name`, of an XMP packet. Never raises; entities are not expanded."""
    if len(packet) > _LARGEST or "<!DOCTYPE" in packet or "<!ENTITY" in packet:
        return ()
    try:
        root = ElementTree.fromstring(packet.strip("\0 \r\n\t\ufeff").encode(errors="replace"))
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError):
        return ()
    attributes = [element.attrib[name] for element in root.iter() if name in element.attrib]
    elements = ["".join(element.itertext()).strip() for element in list(root.iter(name))[:1]]
    return (*attributes, *elements)
