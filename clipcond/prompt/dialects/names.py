"""The dialects by their names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from clipcond.errors import ConfigError

Dialect = Literal["plain", "a1111", "comfy", "compel"]
DIALECTS: tuple[Dialect, ...] = get_args(Dialect)


def check_dialect(name: str, *, also: Iterable[str] = ()) -> str:
    """Return a dialect's name as it is spelled here; case does not count.

    also: other names that the caller takes, `auto` for instance. Raises ConfigError for a name that is none of them.

    >>> check_dialect("A1111")
    'a1111'
    """
    known = (*DIALECTS, *also)
    if name in known:
        return name
    if name.lower() in known:
        return name.lower()
    from difflib import get_close_matches

    near = get_close_matches(name.lower(), known, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"unknown dialect {name!r}; there are {', '.join(known)}{meant}")
