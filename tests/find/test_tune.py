from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from clipcond.encode.context import context_rows
from clipcond.errors import ConfigError, DataError, ModelError, OutputExists, ResourceMissing
from clipcond.find.classify import build_classifier
from clipcond.find.labels import Templates, labels_of
from clipcond.find.probe import Examples, examples
from clipcond.find.tune import Split, TuneReport, TuneSettings, fit, split, start_of, tune
from clipcond.find.tuned import Tuned, class_vectors, read_tuned, save_inversion, save_tuned, tuned_classifier
from clipcond.rerank.scorer import Scorer

NAMES = ("red circle", "blue star", "green square")
TEMPLATES = ("a {}.", "a {} in the center", "a {} on gray")
SENTENCE = "a picture with a {} in the center"
KINDS = ("templates", "shared", "per-class")


def zero_shot(scorer: Scorer, *sentences: str) -> np.ndarray:
    return build_classifier(scorer, labels_of(NAMES, Templates(name="", sentences=sentences))).vectors


def near(centres: np.ndarray, classes: list[int], seed: int, spread: float = 0.3) -> Examples:
    """Pictures about the vectors of their classes."""
    noise = np.random.default_rng(seed).normal(size=(len(classes), centres.shape[1])) / centres.shape[1] ** 0.5
    return examples(centres[classes] + spread * noise, classes)


@pytest.mark.parametrize("kind", KINDS)
def test_step_0_is_zero_shot(kind: str, mini_scorer: Scorer) -> None:
    start = start_of(kind, mini_scorer, NAMES, TEMPLATES, SENTENCE)
    expected = zero_shot(mini_scorer, *(TEMPLATES if kind == "templates" else (SENTENCE,)))
    np.testing.assert_allclose(start.vectors_of(start.values).detach().numpy(), expected, atol=2e-6)


def test_the_gradient_reaches_each_vector_through_the_tower(mini_scorer: Scorer) -> None:
    rows = context_rows(mini_scorer.dual.texts, SENTENCE, NAMES)
    weights = torch.from_numpy(np.random.default_rng(0).normal(size=(3, mini_scorer.image_width()))).float()
    context = rows.start.repeat(3, 1, 1).requires_grad_(True)
    (weights * rows.encode(context)).sum().backward()
    assert context.grad is not None
    assert context.grad.shape == (3, rows.places, mini_scorer.dual.text.width)
    step = torch.from_numpy(np.random.default_rng(1).normal(size=context.shape)).float() * 0.01 * rows.scale()
    with torch.no_grad():
        moved = [float((weights * rows.encode(context + sign * step)).sum()) for sign in (1, -1)]
    assert (moved[0] - moved[1]) / 2 == pytest.approx(float((context.grad * step).sum()), rel=0.02)
    assert all(weight.grad is None for weight in mini_scorer.dual.image.model.parameters())


def test_context_per_class_learns_what_the_names_do_not_say(mini_scorer: Scorer) -> None:
    vectors = zero_shot(mini_scorer, SENTENCE)
    turned = vectors[[1, 2, 0]]  # pictures of each class look like another
    pictures = Split(
        fit=near(turned, [0, 1, 2] * 4, 0), validation=near(turned, [0, 1, 2], 1), test=near(turned, [0, 1, 2] * 5, 2)
    )
    starts = [start_of("per-class", mini_scorer, NAMES, TEMPLATES, SENTENCE)]
    report = tune(mini_scorer, pictures, vectors, starts, NAMES, TuneSettings(rate=0.2, steps=30, patience=30))
    plain, learned = report.rows
    assert (plain.accuracy.value, learned.start, learned.accuracy.value) == (0.0, 0.0, 1.0)
    assert (learned.gained, learned.lost, report.best) == (15, 0, 1)
    assert learned.accuracy.low == pytest.approx(0.7961, abs=1e-4)  # Wilson's, of 15 in 15
    assert report.verdict.startswith("per-class helps: +100.0 points on 15 test pictures (15 gained, 0 lost")
    again = tune(mini_scorer, pictures, vectors, starts, NAMES, TuneSettings(rate=0.2, steps=30, patience=30))
    np.testing.assert_array_equal(report.tuned[0].values, again.tuned[0].values)
    np.testing.assert_allclose(
        near(turned, [0, 1, 2], 3).vectors @ class_vectors(report.tuned[0], mini_scorer, NAMES).T,
        near(turned, [0, 1, 2], 3).vectors @ class_vectors(again.tuned[0], mini_scorer, NAMES).T,
    )


