"""A grid of maps as a PNG, for papers and READMEs: the picture, then each phrase's map over it, with a scale."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from clipcond.pages.heat import coloured, levels
from clipcond.wording import visible

if TYPE_CHECKING:
    from clipcond.diffusion.explain.explanation import ExplainedPicture, Explanation

SIDE = 192  # pixels of the longer side of a tile
_GAP, _LINE, _BAR = 12, 17, 14  # between tiles, of a line of text, of the scale's height
_INK, _SOFT, _PAPER = (20, 24, 32), (95, 103, 115), (255, 255, 255)
_LINES = 3  # of text under a tile
_TEXT = 13  # pixels of a letter's height
Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


def map_grid(explanation: Explanation, *, columns: int | None = None) -> Image.Image:
    """Return the grid of the first picture, RGB on white: all maps on one scale, dark is none and light the most.

    columns: of tiles, the picture's own counted; None is at most five.
    """
    picture = explanation.pictures[0]
    count = 1 + len(explanation.phrases)
    columns = min(count, 5) if columns is None else columns
    rows = -(-count // columns)
    width, height = _tile_size(picture)
    tall = height + _LINES * _LINE + _GAP
    sheet = Image.new("RGB", (columns * (width + _GAP) + _GAP, rows * tall + 3 * _GAP + _BAR + _LINE), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT)
    most = float(picture.maps.max()) if picture.maps.numel() else 0.0
    tiles = [(picture.image.convert("RGB"), f"seed {picture.seed}", "")]
    for phrase, one in zip(explanation.phrases, picture.maps, strict=True):
        side = "negative: " if phrase.side != "prompt" else ""
        tiles.append((coloured(levels(one, most)), side + phrase.text, f"strength {phrase.strength:.2f}"))
    for number, (image, title, note) in enumerate(tiles):
        x = _GAP + number % columns * (width + _GAP)
        y = _GAP + number // columns * tall
        sheet.paste(image.resize((width, height), Image.Resampling.BICUBIC), (x, y))
        lines = [(line, _INK) for line in _wrapped(title, width, font, _LINES - bool(note))] + [(note, _SOFT)]
        for at, (line, ink) in enumerate(lines):
            draw.text((x, y + height + 3 + at * _LINE), line, ink, font)
    _scale(sheet, draw, font, rows * tall + 2 * _GAP, most)
    return sheet


def map_grid_png(explanation: Explanation) -> bytes:
    """The grid as the bytes of a PNG."""
    file = io.BytesIO()
    map_grid(explanation).save(file, "PNG", optimize=True)
    return file.getvalue()


def _tile_size(picture: ExplainedPicture) -> tuple[int, int]:
    width, height = picture.image.size
    ratio = SIDE / max(width, height)
    return max(1, round(width * ratio)), max(1, round(height * ratio))


def _scale(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    font: Font,
    top: int,
    most: float,
) -> None:
    """A bar of the colours with numbers at its ends."""
    width = min(2 * SIDE, sheet.width - 2 * _GAP)
    ramp = np.tile(np.linspace(0, 255, width).astype(np.uint8), (_BAR, 1))
    sheet.paste(coloured(ramp), (_GAP, top))
    end = f"{most:.2g}"
    draw.text((_GAP, top + _BAR + 2), "0", _SOFT, font)
    draw.text((_GAP + width - draw.textlength(end, font), top + _BAR + 2), end, _SOFT, font)
    middle = "change of the prediction"
    draw.text((_GAP + (width - draw.textlength(middle, font)) / 2, top + _BAR + 2), middle, _SOFT, font)


def _wrapped(text: str, width: int, font: Font, lines: int) -> list[str]:
    """A text in lines of a width, the last with a sign where something is left out."""
    found: list[str] = [""]
    for word in visible(" ".join(text.split())).split():
        longer = f"{found[-1]} {word}".strip()
        if font.getlength(longer) <= width or not found[-1]:
            found[-1] = longer
        else:
            found.append(word)
    kept = found[:lines]
    if len(found) > lines or font.getlength(kept[-1]) > width:
        while kept[-1] and font.getlength(kept[-1] + "…") > width:
            kept[-1] = kept[-1][:-1]
        kept[-1] += "…"
    return kept
