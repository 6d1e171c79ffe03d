"""The settings of an explanation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clipcond.diffusion.explain.spans import BY, By
from clipcond.errors import ConfigError

AT = (0.25, 0.5, 0.75)  # shares of the way from noise to picture, three steps
# the strengths below which a phrase does next to nothing; words and what the user names may be parts of a phrase
DEAD_PHRASE, DEAD_WORD = 0.2, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainSettings:
    """The phrases to explain, the pictures to explain them in, and the reading of the prompts.

    by: `phrase` or `word`.   phrases: the user's own in their place.   at: the shares of the steps that are looked at.
    count, seed, steps, guidance_scale: as for `generate`.   stock: the pipeline reads the prompt, 75 tokens of it.
    through: look for phrases that act only through another one; None does by `word`; it takes more rows, at one step.
    dead_below: the strength below which a phrase does nothing; None is 0.2, and 0.1 for words and phrases of the user's own.
    prompt_2 and on: as for a Conditioner.
    Raises ConfigError for settings that do not fit one another, and numbers out of range.
    """

    by: By = "phrase"
    phrases: tuple[str, ...] | None = None
    at: tuple[float, ...] = AT
    count: int = 1
    seed: int = 0
    steps: int | None = None
    guidance_scale: float | None = None
    stock: bool = False
    through: bool | None = None
    dead_below: float | None = None
    prompt_2: str | None = None
    prompt_3: str | None = None
    dialect: str = "plain"
    weighting: str | None = None
    chunking: str | None = None
    clip_skip: int = 0
    pooled: str = "first"
    lengths: str | None = None

    def __post_init__(self) -> None:
        if self.by not in BY:
            raise ConfigError(f"by is {self.by!r}, expected {' or '.join(BY)}")
        for name, least in (("count", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected {least} or more")
        if self.phrases is not None and not any(each.strip() for each in self.phrases):
            raise ConfigError("phrases holds none; name phrases of the prompt, or leave it out")
        if self.dead_below is not None and not 0 <= self.dead_below < 1:
            raise ConfigError(f"dead_below is {self.dead_below}, expected 0 or more and less than 1")
        if self.lengths == "mask":
            raise ConfigError("lengths is 'mask', which an explanation cannot do; leave it out")
        if self.stock and (self.dialect != "plain" or self.prompt_2 or self.prompt_3):
            raise ConfigError(
                "stock leaves the prompt to the pipeline, which knows no dialect; leave dialect and prompt_2 out"
            )

    @property
    def finds_carriers(self) -> bool:
        """True if phrases that act only through another one are looked for."""
        return self.by == "word" if self.through is None else self.through

    @property
    def threshold(self) -> float:
        """The strength below which a phrase does nothing."""
        if self.dead_below is not None:
            return self.dead_below
        return DEAD_PHRASE if self.by == "phrase" and self.phrases is None else DEAD_WORD

    @property
    def reading(self) -> Mapping[str, Any]:
        """The settings of a Conditioner's call."""
        names = ("dialect", "weighting", "clip_skip", "pooled", "lengths")
        return {name: getattr(self, name) for name in names} | {"chunking": "hard" if self.stock else self.chunking}
