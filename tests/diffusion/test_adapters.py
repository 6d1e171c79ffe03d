"""`<lora:…>` tags: found, loaded once, set to their weights; cloneofsimo's files; every refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from clipcond.diffusion import cloneofsimo
from clipcond.diffusion.adapters import (
    active_adapters,
    adapters_of,
    check_adapters_finite,
    find,
    load_adapters,
    merge,
)
from clipcond.diffusion.conditioner import Conditioner
from clipcond.diffusion.generate import generate
from clipcond.errors import ConfigError, DataError, ModelError, ResourceMissing
from clipcond.prompt.items import Adapter
from clipcond.prompt.plan import plan

pytest.importorskip("peft", reason="diffusers loads adapters through peft")

REAL = Path(__file__).parents[3] / "shared" / "data" / "adapters"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real adapters (../shared/data/adapters) are not here")
LAYERS = {
    "unet": "mid_block.attentions.0.transformer_blocks.0.attn2.to_k",
    "text_encoder": "encoder.layers.0.self_attn.q_proj",
}


def tags(prompt: str) -> tuple[Adapter, ...]:
    return plan(prompt, dialect="a1111").adapters


def linear(pipe: Any, part: str) -> torch.nn.Linear:
    model = getattr(pipe, part)
    found = getattr(model, "text_model", model).get_submodule(LAYERS[part])
    assert isinstance(found, torch.nn.Linear)
    return found


def write(path: Path, pipe: Any, *parts: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """A LoRA of rank 2 in diffusers' own format; gives the change of each layer's weights."""
    generator, weights, change = torch.Generator().manual_seed(seed), {}, {}
    for part in parts:
        layer = linear(pipe, part)
        down = torch.randn(2, layer.in_features, generator=generator)
        up = torch.randn(layer.out_features, 2, generator=generator)
        name = f"{part}.{'text_model.' if part == 'text_encoder' else ''}{LAYERS[part]}"
        weights |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
        change[part] = up @ down
    save_file(weights, path)
    return change


@torch.no_grad()
def effect(pipe: Any, part: str) -> torch.Tensor:
    """The effect of a layer beyond its own weights, as a matrix."""
    model = getattr(pipe, part)
    layer = getattr(model, "text_model", model).get_submodule(LAYERS[part])
    base = getattr(layer, "base_layer", layer)
    eye = torch.eye(base.in_features)
    return (layer(eye) - base(eye)).T


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-4)


def test_a_tag_changes_the_pipeline_by_its_weight(fresh: Callable[[str], Any], tmp_path: Path) -> None:
    pipe = fresh("sd15")
    ink = write(tmp_path / "ink pen.safetensors", pipe, "unet", "text_encoder")
    (tmp_path / "more").mkdir()
    fur = write(tmp_path / "more" / "fur.v2.safetensors", pipe, "unet", seed=1)
    names = load_adapters(pipe, tags("a fox <lora:ink pen:0.5>"), tmp_path)
    for part in ("unet", "text_encoder"):
        assert same(effect(pipe, part), 0.5 * ink[part])
    again = load_adapters(pipe, tags("a <lora:ink pen:-0.25> <lora:fur.v2>"), tmp_path)
    assert again[0] == names[0]
    assert same(effect(pipe, "unet"), -0.25 * ink["unet"] + fur["unet"])
    assert same(effect(pipe, "text_encoder"), -0.25 * ink["text_encoder"])
    load_adapters(pipe, tags("<lora:ink pen:0.8:0.1>"), tmp_path)
    assert same(effect(pipe, "text_encoder"), 0.8 * ink["text_encoder"])
    assert same(effect(pipe, "unet"), 0.1 * ink["unet"])
    assert load_adapters(pipe, tags("a fox"), tmp_path) == ()
    assert same(effect(pipe, "unet"), torch.zeros_like(ink["unet"]))
    load_adapters(pipe, tags("<lora:fur.v2:2>"), tmp_path)
    assert same(effect(pipe, "unet"), 2 * fur["unet"])
    assert same(effect(pipe, "text_encoder"), torch.zeros_like(ink["text_encoder"]))


def test_a_file_is_loaded_once(fresh: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, loads = fresh("sd15"), []
    write(tmp_path / "ink.safetensors", pipe, "unet")
    load = pipe.load_lora_weights
    monkeypatch.setattr(pipe, "load_lora_weights", lambda *args, **more: (loads.append(more), load(*args, **more)))
    for weight in (0.5, 0.5, 1):
        load_adapters(pipe, tags(f"<lora:ink:{weight}> <lora:ink:{weight}>"), tmp_path)
    assert len(loads) == 1
    changed = write(tmp_path / "ink.safetensors", pipe_like(pipe), "unet", seed=3)
    load_adapters(pipe, tags("<lora:ink:1>"), tmp_path)
    assert len(loads) == 2
    assert same(effect(pipe, "unet"), changed["unet"])


def pipe_like(pipe: Any) -> Any:
    """A pipeline whose layers can be looked up by their plain names."""

    class Plain:
        unet = type(pipe.unet).from_config(pipe.unet.config)

    return Plain()


def test_the_conditioner_sees_what_the_text_encoder_has(fresh: Callable[[str], Any], tmp_path: Path) -> None:
    from clipcond.condition.cache import Cache

    pipe = fresh("sd15")
    write(tmp_path / "ink.safetensors", pipe, "text_encoder")
    make, prompt = Conditioner.from_pipeline(pipe, cache=Cache()), "a fox <lora:ink:0.8>"
    before = make(prompt, dialect="a1111")
    assert torch.equal(before.prompt_embeds, make("a fox ", dialect="a1111").prompt_embeds)
    load_adapters(pipe, adapters_of(before), tmp_path)
    after = make(prompt, dialect="a1111")
    assert not torch.allclose(before.prompt_embeds, after.prompt_embeds, atol=1e-3)
    theirs, _ = pipe.encode_prompt("a fox", "cpu", 1, False)
    assert same(after.prompt_embeds, theirs)
    load_adapters(pipe, (), tmp_path)
    assert torch.allclose(make(prompt, dialect="a1111").prompt_embeds, before.prompt_embeds, atol=1e-5)


def test_sdxl_has_two_text_encoders(fresh: Callable[[str], Any], tmp_path: Path) -> None:
    pipe = fresh("sdxl")
    name = "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj"
    save_file(
        {f"{name}.lora_A.weight": torch.randn(1, 40), f"{name}.lora_B.weight": torch.randn(40, 1)},
        tmp_path / "g.safetensors",
    )
    make = Conditioner.from_pipeline(pipe)
    before = make("a fox").prompt_embeds
    load_adapters(pipe, tags("<lora:g>"), tmp_path)
    after = make("a fox").prompt_embeds
    assert torch.allclose(before[..., :24], after[..., :24], atol=1e-6)
    assert not torch.allclose(before[..., 24:], after[..., 24:], atol=1e-3)


def test_a_batch_has_one_weight(pipes: Callable[[str], Any]) -> None:
    make = Conditioner.from_pipeline(pipes("sd15"))
    out = make(["a <lora:x:0.5>", "b <lora:x:.5>"], "<lora:y>", dialect="a1111")
    assert [(each.name, each.weight) for each in adapters_of(out)] == [("x", 0.5), ("y", 1.0)]
    assert adapters_of(make("a", dialect="a1111")) == ()
    with pytest.raises(
        ConfigError, match=r"'x' has weight 0.5 in prompt 0 and weight 0.5 and 1 in prompt 1; a batch has one"
    ):
        adapters_of(make(["a <lora:x:0.5>", "b <lora:x:.5:1>"], dialect="a1111"))
    with pytest.raises(ConfigError, match=r"'x' has weight 0.5 in prompt 0 and no tag in prompt 1"):
        adapters_of(make(["a <lora:x:0.5>", "b"], dialect="a1111"))
    with pytest.raises(ConfigError, match=r"'x' has weight 0.5 and weight 0.6 in one prompt; give it one"):
        merge(tags("<lora:x:0.5> <lora:x:0.6>"))


def test_names_and_folders(tmp_path: Path) -> None:
    with pytest.raises(ResourceMissing, match=r"no adapter 'disney' in .*; there is none at all"):
        find("disney", tmp_path)
    (tmp_path / "Disney_v1.pt").touch()
    with pytest.raises(ResourceMissing, match=r"no adapter 'disny' in .*; the nearest is 'Disney_v1'"):
        find("disny", tmp_path)
    (tmp_path / "Disney_v1.safetensors").touch()
    assert find("Disney_v1", tmp_path) == (tmp_path / "Disney_v1.safetensors",)
    with pytest.raises(ResourceMissing, match=r"nowhere: no such folder; give the one that the adapter 'x' is in"):
        find("x", tmp_path / "nowhere")
    with pytest.raises(ResourceMissing, match=r"no adapter '../Disney_v1'"):
        find("../Disney_v1", tmp_path / "..")


def test_what_cannot_be_loaded(fresh: Callable[[str], Any], pipes: Callable[[str], Any], tmp_path: Path) -> None:
    pipe = fresh("sd15")
    with pytest.raises(ConfigError, match="adapter 'x' is a hypernet, expected one of lora, lyco"):
        load_adapters(pipe, tags("<hypernet:x:1>"), tmp_path)
    with pytest.raises(ModelError, match=r"SimpleNamespace loads no LoRA \(it has no load_lora_weights\)"):
        load_adapters(SimpleNamespace(), tags("<lora:x>"), tmp_path)
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"junk\.safetensors cannot be loaded as a LoRA"):
        load_adapters(pipe, tags("<lora:junk>"), tmp_path)
    torch.save("words", tmp_path / "words.pt")
    with pytest.raises(DataError, match=r"words\.pt cannot be loaded as a LoRA: a str, expected named tensors"):
        load_adapters(pipe, tags("<lora:words>"), tmp_path)
    save_file({"some.weight": torch.ones(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(
        DataError, match=r"other\.safetensors cannot be loaded into this StableDiffusionPipeline: Invalid LoRA"
    ):
        load_adapters(pipe, tags("<lora:other>"), tmp_path)
    name = "transformer.x.lora_A.weight"
    save_file({name: torch.ones(2, 2), name.replace("_A", "_B"): torch.ones(2, 2)}, tmp_path / "dit.safetensors")
    with pytest.raises(DataError, match=r"dit\.safetensors holds nothing for this StableDiffusionPipeline"):
        load_adapters(pipe, tags("<lora:dit>"), tmp_path)
    flat = [torch.ones(7, 1), torch.ones(1, 7)]
    torch.save(flat, tmp_path / "flat.pt")
    with pytest.raises(
        DataError, match=r"flat\.pt cannot be .*: 1 pairs of matrices, the first \(7, 7\), which are not those"
    ):
        load_adapters(pipe, tags("<lora:flat>"), tmp_path)


def test_a_file_that_fits_one_part_only_leaves_nothing_behind(fresh: Callable[[str], Any], tmp_path: Path) -> None:
    pipe = fresh("sd15")
    write(tmp_path / "half.safetensors", pipe, "unet")
    weights = load_file(tmp_path / "half.safetensors")
    name = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    weights |= {f"{name}.lora_A.weight": torch.ones(2, 7), f"{name}.lora_B.weight": torch.ones(7, 2)}
    save_file(weights, tmp_path / "half.safetensors")
    for _ in range(2):  # the second time as the first: it does not count as loaded
        with pytest.raises(DataError, match=r"half\.safetensors cannot be loaded into this StableDiffusionPipeline"):
            load_adapters(pipe, tags("<lora:half>"), tmp_path)
        assert not any(pipe.get_list_adapters().values())


def in_order(pipe: Any, ff: bool) -> dict[str, list[str]]:
    """The layers in cloneofsimo's order, written down for the tiny pipeline by hand."""
    attentions = ("down_blocks.1.attentions.0", "up_blocks.0.attentions.0", "up_blocks.0.attentions.1")
    blocks = [f"{place}.transformer_blocks.0" for place in (*attentions, "mid_block.attentions.0")]
    names = [f"attn1.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")]
    names += ["ff.net.0.proj"] * ff
    names += [f"attn2.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")]
    return {
        "unet": [f"{block}.{name}" for block in blocks for name in names],
        "text_encoder": [
            f"encoder.layers.{layer}.self_attn.{name}"
            for layer in range(3)
            for name in ("k_proj", "v_proj", "q_proj", "out_proj")
        ],
    }


