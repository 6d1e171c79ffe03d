"""Exports into every layout, each read again by another reader than the one that proved it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import clipcond
from clipcond.encode.text import TextTower
from clipcond.errors import ConfigError, ModelError, OptionsError, OutputExists, ResourceMissing
from clipcond.models.export import text_outputs
from clipcond.models.load import load_dual
from clipcond.workflows.events import Event, Note
from clipcond.workflows.export import ExportOptions, run

WIDTH, LAYERS, PROJECTED = 16, 2, 24  # of `dual_folder`'s text tower


def text_config(**changes: Any) -> Any:
    from transformers import CLIPTextConfig

    settings = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
                "projection_dim": PROJECTED, "hidden_act": "gelu", "eos_token_id": 2}  # fmt: skip
    return CLIPTextConfig(**settings | changes)


def write_encoder(folder: Path, *, projection: bool = False, half: bool = False, **changes: Any) -> None:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    model = (CLIPTextModelWithProjection if projection else CLIPTextModel)(text_config(**changes))
    (model.half() if half else model).save_pretrained(folder)


@pytest.fixture
def pipeline(tmp_path: Path) -> Callable[..., Path]:
    """A folder with the index and text encoders of a family, and a file that stands for the rest."""

    def make(family: str, **encoders: dict[str, Any]) -> Path:
        folder = tmp_path / family
        parts = {"sd15": ["unet", "text_encoder"], "sd2": ["unet", "text_encoder"],
                 "sdxl": ["unet", "text_encoder", "text_encoder_2"],
                 "sd3": ["transformer", "text_encoder", "text_encoder_2", "text_encoder_3"],
                 "flux": ["transformer", "text_encoder", "text_encoder_2"]}[family]  # fmt: skip
        folder.mkdir()
        index = {"_class_name": family, **{part: ["library", "Class"] for part in parts}}
        (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
        (folder / "vae").mkdir()
        (folder / "vae" / "weights.safetensors").write_bytes(b"as they were")
        (folder / "tokenizer").mkdir()
        pad = {"pad_token": "!" if family == "sd2" else "<|endoftext|>"}
        (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(pad), encoding="utf-8")
        for name, settings in encoders.items():
            write_encoder(folder / name, **settings)
        return folder

    return make


@pytest.fixture(scope="session")
def wanted(dual_folder: Path) -> dict[str, torch.Tensor]:
    return text_outputs(load_dual(str(dual_folder)).text)


def read(folder: Path, *, projection: bool = False) -> dict[str, torch.Tensor]:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    kind = CLIPTextModelWithProjection if projection else CLIPTextModel
    return text_outputs(TextTower.from_transformers(kind.from_pretrained(folder, dtype=torch.float32).eval()))


def close(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], *names: str) -> None:
    for name in names or found:
        torch.testing.assert_close(found[name], wanted[name], rtol=0, atol=1e-5)


def test_a_transformers_folder_is_nested_complete_and_equal(
    dual_folder: Path, wanted: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    exported = clipcond.export(str(dual_folder), to="transformers", out=tmp_path / "out")
    assert max(exported.differences.values()) <= 1e-5
    assert set(exported.differences) >= {"hidden_states[-2]", "last_hidden_state", "pooler_output", "text_embeds"}
    names = load_file(tmp_path / "out" / "model.safetensors").keys()
    assert "text_projection.weight" in names
    assert all(name.startswith("text_model.") for name in names if name != "text_projection.weight")
    close(read(tmp_path / "out", projection=True), wanted)
    close(read(tmp_path / "out"), wanted)  # a reader without projection takes it too


def test_the_tokenizer_is_clips_own(dual_folder: Path, tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    text = "A photo of a naïve red fox, 3 koalas & a café!"
    for encoder, pad in (("clip_l", 49407), ("clip_g", 0)):
        out = tmp_path / encoder
        clipcond.export(str(dual_folder), to="transformers", out=out, encoder=encoder)
        tokenizer = CLIPTokenizer.from_pretrained(out)
        ids = tokenizer(text, padding="max_length").input_ids
        assert (len(ids), ids[-1], tokenizer.vocab_size) == (77, pad, 49408)
        mark = text.replace("!", "") if pad == 0 else text  # read as padding there
        assert tokenizer(mark).input_ids[1:-1] == [token.id for token in clipcond.tokenize(mark)]


def test_the_projection_can_be_left_out(dual_folder: Path, tmp_path: Path) -> None:
    clipcond.export(str(dual_folder), to="transformers", out=tmp_path / "out", projection=False)
    assert "text_projection.weight" not in load_file(tmp_path / "out" / "model.safetensors")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["CLIPTextModel"]


def test_diffusers_gets_folders_by_the_encoders_name(
    dual_folder: Path, wanted: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    clipcond.export(str(dual_folder), to="diffusers", out=tmp_path / "l")
    assert sorted(each.name for each in (tmp_path / "l").iterdir()) == ["text_encoder", "tokenizer"]
    close(read(tmp_path / "l" / "text_encoder"), wanted)
    clipcond.export(str(dual_folder), to="diffusers", out=tmp_path / "g", encoder="clip_g")
    assert sorted(each.name for each in (tmp_path / "g").iterdir()) == ["text_encoder_2", "tokenizer_2"]
    close(read(tmp_path / "g" / "text_encoder_2", projection=True), wanted)


def test_a_pipelines_copy_has_the_new_encoder_and_shares_the_rest(
    dual_folder: Path, wanted: dict[str, torch.Tensor], pipeline: Callable[..., Path], tmp_path: Path
) -> None:
    source = pipeline("sd15", text_encoder={})
    before = (source / "text_encoder" / "model.safetensors").read_bytes()
    exported = clipcond.export(str(dual_folder), to="diffusers", into=source, out=tmp_path / "new")
    assert (exported.family, exported.encoder, exported.dtype) == ("sd15", "clip_l", "float32")
    close(read(tmp_path / "new" / "text_encoder"), wanted)
    assert (tmp_path / "new" / "vae" / "weights.safetensors").samefile(source / "vae" / "weights.safetensors")
    assert (source / "text_encoder" / "model.safetensors").read_bytes() == before
    assert json.loads((tmp_path / "new" / "text_encoder" / "config.json").read_text())["eos_token_id"] == 2


def test_the_activation_is_that_of_the_weights(
    dual_folder: Path, wanted: dict[str, torch.Tensor], pipeline: Callable[..., Path], tmp_path: Path
) -> None:
    source = pipeline("sd15", text_encoder={"hidden_act": "quick_gelu"})
    events: list[Event] = []
    run(ExportOptions(model=str(dual_folder), to="diffusers", into=str(source), out=tmp_path / "new"), events.append)
    assert any(
        isinstance(each, Note) and "quick_gelu as its activation, the new one gelu" in each.text for each in events
    )
    close(read(tmp_path / "new" / "text_encoder"), wanted)


def test_stable_diffusion_2_keeps_its_count_of_layers(
    dual_folder: Path, wanted: dict[str, torch.Tensor], pipeline: Callable[..., Path], tmp_path: Path
) -> None:
    source = pipeline("sd2", text_encoder={"num_hidden_layers": LAYERS - 1})
    exported = clipcond.export(str(dual_folder), to="diffusers", into=source, out=tmp_path / "new")
    assert (exported.family, exported.encoder, exported.layers) == ("sd2", "clip_h", LAYERS - 1)
    found = read(tmp_path / "new" / "text_encoder")
    torch.testing.assert_close(found["hidden_states[-1]"], wanted["hidden_states[-2]"], rtol=0, atol=1e-5)
    with pytest.raises(ModelError, match=r"clip_l: it has 2 layers, the target 1"):
        clipcond.export(
            str(dual_folder), to="diffusers", into=pipeline("sd15", text_encoder={"num_hidden_layers": 1}),
            out=tmp_path / "other",
        )  # fmt: skip


@pytest.fixture
def read_early(dual_folder: Path, tmp_path: Path) -> Path:
    """The dual encoder, whose config says that pipelines read one of its two text layers."""
    folder = tmp_path / "read-early"
    shutil.copytree(dual_folder, folder)
    config = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))
    (folder / "open_clip_config.json").write_text(json.dumps({**config, "pipeline_layers": 1}), encoding="utf-8")
    return folder


def test_a_tower_that_pipelines_read_before_its_end_is_exported_that_far(
    read_early: Path, wanted: dict[str, torch.Tensor], pipeline: Callable[..., Path], tmp_path: Path
) -> None:
    source = pipeline("sd15", text_encoder={"num_hidden_layers": 1})
    for name, settings in (("copy", {"to": "diffusers", "into": source}), ("alone", {"to": "diffusers"})):
        exported = clipcond.export(str(read_early), out=tmp_path / name, **settings)
        assert exported.layers == 1
        found = read(tmp_path / name / "text_encoder")
        torch.testing.assert_close(found["hidden_states[-1]"], wanted["hidden_states[-2]"], rtol=0, atol=1e-5)
    assert clipcond.export(str(read_early), to="comfyui", out=tmp_path / "file.safetensors").layers == 1
    assert clipcond.export(str(read_early), to="transformers", out=tmp_path / "whole").layers == LAYERS
    clipcond.export(str(read_early), to="open_clip", out=tmp_path / "again")
    assert json.loads((tmp_path / "again" / "open_clip_config.json").read_text())["pipeline_layers"] == 1


@pytest.mark.parametrize("stated", [0, 3, "two"])
def test_a_config_that_says_pipelines_read_layers_that_are_not_there(read_early: Path, stated: object) -> None:
    path = read_early / "open_clip_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pipeline_layers": stated}))
    with pytest.raises(ModelError, match=rf"says that pipelines read {stated} layers; expected 1 to {LAYERS}"):
        load_dual(str(read_early))


def test_of_sdxls_pair_the_one_that_fits_or_that_is_named(
    dual_folder: Path, wanted: dict[str, torch.Tensor], pipeline: Callable[..., Path], tmp_path: Path
) -> None:
    source = pipeline("sdxl", text_encoder={"hidden_size": 32}, text_encoder_2={"projection": True, "half": True})
    exported = clipcond.export(str(dual_folder), to="diffusers", into=source, out=tmp_path / "new")
    assert (exported.encoder, exported.dtype) == ("clip_g", "float16")
    assert all(
        value.dtype == torch.float16 for value in load_file(tmp_path / "new/text_encoder_2/model.safetensors").values()
    )
    found = read(tmp_path / "new" / "text_encoder_2", projection=True)
    torch.testing.assert_close(found["text_embeds"], wanted["text_embeds"], rtol=0, atol=5e-3)
    with pytest.raises(ModelError, match=r"clip_l: its hidden_size is 16, the target's 32"):
        clipcond.export(str(dual_folder), to="diffusers", into=source, encoder="clip_l", out=tmp_path / "other")
    with pytest.raises(ConfigError, match="is sdxl and has no clip_h; expected clip_l or clip_g"):
        clipcond.export(str(dual_folder), to="diffusers", into=source, encoder="clip_h", out=tmp_path / "other")


def test_which_of_two_that_fit_must_be_said(dual_folder: Path, pipeline: Callable[..., Path], tmp_path: Path) -> None:
    source = pipeline("sdxl", text_encoder={}, text_encoder_2={"projection": True})
    with pytest.raises(OptionsError, match=r"fits clip_l and clip_g of .*; say which with --encoder"):
        clipcond.export(str(dual_folder), to="diffusers", into=source, out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_sd3s_clip_l_keeps_the_pipelines_own_projection(
    dual_folder: Path, wanted: dict[str, torch.Tensor], pipeline: Callable[..., Path], tmp_path: Path
) -> None:
    source = pipeline("sd3", text_encoder={"projection": True}, text_encoder_2={"projection": True})
    own = load_file(source / "text_encoder" / "model.safetensors")["text_projection.weight"]
    for encoder, folder, kept in (("clip_l", "text_encoder", True), ("clip_g", "text_encoder_2", False)):
        out = tmp_path / encoder
        clipcond.export(str(dual_folder), to="diffusers", into=source, encoder=encoder, out=out)
        found = read(out / folder, projection=True)
        close(found, wanted, "last_hidden_state", "pooler_output", *([] if kept else ["text_embeds"]))
        new = load_file(out / folder / "model.safetensors")["text_projection.weight"]
        assert torch.equal(new, own) is kept


def test_a_comfyui_file_is_nested_and_without_a_projection_that_is_not_square(
    dual_folder: Path, tmp_path: Path
) -> None:
    events: list[Event] = []
    out = tmp_path / "clip_l.safetensors"
    run(ExportOptions(model=str(dual_folder), to="comfyui", out=out), events.append)
    assert any(
        isinstance(each, Note) and "text_projection is 24×16 and ComfyUI builds a square one" in each.text
        for each in events
    )
    names = load_file(out)
    assert "text_model.encoder.layers.0.mlp.fc1.weight" in names
    assert "text_projection.weight" not in names
    run(ExportOptions(model=str(dual_folder), to="comfyui", out=out, projection=True, force=True))
    assert "text_projection.weight" in load_file(out)


def checkpoint(path: Path, prefix: str, *, open_clip: bool, dual_folder: Path, dtype: torch.dtype) -> Path:
    """A checkpoint with another encoder's weights of the same shapes, and two tensors of other parts."""
    from clipcond.models.export_layouts import to_open_clip
    from clipcond.models.text_encoder import load_text_encoder

    state = load_text_encoder(str(dual_folder)).state()
    named = to_open_clip(state) if open_clip else {k: v for k, v in state.items() if k != "text_projection.weight"}
    held = {prefix + key: torch.zeros_like(value).to(dtype).contiguous() for key, value in named.items()}
    held["model.diffusion_model.out.weight"] = torch.arange(7, dtype=torch.float64)
    held["first_stage_model.decoder.bias"] = torch.arange(5).half()
    if open_clip:
        held[f"{prefix}logit_scale"] = torch.tensor(4.5)
    save_file(held, path, metadata={"modelspec.title": "made for a test"})
    return path


