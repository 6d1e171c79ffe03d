"""Florence-2, random and tiny: its answers, made to be known, as boxes, scores and captions worked out by hand."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from florence_folder import POSITIONS, write_florence
from PIL import Image

from clipcond.errors import ConfigError, ModelError
from clipcond.find.boxes import Region
from clipcond.find.captions import write_captions
from clipcond.find.detect import detector_eye
from clipcond.find.gallery import Unread
from clipcond.find.labels import Label
from clipcond.models.detection import Detector, load_detector, names_captioner, names_detector
from clipcond.models.florence import answer_to, caption, check_command, places
from clipcond.models.sightings import check_texts, sightings

FOX = "fox<loc_100><loc_200><loc_300><loc_400>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_florence(tmp_path_factory.mktemp("florence"))


@pytest.fixture(scope="module")
def florence(folder: Path) -> Detector:
    return load_detector(f"hf:{folder}")


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.effect_mandelbrot((500, 300), (-3, -2, 2, 1), 40).convert("RGB")


@pytest.fixture
def writes(florence: Detector, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Have the model write known answers, by the label they are for, each token with a known probability."""

    def known(answers: dict[str, str], probability: float = 0.5, *, first: float | None = None) -> list[str]:
        asked: list[str] = []

        def generate(**given: Any) -> Any:
            command = florence.processor.tokenizer.decode(given["input_ids"][0], skip_special_tokens=True)
            asked.append(command)
            text = next(answer for label, answer in answers.items() if label in command)
            ids = florence.processor.tokenizer(text)["input_ids"]  # <s> … </s>
            chances = [1.0, *[probability] * (len(ids) - 2), 1.0]
            chances[1] = first or chances[1]
            return written(ids, chances, florence.model.config.text_config.vocab_size)

        monkeypatch.setattr(florence.model, "generate", generate)
        return asked

    return known


def written(ids: list[int], chances: list[float], vocabulary: int) -> Any:
    """The result of `generate` for one beam: every other token is as likely as the next."""
    logits = []
    for token, chance in zip(ids, chances, strict=True):
        row = torch.full((1, vocabulary), -1e4 if chance == 1 else math.log((1 - chance) / (vocabulary - 1)))
        row[0, token] = math.log(chance)
        logits.append(row)
    return SimpleNamespace(sequences=torch.tensor([[2, *ids]]), logits=tuple(logits), beam_indices=None)


def test_the_probability_is_the_models_own(florence: Detector, picture: Image.Image) -> None:
    command = "<OPEN_VOCABULARY_DETECTION>fox"
    answer = answer_to(florence, picture, command)
    given = florence.processor(text=command, images=picture, return_tensors="pt")
    with torch.inference_mode():
        said = florence.model.generate(**given, num_beams=3, do_sample=False, max_new_tokens=POSITIONS - 1)
        logits = florence.model(**given, decoder_input_ids=said[:, :-1]).logits[0].double()
    ids = said[0, 1:-1]  # between the decoder's start and the end that is forced
    assert answer.text == florence.processor.tokenizer.decode(ids)
    assert not answer.whole, "these weights never end by themselves"
    chances = logits.log_softmax(dim=-1)[range(len(ids)), ids]
    assert np.ptp(chances.numpy()) > 1
    assert abs(answer.probability - math.exp(chances.mean())) < 1e-5


def test_boxes_in_the_pictures_pixels(florence: Detector, picture: Image.Image, writes: Any) -> None:
    asked = writes({"red fox": FOX, "snow": FOX.replace("fox", "snow") + "<loc_0><loc_0><loc_999><loc_999>", "sea": ""})
    seen = sightings(florence, picture, ["red fox", "snow", "sea"])
    # the middle of a bin, of 500 and 300 pixels in 1000 bins, cut to whole pixels: 100.5 / 2, 200.5 * 0.3, …
    assert seen.boxes.tolist() == [[50, 60, 150, 120], [50, 60, 150, 120], [0, 0, 499, 299]]
    assert seen.boxes.dtype == np.float32
    assert seen.texts.tolist() == [0, 1, 1]
    assert np.abs(seen.scores - 0.5).max() < 1e-4, "start and end are not counted"
    assert [text.split("in the image")[0] for text in asked] == ["Locate red fox ", "Locate snow ", "Locate sea "]


def test_the_score_is_a_mean_of_logarithms(florence: Detector, picture: Image.Image, writes: Any) -> None:
    writes({"fox": FOX}, 0.5, first=1 / 256)  # 3 letters and 4 places: 2^-8 and six of 2^-1
    _, score = places(florence, picture, "fox")
    assert abs(score - 2 ** (-14 / 7)) < 1e-4


@pytest.mark.parametrize(
    ("answer", "boxes"),
    [
        ("", []),
        ("fox", []),
        ("fox<loc_1><loc_2><loc_3>", []),
        ("fox<loc_300><loc_200><loc_100><loc_400>", []),
        ("fox<poly><loc_100><loc_200><loc_300><loc_200><loc_200><loc_400></poly>", [[50, 60, 150, 120]]),
        (f"{FOX}dog<loc_500><loc_500><loc_600><loc_600>", [[50, 60, 150, 120], [250, 150, 300, 180]]),
    ],
)
def test_answers_of_every_kind(
    answer: str, boxes: list[list[int]], florence: Detector, picture: Image.Image, writes: Any
) -> None:
    writes({"fox": answer})
    corners, score = places(florence, picture, "fox")
    assert corners.tolist() == boxes
    assert (score == 0) is (answer == "")


