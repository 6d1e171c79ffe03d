"""Operations on the conditioning of a prompt, as values and as text: toward another prompt, along a slider, varied, louder.

    lerp 0.3: a blue circle              slerp 0.3: a blue circle          slerp 0.3 about zero: a blue circle
    slider 0.5: small -> large           slider 0.5: a woman = a young woman -> an old woman | grey -> blue
    vary 0.1: 7                          gain 1.2: clip_g

Their arithmetic is `clipcond.condition.algebra`. No torch here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite
from typing import Literal

from clipcond.errors import ConfigError
from clipcond.wording import visible

About = Literal["empty", "zero"]
LARGEST_SEED = 2**63 - 1
_ABOUT = ("empty", "zero")
_FORM = re.compile(r"\s*(\w+)\s+(\S+?)(?:\s+about\s+(\w+))?\s*:(.*)", re.DOTALL)
_ARROW, _BAR, _EQUALS = " -> ", " | ", " = "


@dataclass(frozen=True, slots=True)
class Lerp:
    """In a straight line toward another prompt: 0 is the prompt itself, 1 the other one."""

    to: str
    t: float

    def __post_init__(self) -> None:
        _check_number("lerp", self.t)
        _strip(self, "lerp", "to")

    def __str__(self) -> str:
        return f"lerp {self.t!r}: {self.to}"


@dataclass(frozen=True, slots=True)
class Slerp:
    """Along an arc toward another prompt, about the empty prompt or about zero: the arc keeps its distance from there."""

    to: str
    t: float
    about: About = "empty"

    def __post_init__(self) -> None:
        _check_number("slerp", self.t)
        _strip(self, "slerp", "to")
        if self.about not in _ABOUT:
            raise ConfigError(f"slerp is about {self.about!r}, expected empty or zero")

    def __str__(self) -> str:
        about = "" if self.about == "empty" else f" about {self.about}"
        return f"slerp {self.t!r}{about}: {self.to}"


@dataclass(frozen=True, slots=True)
class Pair:
    """The two ends of a slider, and the words of the prompt in whose place they are put; None: whichever of them is there."""

    low: str
    high: str
    at: str | None = None

    def __post_init__(self) -> None:
        for name in ("low", "high", *([] if self.at is None else ["at"])):
            text = _strip(self, "slider", name)
            if any(sign.strip() in text for sign in (_ARROW, _BAR, _EQUALS)):
                raise ConfigError(f"slider: {visible(text)!r} holds a sign of its syntax (->, | or =)")

    def __str__(self) -> str:
        return ("" if self.at is None else f"{self.at}{_EQUALS}") + f"{self.low}{_ARROW}{self.high}"


@dataclass(frozen=True, slots=True)
class Slider:
    """Between two wordings of the prompt: 0 has the low ends of the pairs, 1 the high ones, and numbers beyond go further."""

    pairs: tuple[Pair, ...]
    t: float

    def __post_init__(self) -> None:
        _check_number("slider", self.t)
        if not self.pairs or not all(isinstance(each, Pair) for each in self.pairs):
            raise ConfigError("slider: expected one pair or more, such as small -> large")

    def __str__(self) -> str:
        return f"slider {self.t!r}: {_BAR.join(map(str, self.pairs))}"

    def ends(self, prompt: str) -> tuple[str, str]:
        """Return the two wordings of a prompt. Raises ConfigError where the words of a pair are not in it."""
        low = high = prompt
        for pair in self.pairs:
            there = (pair.low, pair.high) if pair.at is None else (pair.at,)
            at = next((each for each in there if _place(each).search(low) and _place(each).search(high)), None)
            if at is None:
                raise ConfigError(
                    f"slider {visible(str(pair))}: the prompt holds neither end; write one into it, or name the words that they "
                    f"stand for: WORDS = {visible(pair.low)} -> {visible(pair.high)}"
                    if pair.at is None
                    else f"slider {visible(str(pair))}: the prompt does not hold {visible(pair.at)!r}"
                )
            low, high = (
                _place(at).sub(end.replace("\\", r"\\"), text) for end, text in ((pair.low, low), (pair.high, high))
            )
        return low, high


@dataclass(frozen=True, slots=True)
class Vary:
    """Noise on the conditioning, of a seed: 0.1 changes each token's states by a tenth of what they say."""

    strength: float
    seed: int = 0

    def __post_init__(self) -> None:
        _check_number("vary", self.strength)
        if self.strength < 0:
            raise ConfigError(f"vary has strength {self.strength}, expected 0 or more")
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or not 0 <= self.seed <= LARGEST_SEED:
            raise ConfigError(f"vary has seed {self.seed!r}, expected a whole number from 0 on")

    def __str__(self) -> str:
        return f"vary {self.strength!r}: {self.seed}"


