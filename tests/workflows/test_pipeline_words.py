"""Words of a prompt that a pipeline has never seen, read from its files alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from clipcond.cli import main
from clipcond.errors import ModelError
from clipcond.prompt.plan import plan
from clipcond.prompt.tokenizer import token_ids
from clipcond.workflows.pipeline_words import read_pipeline_words


def pipeline(folder: Path, name: str, *known: str, width: int = 4) -> Path:
    """A folder as diffusers writes it, with a token table for each set of words and no other weights."""
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": name}), encoding="utf-8")
    for number, words in enumerate(known):
        part = folder / ("text_encoder" if not number else "text_encoder_2")
        part.mkdir()
        table = np.zeros((49408, width), np.float16)
        table[token_ids(words)] = 1
        save_file({"text_model.embeddings.token_embedding.weight": table}, part / "model.safetensors")
        (part / "config.json").write_text(json.dumps({"hidden_size": width}), encoding="utf-8")
    return folder


def test_a_word_is_unseen_where_no_encoder_knows_it(tmp_path: Path) -> None:
    found = read_pipeline_words(str(pipeline(tmp_path / "xl", "StableDiffusionXLPipeline", "red fox", "snow")))
    assert found.family == "sdxl"
    assert found.unseen(plan("a red fox, snow and rain", family="sdxl")) == ("a", "and", "rain")


@pytest.mark.parametrize(
    ("name", "width", "family"),
    [
        ("StableDiffusionPipeline", 768, "sd15"),
        ("StableDiffusionImg2ImgPipeline", 1024, "sd2"),
        ("FluxPipeline", 768, "flux"),
    ],
)
def test_the_family_is_that_of_the_class(tmp_path: Path, name: str, width: int, family: str) -> None:
    assert read_pipeline_words(str(pipeline(tmp_path / "p", name, "fox", width=width))).family == family


def test_tokens_names_them_with_no_model_library(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokens", "a red circle and a zebra", "--pipeline", "mini", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["unseen_words"] == ["zebra"]
    assert shown.err == "note: mini has never seen the word zebra; it reads nothing there\n"
    script = (
        "import sys; from clipcond.cli import main; main(['tokens', 'a zebra', '--pipeline', 'mini']);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pipeline", "nothing"], "no pipeline 'nothing'"),
        (["--pipeline", "a/b"], "a/b is a hub id; --pipeline of tokens takes mini"),
        (["--pipeline", "mini", "--family", "sdxl"], "--pipeline says the family; leave out --family sdxl"),
    ],
)
def test_what_will_not_do_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokens", "a fox", *arguments]) in (2, 3)
    assert message in capsys.readouterr().err.splitlines()[0]


def test_a_folder_without_a_table_or_of_another_family_is_one_line(tmp_path: Path) -> None:
    other = pipeline(tmp_path / "other", "WanPipeline", "fox")
    with pytest.raises(ModelError, match="is a WanPipeline; tokens knows the families sd15"):
        read_pipeline_words(str(other))
    empty = pipeline(tmp_path / "empty", "StableDiffusionPipeline", "fox")
    (empty / "text_encoder" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="holds no token table in safetensors"):
        read_pipeline_words(str(empty))
