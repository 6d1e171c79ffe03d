"""The plain dialect: every character is text."""

from __future__ import annotations

from clipcond.prompt.items import Words


def read_plain(prompt: str) -> tuple[Words, ...]:
    """Return the prompt as one piece; no piece for an empty one."""
    end = len(prompt)
    return (Words(text=prompt, weight=1.0, start=0, end=end, places=tuple(range(end + 1))),) if prompt else ()