@pytest.mark.parametrize(
    ("prefix", "encoder", "open_clip", "dtype"),
    [
        ("cond_stage_model.transformer.", "clip_l", False, torch.float16),
        ("cond_stage_model.model.", "clip_h", True, torch.float32),
        ("conditioner.embedders.0.transformer.", "clip_l", False, torch.float32),
        ("conditioner.embedders.1.model.", "clip_g", True, torch.bfloat16),
        ("text_encoders.clip_l.transformer.", "clip_l", False, torch.float32),
    ],
)  # fmt: skip
def test_a_checkpoints_copy_differs_in_the_encoders_bytes_alone(
    prefix: str, encoder: str, open_clip: bool, dtype: torch.dtype, dual_folder: Path, tmp_path: Path
) -> None:
    source = checkpoint(
        tmp_path / "model.safetensors", prefix, open_clip=open_clip, dual_folder=dual_folder, dtype=dtype
    )
    out = tmp_path / "new.safetensors"
    exported = clipcond.export(str(dual_folder), to="a1111", into=source, out=out)
    assert (exported.encoder, exported.dtype) == (encoder, str(dtype).removeprefix("torch."))
    old, new = load_file(source), load_file(out)
    assert old.keys() == new.keys()
    ours = {key for key in new if key.startswith(prefix) and not key.endswith("logit_scale")}
    assert all(torch.equal(old[key], new[key]) for key in old.keys() - ours)
    table = f"{prefix}{'token_embedding.weight' if open_clip else 'text_model.embeddings.token_embedding.weight'}"
    assert torch.equal(
        new[table].float(), load_dual(str(dual_folder)).image.model.token_embedding.weight.to(dtype).float()
    )
    if open_clip:
        projection = load_dual(str(dual_folder)).image.model.text_projection.to(dtype)
        assert torch.equal(new[f"{prefix}text_projection"], projection)


