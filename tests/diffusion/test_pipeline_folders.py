"""Pipeline folders that lack weights, claim too much or would run code: each ends in one line, and nothing runs."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import clipcond
from clipcond.diffusion import components
from clipcond.diffusion.pipeline_index import parse_index
from clipcond.diffusion.pipelines import load_pipeline
from clipcond.errors import ModelError

Pipes = Callable[[str], Any]
TEXT, UNET, VAE = (
    f"{name}/{file}.safetensors"
    for name, file in (
        ("text_encoder", "model"),
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
    )
)
ROOMS = ("diffusion", "condition")


@pytest.fixture
def folder(sd_folder: Path, tmp_path: Path) -> Path:
    """A Stable Diffusion folder that a test may change."""
    return shutil.copytree(sd_folder, tmp_path / "sd")


@pytest.fixture(scope="module")
def saved(pipes: Pipes, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A saved pipeline of a family."""

    def save(family: str, **options: Any) -> Path:
        folder = tmp_path_factory.mktemp(family)
        pipes(family).save_pretrained(folder, **options)
        return folder

    return save


def rewritten(file: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor] | None]) -> None:
    weights = load_file(file)
    save_file(change(weights) or weights, file, metadata={"format": "pt"})


def refused(folder: Path, match: str) -> str:
    with pytest.raises(ModelError, match=match) as caught:
        load_pipeline(folder, device="cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def states(part: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value for name, value in part.state_dict().items() if not name.endswith("position_ids")}


# ── weights ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("file", [TEXT, UNET, VAE])
def test_weights_under_a_foreign_prefix_are_not_replaced_by_random_ones(folder: Path, file: str) -> None:
    rewritten(folder / file, lambda weights: {f"foreign.{name}": value for name, value in weights.items()})
    message = refused(folder, rf"{file.partition('/')[0]} of .*sd lacks .*weights in all\); it has foreign\..* instead")
    assert "would be random: load another copy" in message


@pytest.mark.parametrize("file", [TEXT, UNET, VAE])
def test_one_missing_weight_is_not_made_up(folder: Path, file: str) -> None:
    rewritten(folder / file, lambda weights: {name: weights[name] for name in sorted(weights)[1:]})
    refused(folder, rf"{file.partition('/')[0]} of .*sd lacks \S+ \(1 weight in all\); its numbers would be random")


@pytest.mark.parametrize(("family", "part"), [("sd3", "text_encoder_3"), ("flux", "text_encoder_2")])
def test_one_missing_weight_of_t5_is_not_made_up(family: str, part: str, saved: Callable[..., Path]) -> None:
    folder = saved(family)
    lost = "encoder.block.1.layer.1.DenseReluDense.wo.weight"
    rewritten(
        folder / part / "model.safetensors",
        lambda weights: {name: value for name, value in weights.items() if name != lost},
    )
    refused(folder, rf"{part} of .* lacks {lost} \(1 weight in all\)")


@pytest.mark.parametrize(
    ("family", "part"), [("sd3", "transformer"), ("flux", "transformer"), ("sdxl", "text_encoder_2")]
)
def test_one_missing_weight_of_other_families_is_not_made_up(
    family: str, part: str, saved: Callable[..., Path]
) -> None:
    folder = saved(family)
    (file,) = (folder / part).glob("*.safetensors")
    rewritten(file, lambda weights: {name: weights[name] for name in sorted(weights)[:-1]})
    refused(folder, rf"{part} of .* lacks \S+ \(1 weight in all\)")


@pytest.mark.parametrize("file", [TEXT, UNET])
def test_a_weight_of_another_shape_is_refused(folder: Path, file: str) -> None:
    def widen(weights: dict[str, torch.Tensor]) -> None:
        name = next(name for name in sorted(weights) if weights[name].ndim == 2)
        weights[name] = torch.cat([weights[name], weights[name]])

    rewritten(folder / file, widen)
    refused(folder, f"{file.partition('/')[0]}|could not be loaded from the folder")


def test_unknown_weights_are_noted_once(folder: Path) -> None:
    lora = {"mid_block.attentions.0.to_q.lora_A.weight": torch.zeros(1), "mid_block.to_q.lora_B.weight": torch.zeros(1)}
    rewritten(folder / UNET, lambda weights: {**weights, **lora})
    notes: list[str] = []
    load_pipeline(folder, device="cpu", on_note=lambda note: notes.append(str(note)))
    (note,) = notes
    assert "unet of" in note
    assert "also holds mid_block.attentions.0.to_q.lora_A.weight (2 weights in all), which a UNet2DCondition" in note
    with pytest.warns(UserWarning, match=r"also holds mid_block\."):
        load_pipeline(folder, device="cpu")


def test_position_ids_of_old_versions_are_no_note(folder: Path) -> None:
    ids = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    rewritten(folder / TEXT, lambda weights: {**weights, **ids})
    load_pipeline(folder, device="cpu", on_note=pytest.fail)


@pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl", "refiner", "sd3", "flux"])
@pytest.mark.parametrize(
    "options", [{}, {"variant": "fp16"}, {"safe_serialization": False}, {"max_shard_size": "20KB"}], ids=str
)
def test_whole_folders_of_every_family_keep_loading(
    family: str, options: dict[str, Any], saved: Callable[..., Path], pipes: Pipes
) -> None:
    if "max_shard_size" in options and family not in ("sd15", "flux"):
        pytest.skip("shards are read alike in all families")
    loaded = load_pipeline(saved(family, **options), device="cpu", on_note=pytest.fail)
    assert type(loaded) is type(pipes(family))
    for name, part in pipes(family).components.items():
        if isinstance(part, torch.nn.Module):
            ours = states(loaded.components[name])
            assert ours.keys() == states(part).keys()
            assert all(torch.equal(ours[key], value) for key, value in states(part).items())


def test_a_folder_of_half_precision_files_keeps_loading_where_one_part_has_both(
    saved: Callable[..., Path], pipes: Pipes
) -> None:
    folder = saved("flux", variant="fp16")
    pipes("flux").vae.save_pretrained(folder / "vae")
    assert load_pipeline(folder, device="cpu", dtype=torch.bfloat16).transformer.dtype == torch.bfloat16


def test_a_safety_checker_is_loaded_and_one_that_lacks_weights_refused(folder: Path) -> None:
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = CLIPConfig(text_config=small, vision_config={**small, "image_size": 8, "patch_size": 4}, projection_dim=8)
    StableDiffusionSafetyChecker(config).save_pretrained(folder / "safety_checker")
    CLIPImageProcessor().save_pretrained(folder / "feature_extractor")
    changed_index(folder, "safety_checker", ["stable_diffusion", "StableDiffusionSafetyChecker"])
    changed_index(folder, "feature_extractor", ["transformers", "CLIPImageProcessor"])
    pipe = load_pipeline(folder, device="cpu")
    assert type(pipe.safety_checker) is StableDiffusionSafetyChecker
    assert type(pipe.feature_extractor).__name__.startswith("CLIPImageProcessor")
    rewritten(
        folder / "safety_checker" / "model.safetensors",
        lambda weights: {name: value for name, value in weights.items() if name != "special_care_embeds"},
    )
    refused(folder, "safety_checker of .* lacks special_care_embeds")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("file", [TEXT, UNET, VAE])
def test_one_number_that_is_not_finite_is_refused_by_its_tensor(folder: Path, file: str, value: float) -> None:
    def spoil(weights: dict[str, torch.Tensor]) -> None:
        weights[sorted(weights)[0]].view(-1)[0] = value

    rewritten(folder / file, spoil)
    refused(folder, rf"{file.partition('/')[0]} holds values that are not finite: \S+ \(1 in all\)")


# ── sizes that a config claims ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("part", "changes", "reason"),
    [
        ("text_encoder", {"num_hidden_layers": 10_000_000}, "num_hidden_layers 10000000; expected at most"),
        ("unet", {"layers_per_block": 10_000_000}, "of .* blocks; expected at most 8,192"),
        (
            "unet",
            {"transformer_layers_per_block": [900, 900], "layers_per_block": 900},
            "blocks; expected at most 8,192",
        ),
        ("unet", {"block_out_channels": [16] * 20_000}, "blocks; expected at most 8,192"),
        ("unet", {"cross_attention_dim": 10_000_000}, "describes [0-9,]+ weights, but its files hold"),
        ("text_encoder", {"vocab_size": 10_000_000}, "describes [0-9,]+ weights, but its files hold"),
        ("vae", {"latent_channels": 1 << 40}, "latent_channels 1099511627776; expected at most"),
        ("vae", {"block_out_channels": "many"}, "describes no AutoencoderKL that can be built"),
    ],
)
def test_a_config_that_claims_too_much_is_refused_before_memory_is_taken(
    folder: Path, part: str, changes: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder / part / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    load = components._load

    def never(kind: Any, place: Path, dtype: torch.dtype) -> Any:
        assert place.name != part, "loaded all the same"
        return load(kind, place, dtype)

    monkeypatch.setattr(components, "_load", never)
    refused(folder, reason)


def test_a_model_beyond_the_machine_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "machine_memory", lambda: 1000)
    refused(folder, r"describes a model of .* GiB, more than the 0\.0 GiB of this machine")


