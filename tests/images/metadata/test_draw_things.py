"""Draw Things' prompts in XMP."""

from __future__ import annotations

import json
import time
from xml.sax.saxutils import escape

import pytest
from PIL.PngImagePlugin import PngInfo
from written import encoded, fields_of

from clipcond.images.metadata.draw_things import read_draw_things
from clipcond.images.metadata.more_fields import XMP

RDF = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
EXIF = 'xmlns:exif="http://ns.adobe.com/exif/1.0/"'
VALUES = {"c": 'a "red" fox & é', "uc": "ugly", "steps": 20, "seed": 5}


def packet(body: str) -> str:
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {RDF}>{body}</rdf:RDF></x:xmpmeta>'


COMMENT = (
    f"<rdf:Description {EXIF}><exif:UserComment><rdf:Alt><rdf:li xml:lang='x-default'>{escape(json.dumps(VALUES))}"
    "</rdf:li></rdf:Alt></exif:UserComment></rdf:Description>"
)


def png_with(text: str) -> dict[str, str]:
    info = PngInfo()
    info.add_itxt(XMP, text)
    return fields_of(encoded("PNG", pnginfo=info))


@pytest.mark.parametrize(
    "fields",
    [
        png_with(packet(COMMENT)),
        fields_of(encoded("JPEG", xmp=packet(COMMENT).encode())),
        fields_of(encoded("WEBP", xmp=packet(COMMENT).encode())),
    ],
)
def test_every_format(fields: dict[str, str]) -> None:
    found = read_draw_things(fields)
    assert found is not None
    assert found.infotext is not None
    assert (found.infotext.prompt, found.infotext.negative_prompt) == ('a "red" fox & é', "ugly")
    assert (found.source, found.infotext.settings["steps"]) == ("XMP UserComment (Draw Things)", "20")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<x:xmpmeta",
        packet(""),
        packet(COMMENT.replace("&quot;", "").replace("{", "[")),
        packet(COMMENT.replace('"c"', '"d"').replace("&quot;c&quot;", "&quot;d&quot;")),
        '<!DOCTYPE a [<!ENTITY b "' + "c" * 100 + '">]>' + packet(COMMENT),
        packet("<a>" * 50_000),
        packet("<a>" * 50_000 + "</a>" * 50_000),
        "\ud800" + packet(COMMENT) + "<",
        "<a/>" * 300_000,
    ],
)
def test_hostile_packets_give_nothing_quickly(text: str) -> None:
    began = time.process_time()
    assert read_draw_things({XMP: text}) is None
    assert time.process_time() - began < 2
