"""Beside `encode_prompt` with the published tokenizers, and with CLIP-L and CLIP-G at their full size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipcond.diffusion.conditioner import Conditioner

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no published tokenizers at {DATA}")
FAMILIES = ("sd15", "sdxl", "refiner", "sd3", "flux")
ODD = [
    "wow!!! a cat!?!! and don't, should've",
    "ü¡ 日本 🦊\n\n tab\t",
    "  two  blanks ",
    "<extra_id_5> is text to nobody",
    "portrait, 8k, (((masterpiece))), [bad] {x} #tag @home 50% 1/2",
]


def close(a: torch.Tensor, b: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


def prompts(pipe: Any) -> list[str]:
    """Real prompts within every limit of the pipeline, and odd ones."""
    lines = (DATA / "prompts" / "diffusiondb-466.txt").read_text("utf-8").split("\n")
    numbers = ("", "_2", "_3")
    tokenizers = [each for number in numbers if (each := getattr(pipe, f"tokenizer{number}", None)) is not None]
    short = [line for line in lines[:60] if all(len(each(line).input_ids) <= 77 for each in tokenizers)]
    assert len(short) > 20
    return short + ODD


@pytest.fixture(scope="module")
def published(build_pipeline: Callable[..., Any]) -> Callable[[str], Any]:
    """Tiny pipelines around the published tokenizers."""
    from transformers import CLIPTokenizer, T5TokenizerFast

    made: dict[str, Any] = {}

    def get(family: str) -> Any:
        if family not in made:
            folder = DATA / "tokenizers" / {"refiner": "sdxl"}.get(family, family)
            first = CLIPTokenizer.from_pretrained(folder / "tokenizer")
            second = CLIPTokenizer.from_pretrained(
                DATA / "tokenizers" / ("sd3" if family == "sd3" else "sdxl") / "tokenizer_2"
            )
            last = folder / ("tokenizer_3" if family == "sd3" else "tokenizer_2")
            t5 = T5TokenizerFast.from_pretrained(
                last if (last / "spiece.model").is_file() else DATA / "tokenizers/sd3/tokenizer_3"
            )
            made[family] = build_pipeline(family, (first, second), t5)
        return made[family]

    return get


@needs_data
@pytest.mark.parametrize("family", FAMILIES)
def test_real_prompts_equal_the_pipelines_own(
    published: Callable[[str], Any], family: str, stock: Callable[..., Any]
) -> None:
    pipe = published(family)
    texts = prompts(pipe)
    if family in ("sd3", "flux"):
        texts = [text for text in texts if "extra_id" not in text]  # a special token to the pipeline, text to clipcond
    out = Conditioner.from_pipeline(pipe)(texts, "blurry, grey!").kwargs
    theirs = stock(pipe, texts, ["blurry, grey!"] * len(texts))
    assert out.keys() == theirs.keys()
    for name, tensor in theirs.items():
        close(out[name], tensor)


@needs_data
@pytest.mark.property
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=30).filter(lambda text: "|>" not in text and "<" not in text and "\\ud" not in ascii(text)))
def test_any_short_text_equals_the_pipelines_own(
    published: Callable[[str], Any], stock: Callable[..., Any], text: str
) -> None:
    for family in ("sdxl", "flux"):
        pipe = published(family)
        out = Conditioner.from_pipeline(pipe)(text).kwargs
        if family == "flux" or out["prompt_embeds"].shape[1] == 77:
            theirs = stock(pipe, text)
            close(out["pooled_prompt_embeds"], theirs["pooled_prompt_embeds"])
            close(out["prompt_embeds"], theirs["prompt_embeds"])


CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
          "hidden_act": "quick_gelu", "projection_dim": 768}  # fmt: skip
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
          "hidden_act": "gelu", "projection_dim": 1280}  # fmt: skip


def full_size(kind: str, config: dict[str, Any]) -> Any:
    """A text model of that size, filled cheaply; eos_token_id is 2, as in the published configs."""
    import transformers

    with torch.device("meta"):
        model = getattr(transformers, kind)(
            transformers.CLIPTextConfig(**config, bos_token_id=0, eos_token_id=2, pad_token_id=1)
        )
    model = model.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
            else:
                weight.uniform_(-0.03, 0.03, generator=generator)
        for module in model.modules():
            if hasattr(module, "position_ids"):
                module.position_ids = torch.arange(77)[None]
    return model


@pytest.mark.slow
def test_full_size_encoders_equal_the_pipelines_own(fresh: Callable[[str], Any], stock: Callable[..., Any]) -> None:
    pipe = fresh("sdxl")
    pipe.text_encoder = full_size("CLIPTextModel", CLIP_L)
    pipe.text_encoder_2 = full_size("CLIPTextModelWithProjection", CLIP_G)
    text = "a red fox in the snow, soft light, " * 7
    out = Conditioner.from_pipeline(pipe)(text, "blurry")
    assert out.prompt_embeds.shape == (1, 77, 2048)
    for name, tensor in stock(pipe, text, "blurry").items():
        close(out.kwargs[name], tensor)
