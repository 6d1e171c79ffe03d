"""Heads fitted on ratings and choices: the exact minimum, honest accuracy, invariances."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipcond.errors import ConfigError, ShapeError
from clipcond.models.aesthetic_head import read_head_file, write_head_file
from clipcond.score import fit as module
from clipcond.score.aesthetic import aesthetic_head
from clipcond.score.fit import LinearFit, fit_bradley_terry, fit_ridge, preference_pairs

WIDTH = 12
Rated = tuple[np.ndarray, np.ndarray, list[str], list[str]]


def rated(count: int = 120, seed: int = 0, noise: float = 0.05, prompts: int = 12) -> Rated:
    """Unit vectors, ratings that are linear in them with noise, prompts, paths."""
    draw = np.random.default_rng(seed)
    images = draw.normal(size=(count, WIDTH))
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    truth = np.linspace(-1, 1, WIDTH)
    ratings = images @ truth + noise * draw.normal(size=count)
    names = [f"{number:04}.png" for number in range(count)]
    return images, ratings, [f"prompt {number % prompts}" for number in range(count)], names


def both(data: Rated) -> list[LinearFit]:
    images, ratings, prompts, paths = data
    pairs = preference_pairs(ratings, prompts)
    return [
        fit_ridge(images, ratings, prompts=prompts, paths=paths),
        fit_bradley_terry(images, pairs, prompts=prompts, paths=paths),
    ]


def test_what_is_linear_is_found() -> None:
    for fit in both(rated()):
        truth = np.linspace(-1, 1, WIDTH)
        assert fit.weight @ truth / np.linalg.norm(fit.weight) / np.linalg.norm(truth) > 0.97
        assert fit.accuracy.value > 0.9
        assert fit.accuracy.low <= fit.accuracy.value <= fit.accuracy.high
        assert (fit.folds, fit.held_out, fit.rows) == (5, "prompts", 120)


def test_noise_alone_is_not_learnt() -> None:
    """96 dimensions and 60 pictures fit any rating; held out, it is chance."""
    draw = np.random.default_rng(1)
    images, names = draw.normal(size=(60, 96)), [f"{number}.png" for number in range(60)]
    ratings, prompts = draw.normal(size=60), [f"{number % 6}" for number in range(60)]
    assert fit_ridge(images, ratings, prompts=prompts, paths=names).accuracy.value == pytest.approx(0.5, abs=0.12)
    pairs = preference_pairs(ratings, prompts)
    fit = fit_bradley_terry(images, pairs, prompts=prompts, paths=names)
    assert fit.accuracy.value == pytest.approx(0.5, abs=0.12)


def test_ridge_solves_its_normal_equations() -> None:
    images, ratings, prompts, paths = rated()
    fit = fit_ridge(images, ratings, prompts=prompts, paths=paths)
    centred = images - images.mean(axis=0)
    penalty = fit.penalty * np.square(centred).sum()
    left = (centred.T @ centred + penalty * np.eye(WIDTH)) @ fit.weight
    assert left == pytest.approx(centred.T @ (ratings - ratings.mean()), abs=1e-10)
    assert (images @ fit.weight + fit.bias).mean() == pytest.approx(ratings.mean())


def test_ridges_leave_one_out_error_is_what_leaving_out_gives() -> None:
    images, ratings, *_ = rated(count=20, noise=0.5)
    weight, bias, chosen = module._ridge(images, ratings)
    errors = {}
    for penalty in module._RIDGE_PENALTIES:
        total = np.square(images - images.mean(axis=0)).sum() * penalty
        squares = []
        for out in range(20):
            rest = np.delete(np.arange(20), out)
            augmented = np.column_stack([images[rest], np.ones(19)])
            solution = np.linalg.solve(
                augmented.T @ augmented + total * np.diag([1.0] * WIDTH + [0.0]), augmented.T @ ratings[rest]
            )
            squares.append((ratings[out] - np.append(images[out], 1) @ solution) ** 2)
        errors[float(penalty)] = np.mean(squares)
    assert chosen == min(errors, key=lambda penalty: errors[penalty])
    assert np.isfinite([*weight, bias]).all()


def test_bradley_terry_is_at_its_minimum() -> None:
    images, ratings, prompts, paths = rated()
    pairs = preference_pairs(ratings, prompts)
    fit = fit_bradley_terry(images, pairs, prompts=prompts, paths=paths)
    gaps = images[pairs[:, 0]] - images[pairs[:, 1]]
    chance = 1 / (1 + np.exp(-gaps @ fit.weight))
    gradient = fit.penalty * np.square(gaps).sum() * fit.weight - gaps.T @ (1 - chance)
    assert np.abs(gradient).max() < 1e-6
    assert (images @ fit.weight + fit.bias).mean() == pytest.approx(0, abs=1e-12)


def test_separable_choices_have_a_finite_fit() -> None:
    fit = fit_bradley_terry(
        np.tile(np.eye(2), (10, 1)),
        [[2 * k, 2 * k + 1] for k in range(10)],
        prompts=["a"] * 20,
        paths=[f"{number:02}" for number in range(20)],
        folds=2,
    )
    assert np.isfinite(fit.weight).all()
    assert fit.weight[0] > 0 > fit.weight[1]


def test_more_dimensions_than_pictures() -> None:
    draw = np.random.default_rng(0)
    images, names = draw.normal(size=(30, 500)), [str(number) for number in range(30)]
    kept = (images[:, 0] > 0).astype(int)
    for fit in both((images, kept, ["one"] * 30, names)):
        assert fit.weight.shape == (500,)
        assert fit.held_out == "pictures"
        assert np.sign(images @ fit.weight + fit.bias)[kept == 1].mean() > 0.5


def test_one_prompt_alone_holds_pictures_out() -> None:
    images, ratings, _, paths = rated()
    for fit in both((images, (ratings > 0).astype(float), ["all"] * 120, paths)):
        assert fit.held_out == "pictures"
        assert fit.accuracy.value > 0.9


@given(st.randoms(use_true_random=False), st.sampled_from([0.125, 64.0]))
@settings(max_examples=8)
def test_neither_the_order_of_rows_nor_their_length_changes_the_fit(shuffled: random.Random, size: float) -> None:
    images, ratings, prompts, paths = rated(count=40, prompts=5)
    order = list(range(40))
    shuffled.shuffle(order)
    moved = (images[order] * size, ratings[order], [prompts[i] for i in order], [paths[i] for i in order])
    for straight, again in zip(both((images, ratings, prompts, paths)), both(moved), strict=True):
        assert again.weight.tolist() == straight.weight.tolist()
        assert (again.bias, again.accuracy, again.penalty) == (straight.bias, straight.accuracy, straight.penalty)


def test_pairs_are_within_a_prompt_and_strict() -> None:
    pairs = preference_pairs([3, 1, 2, 2, 9], list("aaabb"))
    assert pairs.tolist() == [[0, 1], [0, 2], [2, 1], [4, 3]]
    assert preference_pairs([1, 1], "aa").shape == (0, 2)


def test_of_too_many_pairs_a_fixed_sample_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PAIRS", 100)
    images, ratings, prompts, paths = rated()
    pairs = preference_pairs(ratings, prompts)
    first = fit_bradley_terry(images, pairs, prompts=prompts, paths=paths)
    again = fit_bradley_terry(images, pairs[::-1], prompts=prompts, paths=paths)
    assert first.pairs == again.pairs == len(pairs)  # measured on all of them
    assert first.weight.tolist() == again.weight.tolist()


def test_a_fit_becomes_a_head_that_scores_the_same_from_its_file(tmp_path: Path) -> None:
    images, ratings, prompts, paths = rated()
    fit = fit_ridge(images, ratings, prompts=prompts, paths=paths)
    head = fit.head("keeps", "mini")
    file = read_head_file(write_head_file(tmp_path / "keeps.safetensors", head.tensors(), head.described()))
    again = aesthetic_head(file.name, file.tensors, file.metadata)
    assert again.scores(images, tower="mini") == pytest.approx(images @ fit.weight + fit.bias, abs=1e-12)
    assert dict(again.metadata)["accuracy"] == f"{fit.accuracy.value:.4f}"
    assert dict(again.metadata)["folds"] == "5 of prompts"
    with pytest.raises(ConfigError, match=r"keeps.safetensors does not fit other/tag; it was made for mini"):
        again.scores(images, tower="other/tag")


def test_refusals() -> None:
    images, ratings, prompts, paths = rated(count=12)
    settings = {"prompts": prompts, "paths": paths}
    with pytest.raises(ConfigError, match="every rating is 1; a fit needs better and worse pictures"):
        fit_ridge(images, [1] * 12, **settings)
    with pytest.raises(ConfigError, match="folds is 1; expected 2 or more"):
        fit_ridge(images, ratings, **settings, folds=1)
    with pytest.raises(ConfigError, match="there are 4 pictures; expected 10 or more for 5 folds"):
        fit_ridge(images[:4], ratings[:4], prompts=["a"] * 4, paths=paths[:4])
    with pytest.raises(ConfigError, match="paths: expected 12 different ones, given 1 different of 12"):
        fit_ridge(images, ratings, prompts=prompts, paths=["a"] * 12)
    with pytest.raises(ConfigError, match="no held-out prompt has two pictures that are rated differently"):
        fit_ridge(images, ratings, **settings)  # one picture a prompt
    with pytest.raises(ShapeError, match="prompts: there are 1; expected 12, one for each row"):
        fit_ridge(images, ratings, prompts=["a"], paths=paths)
    with pytest.raises(ConfigError, match="ratings: number 12 of 12 is nan"):
        fit_ridge(images, [*ratings[:-1], np.nan], **settings)
    with pytest.raises(ShapeError, match=r"pairs: the shape is \(2,\) of int64; expected \(K, 2\) row numbers"):
        fit_bradley_terry(images, [0, 1], **settings)
    with pytest.raises(ConfigError, match="pairs: row 12 is not one of 12"):
        fit_bradley_terry(images, [[0, 12]], **settings)
    with pytest.raises(ConfigError, match="pairs: row -1 is not one of 12"):
        fit_bradley_terry(images, [[-1, 2]], **settings)
    with pytest.raises(ConfigError, match="pairs: row 3 is preferred to itself"):
        fit_bradley_terry(images, [[3, 3]], **settings)
    with pytest.raises(ConfigError, match="pairs: there is none"):
        fit_bradley_terry(images, np.zeros((0, 2), int), **settings)
