"""Both text encoders of a tiny SDXL pipeline: trained, brought into a copy of it, and drawn with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import clipcond
from clipcond.cli import main
from clipcond.errors import ConfigError, ModelError, OptionsError
from clipcond.train.loop import TrainResult
from clipcond.workflows import train_pair
from clipcond.workflows.train import TrainOptions
from clipcond.workflows.train_pair import run


@pytest.fixture(scope="module")
def sdxl_folder(tmp_path_factory: pytest.TempPathFactory, sd_folder: Path) -> Path:
    """A tiny SDXL pipeline on disk: encoders of width 16 and 24, 16×16 pictures."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    def clip(kind: Any, width: int, act: str, eos: int) -> Any:
        return kind(
            CLIPTextConfig(
                hidden_size=width, intermediate_size=4 * width, num_hidden_layers=2, num_attention_heads=2,
                projection_dim=width, hidden_act=act, eos_token_id=eos,
            )
        )  # fmt: skip

    folder = tmp_path_factory.mktemp("pipelines") / "sdxl"
    words = sd_folder / "tokenizer"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        StableDiffusionXLPipeline(
            text_encoder=clip(CLIPTextModel, 16, "quick_gelu", 49407),
            tokenizer=CLIPTokenizer.from_pretrained(words),
            text_encoder_2=clip(CLIPTextModelWithProjection, 24, "gelu", 49407),
            tokenizer_2=CLIPTokenizer.from_pretrained(words, pad_token="!"),
            unet=UNet2DConditionModel(
                sample_size=8, block_out_channels=(16, 16), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), layers_per_block=1, cross_attention_dim=40,
                attention_head_dim=8, norm_num_groups=8, addition_embed_type="text_time", addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=8 * 6 + 24,
            ),
            vae=AutoencoderKL(
                block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4,
            ),
            scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
            add_watermarker=False,
        ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def dual(tmp_path_factory: pytest.TempPathFactory, dual_folder: Path) -> Callable[[int, bool], Path]:
    """An open_clip folder whose text tower has a width, with the vector that a pipeline's encoder of it gives."""

    def make(width: int, quick: bool) -> Path:
        import open_clip

        folder = tmp_path_factory.mktemp("duals") / str(width)
        folder.mkdir()
        config = json.loads((dual_folder / "open_clip_config.json").read_text())
        config["model_cfg"] |= {"embed_dim": width, "quick_gelu": quick}
        config["model_cfg"]["text_cfg"]["width"] = width
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            model = open_clip.CLIP(**config["model_cfg"])
        save_file({n: v.contiguous() for n, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
        return folder

    return make


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    from PIL import Image

    rows = ["image,caption,caption_2"]
    for number, colour in enumerate(("red", "green", "blue", "black")):
        Image.new("RGB", (16, 16), colour).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{colour},a picture in {colour}")
    (tmp_path / "pairs.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "pairs.csv"


def test_both_encoders_from_pairs_to_a_picture(
    sdxl_folder: Path,
    dual: Callable[[int, bool], Path],
    pairs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second, out = dual(16, True), dual(24, False), tmp_path / "run"
    given = [
        "train", "--data", str(pairs), "--model", str(first), "--model-2", str(second), "--target", "sdxl", "--encoder",
        "both", "--pipeline", str(sdxl_folder), "--denoise-weight", "1", "--denoise-batch", "2", "--out", str(out), "--steps",
        "2", "--batch-size", "4", "--warmup", "1", "--learning-rate", "1e-3", "--lock-image", "--threads", "1",
    ]  # fmt: skip
    assert main([*given, "--json"]) == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert document["model"] == str(out)
    assert document["text_encoder"]["steps"] == document["text_encoder_2"]["steps"] == 2
    assert "text_encoder_2 trains now" in said.err
    assert "sdxl-g trains on caption_2 of the data" in said.err
    lines = [json.loads(line) for line in (out / "text_encoder_2" / "log.jsonl").read_text().splitlines()]
    assert set(next(line for line in lines if "loss" in line)["terms"]) == {"contrastive", "denoising"}
    _new_first_beside_the_second(out, sdxl_folder)
    trained = load_file(out / "text_encoder_2" / "model" / "open_clip_model.safetensors")
    assert main([*given, "--json"]) == 0, "the same command finds both done"
    again = load_file(out / "text_encoder_2" / "model" / "open_clip_model.safetensors")
    assert all(torch.equal(again[name], value) for name, value in trained.items())

    into = ["export", str(out), "--to", "diffusers", "--into", str(sdxl_folder)]
    assert main([*into, "--out", str(tmp_path / "new")]) == 0
    for number, run_name in (("", "text_encoder"), ("_2", "text_encoder_2")):
        new = load_file(tmp_path / "new" / f"text_encoder{number}" / "model.safetensors")
        trained = load_file(out / run_name / "model" / "open_clip_model.safetensors")
        table = next(value for name, value in new.items() if name.endswith("token_embedding.weight"))
        assert torch.equal(table, trained["token_embedding.weight"])
    drawn = [
        "generate", "red", "--prompt-2", "a picture in red", "--pipeline", str(tmp_path / "new"), "-n", "1", "--steps", "2",
        "--out", str(tmp_path / "made"),
    ]  # fmt: skip
    capsys.readouterr()
    assert main(drawn) == 0
    line = json.loads(capsys.readouterr().out)
    assert (line["prompt"], line["prompt_2"], "prompt_3" in line) == ("red", "a picture in red", False)
    assert len(list((tmp_path / "made").glob("*.png"))) == 1
    assert main(["drift", "--before", str(sdxl_folder), "--after", str(out), "--target", "sdxl", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["encoders"]) == ["clip_l", "clip_g"]
    with pytest.raises(OptionsError, match="holds two encoders: say --to diffusers --into PIPELINE for both, or"):
        clipcond.export(str(out), to="transformers", out=tmp_path / "one")
    assert clipcond.export(str(out), to="transformers", out=tmp_path / "one", encoder="clip_g").layers == 2


def _new_first_beside_the_second(out: Path, pipeline: Path) -> None:
    beside = load_file(out / "beside" / "text_encoder" / "model.safetensors")
    before = load_file(pipeline / "text_encoder" / "model.safetensors")
    assert not any(
        torch.equal(value, beside.get(name, torch.zeros(0))) for name, value in before.items() if value.ndim > 1
    )
    same = [folder / "text_encoder_2" / "model.safetensors" for folder in (out / "beside", pipeline)]
    assert same[0].samefile(same[1])


def test_what_cannot_be_is_told_before_the_first_step(
    sdxl_folder: Path, dual: Callable[[int, bool], Path], pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def options(**more: object) -> TrainOptions:
        given = {
            "data": str(pairs), "model": str(dual(16, True)), "model_2": str(dual(24, False)), "target": "sdxl",
            "encoder": "both", "out": str(tmp_path / "run"), "steps": 1, "batch_size": 2, **more,
        }  # fmt: skip
        return TrainOptions(settings=given)

    with pytest.raises(ModelError, match="mini is no pipeline's folder; expected one, of which a copy gets the first"):
        run(options(pipeline="mini", denoise_weight=1.0))
    with pytest.raises(ModelError, match="nowhere"):
        run(options(model_2=str(tmp_path / "nowhere")))
    with pytest.raises(ConfigError, match="is two runs"):
        options().train_config()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="trains in one process"):
        run(options())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("stopped", [1, 2])
def test_a_signal_to_either_run_exits_with_130(
    stopped: int, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[object] = []

    def train(options: TrainOptions, events: object) -> TrainResult:
        seen.append(options.settings["target"])
        ended = len(seen) == stopped
        return TrainResult(steps=7, loss=1.0, retrieval=None, model=None if ended else Path("m"), interrupted=ended)

    monkeypatch.setattr(train_pair, "train", train)
    given = ["train", "--data", str(pairs), "--model", "mini", "--model-2", "mini", "--target", "sdxl"]
    assert main([*given, "--encoder", "both", "--out", str(tmp_path / "run")]) == 130
    assert seen == ["sdxl-l", "sdxl-g"][:stopped]
    part = "text_encoder" if stopped == 1 else "text_encoder_2"
    assert f"stopped at step 7 of {part}; the same command goes on from there" in capsys.readouterr().err