@pytest.mark.parametrize("ff", [False, True])
@pytest.mark.parametrize("form", ["safetensors", "pt"])
def test_cloneofsimo_s_files(ff: bool, form: str, fresh: Callable[[str], Any], tmp_path: Path) -> None:
    pipe, generator = fresh("sd15"), torch.Generator().manual_seed(0)
    change: dict[str, torch.Tensor] = {}
    matrices: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    for part, names in in_order(pipe, ff).items():
        model = getattr(pipe, part)
        matrices[part] = []
        for name in names:
            layer = getattr(model, "text_model", model).get_submodule(name)
            up, down = (
                torch.randn(layer.out_features, 1, generator=generator),
                torch.randn(1, layer.in_features, generator=generator),
            )
            matrices[part].append((up, down))
            change[f"{part} {name}"] = up @ down
    if form == "pt":
        torch.save([each for pair in matrices["unet"] for each in pair], tmp_path / "old.pt")
        torch.save([each for pair in matrices["text_encoder"] for each in pair], tmp_path / "old.text_encoder.pt")
    else:
        named = {
            f"{part}:{at}:{kind}": tensor
            for part, pairs in matrices.items()
            for at, pair in enumerate(pairs)
            for kind, tensor in zip(("up", "down"), pair, strict=True)
        }
        save_file({**named, "<s1>": torch.ones(32)}, tmp_path / "old.safetensors")
    load_adapters(pipe, tags("<lora:old:0.5>"), tmp_path)
    for place, expected in change.items():
        part, name = place.split()
        model = getattr(pipe, part)
        layer = getattr(model, "text_model", model).get_submodule(name)
        eye = torch.eye(layer.base_layer.in_features)
        with torch.no_grad():
            assert same((layer(eye) - layer.base_layer(eye)).T, 0.5 * expected), place


