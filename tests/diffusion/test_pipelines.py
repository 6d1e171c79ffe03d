"""PipelineView pipelines: by name, quietly, and with one line where it fails."""

from __future__ import annotations

import gc
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from clipcond import resources
from clipcond.diffusion.pipelines import Advice, advice, load_pipeline
from clipcond.errors import ConfigError, ModelError, ResourceMissing


def test_loads_a_folder_quietly_in_float32(sd_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pipe = load_pipeline(str(sd_folder), device="cpu")
    assert capfd.readouterr() == ("", "")
    assert {part.dtype for part in (pipe.unet, pipe.vae, pipe.text_encoder)} == {torch.float32}


def test_leaves_the_libraries_bars_as_they_were(sd_folder: Path) -> None:
    from diffusers.utils import logging as ours
    from transformers.utils import logging as theirs

    before = ours.is_progress_bar_enabled(), theirs.is_progress_bar_enabled()
    load_pipeline(sd_folder, device="cpu")
    assert (ours.is_progress_bar_enabled(), theirs.is_progress_bar_enabled()) == before


@pytest.mark.parametrize("running", [True, False])
def test_leaves_garbage_collection_as_it_was(sd_folder: Path, running: bool) -> None:
    if not running:
        gc.disable()
    try:
        load_pipeline(sd_folder, device="cpu")
        assert gc.isenabled() is running
    finally:
        gc.enable()


def test_takes_half_precision_files(sd_pipe: Any, tmp_path: Path) -> None:
    sd_pipe.save_pretrained(tmp_path / "half", variant="fp16")
    assert load_pipeline(tmp_path / "half", device="cpu").unet.dtype == torch.float32
    assert load_pipeline(tmp_path / "half", device="cpu", dtype=torch.bfloat16).unet.dtype == torch.bfloat16


def test_mini_is_the_embedded_folder(sd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_HERE", tmp_path)
    with pytest.raises(ResourceMissing, match="the embedded model is incomplete"):
        load_pipeline("mini")
    shutil.copytree(sd_folder, tmp_path / "mini" / "weights" / "pipeline")
    assert load_pipeline("mini", device="cpu").config["_name_or_path"].startswith(str(tmp_path))


def test_what_cannot_be_a_pipeline_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no pipeline '\./nowhere': there is no such folder; a pipeline is `mini`"):
        load_pipeline("./nowhere")
    with pytest.raises(ModelError, match="no pipeline 'fox': there is no such folder"):
        load_pipeline("fox")
    with pytest.raises(ModelError, match=r"without model_index\.json"):
        load_pipeline(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "open_clip_config.json").touch()
    with pytest.raises(
        ModelError, match=r"is a dual encoder, no pipeline: clipcond export .* --to diffusers --into PIPE"
    ):
        load_pipeline(tmp_path)


def test_foreign_errors_become_one_line(sd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = shutil.copytree(sd_folder, tmp_path / "broken")
    (broken / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"not weights" * 100_000)
    with pytest.raises(ModelError, match="broken' could not be loaded from the folder: ") as caught:
        load_pipeline(broken)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    unreached = "'nobody/nothing-at-all' are not in the local cache, and the hub cannot be reached; check the name"
    with pytest.raises(ModelError, match=unreached):
        load_pipeline("nobody/nothing-at-all")


def test_a_folder_may_advise_settings(sd_folder: Path, sd_pipe: Any, tmp_path: Path) -> None:
    assert advice(sd_pipe) == Advice(guidance_scale=7.5, guidance_rescale=0.0, steps=20)
    folder = shutil.copytree(sd_folder, tmp_path / "advised")
    (folder / "clipcond.json").write_text(json.dumps({"guidance_scale": 3.0, "steps": 12}))
    pipe = load_pipeline(folder, device="cpu")
    assert advice(pipe) == Advice(guidance_scale=3.0, steps=12)
    (folder / "clipcond.json").write_text(json.dumps({"guidence": 3.0}))
    with pytest.raises(ModelError, match=r"clipcond\.json is not a JSON object of known settings: .*guidence"):
        advice(pipe)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"steps": "twelve"}', r"gives steps \"twelve\"; expected a whole number from 1 to 1000"),
        ('{"steps": 12.5}', "gives steps 12.5; expected a whole number"),
        ('{"steps": 0}', "gives steps 0; expected"),
        ('{"steps": true}', "gives steps true; expected"),
        ('{"steps": 100000000}', "expected a whole number from 1 to 1000"),
        ('{"guidance_scale": [3]}', r"gives guidance_scale \[3\]; expected a number from 0 to 1000"),
        ('{"guidance_scale": NaN}', "gives guidance_scale NaN; expected a number"),
        ('{"guidance_rescale": -1}', "gives guidance_rescale -1; expected"),
        ("[1, 2]", "holds a JSON list; expected an object"),
        ("[" * 100_000, "nested too deeply"),
        ("not json", "is not JSON"),
    ],
)
def test_advice_of_text_lists_and_fractions_is_one_line(
    text: str, reason: str, sd_folder: Path, sd_pipe: Any, tmp_path: Path
) -> None:
    (tmp_path / "clipcond.json").write_text(text)
    before = sd_pipe.config["_name_or_path"]
    sd_pipe.register_to_config(_name_or_path=str(tmp_path))
    try:
        with pytest.raises(ModelError, match=reason) as caught:
            advice(sd_pipe)
    finally:
        sd_pipe.register_to_config(_name_or_path=before)
    assert "\n" not in str(caught.value)


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="device is 'bogus', which torch cannot use here"):
        load_pipeline("mini", device="bogus")


def test_a_dtype_by_name_is_refused_and_not_passed_over() -> None:
    with pytest.raises(ConfigError, match=r"dtype is 'float16', expected a torch\.dtype"):
        load_pipeline("mini", dtype="float16")  # type: ignore[arg-type]
