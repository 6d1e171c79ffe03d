"""What stands beside clipcond's embeds in a call: IP-Adapter, ControlNet, LoRA and masks, in Stable Diffusion 1 and XL."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_pipelines.assemble import build
from tiny_pipelines.calls import NEGATIVE, PROMPT
from tiny_pipelines.proofs import CLOSE, LONG_NEGATIVE, WEIGHTED, Proofs, Run, picture_difference, text_difference

SIZES = {"sd15": 32, "sdxl": 64}  # the width of the states that the U-Net reads
BASES = {"sd15": "StableDiffusion", "sdxl": "StableDiffusionXL"}
families = pytest.mark.parametrize("family", SIZES)


def same(one: Run, two: Run) -> None:
    assert text_difference(one, two) <= CLOSE
    assert picture_difference(one, two) <= CLOSE


def acts(without: Run, beside: Run) -> None:
    assert picture_difference(without, beside) > 1e-4


def adapter_weights(unet: Any, width: int) -> dict[str, Any]:
    """The weights of an IP-Adapter for embeddings of 16, four tokens a picture."""
    generator = torch.Generator().manual_seed(4)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * 0.2

    layers: dict[str, torch.Tensor] = {}
    for number, name in enumerate(unet.attn_processors):
        if name.endswith("attn2.processor"):
            for part in ("k", "v"):
                layers[f"{number}.to_{part}_ip.weight"] = random(16, width)
    project = {"proj.weight": random(4 * width, 16), "proj.bias": random(4 * width),
               "norm.weight": torch.ones(width), "norm.bias": torch.zeros(width)}  # fmt: skip
    return {"image_proj": project, "ip_adapter": layers}


@families
def test_an_ip_adapter_reads_its_picture_beside_embeds(family: str) -> None:
    pipe = build(f"{BASES[family]}Pipeline", family)
    pipe.load_ip_adapter(
        [adapter_weights(pipe.unet, SIZES[family])], subfolder=[""], weight_name=[""], image_encoder_folder=None
    )
    picture = [torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(5))]  # without and with guidance
    proofs, call = Proofs(pipe), {"ip_adapter_image_embeds": picture}
    beside = proofs.ours(call=call)
    same(proofs.own(**call), beside)
    proofs.ours(WEIGHTED, LONG_NEGATIVE, call=call)
    pipe.set_ip_adapter_scale(0.0)
    acts(proofs.ours(call=call), beside)


@families
def test_a_controlnet_reads_the_same_text_and_acts(family: str) -> None:
    proofs = Proofs(build(f"{BASES[family]}ControlNetPipeline", family))
    read: list[torch.Tensor] = []
    proofs.pipe.controlnet.register_forward_pre_hook(
        lambda _, args, given: read.append(given["encoder_hidden_states"]), with_kwargs=True
    )
    beside = proofs.ours()
    same(proofs.own(), beside)
    torch.testing.assert_close(read[0], beside.texts[0]["encoder_hidden_states"], rtol=0, atol=0)
    assert proofs.ours(WEIGHTED, LONG_NEGATIVE).positions == 154
    assert read[-1].shape[1] == 154
    acts(proofs.ours(call={"controlnet_conditioning_scale": 0.0}), beside)


def lora(module: Any, *targets: str) -> None:
    from peft import LoraConfig

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        module.add_adapter(LoraConfig(r=2, target_modules=list(targets), init_lora_weights=False))


@families
@pytest.mark.filterwarnings("ignore")  # of peft
def test_lora_in_the_denoiser_and_in_the_encoders_acts(family: str) -> None:
    pytest.importorskip("peft")
    pipe = build(f"{BASES[family]}Pipeline", family)
    plain = Proofs(pipe).ours()
    lora(pipe.unet, "to_q", "to_v")
    lora(pipe.text_encoder, "q_proj", "v_proj")
    beside = Proofs(pipe).ours()
    same(Proofs(pipe).own(), beside)
    assert text_difference(plain, beside) > 1e-3
    Proofs(pipe).ours(WEIGHTED, LONG_NEGATIVE)
    pipe.text_encoder.disable_adapters()
    half = Proofs(pipe).ours()
    assert text_difference(plain, half) <= CLOSE  # the encoder alone, and the cache of its states knows it
    acts(plain, half)


@families
def test_an_inpainting_mask_keeps_what_it_hides(family: str) -> None:
    proofs = Proofs(build(f"{BASES[family]}InpaintPipeline", family))
    beside = proofs.ours()
    same(proofs.own(PROMPT, NEGATIVE), beside)
    long = proofs.ours(WEIGHTED, LONG_NEGATIVE, call={"output_type": "latent"}).pictures
    short = proofs.ours("a bird", call={"output_type": "latent"}).pictures
    changed = (long - short).abs().amax(dim=(0, 1, 3))  # by rows of latents; the mask is the lower half
    assert changed[:4].max() < 1e-6
    assert changed[4:].min() > 1e-4