def clip_of(width: int, layers: int) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 64}
    return CLIPTextModel(CLIPTextConfig(**sizes, num_hidden_layers=layers))


@needs_real
def test_the_real_file_of_cloneofsimo_fits_stable_diffusion_1() -> None:
    with torch.device("meta"):

        class Pipe:
            unet = diffusers.UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
            text_encoder = clip_of(768, 12)

    stored = load_file(REAL / "lora_disney.safetensors")
    pairs = cloneofsimo.pairs_of(stored)
    assert pairs is not None
    weights = cloneofsimo.convert(pairs, Pipe())
    assert len(weights) == 2 * (144 + 48)
    place = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"
    assert torch.equal(weights[f"{place}.lora_B.weight"], stored["unet:143:up"])
    assert torch.equal(
        weights["text_encoder.text_model.encoder.layers.11.self_attn.q_proj.lora_A.weight"],
        stored["text_encoder:46:down"],
    )


@needs_real
def test_the_real_file_of_a_text_encoder_is_stable_diffusion_2_s(pipes: Callable[[str], Any]) -> None:
    with torch.device("meta"):

        class Pipe:
            text_encoder = clip_of(1024, 23)

    (path,) = find("t2i-compbench-color", REAL)
    pairs = cloneofsimo.pairs_of(cloneofsimo.load_document(path))
    assert pairs is not None
    assert len(cloneofsimo.convert(pairs, Pipe())) == 2 * 23 * 4
    with pytest.raises(
        DataError, match=r"92 pairs of matrices, the first \(1024, 1024\), which are not those of any part"
    ):
        cloneofsimo.convert(pairs, pipes("sd15"))


