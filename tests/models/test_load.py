"""Models by name: every form of a spec, and every way in which one fails."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from clipcond.errors import ModelError, ResourceMissing
from clipcond.models import load as module
from clipcond.models.load import load_dual, load_open_clip_folder
from clipcond.models.open_clip_build import buildable, builder
from clipcond.prompt.tokenizer import BOS, EOS
from clipcond.runtime import hub
from clipcond.runtime.torchvision_repair import repair

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
IDS = torch.tensor([[BOS, 320, 2368, EOS]])


def copied(source: Path, target: Path, **change: Any) -> Path:
    """A copy of an open_clip folder with changes to its text_cfg, and without weights where they would not fit."""
    shutil.copytree(source, target)
    config = json.loads((target / CONFIG).read_text())
    config["model_cfg"]["text_cfg"].update(change)
    (target / CONFIG).write_text(json.dumps(config))
    return target


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformers CLIPModel folder with its image processor; random weights on purpose."""
    repair()
    from transformers import CLIPConfig, CLIPModel

    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text.update(vocab_size=49408, max_position_embeddings=77, bos_token_id=BOS, eos_token_id=EOS, pad_token_id=EOS)
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision.update(image_size=32, patch_size=8)
    folder = tmp_path_factory.mktemp("transformers") / "clip"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).save_pretrained(folder)
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 32},
        "crop_size": {"height": 32, "width": 32},
        "image_mean": [0.4, 0.5, 0.6],
        "image_std": [0.2, 0.25, 0.3],
        "resample": 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def test_an_open_clip_folder(dual_folder: Path) -> None:
    dual = load_dual(str(dual_folder))
    assert (dual.name, dual.normalisation) == (str(dual_folder), "openai")
    assert dual.logit_scale == pytest.approx(1 / 0.07, rel=1e-3)
    assert (dual.text.dtype, dual.image.dtype) == (torch.float32, torch.float32)
    weights = load_file(dual_folder / WEIGHTS)
    assert torch.equal(dual.image.model.text_projection, weights["text_projection"].float())
    assert not dual.image.model.training
    assert not any(weight.requires_grad for weight in dual.image.model.parameters())
    assert dual.text.encode(IDS).projected is not None


