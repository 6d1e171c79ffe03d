from __future__ import annotations

import pytest

from clipcond.find.gallery import Gallery
from clipcond.find.questions import ask, given_statements, statements_for


@pytest.mark.parametrize(
    ("question", "answer", "statement"),
    [
        ("What colour is the car?", "red", "the car is red"),
        ("what color is the big car ?", "red", "a red big car"),
        ("How many dogs are there?", "two", "two dogs"),
        ("what is the dog doing?", "sleeping", "the dog is sleeping"),
        ("where is the cat?", "on the mat", "the cat is on the mat"),
        ("is there a star?", "yes", "a picture of a star"),
        ("Does this picture show a star?", "no", "a picture without a star"),
        ("which one", "left", "which one? left"),
    ],
)
def test_questions_become_statements(question: str, answer: str, statement: str) -> None:
    assert statement in statements_for(question).of(answer)


def test_what_such_models_are_bad_at_is_said() -> None:
    assert "count" in statements_for("how many stars?").warning
    assert "negation" in statements_for("is there a star?").warning
    assert not statements_for("what colour is it?").warning


def test_the_colour_is_answered_and_sure(pictures: Gallery) -> None:
    answered = ask(pictures, given_statements("a {} circle"), ("red", "blue", "green", "yellow"))
    assert [each.answers[0].label for each in answered] == [each.path.parent.name for each in answered]
    assert all(each.sure and each.margin > 0 for each in answered)
    assert sum(answer.probability for answer in answered[0].answers) == pytest.approx(1)


def test_answers_that_say_the_same_are_unsure(pictures: Gallery) -> None:
    answered = ask(pictures, given_statements("a red circle or {}"), ("RED", "red"))
    assert not any(each.sure for each in answered)
    assert answered[0].to_json()["sure"] is False
