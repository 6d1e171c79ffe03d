"""Every reader gives a prompt, a reason or nothing for any text in any field, never an exception."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clipcond.images.metadata.comfyui import read_comfyui
from clipcond.images.metadata.draw_things import read_draw_things
from clipcond.images.metadata.easy_diffusion import read_easy_diffusion
from clipcond.images.metadata.fooocus import read_fooocus
from clipcond.images.metadata.image_prompt import ImagePrompt, plain_prompt
from clipcond.images.metadata.invokeai import read_invokeai
from clipcond.images.metadata.json_text import LARGEST_PROMPT
from clipcond.images.metadata.midjourney import read_midjourney
from clipcond.images.metadata.more_fields import XMP
from clipcond.images.metadata.novelai import read_novelai
from clipcond.images.metadata.stealth import stealth_fields
from clipcond.images.metadata.swarmui import read_swarmui

READERS = (read_comfyui, read_draw_things, read_easy_diffusion, read_fooocus, read_invokeai, read_midjourney, read_novelai,
           read_swarmui)  # fmt: skip
FIELDS = ("parameters", "prompt", "workflow", "invokeai_metadata", "invokeai_graph", "sd-metadata", "Dream", "Title",
          "Description", "Software", "Comment", "comment", "UserComment", "fooocus_scheme", "Prompt", "Negative Prompt",
          "negative_prompt", "exif:Make", "exif:Model", "exif:ImageDescription", "exif:Software", "exif:MakerNote",
          XMP)  # fmt: skip
NAMES = ("prompt", "negative_prompt", "uc", "c", "v4_prompt", "caption", "base_caption", "char_captions", "char_caption",
         "sui_image_params", "negativeprompt", "image", "images", "positive_prompt", "nodes", "edges", "full_prompt",
         "source", "destination", "node_id", "field", "class_type", "inputs", "text", "positive", "links", "id",
         "type")  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(NAMES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=25,
)
PIECES = st.sampled_from(["--v 6", "::", "-s 5", '"', "[", "]", "{", "}", "(", ")", "1.5::", "Job ID: 0123abcd", "Steps: 20, ",
                          "Sampler: a, Seed: 1, Raw prompt: x", "NovelAI", "Fooocus", "prompt:", "\n", "\\", "\0"])  # fmt: skip
TEXTS = (
    st.text(max_size=40)
    | VALUES.map(json.dumps)
    | st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5).map(json.dumps)
    | st.lists(PIECES | st.text(max_size=4), max_size=12).map("".join)
)


@given(st.dictionaries(st.sampled_from(FIELDS), TEXTS, max_size=4))
def test_any_fields(fields: dict[str, str]) -> None:
    for reader in READERS:
        found = reader(fields)
        assert found is None or isinstance(found, ImagePrompt)
        if found is not None and found.infotext is not None:
            found.infotext.prompt.encode()  # whole characters
            found.infotext.negative_prompt.encode()
            plain_prompt(found.infotext)
        elif found is not None:
            assert found.reason


@pytest.mark.parametrize("value", [10**30, float("nan"), float("inf"), "\ud800", "\0", True, None, [], {}])
def test_odd_values_in_every_tools_json(value: object) -> None:
    inner = dict.fromkeys(NAMES, value)
    for values in (
        inner,
        {"sui_image_params": inner, "image": inner, "v4_prompt": {"caption": inner}, "uc": "", "prompt": ""},
    ):
        fields = dict.fromkeys(FIELDS, json.dumps(values))
        for reader in READERS:
            reader(fields)
            for name, text in fields.items():
                reader({name: text})


@pytest.mark.parametrize("size", [LARGEST_PROMPT + 1, 5 << 20])
def test_large_texts_are_refused_or_passed_over(size: int) -> None:
    large = "x" * size
    texts = (large, json.dumps({"prompt": large, "c": "x", "uc": large, "positive_prompt": large}))
    began = time.process_time()
    for text in texts:
        for reader in READERS:
            for name in FIELDS:
                found = reader({"Software": "NovelAI", name: text})
                prompt = found.infotext.prompt if found is not None and found.infotext is not None else ""
                assert len(prompt) <= LARGEST_PROMPT
    assert time.process_time() - began < 5


@given(st.binary(max_size=60), st.sampled_from([b"stealth_pnginfo", b"stealth_pngcomp", b"stealth_rgbcomp"]))
def test_any_bits_in_pixels(content: bytes, form: bytes) -> None:
    mode, bands = ("RGBA", 4) if form.startswith(b"stealth_png") else ("RGB", 3)
    bits = "".join(f"{byte:08b}" for byte in form + content)
    image = Image.new(mode, (1, 700))
    for row in range(700):
        here = bits[row : row + 1] if bands == 4 else bits[3 * row : 3 * row + 3]
        lowest = [int(bit) for bit in here.ljust(1 if bands == 4 else 3, "0")]
        image.putpixel((0, row), tuple([0, 0, 0, *lowest] if bands == 4 else lowest))
    stealth_fields(image)