def test_a_checkpoint_with_another_encoder_is_left_alone(dual_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"cond_stage_model.transformer.text_model.final_layer_norm.weight": torch.zeros(3)}, path)
    with pytest.raises(ModelError, match=r"has 2 layers, the clip_l of .* 0"):
        clipcond.export(str(dual_folder), to="a1111", into=path, out=tmp_path / "new.safetensors")
    save_file({"unet.weight": torch.zeros(3)}, path)
    with pytest.raises(ModelError, match="holds no text encoder that is known"):
        clipcond.export(str(dual_folder), to="comfyui", into=path, out=tmp_path / "new.safetensors")
    path.write_bytes(b"\xff" * 30)
    with pytest.raises(ModelError, match="is no safetensors file"):
        clipcond.export(str(dual_folder), to="comfyui", into=path, out=tmp_path / "new.safetensors")
    assert not (tmp_path / "new.safetensors").exists()


def test_open_clip_gets_both_towers_also_from_transformers(dual_folder: Path, tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    exported = clipcond.export(str(dual_folder), to="open_clip", out=tmp_path / "same")
    assert set(exported.differences.values()) == {0.0}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": 32, "patch_size": 8}  # fmt: skip
    config = CLIPConfig(text_config=text_config().to_dict(), vision_config=vision, projection_dim=PROJECTED)
    config.vision_config.hidden_act = "gelu"
    CLIPModel(config).save_pretrained(tmp_path / "hf")
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        tmp_path / "hf"
    )
    exported = clipcond.export(f"hf:{tmp_path / 'hf'}", to="open_clip", out=tmp_path / "converted")
    assert max(exported.differences.values()) <= 1e-5
    assert "image_embeds" in exported.differences
    there, back = clipcond.Scorer.load(f"hf:{tmp_path / 'hf'}"), clipcond.Scorer.load(str(tmp_path / "converted"))
    assert there.dual.logit_scale == pytest.approx(back.dual.logit_scale)


