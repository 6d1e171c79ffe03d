"""Dual encoders of transformers, random and tiny: texts, pictures and logits equal those of the library's own classes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizer_folders import SIZE, Kind, write_tokenizer

from clipcond.errors import ModelError
from clipcond.models.load import load_dual
from clipcond.prompt.tokenizer import BOS, EOS
from clipcond.rerank.scorer import Scorer
from clipcond.runtime.torchvision_repair import repair

TEXTS = ["a red fox", "A Fox, (red) on-the sea!", "x", "the sea at night " * 12]
_TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": SIZE,
}
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
_NAFLEX = {name: value for name, value in _VISION.items() if name != "image_size"}
_XLMR = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
_SQUARE = {"size": {"height": 16, "width": 16}, "crop_size": {"height": 16, "width": 16}}


@dataclass(frozen=True)
class Case:
    """A family in small. content: the most content tokens of a pass.   padding: as the family's own examples pad."""

    model: str
    config: str
    settings: dict[str, Any]
    content: int
    tokenizer: Kind | None
    processor: str = "CLIPImageProcessor"
    preprocessing: dict[str, Any] = field(default_factory=lambda: dict(_SQUARE))
    most: int = 1000
    inputs: tuple[str, ...] = ()
    padding: str | bool = True
    activation: str = "softmax"


def _siglip(inputs: tuple[str, ...], tokenizer: Kind) -> Case:
    settings = {
        "text_config": {**_TEXT, "max_position_embeddings": 64, "projection_size": 16},
        "vision_config": _VISION,
    }
    return Case(
        "SiglipModel",
        "SiglipConfig",
        settings,
        63,
        tokenizer,
        "SiglipImageProcessor",
        most=64,
        inputs=inputs,
        padding="max_length",
        activation="sigmoid",
    )


_BLIP = {
    "text_config": {
        **_TEXT,
        "encoder_hidden_size": 16,
        "max_position_embeddings": 48,
        "bos_token_id": 2,
        "pad_token_id": 0,
    },
    "vision_config": _VISION,
    "projection_dim": 12,
    "image_text_hidden_size": 12,
}
CASES = {
    "MetaCLIP 2": Case(
        "MetaClip2Model",
        "MetaClip2Config",
        {
            "text_config": {**_TEXT, **_XLMR, "max_position_embeddings": 77, "projection_dim": 12},
            "vision_config": {**_VISION, "projection_dim": 12},
            "projection_dim": 12,
        },
        75,
        "xlm-roberta",
    ),
    "SigLIP": _siglip(("input_ids",), "t5"),
    "SigLIP 2": _siglip(("input_ids", "attention_mask"), "gemma"),
    "SigLIP 2 NaFlex": Case(
        "Siglip2Model",
        "Siglip2Config",
        {
            "text_config": {**_TEXT, "max_position_embeddings": 64, "projection_size": 16},
            "vision_config": {**_NAFLEX, "patch_size": 8, "num_patches": 16},
        },
        63,
        "gemma",
        "Siglip2ImageProcessor",
        {"patch_size": 8, "max_num_patches": 20},
        most=64,
        inputs=("input_ids",),
        padding="max_length",
        activation="sigmoid",
    ),
    "ALIGN": Case(
        "AlignModel",
        "AlignConfig",
        {
            "text_config": {**_TEXT, "max_position_embeddings": 100},
            "vision_config": {
                "image_size": 32,
                "width_coefficient": 0.1,
                "depth_coefficient": 0.1,
                "hidden_dim": 16,
                "depth_divisor": 4,
            },
            "projection_dim": 32,
        },
        62,
        "bert",
        "EfficientNetImageProcessor",
        {
            "size": {"height": 40, "width": 40},
            "crop_size": {"height": 32, "width": 32},
            "do_center_crop": True,
            "rescale_factor": 1 / 127.5,
            "rescale_offset": True,
            "do_normalize": False,
            "include_top": False,
            "resample": 2,
        },
        most=64,
        padding="max_length",
    ),
    "AltCLIP": Case(
        "AltCLIPModel",
        "AltCLIPConfig",
        {
            "text_config": {**_TEXT, **_XLMR, "project_dim": 12, "max_position_embeddings": 100},
            "vision_config": _VISION,
            "projection_dim": 12,
        },
        75,
        "xlm-roberta",
    ),
    "Chinese-CLIP": Case(
        "ChineseCLIPModel",
        "ChineseCLIPConfig",
        {"text_config": {**_TEXT, "max_position_embeddings": 100}, "vision_config": _VISION, "projection_dim": 12},
        50,
        "bert",
        "ChineseCLIPImageProcessor",
    ),
    "BLIP for retrieval": Case("BlipForImageTextRetrieval", "BlipConfig", _BLIP, 46, "bert", "BlipImageProcessor"),
    "BLIP": Case("BlipModel", "BlipConfig", _BLIP, 46, "bert", "BlipImageProcessor"),
    "CLIPSeg": Case(
        "CLIPSegModel",
        "CLIPSegConfig",
        {
            "text_config": {
                **_TEXT,
                "vocab_size": 49408,
                "bos_token_id": BOS,
                "eos_token_id": EOS,
                "pad_token_id": EOS,
                "max_position_embeddings": 77,
            },
            "vision_config": _VISION,
            "projection_dim": 12,
        },
        75,
        None,
        "ViTImageProcessor",
    ),
}


