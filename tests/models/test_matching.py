"""Matching and detection models of transformers, random and tiny; scores equal those of the library's own forward."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizer_folders import SIZE, write_tokenizer

from clipcond.errors import ConfigError, ModelError
from clipcond.models.detection import load_detector
from clipcond.models.load import load_dual
from clipcond.models.matching import Matcher, load_matcher
from clipcond.models.spec import Overrides
from clipcond.models.transformers_families import FAMILIES, uses_of
from clipcond.models.transformers_model import read_library_model, with_library
from clipcond.prompt.tokenizer import BOS, EOS, merges, vocabulary
from clipcond.runtime.torchvision_repair import repair

TEXTS = ["a red fox", "A Fox, (red) on-the sea!", "the sea at night " * 12]
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
_CONFIGS: dict[str, dict[str, Any]] = {
    "Blip": {
        "text_config": {**_TEXT, "encoder_hidden_size": 16, "max_position_embeddings": 48, "pad_token_id": 0},
        "vision_config": _VISION,
        "image_text_hidden_size": 12,
    },
    "Blip2": {
        "qformer_config": {
            **_TEXT,
            "encoder_hidden_size": 16,
            "max_position_embeddings": 48,
            "cross_attention_frequency": 1,
            "use_qformer_text_input": True,
        },
        "vision_config": _VISION,
        "num_query_tokens": 3,
        "image_text_hidden_size": 12,
    },
}


@pytest.fixture(scope="module", params=_CONFIGS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    repair()
    import transformers

    folder = tmp_path_factory.mktemp("matching") / request.param
    config = getattr(transformers, f"{request.param}Config")(**_CONFIGS[request.param])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, f"{request.param}ForImageTextRetrieval")(config)
        for name, weight in model.named_parameters():
            if weight.ndim > 1:  # as initialised, texts and pictures hardly differ
                torch.nn.init.normal_(weight, std=0.5 if "embedding" in name or "query" in name else 0.15)
        model.save_pretrained(folder)
    processor = {"image_processor_type": "BlipImageProcessor", "size": {"height": 16, "width": 16}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return write_tokenizer(folder, "bert")


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [Image.effect_mandelbrot((50, 44), (n, -2, 2, 1), 40).convert("RGB") for n in (-3, -2, -1)]


def library_scores(folder: Path, pictures: list[Image.Image]) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, M, 2) matching logits and (N, M) contrastive scores, a forward of the library for each picture."""
    import transformers
    from transformers import AutoTokenizer

    model = getattr(transformers, f"{folder.name}ForImageTextRetrieval").from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    inputs = tokenizer(TEXTS, padding=True, truncation=True, max_length=48, return_tensors="pt")
    inputs.pop("token_type_ids", None)
    pixels = transformers.BlipImageProcessorPil(size={"height": 16, "width": 16})(pictures, return_tensors="pt")
    flag = "use_itm_head" if folder.name == "Blip" else "use_image_text_matching_head"
    pairs, contrast = [], []
    with torch.inference_mode():
        for one in pixels["pixel_values"]:
            each = one.expand(len(TEXTS), -1, -1, -1)
            pair = model(**inputs, pixel_values=each, **{flag: True})
            near = model(**inputs, pixel_values=one[None], **{flag: False})
            pairs.append(pair.itm_score if folder.name == "Blip" else pair.logits_per_image)
            contrast.append(near.itm_score[0] if folder.name == "Blip" else near.logits_per_image[0])
    return torch.stack(pairs), torch.stack(contrast)


def test_pairs_score_as_in_the_library(folder: Path, pictures: list[Image.Image]) -> None:
    matcher = load_matcher(f"hf:{folder}")
    pairs, contrast = library_scores(folder, pictures)
    assert (matcher.match_logits(pictures, TEXTS, batch_size=2) - pairs).abs().max() < 1e-5
    assert (matcher.match(pictures, TEXTS) - pairs.softmax(dim=-1)[..., 1]).abs().max() < 1e-5
    assert (matcher.contrast(pictures, TEXTS, batch_size=2) - contrast).abs().max() < 1e-5
    for scores in (pairs[..., 1], contrast):  # neither the picture nor the text is without effect
        assert scores.std(dim=0).min() > 1e-4
        assert scores.std(dim=1).min() > 1e-4