def test_a_training_run_is_its_model_folder(dual_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copytree(dual_folder, run / "model")
    assert torch.equal(*(load_dual(str(path)).text.encode(IDS).pooled for path in (run, dual_folder)))


@pytest.mark.parametrize("name", ["mini", "emoji"])
def test_a_model_that_ships_is_its_embedded_folder(
    name: str, dual_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "embedded_dual", {name: dual_folder}.get)
    assert load_dual(name).name == name

    def missing(name: str) -> Path:
        raise ResourceMissing(f"{name} is not there")

    monkeypatch.setattr(module, "embedded_dual", missing)
    with pytest.raises(ResourceMissing, match=f"{name} is not there"):
        load_dual(name)


def test_the_hubs_file_names_and_defaults(dual_folder: Path, tmp_path: Path) -> None:
    folder = copied(dual_folder, tmp_path / "hub")
    (folder / WEIGHTS).rename(folder / "open_clip_pytorch_model.safetensors")
    config = json.loads((folder / CONFIG).read_text())
    del config["preprocess_cfg"]
    (folder / CONFIG).write_text(json.dumps(config))
    dual = load_dual(str(folder))
    assert (dual.image.preprocess.height, dual.image.preprocess.mean[0]) == (32, 0.48145466)
    assert torch.equal(dual.text.encode(IDS).pooled, load_dual(str(dual_folder)).text.encode(IDS).pooled)
    assert type(load_open_clip_folder(folder)).__name__ == "CLIP"


@pytest.mark.parametrize("prefix", ["", "hf:"])
def test_a_transformers_folder(prefix: str, clip_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers import CLIPModel

    capfd.readouterr()
    dual = load_dual(f"{prefix}{clip_folder}")
    assert capfd.readouterr() == ("", "")
    assert dual.normalisation == "transformers"
    assert (dual.image.preprocess.height, dual.image.preprocess.mean) == (32, (0.4, 0.5, 0.6))
    model = CLIPModel.from_pretrained(clip_folder).eval()
    picture = Image.new("RGB", (32, 32), (200, 30, 90))
    pixels = (torch.tensor([200, 30, 90]) / 255 - torch.tensor([0.4, 0.5, 0.6])) / torch.tensor([0.2, 0.25, 0.3])
    model.requires_grad_(False)
    with torch.inference_mode():
        out = model(input_ids=IDS, pixel_values=pixels.view(1, 3, 1, 1).expand(1, 3, 32, 32))
    assert torch.allclose(dual.image.embed([picture]), out.image_embeds, atol=1e-5)
    projected = dual.text.encode(IDS).projected
    assert projected is not None
    assert torch.allclose(torch.nn.functional.normalize(projected, dim=-1), out.text_embeds, atol=1e-5)
    assert dual.logit_scale == pytest.approx(model.logit_scale.exp().item())


def test_a_transformers_folder_with_holes_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "holes"
    shutil.copytree(clip_folder, folder)
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "vision" not in k}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="has no image encoder: vision_model"):
        load_dual(str(folder))
    save_file({k: v for k, v in weights.items() if k != "text_projection.weight"}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"has not all its weights: text_projection.weight is missing \(1 in all\)"):
        load_dual(str(folder))
    (folder / "model.safetensors").write_bytes(b"broken" * 1_000_000)
    with pytest.raises(ModelError, match="cannot be loaded by transformers: "):
        load_dual(str(folder))
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"has no preprocessor_config\.json; copy it"):
        load_dual(str(folder))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"model_type": "clip_text_model", "architectures": ["CLIPTextModel"]},
            "CLIPTextModel and has no image encoder",
        ),
        ({"model_type": "clip_vision_model"}, "clip_vision_model and has no text encoder"),
        ({"model_type": "bert"}, r"is a bert model; expected a dual encoder, .* \(model_type clip, .*siglip"),
        ({"model_type": "clip", "text_config": {"vocab_size": 99}}, "a vocabulary of 99 and 77 positions; expected"),
        ({}, "is a model of no stated type; expected a dual encoder"),
        ({"model_type": ["clip"]}, "is a model of no stated type; expected a dual encoder"),
    ],
)
def test_other_transformers_models(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=message):
        load_dual(str(tmp_path))


