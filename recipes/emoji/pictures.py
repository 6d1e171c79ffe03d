"""Render the emoji of fifteen sets to 64×64 pictures that they fill, over white, and write the tables to train and measure with.

    cd recipes/emoji && npm ci && cd ../..
    python recipes/emoji/pictures.py --out runs/emoji/data

    pictures/SET/CODE.png    what a set draws; a picture that is there already is not drawn again
    outlined/SET/CODE.png    what training may see, smaller and with dark outlines; drawn/: the outlines alone, of a third
    bent-1/SET/CODE.png      what training may see, in other proportions; bent-2/: outlined as well
    train.csv                image, caption: several captions a picture, of the vendors and emoji that training may see,
                             as they are, outlined, drawn and bent
    unseen_vendor.csv        one caption a picture: a vendor that training never sees
    unseen_emoji.csv         one caption a picture: the tenth of all emoji that training sees from no vendor
    shift.csv                one caption a picture: the sets of one colour
    labels.csv               code, label, tags, group, subgroup, its kinds in plain words, unseen, and the label in
                             further languages
    licences.json            author, version and licence of each set

Needs resvg-py (pip install resvg-py) and the packages that package.json names; nothing else is downloaded.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from hands import bent, drawn, outlined
from kinds import KINDS
from names import (
    DRAWN_SHARE,
    LANGUAGES,
    MONOCHROME,
    SETS,
    TRAINED,
    UNSEEN_VENDOR,
    VENDORS,
    Emoji,
    codes_by_name,
    icon_set,
    icons_by_code,
    licence,
    read_emoji,
    read_labels,
    share_of,
)
from PIL import Image, ImageOps

SIZE, MARGIN = 64, 2  # pixels
Hand = Callable[[Image.Image, np.random.Generator], Image.Image]
TEMPLATES = (
    "a picture of {}", "an emoji of {}", "a drawing of {}", "a photo of a {}", "{} icon", "a small picture that shows {}"
)  # fmt: skip


def svg_of(icons: dict[str, Any], icon: str) -> str:
    """Return an icon of an Iconify set as an SVG document; one-colour sets are drawn in black."""
    of = icons["icons"][icon]
    left, top = of.get("left", icons.get("left", 0)), of.get("top", icons.get("top", 0))
    width = of.get("width", icons.get("width", 16))
    height = of.get("height", icons.get("height", 16))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" color="#000" '
        f'viewBox="{left} {top} {width} {height}">{of["body"]}</svg>'
    )


def render(icons: dict[str, Any], task: tuple[str, Path]) -> None:
    """Write one icon as a PNG over white, unless it is there already."""
    import resvg_py

    icon, path = task
    if path.exists():
        return
    drawn = resvg_py.svg_to_bytes(
        svg_string=svg_of(icons, icon), background="#ffffff", width=3 * SIZE, height=3 * SIZE, skip_system_fonts=True
    )
    with Image.open(io.BytesIO(bytes(drawn))) as image:
        save(filling(image.convert("RGB")), path)


def filling(image: Image.Image) -> Image.Image:
    """Return what is drawn on white, SIZE × SIZE with a margin of MARGIN: sets leave margins from none to a third."""
    box = ImageOps.invert(image).getbbox() or (0, 0, *image.size)
    part = ImageOps.contain(image.crop(box), (SIZE - 2 * MARGIN,) * 2, Image.Resampling.LANCZOS)
    return _centred(part)


def _centred(part: Image.Image) -> Image.Image:
    whole = Image.new("RGB", (SIZE, SIZE), "white")
    whole.paste(part, ((SIZE - part.width) // 2, (SIZE - part.height) // 2))
    return whole


def save(image: Image.Image, path: Path) -> None:
    """Write a picture, complete or not at all."""
    temporary = path.with_suffix(".tmp")
    image.save(temporary, "PNG")
    temporary.replace(path)


def redraw(how: Hand, task: tuple[Path, Path]) -> None:
    """Write what `how` makes of a picture to a path, unless it is there already; the path's name decides what it draws."""
    source, path = task
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(list("/".join(path.parts[-3:]).encode()))
    with Image.open(source) as image:
        other = how(image.convert("RGB"), draw)
    size = round(SIZE * draw.uniform(2 / 3, 1))
    save(_centred(other.resize((size, size), Image.Resampling.LANCZOS)), path)


def _bent_in_fine_lines(image: Image.Image, draw: np.random.Generator) -> Image.Image:
    return outlined(bent(image.resize((2 * SIZE, 2 * SIZE), Image.Resampling.BICUBIC), draw))


def in_other_hands(out: Path, rows: Iterable[tuple[Path, Emoji]]) -> Iterator[tuple[Path, Emoji]]:
    """Yield each picture; then each outlined, the outlines alone of a share of them, and each bent, plain and outlined."""
    rows = list(rows)
    some = [(path, emoji) for path, emoji in rows if share_of(f"{path.parent.name}/{emoji.code}") < DRAWN_SHARE]
    hands: list[tuple[str, Hand, list[tuple[Path, Emoji]]]] = [
        ("outlined", lambda image, _: outlined(image), rows), ("drawn", lambda image, _: drawn(image), some),
        ("bent-1", bent, rows), ("bent-2", _bent_in_fine_lines, rows),
    ]  # fmt: skip
    yield from rows
    for name, how, of in hands:
        tasks = [(path, out / name / path.relative_to(out / "pictures")) for path, _ in of]
        with ThreadPoolExecutor() as pool:
            for _ in pool.map(partial(redraw, how), tasks):
                pass
        yield from ((path, emoji) for (_, path), (_, emoji) in zip(tasks, of, strict=True))


