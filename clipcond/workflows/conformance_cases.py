"""The prompts that tools are compared on, each as A1111 and as compel write it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle, islice

_WORDS = ("red", "fox", "in", "the", "snow", "and", "a", "blue", "bird")  # a token each


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A prompt in the syntax of each dialect, None where it has none, and a negative prompt."""

    name: str
    a1111: str | None
    compel: str | None
    negative: str = "blurry"

    def prompt(self, dialect: str) -> str | None:
        """Return the prompt as a dialect, `a1111` or `compel`, writes it; None where it cannot."""
        return self.compel if dialect == "compel" else self.a1111


def words(count: int) -> str:
    """Return so many words of one token each."""
    return " ".join(islice(cycle(_WORDS), count))


def _both(name: str, prompt: str, negative: str = "blurry") -> Case:
    return Case(name=name, a1111=prompt, compel=prompt, negative=negative)


def _each(name: str, a1111: str | None, compel: str | None) -> Case:
    return Case(name=name, a1111=a1111, compel=compel)


CASES = (
    _both("plain", "a red fox in the snow"),
    _both("both empty", "", ""),
    _both("negative empty", "a red fox in the snow", ""),
    _each("weight up", "a (red:1.3) fox", "a (red)1.3 fox"),
    _each("weight down", "a (red:0.7) fox", "a (red)0.7 fox"),
    _each("weight zero", "a (red:0) fox", "a (red)0 fox"),
    _each("marks", "a ((red)) fox in [snow]", "a red++ fox in snow-"),
    _each("nested", "(a (red:1.2) fox:1.1) in the snow", "(a (red)1.2 fox)1.1 in the snow"),
    _each("nested, up in down", "(a (red:1.4) fox:0.8) in the snow", "(a (red)1.4 fox)0.8 in the snow"),
    _each("blanks at a weight", "a (red : 1.3 ) fox", "a ( red )1.3 fox"),
    _each("two weights", "a (red:1.3) fox in (snow:0.6)", "a (red)1.3 fox in (snow)0.6"),
    _each("all weighted", "(a red fox in the snow:0.8)", "(a red fox in the snow)0.8"),
    _both("escapes", r"a fox \(red\) in the snow"),
    _both("unclosed bracket", "a (red fox in the snow"),
    _each("punctuation in brackets", "a fox, (red!, blue:0.5)", "a fox, (red!, blue)0.5"),
    _each("empty group", "()", "()0.5"),
    _both("exclamation marks", "wow!!! a fox"),
    _both("blanks and lines", "a  red fox,\n in the\tsnow "),
    _both("unicode", "a café, naïve Ω, 火, 🎉 fox"),
    _both("end token typed", "a red fox<|endoftext|> in the snow"),
    _each("syntax of another tool", "a cat++ and a (dog)1.3", "a (cat:1.5) and [dog]"),
    _both("75 tokens", words(75)),
    _both("76 tokens", words(76)),
    _both("77 tokens", words(77)),
    _both("150 tokens", words(150)),
    _both("comma 15 before the border", f"{words(60)}, {words(20)}"),
    _both("comma 25 before the border", f"{words(50)}, {words(40)}"),
    _both("full stop, then two chunks", f"{words(40)}. {words(60)}"),
    _both("word over the border", f"{words(74)} artgerm, {words(5)}"),
    _each("weight over the border", f"{words(72)} ({words(10)}:1.3) a bird", f"{words(72)} ({words(10)})1.3 a bird"),
    _each("weight down in two chunks", f"(red:0.6) {words(90)} (bird:0.7)", f"(red)0.6 {words(90)} (bird)0.7"),
    _both("BREAK", "a red fox BREAK a blue bird"),
    _both("three chunks, negative of one", words(200), words(20)),
    _both("four chunks", words(240), words(20)),
    _both("negative of three chunks", words(20), words(200)),
    _both("textual inversion", "a photo of <toy> in the snow"),
    _each("weighted inversion", "a photo of (<toy>:1.3) in the snow", "a photo of (<toy>)1.3 in the snow"),
    _each("and", None, '("a red fox", "a blue bird").and(1, 0.5)'),
    _each("blend", None, '("a red fox", "a blue bird").blend(0.7, 0.3)'),
)
