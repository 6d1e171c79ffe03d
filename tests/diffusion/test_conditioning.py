"""A conditioning on disk: what is saved comes back, and nothing is overwritten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from clipcond.diffusion.conditioner import condition
from clipcond.diffusion.conditioning import Conditioning
from clipcond.errors import DataError, OutputExists, ResourceMissing


def test_comes_back_as_it_was(sd_pipe: Any, tmp_path: Path) -> None:
    out = condition(sd_pipe, ['a fox\n"quoted" 🦊', "b " * 90], ["blurry", ""], clip_skip=1)
    out.save(tmp_path / "fox.safetensors")
    back = Conditioning.load(tmp_path / "fox.safetensors")
    assert torch.equal(back.prompt_embeds, out.prompt_embeds)
    assert torch.equal(back.negative_prompt_embeds, out.negative_prompt_embeds)
    assert (back.plans, back.negative_plans) == (out.plans, out.negative_plans)
    assert (back.family, back.dialect, back.clip_skip) == ("sd15", "plain", 1)


def test_is_not_overwritten_unasked(sd_pipe: Any, tmp_path: Path) -> None:
    file = tmp_path / "fox.safetensors"
    condition(sd_pipe, "a fox").save(file)
    with pytest.raises(OutputExists, match=r"fox\.safetensors is there already; choose another name"):
        condition(sd_pipe, "a bird").save(file)
    condition(sd_pipe, "a bird").save(file, overwrite=True)
    assert Conditioning.load(file).prompts == ("a bird",)


def test_what_is_no_conditioning_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    with pytest.raises(ResourceMissing, match=r"no conditioning at .*x\.safetensors"):
        Conditioning.load(file)
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="is not a safetensors file"):
        Conditioning.load(file)
    save_file({"prompt_embeds": torch.zeros(1)}, file)
    with pytest.raises(DataError, match="holds no conditioning; expected a file that"):
        Conditioning.load(file)


def test_shows_itself_in_a_notebook(sd_pipe: Any) -> None:
    shown = condition(sd_pipe, "a <b> fox")._repr_html_()
    assert "a &lt;b&gt; fox" in shown
    assert "prompt_embeds" in shown
    assert "1×77×" in shown
