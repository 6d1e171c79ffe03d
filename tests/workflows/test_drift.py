from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import clipcond
from clipcond.errors import ConfigError, DataError, ModelError, OptionsError
from clipcond.workflows.drift import DriftOptions, DriftReport, parse_limits, read_prompts, run
from clipcond.workflows.events import Event, Note

Change = Callable[[dict[str, Tensor], dict[str, Any]], None]


@pytest.fixture
def changed(dual_folder: Path, tmp_path: Path) -> Callable[[Change], Path]:
    """The text encoder of `dual_folder` as a transformers folder, with its weights or its config changed."""

    def make(change: Change) -> Path:
        folder = tmp_path / "changed"
        clipcond.export(str(dual_folder), to="transformers", out=folder)
        weights = load_file(folder / "model.safetensors")
        config = json.loads((folder / "config.json").read_text())
        change(weights, config)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return make


def report(before: Path, after: Path, target: Any = "sd15", **more: Any) -> DriftReport:
    return run(DriftOptions(before=str(before), after=str(after), target=target, **{"limits": {}, **more}))


def test_an_export_has_not_drifted(dual_folder: Path, changed: Callable[[Change], Path]) -> None:
    same = changed(lambda weights, config: None)
    for target in ("sd15", "sd2", "sdxl", "sd3", "flux"):
        found = report(dual_folder, same, target)
        (each,) = found.encoders.values()
        assert max(each.drift.measures().values()) < 1e-5
        assert each.differences == ()


def test_the_layer_is_the_targets(dual_folder: Path, changed: Callable[[Change], Path]) -> None:
    """SDXL and SD3 do not read the last block, SD 1 does, Flux reads its pooled vector."""

    def last_block(weights: dict[str, Tensor], config: dict[str, Any]) -> None:
        weights["text_model.encoder.layers.1.mlp.fc2.weight"] *= -1

    after = changed(last_block)
    found = {target: report(dual_folder, after, target) for target in ("sd15", "sdxl", "sd3", "flux")}
    moved = {target: each.encoders["clip_l"].drift.measures() for target, each in found.items()}
    assert moved["sd15"]["words"] > 1e-3
    assert moved["sdxl"]["words"] == moved["sd3"]["words"] == 0
    assert moved["sd3"]["pooled"] > 1e-4
    assert set(moved["flux"]) == {"pooled", "pooled_norm", "empty", "empty_norm", "spread", "gram"}
    assert "pooled" not in moved["sdxl"]
    assert found["sd15"].encoders["clip_l"].layer == "hidden_states[-1] with the final norm"
    assert found["sdxl"].encoders["clip_l"].layer == "hidden_states[-2]"


def test_layers_behind_those_that_pipelines_read_do_not_count(dual_folder: Path, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("before", "after")]
    for folder in folders:
        shutil.copytree(dual_folder, folder)
        config = json.loads((folder / "open_clip_config.json").read_text())
        (folder / "open_clip_config.json").write_text(json.dumps({**config, "pipeline_layers": 1}))
    weights = load_file(folders[1] / "open_clip_model.safetensors")
    weights["transformer.resblocks.1.mlp.c_proj.weight"] *= -1
    save_file(weights, folders[1] / "open_clip_model.safetensors")
    each = report(*folders).encoders["clip_l"]
    assert (each.layer, each.drift.measures()["words"]) == ("hidden_states[-2] with the final norm", 0)


def test_what_differs_is_named(dual_folder: Path, changed: Callable[[Change], Path]) -> None:
    def lose_norm(weights: dict[str, Tensor], config: dict[str, Any]) -> None:
        weights["text_model.final_layer_norm.weight"].fill_(1)
        weights["text_model.encoder.layers.0.mlp.fc1.weight"] = torch.zeros(64, 16)

    found = report(dual_folder, changed(lose_norm))
    assert "half loaded" in {each.name for each in found.encoders["clip_l"].differences}