def test_a_deep_index_is_one_line(folder: Path) -> None:
    (folder / "model_index.json").write_text("[" * 100_000)
    refused(folder, r"model_index\.json is not JSON that can be read: it is nested too deeply")


# ── code ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

_CODE = """from pathlib import Path
Path({marker!r}).touch()
from diffusers import StableDiffusionPipeline
from transformers import CLIPTextModel, CLIPTokenizer, CLIPImageProcessor
class Pipe(StableDiffusionPipeline): pass
class Text(CLIPTextModel): pass
class Words(CLIPTokenizer): pass
class Pictures(CLIPImageProcessor): pass
"""


def changed_index(folder: Path, name: str, value: Any) -> None:
    file = folder / "model_index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), name: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("unet", ["this", "x"]),
        ("unet", ["antigravity", "x"]),
        ("unet", ["code", "Text"]),
        ("unet", ["diffusers", "AutoModel"]),
        ("unet", ["diffusers", "StableDiffusionPipeline"]),
        ("unet", ["diffusers", "FluxPipeline"]),
        ("unet", ["diffusers.utils", "UNet2DConditionModel"]),
        ("unet", ["text_encoder.code", "Text"]),
        ("text_encoder", ["transformers", "AutoModel"]),
        ("tokenizer", ["transformers", "AutoTokenizer"]),
        ("tokenizer", ["transformers", "pipeline"]),
        ("tokenizer", ["transformers", "os"]),
        ("unet", ["diffusers", "UNet2DConditionModel", "more"]),
        ("unet", ["diffusers"]),
        ("../../other", ["diffusers", "UNet2DConditionModel"]),
        ("_class_name", ["code", "Pipe"]),
        ("_class_name", "AutoPipelineForText2Image"),
        ("_class_name", None),
        ("_class_name", "os"),
    ],
)
def test_only_listed_classes_are_imported(folder: Path, tmp_path: Path, name: str, value: Any) -> None:
    marker = tmp_path / "it ran"
    (folder / "code.py").write_text(_CODE.format(marker=str(marker)))
    changed_index(folder, name, value)
    loaded = set(sys.modules)
    refused(
        folder,
        r"which is not on clipcond's list of classes|names the pipeline class .*; expected one of diffusers' own",
    )
    assert not {"this", "antigravity", "code"} & (set(sys.modules) - loaded)
    assert not marker.exists()


