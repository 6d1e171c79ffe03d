from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clipcond.encode.embedding_cache import EmbeddingCache
from clipcond.errors import DataError
from clipcond.find.classify import TemplateBench, build_classifier, classify
from clipcond.find.gallery import Gallery, gallery
from clipcond.find.labels import Templates, labels_of, read_templates
from clipcond.find.truth import labels_by_folder, numbered, read_truth, truth_of
from clipcond.rerank.scorer import Scorer

COLOURS = ("red", "blue", "green", "yellow")  # the folders of `sorted_pictures`
PLAIN = Templates(name="none", sentences=("{}",))


def test_the_colour_of_every_picture_is_found(pictures: Gallery) -> None:
    found = classify(pictures, build_classifier(pictures.scorer, labels_of(COLOURS, PLAIN)), top=2)
    assert [each.label for each in found.pictures] == [each.path.parent.name for each in found.pictures]
    assert all(len(each.answers) == 2 for each in found.pictures)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)


def test_a_picture_of_none_of_them_has_no_label(pictures: Gallery) -> None:
    of = build_classifier(pictures.scorer, labels_of(COLOURS, PLAIN))
    sure = classify(pictures, of).pictures[0].answers[0].probability
    assert classify(pictures, of, none_below=sure).pictures[0].label is not None
    assert classify(pictures, of, none_below=sure + 1e-6).pictures[0].label is None


def test_the_classifier_is_open_clips(dual_folder: Path) -> None:
    """The same tower, labels and templates, through open_clip's own builder."""
    from clipcond.runtime.torchvision_repair import repair

    repair()
    from open_clip import build_zero_shot_classifier
    from open_clip.tokenizer import SimpleTokenizer

    from clipcond.models.open_clip_folder import read_open_clip_folder

    templates = read_templates("imagenet7")
    scorer = Scorer.load(str(dual_folder), device="cpu")
    ours = build_classifier(scorer, labels_of(("fox", "green snow", "3 dogs"), templates))
    model = read_open_clip_folder(dual_folder).float().eval()
    with torch.no_grad():
        theirs = build_zero_shot_classifier(
            model, SimpleTokenizer(), ["fox", "green snow", "3 dogs"],
            [lambda name, sentence=sentence: sentence.replace("{}", name) for sentence in templates.sentences],
        )  # fmt: skip
    np.testing.assert_allclose(ours.vectors, theirs.T.numpy(), atol=1e-5)


def test_labels_are_remembered_by_model_and_texts(mini_scorer: Scorer, tmp_path: Path) -> None:
    """A second classifier encodes the texts of new labels alone, and of the others has the bits of the first."""
    cache = EmbeddingCache(tmp_path / "e.sqlite")
    templates = Templates(name="own", sentences=("a {} circle", "{} circle"))

    def built(*names: str, templates: Templates = templates) -> tuple[np.ndarray, int]:
        scorer = Scorer(mini_scorer.dual)
        found = build_classifier(scorer, labels_of(names, templates), cache=cache)
        return found.vectors, len(scorer._texts) - 1  # and the empty text, for the width

    first, encoded = built("red", "blue")
    assert encoded == 4
    plain = build_classifier(mini_scorer, labels_of(("red", "blue"), templates)).vectors
    np.testing.assert_allclose(first, plain, atol=1e-6)
    again, encoded = built("blue", "green", "red", "RED")  # tokens know no capitals
    assert encoded == 2
    np.testing.assert_array_equal(again[[2, 0]], first)
    np.testing.assert_array_equal(again[3], again[2])
    other, encoded = built("red", templates=Templates(name="one", sentences=("a {} circle",)))
    assert encoded == 1
    assert not np.array_equal(other[0], first[0])
    cache.close()


def test_templates_are_tried_one_by_one_and_chosen_greedily(pictures: Gallery) -> None:
    truth = [COLOURS.index(path.parent.name) for path in pictures.paths]
    bench = TemplateBench(pictures, COLOURS, ("{}", "a {} circle"), truth)
    plain, circle = bench.gains()
    assert plain.alone == circle.alone == 1.0
    assert bench.select() == (("{}",), 1.0)


def test_a_template_that_misleads_is_not_chosen() -> None:
    """Two classes on two axes: the second template names the wrong one, the third tells nothing apart."""
    vectors = {"a": (1, 0, 0), "b": (0, 1, 0), "no a": (0, 1, 0), "no b": (1, 0, 0), "a?": (1, 0, 1), "b?": (1, 0, 1)}

    class Words:
        def texts(self, prompts: list[str]) -> list[SimpleNamespace]:
            return [SimpleNamespace(vector=np.array(vectors[prompt], float)) for prompt in prompts]

    rows = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])
    pictures = SimpleNamespace(scorer=Words(), vectors=rows)
    bench = TemplateBench(pictures, ("a", "b"), ("{}", "no {}", "{}?"), [0, 1])  # type: ignore[arg-type]
    right, wrong, weak = bench.gains()
    assert (right.alone, wrong.alone, weak.alone) == (1.0, 0.0, 0.5)
    assert wrong.loss_without == bench.accuracy([0, 1, 2]) - bench.accuracy([0, 2]) < 0
    assert bench.select() == (("{}",), 1.0)


def test_a_picture_that_cannot_be_read_is_a_row(sorted_pictures: Path, mini_scorer: Scorer, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    found = gallery([sorted_pictures / "red" / "0.png", tmp_path / "broken.png"], mini_scorer)
    assert len(found) == 1
    assert [each.path.name for each in found.unread] == ["broken.png"]
    assert found.unread[0].to_json()["error"]


def test_truth_from_folders_and_tables(sorted_pictures: Path, tmp_path: Path) -> None:
    paths = sorted(sorted_pictures.rglob("*.png"))
    assert set(labels_by_folder(paths).values()) == set(COLOURS)
    table = sorted_pictures / "right.csv"
    table.write_text("image,label\nred/0.png,red\n./blue/1.png,blue\n", encoding="utf-8")
    truth = truth_of(paths, read_truth(table))
    table.unlink()
    assert {path.parent.name: label for path, label in truth.items()} == {"red": "red", "blue": "blue"}
    rows, columns = numbered(paths, truth, COLOURS)
    assert [(paths[row].parent.name, COLOURS[column]) for row, column in zip(rows, columns, strict=True)] == [
        ("blue", "blue"),
        ("red", "red"),
    ]
    with pytest.raises(DataError, match="1 of the right labels are not among the labels \\('blue'"):
        numbered(paths, truth, ("red",))
    with pytest.raises(DataError, match="no picture has a right label"):
        numbered(paths, {}, COLOURS)
    table = tmp_path / "two.csv"
    table.write_text("image,label\na.png,red\n./a.png,blue\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.png has two labels"):
        read_truth(table)
