"""Detection models of transformers, random and tiny: boxes, scores and labels equal those of the library's own arithmetic."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clipcond.errors import ConfigError
from clipcond.find.detect import BoxEye, HeatEye, detector_eye
from clipcond.find.labels import Label
from clipcond.models.detection import Detector, load_detector, names_detector
from clipcond.models.sightings import check_texts, segments, sightings
from clipcond.prompt.tokenizer import BOS, EOS, merges, vocabulary
from clipcond.runtime.torchvision_repair import repair

TEXTS = ["a red fox", "the sea", "snow on a roof"]
_TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_CLIP_TEXT = {**_TOWER, "vocab_size": 49408, "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": EOS}
_SIDE = 32
_VISION = {**_TOWER, "image_size": _SIDE, "patch_size": 8}
_PROCESSORS = {"OwlViT": "OwlViTImageProcessor", "Owlv2": "Owlv2ImageProcessor", "CLIPSeg": "ViTImageProcessor"}
_DINOS = ("GroundingDino", "MMGroundingDino")
_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", "a", "red", "fox", "the", "sea", "snow", "on", "roof", "##x"]


def _clip_like(name: str) -> Any:
    import transformers

    text = {**_CLIP_TEXT, "max_position_embeddings": 77 if name == "CLIPSeg" else 16}
    settings: dict[str, Any] = {"text_config": text, "vision_config": _VISION, "projection_dim": 16}
    if name == "CLIPSeg":
        settings |= {"extract_layers": [0, 1], "reduce_dim": 8, "decoder_num_attention_heads": 2}
        settings |= {"decoder_intermediate_size": 16}
        return transformers.CLIPSegForImageSegmentation(transformers.CLIPSegConfig(**settings))
    config = getattr(transformers, f"{name}Config")(**settings)
    return getattr(transformers, f"{name}ForObjectDetection")(config)


def _grounding_dino(name: str) -> Any:
    import transformers

    bert = {**_TOWER, "vocab_size": len(_WORDS)}
    swin = {"embed_dim": 16, "depths": [1] * 4, "num_heads": [1, 2, 2, 2], "window_size": 4, "image_size": _SIDE}
    layers = {
        f"{part}_{name}": number
        for part in ("encoder", "decoder")
        for name, number in {"layers": 2, "ffn_dim": 16, "attention_heads": 2}.items()
    }
    config = getattr(transformers, f"{name}Config")(
        backbone_config=transformers.SwinConfig(**swin, out_indices=[2, 3, 4]),
        text_config=transformers.BertConfig(**bert),
        d_model=32,
        num_queries=9,
        max_text_len=24,
        **layers,
    )
    return getattr(transformers, f"{name}ForObjectDetection")(config)


def _tokenizer(name: str) -> Any:
    from transformers import BertTokenizerFast, CLIPTokenizer

    if name in _DINOS:
        return BertTokenizerFast(vocab={word: number for number, word in enumerate(_WORDS)})
    words = {word: number for number, word in enumerate(vocabulary()[0])}
    return CLIPTokenizer(vocab=words, merges=merges(), model_max_length=77 if name == "CLIPSeg" else 16)


def write_detector(name: str, folder: Path) -> Path:
    """A folder with a model of random weights, its tokenizer and its image processor."""
    repair()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(name in _DINOS)
        model = _grounding_dino(name) if name in _DINOS else _clip_like(name)
        for weight in model.parameters():  # as initialised, every text and every box is as good as the next
            if weight.ndim > 1:
                weight.data.normal_(std=0.3)
    model.save_pretrained(folder)
    _tokenizer(name).save_pretrained(folder)
    if name in _DINOS:
        document = {
            "image_processor_type": "GroundingDinoImageProcessor",
            "size": {"shortest_edge": 96, "longest_edge": 160},
        }
    else:
        document = {"image_processor_type": _PROCESSORS[name], "size": {"height": _SIDE, "width": _SIDE}}
    (folder / "preprocessor_config.json").write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Detector]:
    """Each model by its name, written and loaded once."""
    return cache(lambda name: load_detector(f"hf:{write_detector(name, tmp_path_factory.mktemp(name))}"))


@pytest.fixture(scope="module", params=["OwlViT", "Owlv2", *_DINOS])
def boxes(request: pytest.FixtureRequest, load: Callable[[str], Detector]) -> Detector:
    return load(request.param)


@pytest.fixture(scope="module")
def clipseg(load: Callable[[str], Detector]) -> Detector:
    return load("CLIPSeg")


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.effect_mandelbrot((50, 40), (-3, -2, 2, 1), 40).convert("RGB")


@torch.inference_mode()
def library_boxes(detector: Detector, picture: Image.Image) -> dict[str, Any]:
    """All boxes, by the library's own call and post-processing."""
    processor, sizes = detector.processor, [(picture.height, picture.width)]
    if "dino" not in detector.family.model_type:
        outputs = detector.model(**processor(text=[TEXTS], images=picture, return_tensors="pt"))
        (found,) = processor.image_processor.post_process_object_detection(outputs, 0.0, sizes)
        return dict(found)
    given = processor(images=picture, text=" ".join(f"{text}." for text in TEXTS), return_tensors="pt")
    outputs = detector.model(**given)
    (found,) = processor.post_process_grounded_object_detection(
        outputs, given["input_ids"], threshold=0.0, text_threshold=0.0, target_sizes=sizes
    )
    return {"scores": found["scores"], "boxes": found["boxes"]}


