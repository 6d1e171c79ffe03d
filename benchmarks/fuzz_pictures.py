"""Damaged and odd pictures through the way that `clipcond rerank` takes: does each end as pixels or as one line?

    python benchmarks/fuzz_pictures.py [COUNT] [SEED]

Each case is a small picture in one of nine formats, in one of many modes, with metadata, profiles and orientation, of
which some bytes were flipped, cut, repeated or set to extremes. Printed: how many gave pixels, how many an error row,
and the slowest case; anything else ends the run with the case's number, from which it can be made again.
"""

from __future__ import annotations

import random
import sys
import time
import warnings
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from clipcond.errors import ImageError
from clipcond.images.decode import decoded, quiet_pillow
from clipcond.images.metadata.reading import plain_prompt, read_metadata
from clipcond.images.preprocess import Preprocess

FORMATS = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("L", "P"),
    "BMP": ("1", "L", "P", "RGB"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "LAB"),
    "AVIF": ("RGB", "RGBA"),
    "PPM": ("1", "L", "RGB", "I"),
    "TGA": ("L", "RGB", "RGBA"),
}
INFOTEXT = "a red fox\nNegative prompt: blurry\nSteps: 20, Sampler: Euler, Seed: 1"
POLICIES = ("shortest", "longest", "squash")


def picture(draw: random.Random) -> tuple[str, Image.Image]:
    """A format and a small picture in a mode that it takes."""
    format = draw.choice(list(FORMATS))
    mode = draw.choice(FORMATS[format])
    size = draw.choice([(1, 1), (1, 400), (400, 1), (33, 20), (64, 64), (7, 90)])
    noise = np.random.default_rng(draw.getrandbits(32)).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    if mode == "F":
        return format, Image.fromarray(noise[..., 0].astype(np.float32) / draw.choice([255, 1, 1e-3, 1e30]))
    if mode in ("I", "I;16"):
        levels = noise[..., 0].astype(np.uint16 if mode == "I;16" else np.int32) * draw.choice([1, 257])
        return format, Image.fromarray(levels)
    if mode == "LAB":
        return format, Image.frombytes("LAB", size, noise[..., :3].tobytes())
    return format, Image.fromarray(noise).convert(mode)


def encoded(draw: random.Random) -> bytes:
    """The picture's file, with whatever its format carries."""
    format, image = picture(draw)
    options: dict[str, object] = {}
    if draw.random() < 0.5 and format in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF"):
        exif = Image.Exif()
        exif[0x0112] = draw.randrange(12)
        exif.get_ifd(0x8769)[0x9286] = draw.choice([b"UNICODE\0", b"ASCII\0\0\0", b"", bytes(8)]) + INFOTEXT.encode(
            draw.choice(["utf-8", "utf-16-be", "utf-16-le", "utf-16"])
        )
        options["exif"] = exif.tobytes()
    if draw.random() < 0.5 and format in ("PNG", "JPEG", "WEBP", "TIFF"):
        profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
        for _ in range(draw.randrange(4)):
            profile[draw.randrange(len(profile))] = draw.randrange(256)
        options["icc_profile"] = bytes(profile)
    if format == "PNG":
        text = PngInfo()
        text.add_text("parameters", INFOTEXT * draw.choice([1, 50]), zip=draw.random() < 0.5)
        options["pnginfo"] = text
    if format in ("GIF", "JPEG") and draw.random() < 0.5:
        options["comment"] = INFOTEXT.encode()
    file = BytesIO()
    image.save(file, format=format, **options)
    return file.getvalue()


def damaged(draw: random.Random, content: bytes) -> bytes:
    """The file with a few bytes changed, most often near its start, where headers are."""
    out = bytearray(content)
    for _ in range(draw.choice([0, 1, 1, 2, 4, 16])):
        place = int(len(out) * draw.random() ** draw.choice([1, 3])) if out else 0
        match draw.randrange(5):
            case 0:
                out[place : place + 1] = bytes([draw.randrange(256)])
            case 1:
                out[place : place + 4] = draw.choice(
                    [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4), b"\x00\x01\x00\x00"]
                )
            case 2:
                del out[place:]
            case 3:
                out[place:place] = out[place : place + draw.randrange(64)]
            case 4:
                del out[place : place + draw.randrange(64)]
    return bytes(out)


def outcome(content: bytes, preprocess: Preprocess) -> str:
    """`pixels` or `error row`; whatever else there is escapes."""
    result, problem = "pixels", ""
    try:
        with decoded(content, name="case") as image:
            found = read_metadata(image)
            if found.infotext is not None:
                plain_prompt(found.infotext)
            pixels = preprocess.pixels(image)
            assert pixels.shape == (preprocess.height, preprocess.width, 3)
    except ImageError as error:
        result, problem = "error row", str(error)
    assert problem == "" or problem.isprintable(), ascii(problem)
    return result


def case(number: int, seed: int) -> str:
    """The outcome of one case, which its number and the seed make."""
    config = {"size": 64, "mean": 0.5, "std": 0.5}
    preprocesses = [Preprocess.from_open_clip({**config, "resize_mode": policy}) for policy in POLICIES]
    draw = random.Random(seed * 1_000_003 + number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = damaged(draw, encoded(draw))
    with quiet_pillow():
        return outcome(content, draw.choice(preprocesses))


def main(count: int = 500, seed: int = 0) -> None:
    counts: dict[str, int] = {}
    slowest = (0.0, -1)
    for number in range(count):
        start = time.process_time()
        try:
            result = case(number, seed)
        except BaseException:
            print(f"case {number} of seed {seed}")
            raise
        counts[result] = counts.get(result, 0) + 1
        slowest = max(slowest, (time.process_time() - start, number))
    share = ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))
    print(f"{count} pictures: {share}; slowest {slowest[0]:.2f} s (case {slowest[1]}); Pillow {Image.__version__}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
