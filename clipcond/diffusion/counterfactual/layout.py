"""The layout of a steered batch: the pipeline's own rows first, then further parts and the texts of phrases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from clipcond.diffusion.counterfactual.steering import Parts, SteeredPhrase, SteeredTexts
from clipcond.errors import ConfigError


@dataclass(frozen=True, slots=True)
class MixedPart:
    """A part in the batch. whole: the row of its text.   phrases: each with the row of its own text, None where the last
    prediction is taken again.
    """

    weight: float
    whole: int
    phrases: tuple[tuple[SteeredPhrase, int | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Mixture:
    """The parts that one of the pipeline's rows is put together of. picture: its number on its side."""

    picture: int
    parts: tuple[MixedPart, ...]

    @property
    def is_plain(self) -> bool:
        """True for a single part of weight 1."""
        return len(self.parts) == 1 and self.parts[0].weight == 1


@dataclass(slots=True)
class Layout:
    """Rows of a batch. index: of each the pipeline's row whose latents it has.   texts: of each the number of its text.

    mixtures: of each of the pipeline's rows.   guided: both sides are in one batch, the negative one first.
    """

    pictures: int
    guided: bool
    index: list[int] = field(default_factory=list)
    texts: list[int] = field(default_factory=list)
    mixtures: list[Mixture] = field(default_factory=list)
    _negative: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, texts: SteeredTexts, sides: Sequence[str], batch: int, *, fresh: bool) -> Layout:
        """Lay out a batch.

        sides: `negative`, `positive` or both, of the pipeline's rows.   batch: their number.   fresh: with the texts of phrases.
        Raises ConfigError for a number of rows that is no multiple of the prompts.
        """
        pictures = batch // len(sides)
        prompts = len(texts.prompts.positive)
        if pictures % prompts or batch != pictures * len(sides):
            raise ConfigError(f"the denoiser is given {batch} rows, for {prompts} steered prompts; expected a multiple")
        made = cls(pictures, guided=len(sides) == 2)
        repeats = pictures // prompts
        owned = [(p, getattr(texts.prompts, side)[p // repeats]) for side in sides for p in range(pictures)]
        for row, (_, parts) in enumerate(owned):
            made._add(row, parts[0].whole)
        for row, (picture, parts) in enumerate(owned):
            made.mixtures.append(Mixture(picture, tuple(made._parts(row, parts, fresh))))
        for row, mixture in enumerate(made.mixtures):
            if not mixture.is_plain and not made.guided:
                made._negative[mixture.picture] = made._add(
                    row, texts.prompts.negative[mixture.picture // repeats][0].whole
                )
        return made

    def negative_row(self, picture: int) -> int:
        """The row of a picture's negative side, where parts are composed against it without guidance."""
        return self._negative[picture]

    def _add(self, row: int, text: int) -> int:
        self.index.append(row)
        self.texts.append(text)
        return len(self.index) - 1

    def _parts(self, row: int, parts: Parts, fresh: bool) -> Iterator[MixedPart]:
        for number, part in enumerate(parts):
            whole = row if number == 0 else self._add(row, part.whole)
            phrases = tuple((each, self._add(row, each.other) if fresh else None) for each in part.phrases)
            yield MixedPart(part.weight, whole, phrases)