def test_the_weights_go_to_the_template_that_tells_classes_apart(mini_scorer: Scorer) -> None:
    templates = ("a {}.", "a black ring")  # the second is the same for all, and only blurs them
    vectors = zero_shot(mini_scorer, *templates)
    pictures = near(zero_shot(mini_scorer, "a {}."), [0, 1, 2] * 4, 0, spread=2.0)
    start = start_of("templates", mini_scorer, NAMES, templates, SENTENCE)
    split_up = Split(fit=pictures, validation=pictures, test=pictures)
    report = tune(mini_scorer, split_up, vectors, [start], NAMES, TuneSettings(rate=0.2))
    (tuned,) = report.tuned
    assert tuned.values.sum() == pytest.approx(1)
    assert tuned.values[0] > 0.8
    assert report.rows[1].loss < report.rows[0].loss


def test_it_stops_at_zero_shot_where_other_pictures_contradict(mini_scorer: Scorer) -> None:
    vectors = zero_shot(mini_scorer, SENTENCE)
    start = start_of("shared", mini_scorer, NAMES, TEMPLATES, SENTENCE)
    pictures = Split(
        fit=near(vectors[[1, 2, 0]], [0, 1, 2], 0),
        validation=near(vectors, [0, 1, 2], 1),
        test=near(vectors, [0, 1, 2], 2),
    )
    steps: list[int] = []
    found = fit(start, pictures, 100.0, TuneSettings(rate=0.2, patience=3), steps.append)
    assert (found.step, len(steps)) == (0, 3)
    torch.testing.assert_close(found.values, start.values, rtol=0, atol=0)
    report = tune(mini_scorer, pictures, vectors, [start], NAMES, TuneSettings(rate=0.2, patience=3))
    assert report.best == 0
    assert report.verdict.startswith("tuning does not help: on the validation pictures nothing is better")


def test_a_split_has_each_class_in_each_part() -> None:
    classes = [0] * 10 + [1] * 3 + [2] * 2
    given = examples(np.random.default_rng(0).normal(size=(15, 4)), classes)
    parts = split(given, 0.2, 7)
    assert [np.bincount(part.classes, minlength=3).tolist() for part in (parts.fit, parts.validation, parts.test)] == [
        [6, 1, 2], [2, 1, 0], [2, 1, 0],
    ]  # fmt: skip
    rows = np.concatenate([parts.fit.vectors, parts.validation.vectors, parts.test.vectors])
    assert sorted(map(tuple, rows)) == sorted(map(tuple, given.vectors))
    np.testing.assert_array_equal(parts.fit.vectors, split(given, 0.2, 7).fit.vectors)
    assert not np.array_equal(parts.fit.vectors, split(given, 0.2, 8).fit.vectors)
    other = examples(np.eye(4), [0, 1, 2, 2])
    parts = split(given, 0.2, 7, other)
    assert parts.test is other
    assert np.bincount(parts.fit.classes).tolist() == [8, 2, 1]
    with pytest.raises(DataError, match="no class has 3 pictures, of which 2 could be held out"):
        split(other, 0.2, 0)
    with pytest.raises(ConfigError, match=r"hold_out is 0\.5"):
        split(given, 0.5, 0)


