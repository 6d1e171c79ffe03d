"""Midjourney's descriptions."""

from __future__ import annotations

import time

import pytest
from written import encoded, fields_of, png, with_exif

from clipcond.images.metadata.image_prompt import plain_prompt
from clipcond.images.metadata.midjourney import read_midjourney

JOB = "0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f"
TEXT = f"https://s.mj.run/abc a red fox (in snow) --ar 16:9 --no text, frames --v 6.1 Job ID: {JOB}"
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:description><rdf:Alt><rdf:li xml:lang="x-default">'
    f"{TEXT}</rdf:li></rdf:Alt></dc:description></rdf:Description></rdf:RDF></x:xmpmeta>"
)


@pytest.mark.parametrize(
    ("fields", "source"),
    [
        (png({"Description": TEXT, "Author": "me"}), "Description (Midjourney)"),
        (with_exif({0x010E: TEXT}), "exif:ImageDescription (Midjourney)"),
        (fields_of(encoded("WEBP", xmp=XMP.encode())), "XMP description (Midjourney)"),
    ],
)
def test_every_place(fields: dict[str, str], source: str) -> None:
    found = read_midjourney(fields)
    assert found is not None
    assert found.infotext is not None
    assert (found.infotext.prompt, found.infotext.negative_prompt) == ("a red fox (in snow)", "text, frames")
    assert found.infotext.settings == {"ar": "16:9", "v": "6.1", "Job ID": JOB, "Prompt dialect": "plain"}
    assert found.source == source
    assert plain_prompt(found.infotext) == "a red fox (in snow)"  # parentheses are no syntax there


@pytest.mark.parametrize(
    ("text", "positive", "negative"),
    [
        ("hot:: dog::2 --v 5", "hot, dog", ""),
        ("a fox:: snow::-.5 --niji 6", "a fox", "snow"),
        ("--ar 1:1", "", ""),
        (f"a well--known fox Job ID: {JOB}", "a well--known fox", ""),
    ],
)
def test_multi_prompts(text: str, positive: str, negative: str) -> None:
    found = read_midjourney({"Description": text})
    assert found is not None
    assert found.infotext is not None
    assert (found.infotext.prompt, found.infotext.negative_prompt) == (positive, negative)


@pytest.mark.parametrize(
    "text", ["", "a photograph of a fox", "run it with --verbose --no-cache", "Job ID: none", "--"]
)
def test_other_descriptions_are_left_alone(text: str) -> None:
    assert read_midjourney({"Description": text, "exif:ImageDescription": text}) is None


@pytest.mark.parametrize("text", ["--v " * 30_000, "a::" * 40_000, "Job ID: " * 20_000, "https://" * 20_000 + " --v 6",
                                  "::-1" * 30_000 + " --v 6", " " * 120_000 + "--v 6"])  # fmt: skip
def test_hostile_descriptions_take_no_time(text: str) -> None:
    began = time.process_time()
    read_midjourney({"Description": text})
    assert time.process_time() - began < 2
