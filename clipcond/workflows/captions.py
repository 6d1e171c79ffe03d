"""Captions ranked for pictures, and captions put together of phrases."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipcond.errors import OptionsError, ResourceMissing
from clipcond.workflows import gallery
from clipcond.workflows.events import Events, ignore, task
from clipcond.workflows.gallery import GalleryOptions

if TYPE_CHECKING:
    from clipcond.find.captions import CaptionedPicture, Interrogated
    from clipcond.find.gallery import Unread

PHRASE_LISTS = ("subjects", "mediums", "light", "composition")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionOptions:
    """Pictures and the captions to put in order, out of a file with one a line. top: captions a picture; None for all."""

    gallery: GalleryOptions
    captions: Path
    top: int | None = None

    def __post_init__(self) -> None:
        if self.top is not None and self.top < 1:
            raise OptionsError(f"--top is {self.top}; expected 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class InterrogateOptions:
    """Pictures and phrases to describe them with.

    phrases: files with one a line; left out, the shipped lists.   candidates: phrases tried for a picture, the best alone.
    most: phrases of a caption.   Raises OptionsError for numbers below 1.
    """

    gallery: GalleryOptions
    phrases: tuple[Path, ...] = ()
    candidates: int = 32
    most: int = 8

    def __post_init__(self) -> None:
        for name, value in (("--candidates", self.candidates), ("--most", self.most)):
            if value < 1:
                raise OptionsError(f"{name} is {value}; expected 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionResult:
    """The captions of every picture."""

    pictures: tuple[CaptionedPicture, ...]
    unread: tuple[Unread, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class InterrogateResult:
    """The caption of every picture."""

    pictures: tuple[Interrogated, ...]
    unread: tuple[Unread, ...]


def rank(options: CaptionOptions, events: Events = ignore) -> CaptionResult:
    """Read the captions, find the pictures, load the model and put the captions in order."""
    from clipcond.find.captions import rank_captions

    captions = _lines(options.captions, "captions")
    paths = gallery.find(options.gallery, events)
    scorer = gallery.load_scorer(options.gallery.model, events, captions)
    pictures = gallery.embed(paths, scorer, options.gallery, events)
    return CaptionResult(pictures=rank_captions(pictures, captions, top=options.top), unread=pictures.unread)


def describe(options: InterrogateOptions, events: Events = ignore) -> InterrogateResult:
    """Read the phrases, find the pictures, load the model and put a caption together for each picture."""
    from clipcond.find.captions import interrogate
    from clipcond.resources import bundled

    lists = options.phrases or tuple(bundled("prompts", f"phrases/{name}.txt") for name in PHRASE_LISTS)
    phrases = tuple(dict.fromkeys(phrase for path in lists for phrase in _lines(path, "phrases")))
    paths = gallery.find(options.gallery, events)
    scorer = gallery.load_scorer(options.gallery.model, events, phrases)
    pictures = gallery.embed(paths, scorer, options.gallery, events)
    with task(events, "describing", len(pictures), "pictures") as advance:
        found = interrogate(pictures, phrases, candidates=options.candidates, most=options.most, on_progress=advance)
    return InterrogateResult(pictures=found, unread=pictures.unread)


def _lines(path: Path, what: str) -> tuple[str, ...]:
    from clipcond.rerank.tables import read_lines

    if not path.is_file():
        raise ResourceMissing(f"no {what} at {path}; expected a text file, one a line")
    return read_lines(path, what)
