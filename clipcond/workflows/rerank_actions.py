"""The actions after a ranking: the chosen pictures copied, moved or linked, scores written into them, all taken back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from clipcond.errors import ImageError, OptionsError
from clipcond.rerank.chosen_list import read_chosen
from clipcond.rerank.moves import Action, Moves, Plan, carry_out, plan_moves
from clipcond.rerank.undo import Undone, undo
from clipcond.workflows.events import Events, ignore, task

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from clipcond.rerank.rows import RankedImage, Ranking

WriteBack = Literal["score", "rating"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionOptions:
    """A place for the kept pictures, and what to write into the scored ones.

    write_back: `score`, into the text of PNGs; `rating`, one to five stars by the percentile within the prompt.
    dry_run: change nothing.   Raises OptionsError for two destinations.
    """

    copy_to: Path | None = None
    move_to: Path | None = None
    link_to: Path | None = None
    write_back: WriteBack | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        given = {"--copy-to": self.copy_to, "--move-to": self.move_to, "--link-to": self.link_to}
        names = [name for name, folder in given.items() if folder is not None]
        if len(names) > 1:
            raise OptionsError(f"{names[0]} and {names[1]} exclude each other")
        if self.write_back is not None and self.write_back not in get_args(WriteBack):
            raise OptionsError(f"--write-back is {self.write_back}; expected score or rating")
        if self.dry_run and not names and self.write_back is None:
            raise OptionsError(
                "--dry-run says what would be done; name --copy-to, --move-to, --link-to or --write-back"
            )
        if self.target is not None and self.target[1].exists() and not self.target[1].is_dir():
            raise OptionsError(f"{self.target[1]} is a file; name a folder for the pictures")

    def check_pictures(self, paths: Iterable[Path]) -> None:
        """Raise OptionsError for pictures in a tar that would have to be changed there."""
        from clipcond.images.tar_paths import tar_of

        names = {"--move-to": self.move_to, "--link-to": self.link_to, "--write-back": self.write_back}
        given = next((name for name, value in names.items() if value is not None), None)
        tar = None if given is None else next(filter(None, map(tar_of, paths)), None)
        if tar is not None:
            raise OptionsError(
                f"{given} would change {tar}, and a tar stays as it is; --copy-to takes pictures out of it"
            )

    @property
    def writes(self) -> bool:
        """True if something is written into pictures."""
        return self.write_back is not None and not self.dry_run

    @property
    def target(self) -> tuple[Action, Path] | None:
        """The action and its folder."""
        if self.copy_to is not None:
            return "copy", self.copy_to
        if self.move_to is not None:
            return "move", self.move_to
        return None if self.link_to is None else ("link", self.link_to)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Steps that were done, or with a dry run would be.

    written: pictures with a new score or rating.   unwritten: those without, with the reason.
    """

    plan: Plan | None = None
    moves: Moves | None = None
    written: tuple[Path, ...] = ()
    unwritten: tuple[tuple[Path, str], ...] = ()


def act_on(ranking: Ranking, options: ActionOptions, events: Events = ignore, *, cache: bool = True) -> Outcome:
    """Write scores back first, then take the kept pictures where they go. Raises OSError where a folder cannot be made.

    cache: what is remembered of a picture stays known when a score is written into it.
    """
    with _kept_known([row.path for row in ranking.scored], cache and options.writes):
        written, unwritten = _write_back(ranking, options, events)
    plan, moves = take(list(dict.fromkeys(row.path for row in ranking.kept)), options, events)
    return Outcome(plan=plan, moves=moves, written=written, unwritten=unwritten)


def apply_chosen(chosen: Path, options: ActionOptions, events: Events = ignore) -> Outcome:
    """Take the pictures that a list keeps where they go. Raises DataError for what is no list, OptionsError without a place."""
    if options.target is None:
        raise OptionsError("--apply needs a place for the chosen pictures: --copy-to, --move-to or --link-to")
    if options.write_back is not None:
        raise OptionsError("--write-back needs scores, which a list has not; leave it out")
    keep = read_chosen(chosen).keep
    options.check_pictures(keep)
    plan, moves = take(list(keep), options, events)
    return Outcome(plan=plan, moves=moves)


def take_back(folder: Path) -> Undone:
    """Undo the last moves into a folder, or those of a journal. Raises DataError where there is none."""
    return undo(folder)


def take(paths: Sequence[Path], options: ActionOptions, events: Events) -> tuple[Plan | None, Moves | None]:
    """Copy, move or link files as the options say, or plan it with a dry run; no plan without a target."""
    if options.target is None:
        return None, None
    action, folder = options.target
    plan = plan_moves(paths, folder, action)
    if options.dry_run:
        return plan, None
    with task(events, action, len(plan.steps), "files") as advance:
        return plan, carry_out(plan, events=lambda _: advance(1))


@contextmanager
def _kept_known(paths: Sequence[Path], wanted: bool) -> Iterator[None]:
    """Carry the embeddings of pictures over to what their files are after the block, which leaves the pixels as they are."""
    if not wanted:
        yield
        return
    from clipcond.encode.embedding_cache import EmbeddingCache

    cache = EmbeddingCache()
    before = cache.keys(paths)
    try:
        yield
    finally:  # what was written before a fault, too
        after = cache.keys(paths)
        both = zip(before, after, strict=True)
        cache.carry_over({old: new for old, new in both if old is not None and new is not None and old != new})
        cache.close()


def _write_back(
    ranking: Ranking, options: ActionOptions, events: Events
) -> tuple[tuple[Path, ...], tuple[tuple[Path, str], ...]]:
    """Write into each scored picture; of several rows of one the first counts, which is its best."""
    if options.write_back is None:
        return (), ()
    rows = list({row.path: row for row in reversed(ranking.scored)}.values())[::-1]
    if options.dry_run:
        return tuple(row.path for row in rows), ()
    written, unwritten = [], []
    with task(events, f"writing each {options.write_back}", len(rows), "files") as advance:
        for row in rows:
            reason = _written(row, ranking, options.write_back)
            if reason:
                unwritten.append((row.path, reason))
            else:
                written.append(row.path)
            advance(1)
    return tuple(written), tuple(unwritten)


def _written(row: RankedImage, ranking: Ranking, what: WriteBack) -> str:
    """Write into one picture; the reason if it cannot be done."""
    from clipcond.images.write_back import WrittenScore, write_back

    scale = ranking.header.score if ranking.header else "cosine"
    score = WrittenScore(model=ranking.model, scale=scale, score=row.score or 0.0, prompt=row.prompt or "")
    try:
        if what == "rating":
            write_back(row.path, rating=stars(row), keep_times=True)
        elif not write_back(row.path, score=score, keep_times=True):
            return "is no PNG, which alone holds a score; --write-back rating takes JPEG and WebP too"
    except (ImageError, OSError) as error:
        return str(error).removeprefix(f"{row.path}: ")
    return ""


def stars(row: RankedImage) -> int:
    """One to five stars by the percentile within the prompt: five for the best fifth."""
    return min(5, 1 + int(row.scores.get("percentile", 50.0) / 20))
