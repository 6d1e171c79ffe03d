"""Questions about pictures with answers to choose from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from clipcond.errors import OptionsError
from clipcond.workflows import gallery
from clipcond.workflows.events import Events, Note, ignore
from clipcond.workflows.gallery import GalleryOptions

if TYPE_CHECKING:
    from clipcond.find.gallery import Unread
    from clipcond.find.questions import AnsweredPicture, Statements


@dataclass(frozen=True, slots=True, kw_only=True)
class AskOptions:
    """Pictures, a question or a statement with `{}`, and two answers or more.

    Raises OptionsError for fewer answers, two alike, both or neither of question and statement, and a statement without `{}`.
    """

    gallery: GalleryOptions
    answers: tuple[str, ...]
    question: str = ""
    statement: str = ""

    def __post_init__(self) -> None:
        if bool(self.question.strip()) == bool(self.statement.strip()):
            raise OptionsError('give --question "what colour is the car?" or --statement "a {} car", one of the two')
        if self.statement and "{}" not in self.statement:
            raise OptionsError(f"--statement {self.statement!r} has no {{}} where the answer goes")
        if len(self.answers) < 2 or "" in self.answers:
            raise OptionsError("--answers needs two or more, with commas between: red,blue,green")
        if len(set(self.answers)) < len(self.answers):
            raise OptionsError("--answers names one answer twice")
        from clipcond.find.questions import statements_for

        strange = [answer for answer in self.answers if answer.casefold() not in ("yes", "no", "true", "false")]
        if self.question and statements_for(self.question).yes_no and strange:
            raise OptionsError(f"the question asks for yes or no; {strange[0]!r} is neither")


@dataclass(frozen=True, slots=True, kw_only=True)
class AskResult:
    """Every picture's answers, and the statements that were compared."""

    pictures: tuple[AnsweredPicture, ...]
    unread: tuple[Unread, ...]
    statements: Statements


def run(options: AskOptions, events: Events = ignore) -> AskResult:
    """Find the pictures, load the model and rank the answers. A question that such models are bad at becomes a note."""
    from clipcond.find.questions import ask, given_statements, statements_for

    statements = given_statements(options.statement) if options.statement else statements_for(options.question)
    paths = gallery.find(options.gallery, events)
    said = tuple(text for answer in options.answers for text in statements.of(answer))
    scorer = gallery.load_scorer(options.gallery.model, events, said)
    if statements.warning:
        events(Note(statements.warning))
    pictures = gallery.embed(paths, scorer, options.gallery, events)
    answered = ask(pictures, statements, options.answers)
    return AskResult(pictures=answered, unread=pictures.unread, statements=statements)