@dataclass(frozen=True, slots=True)
class Gain:
    """The loudness of one encoder: 1 as it is, 0 as if the prompt were empty for it, 2 twice as far from the empty prompt."""

    encoder: str
    factor: float

    def __post_init__(self) -> None:
        _check_number("gain", self.factor)
        _strip(self, "gain", "encoder")

    def __str__(self) -> str:
        return f"gain {self.factor!r}: {self.encoder}"


Operation = Lerp | Slerp | Slider | Vary | Gain
_EXAMPLES = {
    "lerp": "lerp 0.3: a blue circle",
    "slerp": "slerp 0.3: a blue circle",
    "slider": "slider 0.5: small -> large",
    "vary": "vary 0.1: 7",
    "gain": "gain 1.2: clip_l",
}


def slider(low: str, high: str, t: float, *, at: str | None = None) -> Slider:
    """A slider of one pair."""
    return Slider((Pair(low, high, at),), t)


def parse_operation(text: str) -> Operation:
    """Read the text of an operation, as `str` writes it. Raises ConfigError, with an example, for any other text."""
    form = _FORM.fullmatch(text)
    name = "".join(re.findall(r"\w+", text)[:1]).lower()
    example = _EXAMPLES.get(name)
    if example is None:
        raise ConfigError(f"{visible(text)!r} is no operation; expected one of {'; '.join(_EXAMPLES.values())}")
    try:
        if form is None:
            raise ValueError
        number, about, operand = float(form[2]), form[3], form[4].strip()
        if about is not None and name != "slerp":
            raise ValueError
        return _made(name, number, about or "empty", operand)
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{visible(text)!r} is not what {name} is written as, such as: {example}") from None


def parse_operations(texts: Iterable[str]) -> tuple[Operation, ...]:
    """Read several operations, in order."""
    return tuple(map(parse_operation, texts))


def _made(name: str, number: float, about: str, operand: str) -> Operation:
    if name == "lerp":
        return Lerp(operand, number)
    if name == "slerp":
        return Slerp(operand, number, about)  # type: ignore[arg-type]
    if name == "vary":
        return Vary(number, int(operand or 0))
    if name == "gain":
        return Gain(operand, number)
    return Slider(tuple(map(_pair, operand.split(_BAR))), number)


def _pair(text: str) -> Pair:
    at, equals, ends = text.rpartition(_EQUALS)
    low, high = ends.split(_ARROW)
    return Pair(low, high, at if equals else None)


def _place(words: str) -> re.Pattern[str]:
    """The words in a prompt, in any case, whole."""
    before, after = (r"\b" if each.isalnum() else "" for each in (words[0], words[-1]))
    return re.compile(before + re.escape(words) + after, re.IGNORECASE)


def _check_number(name: str, value: object) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not isfinite(value):
        raise ConfigError(f"{name} has {value!r}, expected a number")


def _strip(operation: object, name: str, field: str) -> str:
    """Take the blanks around the text of a field, and return it. Raises ConfigError where nothing is left."""
    text = getattr(operation, field)
    if not isinstance(text, str) or not text.strip():
        raise ConfigError(f"{name} has {text!r} where words are expected")
    object.__setattr__(operation, field, text.strip())
    return text.strip()
