"""Names that a user types for families, dialects and the like: case and punctuation do not count."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from clipcond.errors import OptionsError

FAMILY_ALIASES: Mapping[str, str] = {
    "sd1": "sd15",
    "sd14": "sd15",
    "stablediffusion": "sd15",
    "sd20": "sd2",
    "sd21": "sd2",
    "xl": "sdxl",
    "sdxl10": "sdxl",
    "pony": "sdxl",
    "illustrious": "sdxl",
    "sd35": "sd3",
    "flux1": "flux",
    "flux1dev": "flux",
    "flux1schnell": "flux",
}
DIALECT_ALIASES: Mapping[str, str] = {
    "automatic1111": "a1111",
    "webui": "a1111",
    "forge": "a1111",
    "comfyui": "comfy",
    "invokeai": "compel",
}


def chosen(flag: str, given: str, names: Collection[str], aliases: Mapping[str, str] | None = None) -> str:
    """Return the name that was meant. Raises OptionsError for one that does not exist, with the nearest that does."""
    if given in names:
        return given
    known = {_key(name): name for name in names} | {
        alias: name for alias, name in (aliases or {}).items() if name in names
    }
    if (name := known.get(_key(given))) is not None:
        return name
    from difflib import get_close_matches

    own = {_key(name): name for name in names}
    near = get_close_matches(_key(given), own, n=1) or get_close_matches(_key(given), known, n=1)
    meant = f"; did you mean {known[near[0]]}?" if near else ""
    raise OptionsError(f"{flag} {given} does not exist; there are {', '.join(names)}{meant}")


def _key(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())