def write_folder(folder: Path, case: Case, whole: str | None = None) -> Path:
    """A folder of transformers with random weights, the tokenizer and the settings of the image processor.

    whole: a class that holds the model of the case and more, to be written in its place.
    """
    repair()
    import transformers

    config = getattr(transformers, case.config)(**case.settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, whole or case.model)(config)
        for name, weight in model.named_parameters():
            if weight.ndim > 1:  # as initialised, texts and pictures hardly differ
                torch.nn.init.normal_(weight, std=0.5 if "embedding" in name else 0.15)
        model.save_pretrained(folder)
    processor = {"image_processor_type": case.processor, **case.preprocessing}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    if case.tokenizer is not None:
        write_tokenizer(folder, case.tokenizer, most=case.most, inputs=case.inputs)
    return folder


def library_logits(folder: Path, case: Case, texts: list[str], pictures: list[Image.Image]) -> torch.Tensor:
    """(N, M) logits by the library's own classes alone, pictures prepared by its Pillow processor."""
    import transformers
    from transformers import AutoTokenizer, CLIPTokenizer

    model = getattr(transformers, case.model).from_pretrained(folder, trust_remote_code=False).eval()
    processor = getattr(transformers, f"{case.processor}Pil")(**case.preprocessing)
    pixels = processor(pictures, return_tensors="pt")
    if case.tokenizer is None:
        from clipcond.prompt.tokenizer import merges, vocabulary

        words = {word: number for number, word in enumerate(vocabulary()[0])}
        tokenizer: Any = CLIPTokenizer(vocab=words, merges=merges())
    else:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    length = case.content + len(tokenizer("a").input_ids) - len(tokenizer("a", add_special_tokens=False).input_ids)
    inputs = tokenizer(texts, padding=case.padding, truncation=True, max_length=length, return_tensors="pt")
    inputs.pop("token_type_ids", None)
    with torch.inference_mode():
        if case.model == "BlipForImageTextRetrieval":
            logits: torch.Tensor = model(**inputs, **pixels, use_itm_head=False).itm_score
        else:
            logits = model(**inputs, **pixels).logits_per_image
    return logits


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Path]:
    chosen = CASES[request.param]
    return chosen, write_folder(tmp_path_factory.mktemp("transformers") / "model", chosen)


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    sizes = {-3: (50, 44), -2: (90, 20), -1: (16, 70)}
    return [Image.effect_mandelbrot(size, (n, -2, 2, 1), 40).convert("RGB") for n, size in sizes.items()]


def test_equal_to_the_library(case: tuple[Case, Path], pictures: list[Image.Image]) -> None:
    dual = load_dual(f"hf:{case[1]}")
    expected = library_logits(case[1], case[0], TEXTS, pictures).double()
    cosine = (dual.image.embed(pictures).double() @ dual.texts.embed(TEXTS).double().T).numpy()
    cosines = (expected.numpy() - dual.head.bias) / dual.head.scale
    assert np.abs(cosine - cosines).max() < 1e-5
    assert np.abs(dual.head.logits(cosine) - expected.numpy()).max() < 1e-5 * max(1, dual.head.scale)
    each = expected.sigmoid() if case[0].activation == "sigmoid" else expected.softmax(dim=1)
    assert np.abs(dual.head.probabilities(cosine) - each.numpy()).max() < 1e-5
    assert np.ptp(cosines, axis=0).min() > 1e-4
    assert np.ptp(cosines, axis=1).min() > 1e-4