def test_the_contrastive_heads_of_blip_are_a_dual_encoder(folder: Path, pictures: list[Image.Image]) -> None:
    if folder.name == "Blip2":
        with pytest.raises(
            ModelError, match=r"is BLIP-2, an image-text matching model, for clipcond\.Matcher; expected a dual"
        ):
            load_dual(str(folder))
        return
    dual = load_dual(str(folder))
    cosine = dual.image.embed(pictures) @ dual.texts.embed(TEXTS).T
    assert (cosine - load_matcher(str(folder)).contrast(pictures, TEXTS)).abs().max() < 1e-5


def test_what_is_cut_is_said(folder: Path) -> None:
    matcher = Matcher.load(str(folder), device="cpu")
    assert matcher.layout.content == 46
    assert matcher.beyond("a red fox") == ""
    cut = matcher.beyond(TEXTS[2])
    assert cut
    assert TEXTS[2].strip().endswith(cut)


def test_nothing_to_match_is_one_line(folder: Path, pictures: list[Image.Image]) -> None:
    matcher = load_matcher(str(folder))
    with pytest.raises(ConfigError, match="no texts to match; expected one or more"):
        matcher.match(pictures, [])
    with pytest.raises(ConfigError, match="no pictures to match; expected one or more"):
        matcher.contrast([], TEXTS)
    with pytest.raises(ConfigError, match="batch_size is 0; expected 1 or more"):
        matcher.match(pictures, TEXTS, batch_size=0)


@pytest.mark.parametrize("load", [load_matcher, load_detector])
def test_specs_of_something_else(load: Any, clip_text_folder: Path) -> None:
    with pytest.raises(ModelError, match="ViT-B-32/openai names no folder and no model of transformers; expected a "):
        load("ViT-B-32/openai")
    with pytest.raises(ModelError, match="is CLIP, a dual encoder, which scores and ranks; expected a"):
        load(str(clip_text_folder))


@pytest.fixture
def clip_text_folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    return tmp_path


_CLIP_TEXT = {**_TEXT, "vocab_size": 49408, "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": EOS}
_OWL_TEXT = {**_CLIP_TEXT, "max_position_embeddings": 16}
_DETECTORS: dict[str, tuple[str, dict[str, Any], str]] = {
    "CLIPSegForImageSegmentation": (
        "CLIPSegConfig",
        {
            "text_config": {**_CLIP_TEXT, "max_position_embeddings": 77},
            "vision_config": _VISION,
            "projection_dim": 12,
            "extract_layers": [0, 1],
            "reduce_dim": 8,
            "decoder_num_attention_heads": 2,
            "decoder_intermediate_size": 16,
        },
        "ViTImageProcessor",
    ),
    "Owlv2ForObjectDetection": (
        "Owlv2Config",
        {"text_config": _OWL_TEXT, "vision_config": _VISION, "projection_dim": 16},
        "Owlv2ImageProcessor",
    ),
}


@pytest.fixture(scope="module")
def clip_tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import CLIPTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    words = {word: number for number, word in enumerate(vocabulary()[0])}
    CLIPTokenizer(vocab=words, merges=merges()).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", _DETECTORS)
