"""NovelAI's prompts: V3, V4 with characters, and what is hidden in pixels."""

from __future__ import annotations

import gzip
import json
import struct
import time

import numpy as np
import pytest
from PIL import Image
from written import png

from clipcond.images.metadata.image_prompt import plain_prompt
from clipcond.images.metadata.novelai import read_novelai, with_a1111_emphasis
from clipcond.images.metadata.stealth import stealth_fields

V3 = {"prompt": "1girl, {{fox ears}}, [snow], (smile)", "uc": "lowres", "steps": 28, "scale": 5.0, "seed": 5}
V4 = {
    "prompt": "2girls", "uc": "old",
    "v4_prompt": {"caption": {"base_caption": "2girls, forest", "char_captions": [
        {"char_caption": "girl, red hair", "centers": []}, {"char_caption": "girl, 1.5::blue hair::"}]}},
    "v4_negative_prompt": {"caption": {"base_caption": "lowres", "char_captions": [{"char_caption": "hat"}]}},
}  # fmt: skip


def chunks(values: dict[str, object]) -> dict[str, str]:
    return {
        "Title": "AI generated image", "Description": "of the description", "Software": "NovelAI",
        "Source": "Stable Diffusion XL 7BCCAA2C", "Comment": json.dumps(values),
    }  # fmt: skip


def test_v3() -> None:
    found = read_novelai(png(chunks(V3)))
    assert found is not None
    assert found.infotext is not None
    assert found.infotext.prompt == "1girl, (fox ears:1.103), (snow:0.952), \\(smile\\)"
    assert plain_prompt(found.infotext).replace(" ,", ",") == "1girl, fox ears, snow, (smile)"
    assert found.infotext.negative_prompt == "lowres"
    assert found.infotext.settings["steps"] == "28"
    assert found.source == "Comment (NovelAI)"


def test_v4_with_its_characters() -> None:
    found = read_novelai(png(chunks(V4)))
    assert found is not None
    assert found.infotext is not None
    assert found.infotext.prompt == "2girls, forest, girl, red hair, girl, (blue hair:1.5)"
    assert found.infotext.negative_prompt == "lowres, hat"


@pytest.mark.parametrize("comment", ["", "{", "[]", "[" * 100_000, '{"prompt": 3, "v4_prompt": {"caption": []}}'])
def test_the_description_where_the_comment_is_damaged(comment: str) -> None:
    found = read_novelai({"Software": "NovelAI", "Description": "a fox", "Comment": comment})
    assert found is not None
    assert found.infotext is not None
    assert (found.infotext.prompt, found.infotext.negative_prompt) == ("a fox", "")


def test_what_others_write_is_left_to_them() -> None:
    for fields in ({"Description": "a fox"}, {"Comment": '{"prompt": "x"}'}, {"Software": "GIMP", "Comment": "{}"}, {}):
        assert read_novelai(fields) is None


@pytest.mark.parametrize(
    ("text", "emphasised"),
    [
        ("a fox", "a fox"),
        ("{a fox}", "(a fox:1.05)"),
        ("a {{{red}}} fox", "a (red:1.158) fox"),
        ("a [[red]] fox", "a (red:0.907) fox"),
        ("{[red]} fox", "red fox"),
        ("1.5::red fox::, snow", "(red fox:1.5), snow"),
        ("-1::hat::, a", "(hat:-1), a"),
        ("{a 2::b:: c}", "(a:1.05) (b:2.1) (c:1.05)"),
        ("a (fox)", "a \\(fox\\)"),
        ("{a, }fox", "(a:1.05), fox"),
        ("}} a [", "(a:0.907)"),
        ("", ""),
    ],
)
def test_emphasis_as_a1111_writes_it(text: str, emphasised: str) -> None:
    assert with_a1111_emphasis(text) == emphasised


@pytest.mark.parametrize("text", ["{" * 60_000, "1::" * 20_000, "{a}" * 20_000, "9" * 60_000, "[(" * 30_000 + "a"])
def test_emphasis_takes_time_linear_in_the_text(text: str) -> None:
    began = time.process_time()
    read_novelai({"Software": "NovelAI", "Description": text})
    assert time.process_time() - began < 2