def test_long_texts_go_in_chunks(case: tuple[Case, Path]) -> None:
    scorer = Scorer.load(f"hf:{case[1]}", device="cpu")
    texts = scorer.dual.texts
    assert texts.content == case[0].content
    (tokens,) = texts.count([TEXTS[3]])
    assert scorer.texts([TEXTS[3]])[0].chunks == -(-tokens // texts.content)
    assert bool(texts.beyond(TEXTS[3])) is (tokens > texts.content)


def test_a_lost_weight_is_refused(case: tuple[Case, Path], tmp_path: Path) -> None:
    for path in case[1].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    lost = next(name for name in sorted(weights) if "vision_model" in name and name.endswith("weight"))
    del weights[lost]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"has no image encoder: .*{lost.rpartition('vision_model')[2]} is missing"):
        load_dual(str(tmp_path))


def test_a_model_in_a_larger_one(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "seg", CASES["CLIPSeg"], whole="CLIPSegForImageSegmentation")
    dual = load_dual(str(folder))
    (note,) = dual.notes
    assert "also holds decoder." in note
    assert dual.texts.content == 75


def test_logits_without_a_temperature_are_said(tmp_path: Path) -> None:
    dual = load_dual(str(write_folder(tmp_path / "blip", CASES["BLIP for retrieval"])))
    assert dual.notes == (f"{tmp_path / 'blip'} comes without its temperature: its logits are plain cosines",)
    assert (dual.head.scale, dual.head.bias) == (1.0, 0.0)


def test_siglips_tokenizer_of_sentencepiece_is_read_from_its_fast_form(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "siglip", CASES["SigLIP"])
    plain = load_dual(str(folder)).texts.tokenizer.ids(["a red fox"])
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "SiglipTokenizer"}))
    assert load_dual(str(folder)).texts.tokenizer.ids(["A Red, (fox)!"]) == plain


def _changed(folder: Path, name: str, **change: Any) -> None:
    document = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**document, **change}))


def test_what_will_not_do_is_one_line(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", CASES["BLIP for retrieval"])
    with pytest.raises(ModelError, match="is BLIP; activation= can be stated for CLIP models only"):
        load_dual(f"{folder},activation=gelu")
    with pytest.raises(ModelError, match=r"reads pictures of 16×16; size= can be stated for open_clip's"):
        load_dual(f"{folder},size=32")
    _changed(folder, "preprocessor_config.json", size={"height": 24, "width": 24})
    with pytest.raises(ModelError, match="reads pictures of 16×16, but its image processor makes 24×24"):
        load_dual(str(folder))
    _changed(folder, "config.json", architectures=["BlipForConditionalGeneration"])
    with pytest.raises(
        ModelError, match="holds BlipForConditionalGeneration and no BlipForImageTextRetrieval or BlipModel"
    ):
        load_dual(str(folder))
    _changed(folder, "config.json", architectures=["MyOwnNameOfBlip"])
    with pytest.raises(ModelError, match="its image processor makes 24×24"):
        load_dual(str(folder))
    _changed(folder, "config.json", architectures=None, model_type="siglipp")
    with pytest.raises(ModelError, match=r"is a siglipp model; expected a dual encoder, .*; did you mean siglip"):
        load_dual(str(folder))
    _changed(folder, "config.json", model_type="owlv2")
    with pytest.raises(
        ModelError, match="is OWLv2, a detection model; expected a dual encoder, which scores and ranks"
    ):
        load_dual(str(folder))
    (folder / "tokenizer.json").unlink()
    _changed(folder, "config.json", model_type="blip")
    _changed(folder, "preprocessor_config.json", size={"height": 16, "width": 16})
    with pytest.raises(ModelError, match=r"the tokenizer of .* is not at hand: tried .* \(none of tokenizer\.json, "):
        load_dual(str(folder))