def test_detectors_are_loaded_whole(name: str, clip_tokenizer_folder: Path, tmp_path: Path) -> None:
    repair()
    import transformers

    config, settings, processor = _DETECTORS[name]
    model = getattr(transformers, name)(getattr(transformers, config)(**settings))
    model.save_pretrained(tmp_path)
    document = {"image_processor_type": processor, "size": {"height": 16, "width": 16}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(document))
    for path in clip_tokenizer_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    detector = load_detector(str(tmp_path))
    assert type(detector.model).__name__ == name
    for key, value in model.state_dict().items():
        assert torch.equal(detector.model.state_dict()[key], value), key
    picture = Image.effect_mandelbrot((50, 44), (-3, -2, 2, 1), 40).convert("RGB")
    inputs = detector.processor(text=["a fox"], images=picture, return_tensors="pt")
    with torch.inference_mode():
        ours, theirs = detector.model(**inputs).logits, model.eval()(**inputs).logits
    assert ours.isfinite().all()
    assert (ours - theirs).abs().max() < 1e-5


_BERT = {
    "vocab_size": 100,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
_SWIN = {"embed_dim": 16, "depths": [1] * 4, "num_heads": [1, 2, 2, 2], "window_size": 4, "image_size": 32}
_LAYERS = {
    f"{part}_{name}": number
    for part in ("encoder", "decoder")
    for name, number in {"layers": 2, "ffn_dim": 16, "attention_heads": 2}.items()
}


def _grounding_dino() -> Any:
    import transformers

    backbone = transformers.SwinConfig(**_SWIN, out_indices=[2, 3, 4])
    config = transformers.GroundingDinoConfig(
        backbone_config=backbone, text_config=transformers.BertConfig(**_BERT), d_model=32, num_queries=5, **_LAYERS
    )
    return transformers.GroundingDinoForObjectDetection(config)


def _florence_2() -> Any:
    import transformers

    vision = {"embed_dim": [16] * 4, "num_heads": [2] * 4, "num_groups": [2] * 4, "depths": [1] * 4}
    text = {"model_type": "bart", "vocab_size": 100, "d_model": 16, "max_position_embeddings": 64, **_LAYERS}
    config = transformers.Florence2Config(
        text_config=text, vision_config={**vision, "projection_dim": 16}, image_token_id=99
    )
    return transformers.Florence2ForConditionalGeneration(config)


@pytest.mark.parametrize("make", [_grounding_dino, _florence_2])
def test_weights_of_larger_detectors_are_all_there_or_refused(make: Any, tmp_path: Path) -> None:
    repair()
    model = make()
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{}")
    where = str(tmp_path)

    def read() -> Any:
        return with_library(where, where, lambda: read_library_model(where, Overrides(), where, "detection"))

    loaded = read().model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in model.state_dict().items())
    weights = load_file(tmp_path / "model.safetensors")
    lost = sorted(name for name in weights if name.endswith("fc1.weight"))[0]
    save_file(
        {k: v for k, v in weights.items() if k != lost}, tmp_path / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(ModelError, match=rf"has not all its weights: .*{lost.rpartition('.layers')[2]} is missing"):
        read()


def test_every_family_names_classes_of_the_library() -> None:
    import transformers

    for family in FAMILIES.values():
        config = getattr(transformers, family.config)
        assert config.model_type == family.model_type
        for use, names in family.classes.items():
            for name in names:
                assert getattr(transformers, name).config_class is config, (use, name)


@pytest.mark.parametrize(
    ("document", "uses"),
    [
        ({"model_type": "florence2", "architectures": ["Florence2ForConditionalGeneration"]}, ("detection",)),
        ({"model_type": "blip", "architectures": ["BlipForQuestionAnswering"]}, ()),
        ({"model_type": "blip", "architectures": ["BlipModel"]}, ("dual",)),
        ({"model_type": "clipseg", "architectures": ["CLIPSegForImageSegmentation"]}, ("detection", "dual")),
        ({"model_type": "clipseg", "architectures": ["CLIPSegModel"]}, ("dual",)),
        ({"model_type": "bert"}, ()),
        ({}, ()),
    ],
)
def test_the_uses_of_a_config(document: dict[str, Any], uses: tuple[str, ...]) -> None:
    assert uses_of(document) == uses