def captions(emoji: Emoji) -> list[str]:
    """Return what training may call a picture: its label, plain and in templates, with tags and its kind; these alone.

    The same for every vendor, so that a batch that holds one emoji twice knows its captions to be no negatives; a kind or
    a tag is a caption of all that it names.
    """
    tags = [tag for tag in _shuffled(emoji.tags, emoji.code) if tag.lower() != emoji.label.lower()]
    kinds = KINDS[emoji.subgroup]
    said = [emoji.label, *(template.format(emoji.label) for template in TEMPLATES)]
    said += [", ".join([emoji.label, *tags[start : start + 3]]) for start in (0, 3) if tags[start:]]
    said += [f"{emoji.label}, {kinds[0]}"]
    said += [", ".join(tags[start : start + 3]) for start in (0, 2) if tags[start + 1 :]]
    return list(dict.fromkeys([*said, *tags[:2], *kinds]))


def _shuffled(words: Iterable[str], seed: str) -> list[str]:
    return sorted(words, key=lambda word: hashlib.sha256(f"{seed}/{word}".encode()).digest())


def _only_label(emoji: Emoji) -> list[str]:
    return [emoji.label]


def write_table(path: Path, rows: Iterable[tuple[Path, Emoji]], said: Callable[[Emoji], list[str]]) -> int:
    """Write image and caption, images relative to the table; return the number of images."""
    images = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "caption"))
        for image, emoji in rows:
            images += 1
            writer.writerows((image.relative_to(path.parent).as_posix(), caption) for caption in said(emoji))
    return images


def write_labels(path: Path, modules: Path, emoji: dict[str, Emoji]) -> None:
    """Write what is known of each emoji, a row each."""
    other = {language: read_labels(modules, language) for language in LANGUAGES}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("code", "label", "tags", "group", "subgroup", "kinds", "unseen", *LANGUAGES))
        for code, one in emoji.items():
            names = [other[language].get(code, "") for language in LANGUAGES]
            known = (code, one.label, "|".join(one.tags), one.group, one.subgroup, "|".join(KINDS[one.subgroup]))
            writer.writerow((*known, int(one.unseen), *names))


def draw_all(modules: Path, out: Path, emoji: dict[str, Emoji]) -> dict[str, dict[str, Path]]:
    """Draw every set; return for each the pictures by code, in the order of `emoji`."""
    names = codes_by_name(modules, emoji)
    drawn: dict[str, dict[str, Path]] = {}
    with ThreadPoolExecutor() as pool:
        for name in SETS:
            folder = out / "pictures" / name
            folder.mkdir(parents=True, exist_ok=True)
            icons = icon_set(modules, name)
            by_code = icons_by_code(modules, name, names)
            drawn[name] = {code: folder / f"{code}.png" for code in emoji if code in by_code}
            tasks = [(by_code[code], path) for code, path in drawn[name].items()]
            for _ in pool.map(partial(render, icons), tasks):
                pass
            print(f"{name}: {len(tasks)} of {len(emoji)} emoji", flush=True)
    return drawn


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--modules", type=Path, default=Path(__file__).parent / "node_modules")
    options.add_argument("--out", type=Path, default=Path("runs/emoji/data"))
    given = options.parse_args()
    if not given.modules.is_dir():
        options.error(f"{given.modules} does not exist; run npm ci in recipes/emoji first")

    emoji = read_emoji(given.modules)
    drawn = draw_all(given.modules, given.out, emoji)

    def of(sets: Iterable[str], *, unseen: bool | None) -> Iterator[tuple[Path, Emoji]]:
        for name in sets:
            for code, path in drawn[name].items():
                if unseen is None or emoji[code].unseen == unseen:
                    yield path, emoji[code]

    counts = {
        "train.csv": write_table(
            given.out / "train.csv", in_other_hands(given.out, of(TRAINED, unseen=False)), captions
        ),
        "unseen_vendor.csv": write_table(
            given.out / "unseen_vendor.csv", of([UNSEEN_VENDOR], unseen=False), _only_label
        ),
        "unseen_emoji.csv": write_table(given.out / "unseen_emoji.csv", of(VENDORS, unseen=True), _only_label),
        "shift.csv": write_table(given.out / "shift.csv", of(MONOCHROME, unseen=False), _only_label),
    }
    write_labels(given.out / "labels.csv", given.modules, emoji)
    licences = [licence(given.modules, name) for name in SETS]
    (given.out / "licences.json").write_text(json.dumps(licences, indent=2, ensure_ascii=False) + "\n", "utf-8")
    for table, images in counts.items():
        print(f"{given.out / table}: {images} pictures")


if __name__ == "__main__":
    main()
