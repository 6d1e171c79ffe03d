"""Emoji by code points: their names and tags from emojibase, and which icon of a set draws which of them."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VENDORS = ("noto", "noto-v1", "twemoji", "fluent-emoji", "fluent-emoji-flat", "emojione", "fxemoji")  # most emoji each
FLAGS = ("flag", "circle-flags", "flagpack", "cif")  # flags of countries alone
TRAINED = (*VENDORS, "streamline-emojis", *FLAGS)
UNSEEN_VENDOR = "openmoji"  # CC BY-SA: it measures, and nothing that ships is made of it
MONOCHROME = ("fluent-emoji-high-contrast", "emojione-monotone")
SETS = (*TRAINED, UNSEEN_VENDOR, *MONOCHROME)
LANGUAGES = ("de", "fr", "es", "zh")
UNSEEN_SHARE = 0.10  # of all emoji, in training from no vendor
DRAWN_SHARE = 0.33  # of the pictures to train on, those whose outlines alone are seen too
_INDICATOR, _TAG, _BLACK_FLAG, _CANCEL = 0x1F1E6, 0xE0000, "1f3f4", "e007f"
_NAMED_BY_CODE = ("openmoji", "twemoji", "fluent-emoji-flat", "noto")  # the sets that say which code points an icon is


@dataclass(frozen=True, slots=True, kw_only=True)
class Emoji:
    """One emoji, without its skin tones. code: its code points in hex, joined by dashes, without variation selectors."""

    code: str
    label: str
    tags: tuple[str, ...]
    group: str
    subgroup: str

    @property
    def unseen(self) -> bool:
        """True for the tenth of all emoji that training never sees; decided by the code alone."""
        return share_of(self.code) < UNSEEN_SHARE


def share_of(key: str) -> float:
    """Return a number from 0 up to 1 that a key alone decides, in steps of a thousandth."""
    return int(hashlib.sha256(key.encode()).hexdigest(), 16) % 1000 / 1000


def read_emoji(modules: Path) -> dict[str, Emoji]:
    """Return every emoji of emojibase by its code, in Unicode's order; letters of flags have no group and are left out."""
    data, groups = _read(modules, "en/data.json"), _read(modules, "meta/groups.json")
    rows = sorted((row for row in data if "group" in row), key=lambda row: row["order"])
    return {
        code: Emoji(
            code=code, label=row["label"], tags=tuple(dict.fromkeys(row.get("tags", ()))),
            group=groups["groups"][str(row["group"])], subgroup=groups["subgroups"][str(row["subgroup"])],
        )
        for row in rows
        for code in [normal_code(row["hexcode"])]
    }  # fmt: skip


def read_labels(modules: Path, language: str) -> dict[str, str]:
    """Return the label of each emoji in another language, by code."""
    return {normal_code(row["hexcode"]): row["label"] for row in _read(modules, f"{language}/compact.json")}


def normal_code(hexcode: str) -> str:
    """Return code points in lower case and without the variation selector, which sets and emojibase write differently."""
    return "-".join(part for part in hexcode.lower().split("-") if part != "fe0f")


def icons_by_code(modules: Path, name: str, names: dict[str, str]) -> dict[str, str]:
    """Return the icon of a set that draws each emoji. names: code by icon name, as `codes_by_name` gives it.

    Of an emoji that a set draws several times ("astronaut-1", "astronaut-2") it is the first.
    """
    icons = icon_set(modules, name)
    if name in FLAGS:
        return {flag_code(icon): icon for icon in icons["icons"] if not icon.endswith("-1x1")}
    found: dict[str, str] = {}
    for icon in icons["icons"]:
        code = names.get(icon) or names.get(re.sub(r"-\d$", "", icon))
        if code:
            found.setdefault(code, icon)
    for alias, of in icons.get("aliases", {}).items():
        if len(of) == 1 and alias in names and of["parent"] in icons["icons"]:  # no flipped or turned icon
            found.setdefault(names[alias], of["parent"])
    return found


def flag_code(icon: str) -> str:
    """Return the code points of a flag that is called by its country or part of one: "de", "de-4x3", "gb-sct"."""
    place = icon.removesuffix("-4x3")
    if len(place) == 2:
        return "-".join(f"{_INDICATOR + ord(letter) - ord('a'):x}" for letter in place)
    return "-".join([_BLACK_FLAG, *(f"{_TAG + ord(letter):x}" for letter in place.replace("-", "")), _CANCEL])


def codes_by_name(modules: Path, emoji: dict[str, Emoji]) -> dict[str, str]:
    """Return the code that a name of an icon stands for: labels first, then the sets that say it, then shortcodes.

    Some sets ship no code points; their names are CLDR's, those of another set, or shortcodes without dashes.
    """
    codes = {slug(one.label): code for code, one in emoji.items()}
    for name in _NAMED_BY_CODE:
        for icon, code in _icons_of_code(modules, name):
            if code in emoji:
                codes.setdefault(icon, code)
    for file in sorted((modules / "emojibase-data" / "en" / "shortcodes").glob("*.json")):
        for hexcode, said in json.loads(file.read_text(encoding="utf-8")).items():
            code = normal_code(hexcode)
            for word in [said] if isinstance(said, str) else said:
                if code in emoji:
                    codes.setdefault(slug(word), code)
                    codes.setdefault(slug(word).replace("-", ""), code)
    return codes


def _icons_of_code(modules: Path, name: str) -> Iterator[tuple[str, str]]:
    by_icon = {}
    for hexcode, icon in _read_set(modules, name, "chars.json").items():
        by_icon[icon] = normal_code(hexcode)
    yield from by_icon.items()
    for alias, of in icon_set(modules, name).get("aliases", {}).items():
        if len(of) == 1 and of["parent"] in by_icon:
            yield alias, by_icon[of["parent"]]


def icon_set(modules: Path, name: str) -> dict[str, Any]:
    """Return a set in Iconify's JSON: `icons` by name, each with a `body` of SVG, `aliases`, `width` and `height`."""
    return _read_set(modules, name, "icons.json")


def licence(modules: Path, name: str) -> dict[str, str]:
    """Return who made a set and under which licence, from its own `info.json`."""
    info = _read_set(modules, name, "info.json")
    return {
        "set": name, "title": info["name"], "author": info["author"]["name"], "version": info.get("version", ""),
        "licence": info["license"]["spdx"], "url": info["license"].get("url", ""),
    }  # fmt: skip


def slug(text: str) -> str:
    """Return a name as icons are called: lower case, ASCII, dashes."""
    plain = unicodedata.normalize("NFKD", re.sub(r"['’]", "", text.lower())).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def _read(modules: Path, path: str) -> Any:
    return json.loads((modules / "emojibase-data" / path).read_text(encoding="utf-8"))


def _read_set(modules: Path, name: str, file: str) -> Any:
    return json.loads((modules / "@iconify-json" / name / file).read_text(encoding="utf-8"))