def learned(kind: str, scorer: Scorer) -> Tuned:
    """What was not learned: the start, as a file holds it."""
    start = start_of(kind, scorer, NAMES, TEMPLATES, SENTENCE)
    return Tuned(
        kind=kind, values=start.kept(start.values).float().numpy(), sentences=start.sentences, names=NAMES,
        model="mini", fingerprint=scorer.label_space().model,
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_gives_the_same_classes_back(kind: str, mini_scorer: Scorer, tmp_path: Path) -> None:
    tuned = learned(kind, mini_scorer)
    save_tuned(tmp_path / "t.safetensors", tuned)
    found = tuned_classifier(read_tuned(tmp_path / "t.safetensors"), mini_scorer, NAMES)
    expected = zero_shot(mini_scorer, *(TEMPLATES if kind == "templates" else (SENTENCE,)))
    np.testing.assert_allclose(found.vectors, expected, atol=2e-6)
    assert [label.name for label in found.labels] == list(NAMES)
    with pytest.raises(OutputExists):
        save_tuned(tmp_path / "t.safetensors", tuned)
    few = class_vectors(tuned, mini_scorer, NAMES[2:])
    np.testing.assert_allclose(few, expected[2:], atol=2e-6)
    if kind == "per-class":
        with pytest.raises(ConfigError, match="'ring' was not learned; context per class knows red circle, blue star"):
            class_vectors(tuned, mini_scorer, ["ring"])
    else:
        assert class_vectors(tuned, mini_scorer, ["ring", "red circle"]).shape[0] == 2


def test_files_that_will_not_do(mini_scorer: Scorer, tmp_path: Path) -> None:
    tuned, path = learned("templates", mini_scorer), tmp_path / "x.safetensors"
    with pytest.raises(ResourceMissing, match="no tuned classes at"):
        read_tuned(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="is no file of tuned classes"):
        read_tuned(path)
    save_file({"weights": np.ones(3, np.float32)}, path)
    with pytest.raises(DataError, match="holds no tuned classes; expected a file that clipcond tune made"):
        read_tuned(path)
    about = {
        "format": "clipcond tuned classes",
        "version": "1",
        "kind": "templates",
        "model": "mini",
        "fingerprint": "",
    }
    about |= {"sentences": json.dumps(TEMPLATES), "names": json.dumps(NAMES)}
    save_file({"weights": np.ones(2, np.float32)}, path, about)
    with pytest.raises(DataError, match=r"is damaged: templates with values of the axes \(2,\)"):
        read_tuned(path)
    save_file({"weights": np.array([1, np.nan, 1], np.float32)}, path, about)
    with pytest.raises(DataError, match="a number that is not finite"):
        read_tuned(path)
    save_file({"weights": np.ones(3, np.float32)}, path, about)
    with pytest.raises(DataError, match="made by mini, with other weights than mini"):
        class_vectors(read_tuned(path), mini_scorer, NAMES)
    with pytest.raises(ConfigError, match="templates is no textual inversion"):
        save_inversion(tmp_path / "y.safetensors", tuned)


@pytest.mark.parametrize(
    ("sentence", "names", "message"),
    [
        ("{} in gray", NAMES, "has no words before"),
        ("a picture", NAMES, "has no words before"),
        ("a super{}", NAMES, "the words run into 'red circle'; put a blank before"),
        ("a {}", ["red " * 90], "has 91 tokens; expected at most"),
    ],
)
def test_sentences_that_hold_no_context(sentence: str, names: list[str], message: str, mini_scorer: Scorer) -> None:
    with pytest.raises(ConfigError, match=message):
        context_rows(mini_scorer.dual.texts, sentence, names)


def test_another_text_encoder_than_clips_takes_no_context(mini_scorer: Scorer) -> None:
    with pytest.raises(ModelError, match="a text encoder with CLIP's tokens takes no vectors in place of words"):
        context_rows(replace(mini_scorer.dual.texts, tower=None), SENTENCE, NAMES)


def test_shared_context_is_a_textual_inversion_of_the_pipeline(mini_scorer: Scorer, tmp_path: Path) -> None:
    from clipcond.diffusion.conditioner import Conditioner
    from clipcond.diffusion.pipelines import load_pipeline

    save_inversion(tmp_path / "look.safetensors", learned("shared", mini_scorer))
    conditioner = Conditioner.from_pipeline(load_pipeline("mini"), embeddings=tmp_path)
    given, words = conditioner("look red circle"), conditioner("a picture with a red circle")
    torch.testing.assert_close(given.prompt_embeds, words.prompt_embeds, atol=1e-5, rtol=0)


def test_the_report_is_a_document(mini_scorer: Scorer) -> None:
    vectors = zero_shot(mini_scorer, SENTENCE)
    pictures = near(vectors, [0, 1, 2] * 2, 0)
    start = start_of("shared", mini_scorer, NAMES, TEMPLATES, SENTENCE)
    report: TuneReport = tune(
        mini_scorer,
        Split(fit=pictures, validation=pictures, test=pictures),
        vectors,
        [start],
        NAMES,
        TuneSettings(steps=1),
    )
    document = json.loads(json.dumps(report.to_json()))
    assert [row["method"] for row in document["rows"]] == ["zero-shot", "shared"]
    assert (document["fit"], document["validation"], document["test"]) == (6, 6, 6)
    with pytest.raises(ConfigError, match="rate is 0"):
        TuneSettings(rate=0)
