from __future__ import annotations

import numpy as np
import pytest

from clipcond.errors import ConfigError
from clipcond.find.probe import (
    ALPHAS,
    Examples,
    draw,
    examples,
    fit_near,
    logistic_regression,
    probe,
)

CLASSES, WIDTH = 4, 16


def blobs(count: int, seed: int) -> tuple[Examples, np.ndarray]:
    """Pictures about a centre for each class, and a zero-shot classifier that is near the centres."""
    fixed = np.random.default_rng(0)
    centres = fixed.normal(size=(CLASSES, WIDTH))
    texts = centres + 0.5 * fixed.normal(size=(CLASSES, WIDTH))
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    pictures = centres[labels] + 1.3 * rng.normal(size=(count, WIDTH))
    return examples(pictures, labels.tolist()), texts / np.linalg.norm(texts, axis=1, keepdims=True)


def test_drawn_examples_are_of_each_class_and_the_same_again() -> None:
    train, _ = blobs(40, 1)
    few = draw(train, 3, 5)
    assert np.bincount(few.classes).tolist() == [3] * CLASSES
    np.testing.assert_array_equal(few.vectors, draw(train, 3, 5).vectors)
    assert not np.array_equal(few.vectors, draw(train, 3, 6).vectors)
    assert len(draw(train, 99, 0).classes) == 40


def test_the_fit_near_the_prior_is_the_minimum() -> None:
    train, prior = blobs(20, 2)
    weights = fit_near(train, prior, 0.01, 10.0)

    def loss(at: np.ndarray) -> float:
        logits = 10.0 * train.vectors @ at.T
        most = logits.max(axis=1, keepdims=True)
        log = most[:, 0] + np.log(np.exp(logits - most).sum(axis=1))
        return float((log - logits[np.arange(20), train.classes]).mean() + 0.1 * ((at - prior) ** 2).sum())

    rng = np.random.default_rng(3)
    assert all(loss(weights) < loss(weights + 1e-3 * rng.normal(size=weights.shape)) for _ in range(20))
    np.testing.assert_allclose(fit_near(train, prior, 1e6, 10.0), prior, atol=1e-6)


@pytest.mark.parametrize("present", [[0, 1, 2, 3], [1, 3], [2]])
def test_logistic_regression_answers_as_scikit_learn(present: list[int]) -> None:
    from sklearn.linear_model import LogisticRegression

    train, _ = blobs(60, 4)
    some = train.only(np.flatnonzero(np.isin(train.classes, present)))
    weights = logistic_regression(some, 2.0, CLASSES)
    answers = np.argmax(some.vectors @ weights[:, :-1].T + weights[:, -1], axis=1)
    if len(present) == 1:
        assert set(answers) == {2}
        return
    theirs = LogisticRegression(C=2.0, max_iter=1000).fit(some.vectors, some.classes)
    np.testing.assert_array_equal(answers, theirs.predict(some.vectors))


def test_one_example_of_each_class_is_no_warning() -> None:
    """scikit-learn takes so many classes for a regression, and says so; warnings are errors here."""
    train, _ = blobs(CLASSES, 9)
    weights = logistic_regression(train, 1e4, CLASSES)
    assert np.argmax(train.vectors @ weights[:, :-1].T + weights[:, -1], axis=1).tolist() == train.classes.tolist()


def test_one_shot_from_zero_shot_does_not_fall_below_it() -> None:
    train, prior = blobs(400, 6)
    test, _ = blobs(400, 7)
    report = probe(train, test, prior, logit_scale=20.0, shots=(1, 8, None), draws=2)
    one, eight, every = report.rows
    assert one.from_zero_shot >= report.zero_shot - 0.01
    assert one.probe < one.from_zero_shot  # from nothing, one example is less than what the model knows
    assert eight.from_zero_shot > one.from_zero_shot - 0.01
    assert every.from_zero_shot > report.zero_shot
    assert len(one.alphas) == len(ALPHAS)
    assert one.alphas[0] == report.zero_shot
    assert one.alphas[-1] == one.from_zero_shot
    assert report.to_json()["classes"] == CLASSES


def test_nothing_to_train_on_is_one_line() -> None:
    train, prior = blobs(8, 8)
    with pytest.raises(ConfigError, match="one or more pictures to train on"):
        probe(train.only([]), train, prior, logit_scale=1.0)
