"""Zero-shot, retrieval and probe numbers beside those of open_clip and scikit-learn, on the same embeddings of scenes."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from clipcond.find.classify import build_classifier, classify
from clipcond.find.gallery import Gallery, gallery
from clipcond.find.labels import Templates, labels_of
from clipcond.find.probe import examples, probe
from clipcond.mini import world
from clipcond.rerank.scorer import Scorer
from clipcond.runtime.torchvision_repair import repair
from clipcond.score.classification import compare_with_truth
from clipcond.score.retrieval import retrieval

NAMES = tuple(world.COLOURS)
TEMPLATES = Templates(name="own", sentences=("{}", "a {} thing", "a {} circle or star"))


@pytest.fixture(scope="module")
def scenes() -> list[world.Scene]:
    """Two to four things in a scene; the colour of the first, named first, is its class, and hard to tell."""
    rng = random.Random(3)
    return [world.sample(rng, least=2, most=4) for _ in range(48)]


@pytest.fixture(scope="module")
def hard(scenes: list[world.Scene], mini_scorer: Scorer, tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    folder, rng = tmp_path_factory.mktemp("hard"), random.Random(4)
    for number, scene in enumerate(scenes):
        world.render(scene, rng).save(folder / f"{number:02}.png")
    return gallery(sorted(folder.glob("*.png")), mini_scorer)


@pytest.fixture(scope="module")
def truth(scenes: list[world.Scene]) -> list[int]:
    return [NAMES.index(scene.objects[0].colour) for scene in scenes]


def open_clips(path: Path) -> np.ndarray:
    """(P, C), the classifier of open_clip's own builder, model reader and tokenizer."""
    repair()
    from open_clip import build_zero_shot_classifier
    from open_clip.tokenizer import SimpleTokenizer

    from clipcond.models.open_clip_folder import read_open_clip_folder

    model = read_open_clip_folder(path).float().eval()
    templates = [lambda name, sentence=sentence: sentence.replace("{}", name) for sentence in TEMPLATES.sentences]
    with torch.no_grad():
        return build_zero_shot_classifier(model, SimpleTokenizer(context_length=77), NAMES, templates).numpy()


def test_zero_shot_answers_are_open_clips_and_their_measures_scikit_learns(hard: Gallery, truth: list[int]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    from clipcond.resources import embedded

    logits = 100 * hard.vectors.numpy() @ open_clips(embedded("clip"))
    answers = logits.argmax(axis=1)
    found = classify(hard, build_classifier(hard.scorer, labels_of(NAMES, TEMPLATES)))
    assert [NAMES.index(each.label or "") for each in found.pictures] == answers.tolist()
    measured = compare_with_truth(found.probabilities, truth)
    assert 0.2 < measured.accuracy < 0.9, "scenes that say nothing"
    assert measured.accuracy == pytest.approx(metrics.accuracy_score(truth, answers))
    assert measured.mean_recall == pytest.approx(metrics.recall_score(truth, answers, average="macro"))
    assert measured.top5 == pytest.approx(metrics.top_k_accuracy_score(truth, logits, k=5))
    assert measured.confusion.tolist() == metrics.confusion_matrix(truth, answers, labels=range(len(NAMES))).tolist()


def test_retrieval_is_that_of_open_clips_trainer(hard: Gallery, scenes: list[world.Scene]) -> None:
    repair()
    from open_clip_train.train import get_clip_metrics

    rng = random.Random(5)
    texts = torch.tensor(np.array([t.vector for t in hard.scorer.texts([world.caption(s, rng) for s in scenes])]))
    texts = torch.nn.functional.normalize(texts, dim=-1).float()
    own = np.arange(len(scenes))
    found = retrieval(hard.vectors, texts, (own, own))
    theirs = get_clip_metrics(hard.vectors, texts, torch.tensor(100.0))
    for k in (1, 5, 10):
        assert found.image_to_text[k] == pytest.approx(theirs[f"image_to_text_R@{k}"], abs=1e-6)
        assert found.text_to_image[k] == pytest.approx(theirs[f"text_to_image_R@{k}"], abs=1e-6)


def test_the_plain_probe_is_scikit_learns_and_zero_shot_the_classifiers(hard: Gallery, truth: list[int]) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    every = examples(hard.vectors, truth)
    train, test = every.only(range(0, 48, 2)), every.only(range(1, 48, 2))
    of = build_classifier(hard.scorer, labels_of(NAMES, TEMPLATES))
    report = probe(train, test, of.vectors, logit_scale=of.head.scale, shots=(None,))
    theirs = [
        linear.LogisticRegression(C=c, max_iter=1000)
        .fit(train.vectors, train.classes)
        .score(test.vectors, test.classes)
        for c in np.logspace(-3, 4, 15)
    ]
    assert any(
        report.rows[0].probe == pytest.approx(score) for score in theirs
    )  # of one of the strengths it may choose
    answers = (test.vectors @ of.vectors.T).argmax(axis=1)
    assert report.zero_shot == pytest.approx(float((answers == test.classes).mean()))
    assert report.rows[0].alphas[0] == report.zero_shot
