"""JSON out of pictures, read as hostile input, and prompts built from its values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from clipcond.images.metadata.image_prompt import ImagePrompt
from clipcond.prompt.infotext import Infotext

LARGEST_JSON = 1 << 22  # characters: ComfyUI's largest graphs have a tenth of that
LARGEST_PROMPT = 1 << 16  # characters: fifty times the longest prompts that people write
_MOST_SETTINGS, _LONGEST_SETTING = 64, 1024


def json_object(text: object) -> Mapping[str, object] | None:
    """Return the JSON object of a text; None where it holds none, or is too large or too deep."""
    if not isinstance(text, str) or len(text) > LARGEST_JSON or not text[:64].lstrip().startswith("{"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def plain_text(value: object) -> str:
    """Return a string without half surrogates, which JSON can spell, and zeros; empty for anything else."""
    if not isinstance(value, str):
        return ""
    return value.encode(errors="replace").decode().replace("\0", "").strip()


def mapping(value: object) -> Mapping[str, object]:
    """Return a JSON object's values, or none."""
    return value if isinstance(value, dict) else {}


def sequence(value: object) -> list[object]:
    """Return a JSON array's values, or none."""
    return value if isinstance(value, list) else []


def joined(texts: Iterable[str], separator: str = ", ") -> str:
    """Return the texts that are not empty, each once, in one."""
    return separator.join(dict.fromkeys(text for text in texts if text))


def image_prompt(
    *, tool: str, field: str, prompt: str, negative_prompt: str = "", dialect: str, settings: Mapping[str, object]
) -> ImagePrompt:
    """Return a prompt with the name of the tool that wrote it, the field it was in and the dialect of its syntax.

    settings: strings and numbers are kept, as text; some dozens at most, each of some length at most.
    """
    source = f"{field} ({tool})"
    size = max(len(prompt), len(negative_prompt))
    if size > LARGEST_PROMPT:
        return ImagePrompt(None, source, f"its {field} field is too large to be a prompt ({size:,} characters)")
    kept = {
        name[:_LONGEST_SETTING]: plain_text(str(value))[:_LONGEST_SETTING]
        for name, value in list(settings.items())[:_MOST_SETTINGS]
        if isinstance(value, (str, int, float)) and not isinstance(value, bool) and _short(value)
    }
    return ImagePrompt(Infotext(prompt, negative_prompt, {**kept, "Prompt dialect": dialect}), source)


def _short(value: str | int | float) -> bool:
    """True if a number can be written: integers of thousands of digits cannot."""
    return not isinstance(value, int) or value.bit_length() <= 128