def hidden(content: bytes, form: bytes, size: tuple[int, int] = (97, 83)) -> Image.Image:
    """A picture with bytes in its lowest bits, as the convention says: written out pixel by pixel."""
    mode = "RGBA" if form.startswith(b"stealth_png") else "RGB"
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], len(mode)), dtype=np.uint8)
    bits = [
        byte >> place & 1 for byte in form + struct.pack(">I", 8 * len(content)) + content for place in range(7, -1, -1)
    ]
    bands = [3] if mode == "RGBA" else [0, 1, 2]
    places = ((x, y, band) for x in range(size[0]) for y in range(size[1]) for band in bands)
    for bit, (x, y, band) in zip(bits, places, strict=False):
        noise[y, x, band] = noise[y, x, band] & 0xFE | bit
    return Image.fromarray(noise, mode)


@pytest.mark.parametrize("form", [b"stealth_pnginfo", b"stealth_pngcomp", b"stealth_rgbinfo", b"stealth_rgbcomp"])
@pytest.mark.parametrize("size", [(97, 83), (2000, 3), (20, 1000)])
def test_text_in_pixels(form: bytes, size: tuple[int, int]) -> None:
    text = json.dumps({name: value for name, value in chunks(V3).items() if name not in ("Title", "Software")})
    content = gzip.compress(text.encode(), mtime=0) if form.endswith(b"comp") else text.encode()
    fields = stealth_fields(hidden(content, form, size))
    found = read_novelai(fields)
    assert found is not None
    assert found.infotext is not None
    assert plain_prompt(found.infotext).replace(" ,", ",") == "1girl, fox ears, snow, (smile)"


def test_the_first_column_begins_with_the_letter_s() -> None:
    alpha = np.asarray(hidden(b"a", b"stealth_pnginfo").getchannel("A"))
    assert (alpha[:8, 0] & 1).tolist() == [0, 1, 1, 1, 0, 0, 1, 1]
    blue = np.asarray(hidden(b"\xff", b"stealth_rgbinfo").getchannel("B"))
    assert blue.T.flatten()[50] & 1  # the text begins at bit 152, blue of pixel 50


def test_infotexts_of_other_programs_in_pixels() -> None:
    infotext = "a fox\nNegative prompt: ugly\nSteps: 20, Sampler: Euler, Seed: 1"
    image = hidden(gzip.compress(infotext.encode(), mtime=0), b"stealth_pngcomp")
    assert stealth_fields(image) == {"parameters": infotext}


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (b"no gzip", b"stealth_pngcomp"),
        (gzip.compress(b"a" * 100, mtime=0)[:-4], b"stealth_pngcomp"),
        (gzip.compress(bytes(1 << 23), mtime=0), b"stealth_pngcomp"),  # a bomb
        (b"\xff\xfe\xfd", b"stealth_pnginfo"),
        (b"", b"stealth_pnginfo"),
        (b"text", b"stealth_pngother"[:15]),
    ],
)
def test_damaged_text_in_pixels_is_none(content: bytes, form: bytes) -> None:
    assert stealth_fields(hidden(content, form)) == {}


@pytest.mark.parametrize("size", [(1, 1), (1, 151), (152, 1), (3, 50), (0, 5)])
def test_pictures_that_are_too_small_hold_none(size: tuple[int, int]) -> None:
    assert stealth_fields(Image.new("RGBA", size)) == {}
    assert stealth_fields(Image.new("RGB", size)) == {}


def test_a_length_beyond_the_picture_is_none() -> None:
    image = hidden(b"text", b"stealth_pnginfo", (40, 40))
    pixels = np.asarray(image).copy()
    column_bits = pixels[..., 3].T.reshape(-1)
    for bits in (0xFFFFFFF8, 0xFFFFFFFF, 8 * 2000):
        column_bits[120:152] = [bits >> place & 1 for place in range(31, -1, -1)]
        pixels[..., 3] = column_bits.reshape(40, 40).T
        assert stealth_fields(Image.fromarray(pixels, "RGBA")) == {}


@pytest.mark.parametrize("mode", ["L", "P", "LA", "1", "I;16", "F", "CMYK"])
def test_other_modes_hold_none(mode: str) -> None:
    assert stealth_fields(Image.new(mode, (64, 64))) == {}


def test_looking_for_hidden_text_costs_little() -> None:
    image = Image.new("RGBA", (4096, 4096))
    began = time.process_time()
    assert stealth_fields(image) == {}
    assert time.process_time() - began < 1