def test_an_export_can_be_exported_again(dual_folder: Path, wanted: dict[str, torch.Tensor], tmp_path: Path) -> None:
    clipcond.export(str(dual_folder), to="transformers", out=tmp_path / "one")
    clipcond.export(str(tmp_path / "one"), to="diffusers", out=tmp_path / "two")
    close(read(tmp_path / "two" / "text_encoder"), wanted)


def test_what_is_there_stays_unless_force_replaces_an_export(dual_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    clipcond.export(str(dual_folder), to="transformers", out=out)
    with pytest.raises(OutputExists, match="is there already; name another with --out, or say --force"):
        clipcond.export(str(dual_folder), to="transformers", out=out)
    clipcond.export(str(dual_folder), to="transformers", out=out, projection=False, force=True)
    assert "text_projection.weight" not in load_file(out / "model.safetensors")
    (out / "my notes.txt").write_text("keep")
    with pytest.raises(OutputExists, match=r"also holds my notes\.txt, which would be lost"):
        clipcond.export(str(dual_folder), to="transformers", out=out, force=True)
    assert (out / "my notes.txt").read_text() == "keep"
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


def test_a_source_is_never_the_place(dual_folder: Path, pipeline: Callable[..., Path], tmp_path: Path) -> None:
    source = pipeline("sd15", text_encoder={})
    for out in (source, source / "inside"):
        with pytest.raises(OutputExists, match="from which the export is made"):
            clipcond.export(str(dual_folder), to="diffusers", into=source, out=out, force=True)


def test_more_than_77_positions_are_for_those_who_take_them(pipeline: Callable[..., Path], tmp_path: Path) -> None:
    write_encoder(tmp_path / "long", max_position_embeddings=248)
    for settings in ({"to": "diffusers", "out": tmp_path / "new"},
                     {"to": "diffusers", "into": pipeline("sd15", text_encoder={}), "out": tmp_path / "new"}):  # fmt: skip
        with pytest.raises(ModelError, match="has 248 positions; diffusers pipelines take 77"):
            clipcond.export(str(tmp_path / "long"), **settings)
    clipcond.export(str(tmp_path / "long"), to="comfyui", out=tmp_path / "long.safetensors")
    positions = load_file(tmp_path / "long.safetensors")["text_model.embeddings.position_embedding.weight"]
    assert positions.shape == (248, WIDTH)


def test_an_export_that_reads_back_otherwise_is_not_written(
    dual_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clipcond.models import export

    def damaged(state: Any, count: int) -> Any:
        return {
            key: value * 1.001 if key.endswith("layers.1.mlp.fc2.weight") else value for key, value in state.items()
        }

    monkeypatch.setattr(export, "without_last_layers", damaged)
    with pytest.raises(ModelError, match=r"read back, differs from its source by .* in .*; nothing was written"):
        clipcond.export(str(dual_folder), to="transformers", out=tmp_path / "out")
    with pytest.raises(ModelError, match="nothing was written"):
        clipcond.export(str(dual_folder), to="comfyui", out=tmp_path / "out.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"to": "invoke"}, "to is 'invoke'; expected diffusers, transformers, open_clip, comfyui, a1111"),
        ({"to": "a1111"}, r"say --into MODEL\.safetensors"),
        ({"to": "transformers", "into": "mini"}, "transformers gets a folder of its own"),
        ({"to": "open_clip", "dtype": "float16"}, "leave out encoder, dtype and projection"),
        ({"to": "comfyui"}, r"is to be one file for comfyui; name it ….safetensors"),
        ({"to": "diffusers", "encoder": "t5"}, "encoder is 't5'; expected clip_l, clip_g, clip_h"),
    ],
)
def test_options_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        ExportOptions(**{"model": "mini", "out": Path("out"), **settings})


def test_a_folder_that_is_not_there_is_named(dual_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ResourceMissing, match=r"there is no folder .*missing; make it"):
        clipcond.export(str(dual_folder), to="transformers", out=tmp_path / "missing" / "out")
    with pytest.raises(ModelError, match=r"is no diffusers pipeline: there is no model_index\.json in it"):
        clipcond.export(str(dual_folder), to="diffusers", into=tmp_path, out=tmp_path.parent / "elsewhere")
