"""Groups of alike pictures, and what becomes of the copies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from clipcond.errors import OptionsError
from clipcond.workflows import gallery
from clipcond.workflows.events import Events, ignore
from clipcond.workflows.gallery import GalleryOptions
from clipcond.workflows.rerank_actions import ActionOptions, Outcome, take

if TYPE_CHECKING:
    from clipcond.find.copies import DuplicateGroup
    from clipcond.find.gallery import Unread

DEFAULT_THRESHOLD = 0.94


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateOptions:
    """Pictures, the least cosine of a pair, and where the copies go; the one kept of a group stays in its place."""

    gallery: GalleryOptions
    threshold: float = DEFAULT_THRESHOLD
    actions: ActionOptions = field(default_factory=ActionOptions)

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise OptionsError(f"--threshold is {self.threshold:g}; expected a cosine above 0, up to 1, such as 0.94")


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateResult:
    """The groups, the number of pictures looked at, and what was done with the copies."""

    groups: tuple[DuplicateGroup, ...]
    pictures: int
    unread: tuple[Unread, ...]
    outcome: Outcome

    @property
    def copies(self) -> int:
        """Pictures that are not the one to keep."""
        return sum(len(group.copies) for group in self.groups)


def run(options: DuplicateOptions, events: Events = ignore) -> DuplicateResult:
    """Find and embed the pictures, group them, and move, copy or link the copies."""
    from clipcond.find.copies import find_duplicates

    paths = gallery.find(options.gallery, events)
    scorer = gallery.load_scorer(options.gallery.model, events)
    pictures = gallery.embed(paths, scorer, options.gallery, events)
    groups = find_duplicates(pictures, threshold=options.threshold)
    plan, moves = take([copy.path for group in groups for copy in group.copies], options.actions, events)
    return DuplicateResult(
        groups=groups, pictures=len(pictures), unread=pictures.unread, outcome=Outcome(plan=plan, moves=moves)
    )
