"""Textual inversions that clipcond loads itself, beside the same ones loaded into the pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from clipcond.condition.cache import Cache
from clipcond.diffusion.conditioner import Conditioner
from clipcond.encode.inversion import Inversion, load_inversion
from clipcond.errors import ModelError, ResourceMissing
from clipcond.prompt.chunking import POLICIES

LONG = "a red fox in the snow, " * 11
WIDTHS = {"sd15": {"clip_l": 32}, "sd2": {"clip_h": 32}, "sdxl": {"clip_l": 24, "clip_g": 40}}


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) / 2


def owl(family: str, count: int = 3) -> Inversion:
    return Inversion(name="<owl>", vectors={name: some(count, width) for name, width in WIDTHS[family].items()})


def loaded(pipe: Any, inversion: Inversion) -> Any:
    """The pipeline with the inversion in its tokenizers and encoders, as diffusers puts it there."""
    for number, rows in zip(("", "_2"), inversion.vectors.values(), strict=False):
        pipe.load_textual_inversion(
            {inversion.name: rows},
            token=inversion.name,
            tokenizer=getattr(pipe, f"tokenizer{number}"),
            text_encoder=getattr(pipe, f"text_encoder{number}"),
        )
    return pipe


def close(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", WIDTHS)
def test_states_and_pooled_vectors_are_those_of_a_pipeline_that_has_it(
    family: str, pipes: Callable[[str], Any], fresh: Callable[[str], Any]
) -> None:
    own = Conditioner.from_pipeline(pipes(family), embeddings=owl(family))
    theirs = Conditioner.from_pipeline(loaded(fresh(family), owl(family)))
    prompts = ["a fox in <owl>", f"{LONG}<owl> and <OWL>, snow", "(<owl>:1.3) [a (fox:0.5)]"]
    for chunking in POLICIES:
        for weighting in ("a1111", "compel"):
            options = {"dialect": "a1111", "chunking": chunking, "weighting": weighting}
            ours, other = (make(prompts, "<owl>", **options) for make in (own, theirs))
            assert ours.tensors.keys() == other.tensors.keys()
            for name, tensor in ours.tensors.items():
                close(tensor, other.tensors[name])


def test_a_short_prompt_is_what_the_pipeline_s_own_call_makes(
    pipes: Callable[[str], Any], fresh: Callable[[str], Any]
) -> None:
    out = Conditioner.from_pipeline(pipes("sd15"), embeddings=[owl("sd15")])("a fox in <owl>", "grey")
    states, negative = loaded(fresh("sd15"), owl("sd15")).encode_prompt("a fox in <owl>", "cpu", 1, True, "grey")
    close(out.prompt_embeds, states)
    close(out.negative_prompt_embeds, negative)


def test_a_folder_of_files_and_one_encoder_only(pipes: Callable[[str], Any], tmp_path: Path) -> None:
    save_file({"emb_params": some(2, 24)}, tmp_path / "owl.safetensors")
    save_file({"emb_params": some(2, 1024)}, tmp_path / "other.safetensors")
    out = Conditioner.from_pipeline(pipes("sdxl"), embeddings=tmp_path)("a owl, other", dialect="a1111")
    unfit = [found.message.split(" of width")[0] for found in out.findings if found.code == "embedding-unfit"]
    assert unfit == [
        f"{name} has no vectors for clip_{it}" for name, it in (("owl", "g"), ("other", "l"), ("other", "g"))
    ]
    (inversion,) = load_inversion(tmp_path / "owl.safetensors", widths={24: "clip_l"})
    again = Conditioner.from_pipeline(pipes("sdxl"), embeddings=inversion)("a owl, other", dialect="a1111")
    close(out.prompt_embeds, again.prompt_embeds)
    plain = Conditioner.from_pipeline(pipes("sdxl"))("a owl, other", dialect="a1111")
    close(out.prompt_embeds[..., 24:], plain.prompt_embeds[..., 24:])
    assert not torch.allclose(out.prompt_embeds[..., :24], plain.prompt_embeds[..., :24], atol=1e-3)


def test_a_file_for_another_model_is_refused_with_both_widths(pipes: Callable[[str], Any], tmp_path: Path) -> None:
    save_file({"emb_params": some(2, 1024)}, tmp_path / "sd2.safetensors")
    with pytest.raises(ModelError, match=r"'sd2' has vectors of 1024 \(clip_h\) numbers, expected 32 \(clip_l\)"):
        Conditioner.from_pipeline(pipes("sd15"), embeddings=tmp_path / "sd2.safetensors")
    with pytest.raises(ResourceMissing, match="nowhere: no such folder or file; give textual inversions"):
        Conditioner.from_pipeline(pipes("sd15"), embeddings=tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    save_file({"emb_params": some(2, 768)}, tmp_path / "folder" / "sd1.safetensors")
    with pytest.raises(
        ModelError, match=r"'sd1' of .*sd1\.safetensors has vectors of 768 numbers for clip_l, .* 32 wide"
    ):
        Conditioner.from_pipeline(pipes("sd15"), embeddings=tmp_path / "folder")


def test_the_cache_tells_vectors_of_one_name_apart(pipes: Callable[[str], Any]) -> None:
    cache, pipe = Cache(), pipes("sd15")
    first, second = (
        Conditioner.from_pipeline(
            pipe, cache=cache, embeddings=Inversion(name="owl", vectors={"clip_l": some(1, 32, seed=seed)})
        )("an owl").prompt_embeds
        for seed in (1, 2)
    )
    assert not torch.allclose(first, second, atol=1e-3)
