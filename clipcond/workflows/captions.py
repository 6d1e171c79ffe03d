"""Captions ranked for pictures, put together of phrases, and written by a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from clipcond.errors import ImageError, OptionsError, ResourceMissing
from clipcond.files import check_output
from clipcond.workflows import gallery
from clipcond.workflows.events import Events, Note, ignore, task
from clipcond.workflows.gallery import GalleryOptions
from clipcond.workflows.model_names import check_model

if TYPE_CHECKING:
    from clipcond.find.captions import CaptionedPicture, Interrogated, WrittenCaption
    from clipcond.find.gallery import Unread

Style = Literal["short", "detailed", "more-detailed"]
CANDIDATES, MOST = 32, 8
_SHOWN = 200  # letters of what is beyond 75 tokens, in a note
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
    """Pictures, and phrases to describe them with, or a style in which a model that writes captions is to do it.

    phrases: files with one a line; left out, the shipped lists.   candidates: phrases tried for a picture, the best alone;
    left out, 32.   most: phrases of a caption; left out, 8.   style: of a model that writes; left out, `short`.
    csv: a file to write, which `describe` leaves to the caller and checks for.
    Raises OptionsError for numbers below 1, and for a style with phrases.
    """

    gallery: GalleryOptions
    phrases: tuple[Path, ...] = ()
    candidates: int | None = None
    most: int | None = None
    style: Style | None = None
    csv: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name, value in (("--candidates", self.candidates), ("--most", self.most)):
            if value is not None and value < 1:
                raise OptionsError(f"{name} is {value}; expected 1 or more")
        if self.style is not None and self.of_phrases:
            raise OptionsError(f"--style is for a model that writes captions, {self.of_phrases} for phrases; give one")

    @property
    def of_phrases(self) -> str:
        """The first option given that is about phrases; empty where none is."""
        given = {"--phrases": self.phrases, "--candidates": self.candidates, "--most": self.most}
        return next((name for name, value in given.items() if value), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionResult:
    """The captions of every picture."""

    pictures: tuple[CaptionedPicture, ...]
    unread: tuple[Unread, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class InterrogateResult:
    """The caption of every picture: put together of phrases, in `pictures`, or written by a model, in `written`."""

    pictures: tuple[Interrogated, ...] = ()
    written: tuple[WrittenCaption, ...] = ()
    unread: tuple[Unread, ...] = ()

    @property
    def captions(self) -> tuple[Interrogated | WrittenCaption, ...]:
        """The caption of every picture, of either kind."""
        return (*self.pictures, *self.written)


def rank(options: CaptionOptions, events: Events = ignore) -> CaptionResult:
    """Read the captions, find the pictures, load the model and put the captions in order."""
    from clipcond.find.captions import rank_captions

    captions = _lines(options.captions, "captions")
    paths = gallery.find(options.gallery, events)
    scorer = gallery.load_scorer(options.gallery.model, events, captions)
    pictures = gallery.embed(paths, scorer, options.gallery, events)
    return CaptionResult(pictures=rank_captions(pictures, captions, top=options.top), unread=pictures.unread)


def describe(options: InterrogateOptions, events: Events = ignore) -> InterrogateResult:
    """Find the pictures, load the model and make a caption for each: Florence-2 writes it, any other puts phrases together.

    Raises OptionsError, OutputExists and ResourceMissing before a model is loaded, ModelError, and ImageError where no
    picture can be read.
    """
    from clipcond.models.detection import names_captioner

    check_model(options.gallery.model)
    if options.csv is not None:
        check_output(options.csv, "name another file, or pass --overwrite", overwrite=options.overwrite)
    if names_captioner(options.gallery.model):
        return _written(options, events)
    if options.style is not None:
        raise OptionsError(
            f"--style is for a model that writes captions (Florence-2), and {options.gallery.model} is none; leave it out"
        )
    return _put_together(options, events)


def _written(options: InterrogateOptions, events: Events) -> InterrogateResult:
    """Notes say of each caption what is beyond 75 tokens, and which did not come to an end."""
    model = options.gallery.model
    if options.of_phrases:
        raise OptionsError(f"{model} writes its captions in its own words; leave out {options.of_phrases}")
    from clipcond.find.captions import write_captions

    paths = gallery.find(options.gallery, events)
    detector = gallery.load_detection_model(model, events)
    with task(events, "describing", len(paths), "pictures") as advance:
        written, unread = write_captions(paths, detector, options.style or "short", on_progress=advance)
    if not written:
        raise ImageError(f"none of {len(paths)} pictures could be read; the first: {unread[0].error}")
    for each in written:
        if each.beyond:
            cut = each.beyond if len(each.beyond) <= _SHOWN else f"{each.beyond[:_SHOWN]}…"
            events(Note(f"{each.path}: the caption has {each.content_tokens} tokens; beyond 75: {cut}"))
        if not each.whole:
            events(
                Note(f"{each.path}: {model} did not come to an end; its caption stops where it has no place for more")
            )
    return InterrogateResult(written=written, unread=unread)


def _put_together(options: InterrogateOptions, events: Events) -> InterrogateResult:
    from clipcond.find.captions import interrogate
    from clipcond.resources import bundled

    lists = options.phrases or tuple(bundled("prompts", f"phrases/{name}.txt") for name in PHRASE_LISTS)
    phrases = tuple(dict.fromkeys(phrase for path in lists for phrase in _lines(path, "phrases")))
    paths = gallery.find(options.gallery, events)
    scorer = gallery.load_scorer(options.gallery.model, events, phrases)
    pictures = gallery.embed(paths, scorer, options.gallery, events)
    with task(events, "describing", len(pictures), "pictures") as advance:
        found = interrogate(
            pictures, phrases, candidates=options.candidates or CANDIDATES, most=options.most or MOST,
            on_progress=advance,
        )  # fmt: skip
    return InterrogateResult(pictures=found, unread=pictures.unread)


def _lines(path: Path, what: str) -> tuple[str, ...]:
    from clipcond.rerank.tables import read_lines

    if not path.is_file():
        raise ResourceMissing(f"no {what} at {path}; expected a text file, one a line")
    return read_lines(path, what)