def test_names_of_an_index_do_not_steer_the_terminal() -> None:
    with pytest.raises(ModelError) as caught:
        parse_index("model_index.json", {"_class_name": "FluxPipeline", "unet\x1b[31m": ["\x1b[2J\n", "x"]})
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_code_in_a_pipeline_folder_never_runs_though_the_terminal_says_yes(folder: Path, tmp_path: Path) -> None:
    """`auto_map` in every config, code beside each: the folder loads without it, or ends in one line."""
    marker = tmp_path / "it ran"
    classes = {
        "AutoConfig": "code.Text",
        "AutoModel": "code.Text",
        "AutoTokenizer": ["code.Words", "code.Words"],
        "AutoImageProcessor": "code.Pictures",
    }
    for place in (folder, *(path for path in folder.iterdir() if path.is_dir())):
        (place / "code.py").write_text(_CODE.format(marker=str(marker)))
        for file in place.glob("*config.json"):
            file.write_text(json.dumps({**json.loads(file.read_text()), "auto_map": classes}))
    (folder / "tokenizer" / "config.json").write_text(json.dumps({"model_type": "of-its-own", "auto_map": classes}))
    tokenizer = folder / "tokenizer" / "tokenizer_config.json"
    tokenizer.write_text(json.dumps({**json.loads(tokenizer.read_text()), "tokenizer_class": None}))
    script = f"""
from clipcond.errors import ModelError
from clipcond.diffusion.pipelines import load_pipeline
try:
    load_pipeline({str(folder)!r}, device="cpu")
except ModelError as error:
    assert chr(10) not in str(error), error
print("done")
"""
    run = subprocess.run([sys.executable, "-c", script], input="y\n" * 50, capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout) == (0, "done\n"), run.stderr
    assert "[y/N]" not in run.stderr
    assert not marker.exists()


def test_every_call_of_from_pretrained_refuses_remote_code() -> None:
    calls = 0
    for room in ROOMS:
        for path in (Path(clipcond.__file__).parent / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("from_pretrained", "download"):
                    calls += 1
                    stated = {keyword.arg: keyword.value for keyword in node.keywords}
                    said = stated.get("trust_remote_code")
                    assert isinstance(said, ast.Constant), f"{path}:{node.lineno}"
                    assert said.value is False, f"{path}:{node.lineno}"
    assert calls >= 4
