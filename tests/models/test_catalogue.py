import builtins
import json

import pytest

from clipcond.errors import ModelError, ResourceMissing
from clipcond.models import catalogue
from clipcond.models.catalogue import local_models, open_clip_models


def put(cache, repository, files):
    folder = cache / f"models--{repository.replace('/', '--')}" / "snapshots" / "0123abcd"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


@pytest.fixture
def nothing_embedded(monkeypatch):
    def missing(part):
        raise ResourceMissing(part)

    monkeypatch.setattr(catalogue, "embedded", missing)


def test_open_clip_models_are_the_ones_the_loader_takes(tmp_path):
    specs = {model.spec: model for model in open_clip_models(tmp_path)}
    assert "ViT-L-14/openai" in specs
    assert "ViT-bigG-14/laion2b_s39b_b160k" in specs
    assert {
        "ViT-B-16-SigLIP2/webli",
        "PE-Core-B-16/meta",
        "xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k",
    } <= specs.keys()
    assert specs["ViT-B-16-SigLIP2/webli"].use == specs["MobileCLIP2-S0/dfndr2b"].use == ("rerank",)
    assert not any(model.cached for model in specs.values())
    assert specs["ViT-L-14/openai"].use == ("rerank", "train")


def test_open_clip_weights_in_the_cache_are_found(tmp_path):
    put(tmp_path, "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", {"open_clip_model.safetensors": "12345"})
    cached = [model for model in open_clip_models(tmp_path) if model.cached]
    assert [(model.spec, model.bytes) for model in cached] == [("ViT-B-32/laion2b_s34b_b79k", 5)]


def test_a_model_without_its_tokenizer_is_not_at_hand(tmp_path):
    put(tmp_path, "timm/ViT-B-16-SigLIP2", {"open_clip_model.safetensors": "12345"})
    (found,) = [model for model in open_clip_models(tmp_path) if model.spec == "ViT-B-16-SigLIP2/webli"]
    assert (found.cached, found.source) == (False, "hub: timm/ViT-B-16-SigLIP2, tokenizer: timm/ViT-B-16-SigLIP2")
    put(tmp_path, "timm/ViT-B-16-SigLIP2", {"tokenizer.json": "{}"})
    assert [model.spec for model in open_clip_models(tmp_path) if model.cached] == ["ViT-B-16-SigLIP2/webli"]


def test_each_use_of_a_model_is_a_row(tmp_path, nothing_embedded):
    blip = {"model_type": "blip", "architectures": ["BlipForImageTextRetrieval"]}
    put(tmp_path, "a/blip", {"config.json": blip, "model.safetensors": "1"})
    put(
        tmp_path,
        "b/captions",
        {"config.json": {**blip, "architectures": ["BlipForConditionalGeneration"]}, "a.bin": "1"},
    )
    put(tmp_path, "c/owl", {"config.json": {"model_type": "owlv2"}, "model.safetensors": "1"})
    put(tmp_path, "d/seg", {"config.json": {"model_type": "clipseg"}, "model.safetensors": "1"})
    put(
        tmp_path,
        "e/own",
        {"open_clip_config.json": {"model_cfg": {"text_cfg": {}}}, "open_clip_model.safetensors": "1"},
    )
    rows = [(model.spec, model.kind, model.use) for model in local_models(tmp_path)]
    assert rows == [
        ("hf:a/blip", "dual", ("rerank",)),
        ("hf:a/blip", "matching", ()),
        ("hf:c/owl", "detection", ("detect",)),
        ("hf:d/seg", "detection", ("detect",)),
        ("hf:d/seg", "dual", ("rerank",)),
        ("hf:e/own", "dual", ("rerank", "train")),
    ]


def test_folders_that_are_given(tmp_path, nothing_embedded):
    for name in ("one", "two"):
        (tmp_path / "all" / name).mkdir(parents=True)
        (tmp_path / "all" / name / "config.json").write_text('{"model_type": "siglip"}')
    (tmp_path / "all" / "one" / "model.safetensors").write_text("1")
    for folder in (tmp_path / "all", tmp_path / "all" / "one"):
        (found,) = local_models(tmp_path / "nowhere", [folder])
        assert (found.spec, found.kind, found.library) == (str(tmp_path / "all" / "one"), "dual", "transformers")
    with pytest.raises(ModelError, match=r"no folder .*nowhere; expected one that holds a model"):
        local_models(tmp_path, [tmp_path / "nowhere"])


def test_transformers_models_and_pipelines_in_the_cache(tmp_path, nothing_embedded):
    put(tmp_path, "a/clip", {"config.json": {"model_type": "clip"}, "model.safetensors": "1234"})
    put(tmp_path, "b/bert", {"config.json": {"model_type": "bert"}, "model.safetensors": "1234"})
    put(tmp_path, "c/broken", {"config.json": "{", "model.safetensors": "1234"})
    put(tmp_path, "d/pipeline", {"model_index.json": {}, "unet/diffusion_pytorch_model.safetensors": "1234"})
    half = put(tmp_path, "e/half", {"config.json": {"model_type": "clip"}})
    (half / "model.safetensors").symlink_to(tmp_path / "never-downloaded")
    found = {model.spec: model for model in local_models(tmp_path)}
    assert {spec: model.kind for spec, model in found.items()} == {
        "hf:a/clip": "dual",
        "d/pipeline": "pipeline",
    }
    assert found["d/pipeline"].use == ("generate",)
    assert found["hf:a/clip"].bytes == 4 + len(json.dumps({"model_type": "clip"}))


def test_an_absent_cache_is_an_empty_one(tmp_path, nothing_embedded):
    assert local_models(tmp_path / "nowhere") == ()


def test_what_ships_is_listed_with_its_size(tmp_path, monkeypatch):
    for part in ("clip", "pipeline", "emoji"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "weights").write_text("123")
    monkeypatch.setattr(catalogue, "embedded", lambda part: tmp_path / part)
    dual, emoji, pipeline = local_models(tmp_path / "nowhere")
    assert (emoji.spec, emoji.kind, emoji.bytes) == ("emoji", "dual", 3)
    assert (dual.spec, dual.bytes, dual.use) == ("mini", 3, ("rerank", "train"))
    assert pipeline.to_json()["use"] == ["generate"]


def test_a_broken_open_clip_is_one_line(tmp_path, monkeypatch):
    def refuse(name, *rest):
        if name == "open_clip":
            raise RuntimeError("operator torchvision::nms does not exist\nand more")
        return real(name, *rest)

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(
        ModelError, match=r"open_clip cannot be imported \(operator torchvision::nms does not exist\); "
    ):
        open_clip_models(tmp_path)
