"""A run's settings as the TOML file that begins the same run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from clipcond.train.rows import problem_with


def to_toml(settings: Mapping[str, Any]) -> str:
    """Write settings as flat TOML. None is left out, which means the same; text that is no UTF-8 stands in a comment."""
    return "".join(_line(name, value) for name, value in settings.items() if value is not None)


def _line(name: str, value: Any) -> str:
    texts = [value] if isinstance(value, str) else value if isinstance(value, (list, tuple)) else []
    if any(isinstance(text, str) and problem_with(text) for text in texts):
        return f"# {name} holds bytes that are no UTF-8, which TOML cannot: give it as a flag, {value!a}\n"
    return f"{name} = {_value(value)}\n"


def _value(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value)