@pytest.mark.parametrize(
    ("count", "evidence", "note"),
    [(64, "77 positions before, 64 after; of the table the first 64 rows are the same", True),
     (248, "77 positions before, 248 after; of the table the first 20 rows are the same", False)],
)  # fmt: skip
def test_a_table_of_another_length_is_named_and_measured_as_far_as_it_goes(
    dual_folder: Path, changed: Callable[[Change], Path], count: int, evidence: str, note: bool
) -> None:
    """Cut, or stretched from its twentieth row on, as Long-CLIP's is."""
    name = "text_model.embeddings.position_embedding.weight"

    def resize(weights: dict[str, Tensor], config: dict[str, Any]) -> None:
        table = weights[name]
        rest = table[20:count] if count < 77 else table[20:].repeat_interleave(4, dim=0) + 0.01
        weights[name] = torch.cat([table[:20], rest])[:count].contiguous()
        config["max_position_embeddings"] = count

    events: list[Event] = []
    options = DriftOptions(before=str(dual_folder), after=str(changed(resize)), target="sd15", limits={})
    (each,) = run(options, events.append).encoders.values()
    assert [(found.name, found.evidence) for found in each.differences] == [("length", evidence)]
    told = [event for event in events if isinstance(event, Note) and "no place in a pipeline" in event.text]
    assert bool(told) == note
    assert each.drift.kinds["words"].cosine == pytest.approx(1 if count < 77 else each.drift.kinds["words"].cosine)


@pytest.mark.parametrize(
    ("tokens", "name"),
    [({"eos_token": "!"}, "end token"), ({"pad_token": "!"}, "padding"), ({"bos_token": "!"}, "start token"),
     ({"model_max_length": 64}, "length")],
)  # fmt: skip
def test_a_tokenizer_that_differs_on_disk_is_named(
    changed: Callable[[Change], Path], tmp_path: Path, tokens: dict[str, object], name: str
) -> None:
    before, after = changed(lambda weights, config: None), tmp_path / "after"
    shutil.copytree(before, after)
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        (after / file).write_text(json.dumps({**json.loads((after / file).read_text()), **tokens}))
    (each,) = report(before, after).encoders.values()
    assert [found.name for found in each.differences] == [name]


def test_limits_fail_by_name(dual_folder: Path, changed: Callable[[Change], Path]) -> None:
    def noise(weights: dict[str, Tensor], config: dict[str, Any]) -> None:
        weights["text_model.encoder.layers.0.mlp.fc2.weight"] *= -5

    after = changed(noise)
    found = report(dual_folder, after, limits={"words": 1e-6, "bos": 3.0})
    assert list(found.failed) == ["words"]
    value, limit = found.failed["words"]
    assert value > limit == 1e-6
    with pytest.raises(OptionsError, match="the target reads no pooled; its measures are bos, bos_norm, empty"):
        report(dual_folder, after, limits={"pooled": 0.1})


def test_the_denoiser_is_tried_with_both(sd_folder: Path, tmp_path: Path) -> None:
    found = report(sd_folder, sd_folder, pipeline=str(sd_folder), limits={"denoiser": 0.0})
    assert [each.change for each in found.denoiser] == [0.0] * 4
    assert found.failed == {}
    encoder = tmp_path / "encoder"
    clipcond.export(str(sd_folder), to="transformers", out=encoder)
    weights = load_file(encoder / "model.safetensors")
    weights["text_model.final_layer_norm.weight"] *= -1
    save_file(weights, encoder / "model.safetensors")
    found = report(sd_folder, encoder, pipeline=str(sd_folder), limits={"denoiser": 1e-4})
    assert all(each.change > 1e-4 for each in found.denoiser)
    assert list(found.failed) == ["denoiser"]


def test_other_widths_are_not_compared(dual_folder: Path, sd_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"gives states of width 16, .* of 32: they are no encoders of one pipeline"):
        report(dual_folder, sd_folder)


def test_a_half_written_encoder_is_refused_with_its_missing_weight(
    dual_folder: Path, changed: Callable[[Change], Path]
) -> None:
    def forget(weights: dict[str, Tensor], config: dict[str, Any]) -> None:
        del weights["text_model.encoder.layers.1.mlp.fc1.bias"]

    after = changed(forget)
    with pytest.raises(ModelError, match=r"lacks text_model\.encoder\.layers\.1\.mlp\.fc1\.bias"):
        report(dual_folder, after)


def test_prompts_come_from_a_file(dual_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("# mine\na fox\n\na fox\n" + "word " * 90 + "\n", encoding="utf-8")
    events: list[Event] = []
    options = DriftOptions(before=str(dual_folder), after=str(dual_folder), target="sd15", prompts=file, limits={})
    assert run(options, events.append).prompts == 2
    assert Note("1 of 2 prompts are cut at 75 tokens, as a stock pipeline cuts them") in events
    file.write_text("a fox\n")
    with pytest.raises(DataError, match="holds 1 different prompts; expected two or more"):
        read_prompts(file)
    file.write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match="is not UTF-8"):
        read_prompts(file)