def test_a_label_without_an_answer_is_absent(florence: Detector, picture: Image.Image, writes: Any) -> None:
    writes({"fox": FOX, "vixen": FOX, "sea": ""})
    eye = detector_eye(florence, [Label(name="animal", texts=("fox", "vixen")), Label(name="water", texts=("sea",))])
    sight = eye.look(picture)
    box = Region(box=(50.0, 60.0, 150.0, 120.0), score=sight.regions[0][0].score, peak=(100.0, 90.0))
    assert (sight.regions, eye.least) == (((box, box), ()), 0.0)


def test_captions_and_what_is_beyond_75_tokens(
    florence: Detector, picture: Image.Image, tmp_path: Path, writes: Any
) -> None:
    asked = writes({"What does": "a red fox", "Describe in detail": " a fox" * 40, "paragraph": ""}, 0.25)
    picture.save(tmp_path / "fox.png")
    (tmp_path / "bad.png").write_text("no picture")
    paths = [tmp_path / "fox.png", tmp_path / "bad.png"]
    (short,), (unread,) = write_captions(paths, florence, "short")
    assert (short.caption, short.content_tokens, short.beyond, short.whole) == ("a red fox", 3, "", True)
    assert abs(short.probability - 0.25) < 1e-4
    assert isinstance(unread, Unread)
    assert "is not a picture" in unread.error
    (long,), _ = write_captions(paths, florence, "detailed")
    assert (long.content_tokens, long.beyond) == (80, "fox a fox a fox")
    assert long.to_json()["beyond"] == "fox a fox a fox"
    empty = caption(florence, picture, "more-detailed")
    assert (empty.text, empty.probability) == ("", 0.0)
    assert [text.split()[0] for text in asked] == ["What", "Describe", "Describe"]


def test_an_answer_that_did_not_end_is_told(florence: Detector, picture: Image.Image, tmp_path: Path) -> None:
    picture.save(tmp_path / "fox.png")
    ((found,), _) = write_captions([tmp_path / "fox.png"], florence, "short")
    assert not found.whole
    assert found.to_json()["whole"] is False


def test_labels_that_it_does_not_read(florence: Detector) -> None:
    with pytest.raises(ConfigError, match=r"the label 'a<loc_1>' has a '<', with which Florence-2's commands begin"):
        check_texts(florence, ["fox", "a<loc_1>"])
    with pytest.raises(ConfigError, match=r"has \d+ tokens with the command, of which hf:.* reads 155; shorten it"):
        check_texts(florence, ["fox " * 60])
    check_texts(florence, ["a fox, {red} & 'old'", "Füchsin"])


def copied(folder: Path, tmp_path: Path, **changes: Any) -> str:
    """The folder with other settings; None takes a file away."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    for name, change in changes.items():
        path = tmp_path / f"{name}.json"
        if change is None:
            path.unlink()
        else:
            path.write_text(json.dumps(json.loads(path.read_text()) | change))
    return f"hf:{tmp_path}"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"preprocessor_config": None, "processor_config": None}, "has no preprocessor_config.json; copy it from"),
        ({"tokenizer": None, "tokenizer_config": None}, "cannot be loaded by transformers: "),
        ({"processor_config": {"post_processor_config": {}}}, "has no post_processor_config for description_with_b"),
        ({"preprocessor_config": {"do_center_crop": True}}, "crops its pictures, so its places are not the picture's"),
        ({"preprocessor_config": {"image_seq_length": 3}}, "gives no answer: .*tokens: 3, features"),
    ],
)
def test_folders_that_do_not_fit(
    changes: dict[str, Any], line: str, folder: Path, tmp_path: Path, picture: Image.Image
) -> None:
    with pytest.raises(ModelError, match=line) as caught:
        detector_eye(load_detector(copied(folder, tmp_path, **changes)), [Label(name="a", texts=("a",))]).look(picture)
    assert "\n" not in str(caught.value)


def test_a_processor_of_another_model(florence: Detector) -> None:
    other = replace(florence, processor=florence.processor.tokenizer)
    with pytest.raises(ModelError, match=r"has a \w+; expected the Florence2Processor of its model"):
        check_command(other, "<CAPTION>")
    small = SimpleNamespace(config=SimpleNamespace(text_config=SimpleNamespace(vocab_size=100)))
    with pytest.raises(ModelError, match=r"the tokenizer of hf:.* has 1266 tokens, its model 100; copy the processor"):
        check_command(replace(florence, model=small), "<CAPTION>")


def test_values_that_are_not_finite(florence: Detector, picture: Image.Image, writes: Any) -> None:
    writes({"fox": FOX}, first=math.nan)
    with pytest.raises(ModelError, match="gave values that are not finite"):
        places(florence, picture, "fox")


def test_names(folder: Path, dual_folder: Path, tmp_path: Path) -> None:
    assert names_captioner(f"hf:{folder}")
    assert names_detector(str(folder))
    (tmp_path / "config.json").write_text('{"model_type": "owlv2", "architectures": ["Owlv2ForObjectDetection"]}')
    for other in ("mini", str(tmp_path), str(dual_folder)):
        assert not names_captioner(other)