def test_a_diffusers_pipeline_has_no_image_encoder(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(ModelError, match="is a diffusers pipeline and has no image encoder"):
        load_dual(str(tmp_path))


def test_folders_that_hold_nothing(tmp_path: Path, dual_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no model: looked for open_clip_config.json"):
        load_dual(str(tmp_path))
    with pytest.raises(ModelError, match=r"holds no model: looked for open_clip_config.json"):
        load_dual(f"hf:{tmp_path}")
    with pytest.raises(ModelError, match=r"hf:\./nothing: there is no such folder"):
        load_dual("hf:./nothing")


def test_an_open_clip_folder_without_or_with_wrong_weights(dual_folder: Path, tmp_path: Path) -> None:
    folder = copied(dual_folder, tmp_path / "a")
    weights = load_file(folder / WEIGHTS)
    save_file({k: v for k, v in weights.items() if k != "visual.proj"}, folder / WEIGHTS)
    with pytest.raises(ModelError, match=r"visual\.proj"):
        load_dual(str(folder))
    (folder / WEIGHTS).write_bytes(b"broken")
    with pytest.raises(ModelError, match="cannot be loaded: "):
        load_dual(str(folder))
    (folder / WEIGHTS).unlink()
    with pytest.raises(ModelError, match=r"holds a config but no open_clip_model\.safetensors"):
        load_dual(str(folder))
    (folder / CONFIG).write_text("{")
    with pytest.raises(ModelError, match="is not JSON"):
        load_dual(str(folder))


@pytest.fixture
def known(dual_folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An open_clip architecture of the size of the tests' model, known by name for one test."""
    repair()
    from open_clip import factory

    config = json.loads((dual_folder / CONFIG).read_text())["model_cfg"]
    monkeypatch.setitem(factory._MODEL_CONFIGS, "Tiny", config)
    return "Tiny"


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "trained.pt"])
def test_an_architecture_with_a_checkpoint(name: str, known: str, dual_folder: Path, tmp_path: Path) -> None:
    weights = load_file(dual_folder / WEIGHTS)
    if name.endswith(".safetensors"):
        save_file(weights, tmp_path / name)
    else:
        torch.save({"epoch": 3, "state_dict": weights} if name == "trained.pt" else weights, tmp_path / name)
    dual = load_dual(f"{known}@{tmp_path / name}")
    assert torch.equal(dual.text.encode(IDS).pooled, load_dual(str(dual_folder)).text.encode(IDS).pooled)
    assert dual.image.preprocess.height == 32


class Unpickled:
    """What a hostile checkpoint would run."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


def test_checkpoints_that_will_not_do(known: str, dual_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no such checkpoint: gone\.pt"):
        load_dual(f"{known}@gone.pt")
    (tmp_path / "a.zip").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"is not a checkpoint that can be read; expected one of \.safetensors"):
        load_dual(f"{known}@{tmp_path / 'a.zip'}")
    (tmp_path / "a.pt").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"a\.pt is not a checkpoint of Tiny: "):
        load_dual(f"{known}@{tmp_path / 'a.pt'}")
    torch.save({"state_dict": Unpickled(tmp_path / "trace")}, tmp_path / "a.pt")
    with pytest.raises(ModelError, match=r"a\.pt is not a checkpoint of Tiny: "):
        load_dual(f"{known}@{tmp_path / 'a.pt'}")
    assert not (tmp_path / "trace").exists()
    weights = load_file(dual_folder / WEIGHTS)
    save_file({k: v for k, v in weights.items() if k != "visual.proj"}, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match=r"not a checkpoint of Tiny: .*visual\.proj"):
        load_dual(f"{known}@{tmp_path / 'a.safetensors'}")
    with pytest.raises(ModelError, match=r"open_clip knows no architecture 'ViT-B-33'; did you mean ViT-B-32"):
        load_dual("ViT-B-33@gone.pt")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "the model name is empty; expected mini, emoji, NAME/PRETRAINED"),
        ("ViT-B/32", "; did you mean ViT-B-32/openai"),
        ("ViT-L/14@336px", "no model 'ViT-L/14@336px' by OpenAI's own name; did you mean ViT-L-14-336/openai"),
        ("vit-b-16-siglip2/webli", "; did you mean ViT-B-16-SigLIP2/webli"),
        ("ViT-B-32/32", "open_clip has no weights '32' for ViT-B-32; expected openai"),
        ("ViT-B-33/nothing", "; did you mean ViT-B-32/openai"),
        ("hf-hub:laion/CLIP-ViT-B-32", "; did you mean hf:laion/CLIP-ViT-B-32"),
        ("mini,activation=relu", "activation=relu in the model name; expected gelu or quick_gelu"),
        ("mini,mean=1/2", "mean=1/2 in the model name; expected a number or three, as in mean=0.48/0.46/0.41"),
        ("mini,size=big", "size=big in the model name; expected the side of a square picture"),
        ("minni", "no model 'minni': expected mini, .*; did you mean mini"),
        ("ViT-B-32", "no model 'ViT-B-32': .*; did you mean ViT-B-32/PRETRAINED"),
        ("ViT-B-33/openai", "open_clip knows no 'ViT-B-33' .*; did you mean ViT-B-32/openai"),
        ("some/thing", "a transformers model of the hub is hf:some/thing"),
        ("ViT-B-32/nothing", "open_clip has no weights 'nothing' for ViT-B-32; expected openai, .* and \\d+ more"),
        ("./nothing", r"no model '\./nothing': there is no such folder"),
        (__file__, "is a file; name its architecture too, as in ViT-B-32@"),
    ],
)
def test_specs_that_name_nothing(spec: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_dual(spec)


def _jit_archive(weights: dict[str, torch.Tensor], path: Path) -> None:
    """What OpenAI published: a scripted module of these weights in float16, with three numbers beside them."""
    root = torch.nn.Module()
    for name, value in weights.items():
        module, (*parents, last) = root, name.split(".")
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, torch.nn.Module())
            module = module.get_submodule(parent)
        module.register_parameter(last, torch.nn.Parameter(value.half(), requires_grad=False))
    for name, number in (("input_resolution", 32), ("context_length", 77), ("vocab_size", 49408)):
        root.register_buffer(name, torch.tensor(number))
    torch.jit.script(root).save(str(path))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_openais_own_archive_has_quick_gelu(known: str, dual_folder: Path, tmp_path: Path) -> None:
    _jit_archive(load_file(dual_folder / WEIGHTS), tmp_path / "clip.pt")
    dual = load_dual(f"{known}@{tmp_path / 'clip.pt'}")
    quick, plain = (load_dual(f"{dual_folder},activation={name}") for name in ("quick_gelu", "gelu"))
    assert torch.equal(dual.text.encode(IDS).pooled, quick.text.encode(IDS).pooled)
    assert not torch.equal(dual.text.encode(IDS).pooled, plain.text.encode(IDS).pooled)
    assert "its activation is quick GELU" in dual.notes[0]
    stated = load_dual(f"{known}@{tmp_path / 'clip.pt'},activation=gelu")
    assert torch.equal(stated.text.encode(IDS).pooled, plain.text.encode(IDS).pooled)
    assert stated.notes == ()


def test_a_pickled_state_dict_says_which_activation_was_taken(known: str, dual_folder: Path, tmp_path: Path) -> None:
    torch.save({f"module.{name}": value for name, value in load_file(dual_folder / WEIGHTS).items()}, tmp_path / "a.pt")
    dual = load_dual(f"{known}@{tmp_path / 'a.pt'}")
    assert "built with GELU; weights of OpenAI's models need `,activation=quick_gelu`" in dual.notes[0]
    asked = load_dual(f"{known}@{tmp_path / 'a.pt'},activation=quick_gelu")
    assert not torch.equal(dual.text.encode(IDS).pooled, asked.text.encode(IDS).pooled)
    assert asked.notes == ()


def test_a_spec_overrides_mean_std_and_size(known: str, dual_folder: Path, clip_folder: Path, tmp_path: Path) -> None:
    torch.save(load_file(dual_folder / WEIGHTS), tmp_path / "a.pt")
    larger = load_dual(f"{known}@{tmp_path / 'a.pt'},size=48,mean=0.25,std=0.2/0.3/0.4")
    assert (larger.image.preprocess.height, larger.image.preprocess.mean) == (48, (0.25, 0.25, 0.25))
    assert larger.image.preprocess.std == (0.2, 0.3, 0.4)
    assert larger.image.embed([Image.new("RGB", (60, 60))]).shape == (1, 24)
    for folder in (dual_folder, clip_folder):
        assert load_dual(f"{folder},mean=0.25").image.preprocess.mean == (0.25, 0.25, 0.25)
        assert load_dual(f"{folder},size=32").image.preprocess.height == 32
    with pytest.raises(ModelError, match="reads pictures of 32; size=48 needs open_clip's NAME@CHECKPOINT"):
        load_dual(f"{dual_folder},size=48")
    with pytest.raises(ModelError, match="reads pictures of 32×32; size= can be stated for open_clip's"):
        load_dual(f"{clip_folder},size=48")
    with pytest.raises(ModelError, match="expected finite numbers and std above 0"):
        load_dual(f"{dual_folder},std=0")


def test_a_transformers_model_is_built_with_the_activation_that_is_asked_for(clip_folder: Path) -> None:
    quick, plain = (load_dual(f"hf:{clip_folder},activation={name}") for name in ("quick_gelu", "gelu"))
    assert not torch.equal(quick.text.encode(IDS).pooled, plain.text.encode(IDS).pooled)
    assert torch.equal(quick.text.encode(IDS).pooled, load_dual(f"hf:{clip_folder}").text.encode(IDS).pooled)


def test_a_picture_size_that_is_not_the_models_is_said_and_not_used(dual_folder: Path, tmp_path: Path) -> None:
    folder = copied(dual_folder, tmp_path / "other")
    config = json.loads((folder / CONFIG).read_text())
    for said, noted in ((224, True), ([32, 32], False), (32, False)):
        config["preprocess_cfg"]["size"] = said
        (folder / CONFIG).write_text(json.dumps(config))
        dual = load_dual(str(folder))
        assert (dual.image.preprocess.height, bool(dual.notes)) == (32, noted)
        assert dual.image.embed([Image.new("RGB", (60, 60))]).shape == (1, 24)


def test_weights_that_a_transformers_model_has_no_place_for_are_noted(clip_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    shutil.copytree(clip_folder, folder)
    weights = load_file(folder / "model.safetensors")
    weights["text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight"] = torch.ones(2, 16)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (note,) = load_dual(str(folder)).notes
    assert "also holds text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight (1 in all)" in note
    assert load_dual(str(clip_folder)).notes == ()
    foreign = {f"base_model.{name}": value for name, value in weights.items()}
    save_file(foreign, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="is missing"):
        load_dual(str(folder))


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No hub and an empty cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(hub, "_hub_answers", lambda: False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.mark.usefixtures("unreachable")
def test_without_the_hub_a_line_says_what_to_do(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    handlers = list(logging.getLogger().handlers)
    with pytest.raises(ModelError, match="are not in the local cache, and the hub cannot be reached; connect once"):
        load_dual("ViT-B-32/laion2b_s34b_b79k")
    with pytest.raises(ModelError, match="cannot be reached; check the name, connect once, or pass a folder"):
        load_dual("hf:openai/clip-vit-nothing-of-this-name")
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger().handlers == handlers
    assert logging.root.manager.disable == logging.NOTSET
    assert constants.HF_HUB_OFFLINE is False


def test_a_published_model_is_built_with_its_own_activation(
    known: str, dual_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import open_clip

    asked: dict[str, Any] = {}

    def create(name: str, **options: Any) -> Any:
        asked.update(options, name=name)
        model = load_open_clip_folder(dual_folder)
        open_clip.model.set_model_preprocess_cfg(model, {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3})
        return model

    monkeypatch.setattr(open_clip, "list_pretrained_tags_by_model", lambda name: ["openai"])
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda name, tag: {"quick_gelu": True})
    monkeypatch.setattr(open_clip, "create_model", create)
    monkeypatch.setattr(hub, "_hub_answers", lambda: True)
    assert load_dual("Tiny/openai").name == "Tiny/openai"
    assert asked == {"name": "Tiny", "pretrained": "openai", "require_pretrained": True, "force_quick_gelu": True}


PUBLISHED = {
    "RN50": 102_007_137,
    "RN101": 119_688_033,
    "RN50x4": 178_300_601,
    "RN50x16": 290_979_217,
    "RN50x64": 623_258_305,
    "ViT-B-32": 151_277_313,
    "ViT-B-16": 149_620_737,
    "ViT-L-14": 427_616_513,
    "ViT-L-14-336": 427_944_193,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_models_of_openai_have_as_many_parameters_as_were_published(name: str) -> None:
    repair()
    import open_clip

    config = open_clip.get_model_config(name)
    assert config is not None
    assert "openai" in open_clip.list_pretrained_tags_by_model(name)
    with buildable(name, config) as parts, torch.device("meta"):
        model = builder(parts)()
    assert sum(weight.numel() for weight in model.parameters()) == PUBLISHED[name]