# ── adapters that nobody loaded ──────────────────────────────────────────────────────────────────────────────────────


def test_a_tag_that_nobody_loaded_is_a_finding_and_not_silence(fresh: Callable[[str], Any], tmp_path: Path) -> None:
    pipe = fresh("sd15")
    write(tmp_path / "ink pen.safetensors", pipe, "unet")
    write(tmp_path / "fur.safetensors", pipe, "unet", seed=1)
    prompt, negative = "a fox <lora:ink pen:0.5> <lora:fur> <lora:ink pen:0.5>", "grey <lora:fur>"
    out = Conditioner.from_pipeline(pipe)(prompt, negative, dialect="a1111")
    first, second = [each for each in out.findings if each.code == "adapter-not-loaded"]
    assert (first.argument, prompt[first.start : first.end]) == ("prompt", "<lora:ink pen:0.5>")
    assert (second.argument, negative[second.start : second.end]) == ("negative_prompt", "<lora:fur>")
    assert first.message == (
        "ink pen, fur: taken out of the text and not loaded; load_adapters(pipe, adapters_of(out), FOLDER) does that, "
        "then condition again"
    )
    load_adapters(pipe, adapters_of(out), tmp_path)
    assert codes(Conditioner.from_pipeline(pipe)(prompt, negative, dialect="a1111")) == []
    pipe.disable_lora()
    assert codes(Conditioner.from_pipeline(pipe)(prompt, negative, dialect="a1111")) == ["adapter-not-loaded"] * 2


def codes(out: Any) -> list[str]:
    return [each.code for each in out.findings]


def test_an_adapter_that_the_user_loaded_by_its_name_is_no_finding(fresh: Callable[[str], Any], tmp_path: Path) -> None:
    pipe = fresh("sd15")
    write(tmp_path / "ink.safetensors", pipe, "unet", "text_encoder")
    pipe.load_lora_weights(tmp_path, weight_name="ink.safetensors", adapter_name="ink")
    assert codes(Conditioner.from_pipeline(pipe)("a fox <lora:ink>", dialect="a1111")) == []
    assert codes(Conditioner.from_pipeline(pipe)("a fox <lora:inky>", dialect="a1111")) == ["adapter-not-loaded"]


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
def test_other_families_and_schedules_and_parts_find_it_too(pipes: Callable[[str], Any], family: str) -> None:
    conditioner = Conditioner.from_pipeline(pipes(family))
    assert codes(conditioner("a fox <lora:ink>", dialect="a1111")) == ["adapter-not-loaded"]
    scheduled = conditioner("a [red:blue:0.5] fox <lora:ink>", dialect="a1111", steps=4)
    assert codes(scheduled).count("adapter-not-loaded") == 1
    if family != "flux":
        assert codes(conditioner.compose("a fox <lora:ink> AND a cat")).count("adapter-not-loaded") == 1


