"""No model runs code, asks to, or takes memory for what its config claims; each refusal is one line."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ends import process, run
from PIL import Image
from safetensors.torch import load_file, save_file

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    return tmp_path / "red.png"


def test_code_in_a_model_folder_does_not_run_where_standard_input_says_yes(picture: Path, tmp_path: Path) -> None:
    folder, marker = tmp_path / "model", tmp_path / "it ran"
    folder.mkdir()
    (folder / "code.py").write_text(
        f"open({str(marker)!r}, 'w').close()\nclass Config: pass\nModel = Processor = Config\n"
    )
    classes = {"AutoConfig": "code.Config", "AutoModel": "code.Model", "AutoImageProcessor": "code.Processor"}
    (folder / "config.json").write_text(json.dumps({"model_type": "its-own", "auto_map": classes}))
    (folder / "preprocessor_config.json").write_text(json.dumps({"auto_map": classes}))
    done = process("rerank", picture, "-p", "fox", "--model", f"hf:{folder}", stdin="y\n" * 100)
    assert done.code == 3
    assert done.line.startswith("error: ")
    assert done.out == ""
    assert not marker.exists()


def _nan(folder: Path, config: dict[str, Any]) -> None:
    weights = load_file(folder / WEIGHTS)
    weights["visual.proj"][0, 0] = torch.nan
    save_file(weights, folder / WEIGHTS)


def _set(part: str, **values: Any) -> Callable[[Path, dict[str, Any]], None]:
    def change(folder: Path, config: dict[str, Any]) -> None:
        (config["preprocess_cfg"] if part == "preprocess_cfg" else config["model_cfg"][part]).update(values)

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_nan, "holds values that are not finite: visual.proj"),
        (_set("preprocess_cfg", std=[0, 0, 0]), "std"),
        (_set("preprocess_cfg", mean="grey\x1b[2J\u202e"), "mean"),
        (_set("preprocess_cfg", interpolation=["bicubic\x1b[2J"]), "interpolation"),
        (_set("text_cfg", layers=10_000_000), "has layers 10000000; expected at most 1,000"),
        (_set("vision_cfg", width=1 << 20), "GiB"),
        (_set("vision_cfg", width=48), "does not"),
    ],
)
def test_a_model_of_no_use_is_one_line_at_once(
    change: Callable[[Path, dict[str, Any]], None],
    reason: str,
    dual_folder: Path,
    picture: Path,
    tmp_path: Path,
    capsys: Any,
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(dual_folder, folder)
    config = json.loads((folder / CONFIG).read_text())
    change(folder, config)
    (folder / CONFIG).write_text(json.dumps(config))
    start = time.process_time()
    done = run(capsys, "rerank", picture, "-p", "fox", "--model", folder)
    assert (done.code, done.out) == (3, "")
    assert reason in done.line
    assert time.process_time() - start < 5
