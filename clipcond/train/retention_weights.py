"""The weights of retention's parts, by name."""

from __future__ import annotations

from collections.abc import Sequence

from clipcond.errors import ConfigError

PARTS = ("bos", "words", "eos", "padding", "empty", "gram", "pooled")


def parse_weights(texts: Sequence[str]) -> dict[str, float]:
    """Read `NAME=VALUE` weights of the parts; those not named are 1. Raises ConfigError."""
    weights = dict.fromkeys(PARTS, 1.0)
    for text in texts:
        name, _, value = str(text).partition("=")
        if name.strip() not in PARTS:
            raise ConfigError(f"retention_weights holds {text!r}; expected NAME=VALUE of {', '.join(PARTS)}")
        try:
            weights[name.strip()] = float(value)
        except ValueError:
            raise ConfigError(f"retention_weights holds {text!r}; expected NAME=VALUE, such as words=2") from None
        if not 0 <= weights[name.strip()] < float("inf"):
            raise ConfigError(f"retention_weights holds {text!r}; expected a weight of 0 or more")
    return weights