def test_a_negative_prompt_without_a_side_of_its_own_finds_it_too(pipes: Callable[[str], Any]) -> None:
    out = Conditioner.from_pipeline(pipes("sd15"))(["a fox", "a <lora:ink> cat"], "", dialect="a1111")
    assert [(each.code, each.index) for each in out.findings] == [("adapter-not-loaded", 1)]


# ── numbers and sizes ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_number_that_is_not_finite_is_refused_by_its_tensor(
    fresh: Callable[[str], Any], tmp_path: Path, suffix: str, value: float
) -> None:
    pipe = fresh("sd15")
    write(tmp_path / "ink.safetensors", pipe, "unet")
    weights = load_file(tmp_path / "ink.safetensors")
    name = sorted(weights)[0]
    weights[name][1, 1] = value
    (tmp_path / "ink.safetensors").unlink()
    save_file(weights, tmp_path / f"ink{suffix}") if suffix != ".pt" else torch.save(weights, tmp_path / "ink.pt")
    with pytest.raises(DataError, match=rf"tensor {name} has a number that is not finite \(NaN or infinity\)"):
        load_adapters(pipe, tags("<lora:ink>"), tmp_path)
    assert active_adapters(pipe) == frozenset()


def test_a_small_file_cannot_claim_a_large_rank(fresh: Callable[[str], Any], tmp_path: Path) -> None:
    layer = f"unet.{LAYERS['unet']}"
    one = torch.zeros(1)
    claims = {
        f"{layer}.lora_A.weight": one.expand(4_000_000, 32),
        f"{layer}.lora_B.weight": one.expand(32, 4_000_000),
    }
    torch.save(claims, tmp_path / "ink.pt")
    assert (tmp_path / "ink.pt").stat().st_size < 4000
    with pytest.raises(
        DataError, match=r"claim 1,024,000,000 bytes where the file has .* the largest is unet\.mid_block"
    ):
        load_adapters(fresh("sd15"), tags("<lora:ink>"), tmp_path)
    storage = torch.zeros(1000)
    torch.save([storage.view(10, 100)] * 400, tmp_path / "fur.pt")
    with pytest.raises(DataError, match="its tensors claim 1,600,000 bytes where the file has"):
        load_adapters(fresh("sd15"), tags("<lora:fur>"), tmp_path)


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused(weight: float) -> None:
    adapter = Adapter(kind="lora", name="ink", weight=weight, start=0, end=0)
    with pytest.raises(ConfigError, match=r"adapter 'ink' has weight (nan|inf), expected a finite one"):
        merge([adapter])


def test_an_adapter_of_the_pipeline_that_is_not_finite_is_named(fresh: Callable[[str], Any], tmp_path: Path) -> None:
    pipe = fresh("sd15")
    write(tmp_path / "ink.safetensors", pipe, "unet", "text_encoder")
    weights = load_file(tmp_path / "ink.safetensors")
    for value in weights.values():
        value[0, 0] = float("nan")
    pipe.load_lora_weights(weights, adapter_name="ink")
    with pytest.raises(
        ModelError, match=r"text_encoder of StableDiffusionPipeline holds values that are not finite: .*lora_A"
    ):
        Conditioner.from_pipeline(pipe)("a fox")
    with pytest.raises(
        ModelError, match=r"adapter 'ink' has a number that is not finite \(NaN or infinity\) in unet\..*lora_A"
    ):
        generate(pipe, "a fox", through="stock")
    pipe.disable_lora()
    check_adapters_finite(pipe)


def test_a_textual_inversion_of_the_pipeline_that_is_not_finite_is_named(fresh: Callable[[str], Any]) -> None:
    pipe = fresh("sd15")
    vector = torch.zeros(32)
    vector[3] = float("inf")
    pipe.load_textual_inversion({"<ink>": vector}, token="<ink>")
    conditioner = Conditioner.from_pipeline(pipe)
    conditioner("a fox")
    with pytest.raises(
        ModelError, match=r"holds <ink>, whose vectors in text_encoder have a number that is not finite"
    ):
        conditioner("an <ink> fox")