def test_boxes_are_the_librarys(boxes: Detector, picture: Image.Image) -> None:
    seen, theirs = sightings(boxes, picture, TEXTS), library_boxes(boxes, picture)
    within = np.clip(theirs["boxes"].numpy(), 0, [picture.width, picture.height] * 2)
    assert np.abs(seen.boxes - within).max() < 1e-5 * max(picture.size)
    over = theirs["scores"].numpy() - seen.scores
    if "dino" in boxes.family.model_type:  # there the stops between texts count, too
        assert over.min() > -1e-5
        assert (over < 1e-5).sum() >= 2
    else:
        assert np.abs(over).max() < 1e-5
        assert seen.texts.tolist() == theirs["labels"].tolist()
    if boxes.family.model_type != "owlv2":  # of these weights: the arithmetic is OWL-ViT's
        assert len(set(seen.texts.tolist())) == len(TEXTS), "every box says the same"
    assert np.ptp(seen.scores) > 1e-4


def test_grounding_dino_gives_each_token_to_its_text(picture: Image.Image, load: Callable[[str], Detector]) -> None:
    detector = load("GroundingDino")
    seen = sightings(detector, picture, TEXTS)
    with torch.inference_mode():
        given = detector.processor(images=picture, text="a red fox. the sea. snow on a roof.", return_tensors="pt")
        probabilities = detector.model(**given).logits[0].sigmoid()
    words = [_WORDS[number] for number in given["input_ids"][0].tolist()]
    assert words == ["[CLS]", "a", "red", "fox", ".", "the", "sea", ".", "snow", "on", "a", "roof", ".", "[SEP]"]
    of_texts = torch.stack(
        [probabilities[:, 1:4].amax(1), probabilities[:, 5:7].amax(1), probabilities[:, 8:12].amax(1)], 1
    )
    assert (torch.from_numpy(seen.scores) - of_texts.amax(1)).abs().max() < 1e-5
    assert seen.texts.tolist() == of_texts.argmax(1).tolist()


def test_clipseg_gives_the_librarys_probabilities(clipseg: Detector, picture: Image.Image) -> None:
    own = segments(clipseg, picture, TEXTS)
    with torch.inference_mode():
        given = clipseg.processor(text=TEXTS, images=[picture] * 3, padding=True, return_tensors="pt")
        theirs = clipseg.model(**given).logits.sigmoid().numpy()
    assert np.abs(own - theirs).max() < 1e-5
    assert np.abs(own[0] - own[1]).max() > 1e-4
    assert segments(clipseg, picture, TEXTS[:1]).shape == (1, _SIDE, _SIDE), "one text, too"


def test_eyes_keep_labels_apart(boxes: Detector, clipseg: Detector, picture: Image.Image) -> None:
    labels = [Label(name="animals", texts=("a red fox", "snow on a roof")), Label(name="water", texts=("the sea",))]
    eye = detector_eye(boxes, labels)
    assert isinstance(eye, BoxEye)
    seen, sight = sightings(boxes, picture, ["a red fox", "snow on a roof", "the sea"]), eye.look(picture)
    assert [len(regions) for regions in sight.regions] == [int((seen.texts < 2).sum()), int((seen.texts == 2).sum())]
    assert eye.least == (0.25 if "dino" in boxes.family.model_type else 0.1)
    heat = detector_eye(clipseg, labels)
    assert isinstance(heat, HeatEye)
    maps = heat.look(picture).heat
    assert maps is not None
    assert maps.shape == (2, 64, 80)


def test_texts_that_a_model_does_not_read_whole(boxes: Detector, clipseg: Detector) -> None:
    long = "a red fox " * (30 if "dino" in boxes.family.model_type else 6)
    with pytest.raises(ConfigError, match=r"tokens, of which hf:.* reads (16|24); (shorten it|give fewer)"):
        check_texts(boxes, ["the sea", long])
    with pytest.raises(ConfigError, match="reads 77; shorten it"):
        check_texts(clipseg, ["the sea " * 50])


def test_a_text_without_a_word_is_named(picture: Image.Image, load: Callable[[str], Detector]) -> None:
    with pytest.raises(ConfigError, match=r"the label '\.\.' has no word that the model reads"):
        sightings(load("GroundingDino"), picture, ["a red fox", ".."])


def test_names_of_detectors(
    boxes: Detector, dual_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipcond.runtime.hub._hub_answers", lambda: False)
    assert names_detector(boxes.name)
    assert names_detector(boxes.name.removeprefix("hf:"))
    for other in ("mini", "ViT-B-32/openai", str(dual_folder), "hf:nobody/nothing", str(tmp_path / "gone")):
        assert not names_detector(other)
