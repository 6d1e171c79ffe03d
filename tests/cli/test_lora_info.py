import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clipcond.cli import main


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    weights = {f"{name}.lora_down.weight": torch.zeros(4, 768), f"{name}.lora_up.weight": torch.zeros(320, 4),
               f"{name}.alpha": torch.tensor(2.0), "odd\x1b[31m": torch.zeros(1)}  # fmt: skip
    save_file(weights, tmp_path / "ink.safetensors", metadata={"ss_base_model_version": "sd\x1b[1mxl"})
    return tmp_path / "ink.safetensors"


def test_the_outline_for_people_steers_no_terminal(lora: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lora-info", str(lora)]) == 0
    said = capsys.readouterr().out
    assert said.splitlines() == [
        "base by shapes: Stable Diffusion 1; its metadata says sd␛[1mxl",
        "unet: 1 layers (1 LoRA), rank 4, alpha/rank 0.5, 4,352 weights",
        "touches no text encoder",
        "ignored: 1 keys, the name is of no adapter that loaders know, such as odd␛[31m",
    ]


def test_json_and_errors(lora: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lora-info", str(lora), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parts"]["unet"]["ranks"] == {"4": 1}
    assert main(["lora-info", "no.safetensors"]) == 3
    assert capsys.readouterr().err == "error: there is no file no.safetensors\n"
    lora.rename(lora.with_suffix(".pt"))
    assert main(["lora-info", str(lora.with_suffix(".pt"))]) == 3
    assert "is no .safetensors file" in capsys.readouterr().err