def test_the_shipped_prompts_are_general_and_fit() -> None:
    prompts = read_prompts(None)
    assert len(prompts) >= 32
    assert all(len(clipcond.tokenize(text)) <= 75 for text in prompts)


def test_a_report_is_json(dual_folder: Path) -> None:
    document = json.loads(json.dumps(report(dual_folder, dual_folder).to_json()))
    assert document["encoders"]["clip_l"]["positions"]["words"]["cosine"] == 1
    assert document["encoders"]["clip_l"]["differences"] == document["denoiser"] == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "sd4"}, "target is 'sd4'; expected sd15, sd2, sdxl, sd3, flux"),
        ({"encoder": "clip_g"}, "sd15 has no clip_g; expected clip_l"),
        ({"limits": {"word": 1.0}}, "there is no measure 'word'; expected one of bos, words"),
        ({"limits": {"denoiser": 1.0}}, "needs a pipeline to try: say --pipeline"),
    ],
)
def test_options_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        DriftOptions(**{"before": "mini", "after": "mini", "target": "sd15", "limits": {}, **settings})


def test_limits_are_read_from_text() -> None:
    assert parse_limits(["words=0.05", "bos = 1e-3"]) == {"words": 0.05, "bos": 0.001}
    with pytest.raises(OptionsError, match="'words' is no limit; expected NAME=VALUE"):
        parse_limits(["words"])
    with pytest.raises(OptionsError, match="is below 0"):
        parse_limits(["words=-1"])


def test_of_two_pipelines_both_encoders_are_compared(dual_folder: Path, tmp_path: Path) -> None:
    from clipcond.models.load import load_open_clip_folder
    from clipcond.models.open_clip_folder import read_config, write_open_clip_folder

    model = load_open_clip_folder(dual_folder)
    model.transformer.resblocks[0].mlp.c_proj.weight.data.mul_(-3)
    write_open_clip_folder(model, read_config(dual_folder), tmp_path / "other")
    index = {part: ["library", "Class"] for part in ("unet", "text_encoder", "text_encoder_2")}
    for name, second in (("before", dual_folder), ("after", tmp_path / "other")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model_index.json").write_text(json.dumps(index))
        for number, source, encoder in (("", dual_folder, "clip_l"), ("_2", second, "clip_g")):
            clipcond.export(str(source), to="diffusers", out=tmp_path / "made", encoder=encoder)  # type: ignore[arg-type]
            for part in ("text_encoder", "tokenizer"):
                (tmp_path / "made" / f"{part}{number}").rename(tmp_path / name / f"{part}{number}")
            (tmp_path / "made").rmdir()
    found = report(tmp_path / "before", tmp_path / "after", "sdxl", limits={"words": 1e-6}).encoders
    assert found["clip_l"].differences == ()
    assert [each.name for each in found["clip_g"].differences] == ["retrained"]
    assert max(found["clip_l"].drift.measures().values()) == 0
    assert found["clip_g"].drift.measures()["pooled"] > 0
    (alone,) = report(tmp_path / "before", tmp_path / "after", "sdxl", encoder="clip_g").encoders
    assert alone == "clip_g"


def test_a_run_of_both_encoders_is_compared_like_a_pipeline(dual_folder: Path, tmp_path: Path) -> None:
    from clipcond.models.load import load_open_clip_folder
    from clipcond.models.open_clip_folder import read_config, write_open_clip_folder

    model, config = load_open_clip_folder(dual_folder), read_config(dual_folder)
    for part in ("before/text_encoder", "before/text_encoder_2", "after/text_encoder"):
        write_open_clip_folder(model, config, tmp_path / part / "model")
    model.transformer.resblocks[0].mlp.c_proj.weight.data.mul_(-3)
    write_open_clip_folder(model, config, tmp_path / "after" / "text_encoder_2" / "model")
    before, after = str(tmp_path / "before"), str(tmp_path / "after")
    found = report(before, after, "sdxl").encoders
    assert {name: [each.name for each in one.differences] for name, one in found.items()} == {
        "clip_l": [], "clip_g": ["retrained"],
    }  # fmt: skip
    assert list(report(str(dual_folder), after, "sdxl").encoders) == ["clip_l"], "one encoder is the first of both"
    with pytest.raises(ConfigError, match=r"before holds clip_l and clip_g; encoder is 'clip_h'"):
        report(before, after, "sd2")
