"""Content rules over pictures, and their thresholds from labelled examples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipcond.errors import OptionsError, ResourceMissing
from clipcond.files import check_output, write_file
from clipcond.workflows import gallery
from clipcond.workflows.events import Events, ignore
from clipcond.workflows.gallery import GalleryOptions

if TYPE_CHECKING:
    from clipcond.find.rules import Rule, Screening
    from clipcond.score.thresholds import Calibration


@dataclass(frozen=True, slots=True, kw_only=True)
class ScreenOptions:
    """Pictures and a file of rules.

    calibrate: a table with the right verdicts.   precision, recall: the one that thresholds must reach.   out: the file
    for the rules with their new thresholds. Raises OptionsError where these do not fit together.
    """

    gallery: GalleryOptions
    rules: Path
    calibrate: Path | None = None
    precision: float | None = None
    recall: float | None = None
    out: Path | None = None

    def __post_init__(self) -> None:
        wanted = [value for value in (self.precision, self.recall) if value is not None]
        if self.calibrate is None and (wanted or self.out is not None):
            raise OptionsError("--precision, --recall and --out belong to --calibrate FILE, the right verdicts")
        if self.calibrate is not None and len(wanted) != 1:
            raise OptionsError("--calibrate needs --precision or --recall, one of the two, such as --precision 0.95")
        if wanted and not 0 < wanted[0] <= 1:
            raise OptionsError(f"the wanted share is {wanted[0]:g}; expected above 0, up to 1")
        if self.out is not None:
            check_output(self.out)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScreenResult:
    """The verdicts; with `calibrate` those of the new thresholds, and how they were reached."""

    screening: Screening
    calibrated: tuple[tuple[Rule, Calibration], ...] = ()


def run(options: ScreenOptions, events: Events = ignore) -> ScreenResult:
    """Read the rules, find the pictures, load the model and judge. New thresholds are written to `out`."""
    from clipcond.find.rules import calibrate, read_rules, read_verdicts, rules_text, screen

    rules = read_rules(options.rules)
    paths = gallery.find(options.gallery, events)
    truth = None
    if options.calibrate is not None:
        if not options.calibrate.is_file():
            raise ResourceMissing(f"no verdicts at {options.calibrate}")
        truth = read_verdicts(options.calibrate, rules, paths)
    texts = tuple(text for rule in rules for text in (*rule.for_, *rule.against))
    scorer = gallery.load_scorer(options.gallery.model, events, texts)
    pictures = gallery.embed(paths, scorer, options.gallery, events)
    if truth is None:
        return ScreenResult(screening=screen(pictures, rules))
    calibrated = calibrate(pictures, rules, truth, precision=options.precision, recall=options.recall)
    if options.out is not None:
        write_file(options.out, rules_text([rule for rule, _ in calibrated]))
    return ScreenResult(screening=screen(pictures, [rule for rule, _ in calibrated]), calibrated=calibrated)
