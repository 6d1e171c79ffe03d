"""The workflow and the command of an explanation, on a tiny pipeline of random weights."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from PIL import Image

from clipcond.cli import main
from clipcond.errors import ConfigError, ImageError, OptionsError, OutputExists, ResourceMissing
from clipcond.images.write import write_picture
from clipcond.workflows.events import Event, Note
from clipcond.workflows.explain import ExplainOptions, run
from clipcond.workflows.prompt_options import PromptOptions


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture that carries the prompt `a red fox, snow`."""
    path = tmp_path / "fox.png"
    write_picture(
        Image.new("RGB", (40, 40), (200, 60, 20)), path, prompt="a red fox, snow", negative_prompt="blurry",
        settings={"Steps": 20, "CFG scale": 5, "Seed": 3, "Prompt dialect": "plain"},
    )  # fmt: skip
    return path


def test_a_picture_is_explained_by_its_own_prompt(sd_folder: Path, picture: Path) -> None:
    said: list[Event] = []
    made = run(ExplainOptions(target=str(picture), pipeline=str(sd_folder), steps=3), said.append)
    assert [(each.text, each.side) for each in made.phrases] == [
        ("a red fox", "prompt"), ("snow", "prompt"), ("blurry", "negative_prompt")
    ]  # fmt: skip
    assert made.pictures[0].image.size == (40, 40)
    assert any("an infotext: prompt, negative prompt" in each.text for each in said if isinstance(each, Note))


def test_the_command_prints_lines_json_and_files(
    sd_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, grid = tmp_path / "fox.html", tmp_path / "fox.png"
    words = ["explain", "a red fox, snow", "--pipeline", str(sd_folder), "--steps", "2", "--seed", "4"]
    assert main([*words, "--html", str(page), "--png", str(grid), "--negative", "blurry"]) == 0
    told = capsys.readouterr()
    assert "a red fox" in told.out
    assert "negative: blurry" in told.out
    assert "strength 1 is the effect of the whole prompt; steps 1, 2 of 2, 12 rows of the denoiser" in told.out
    assert f"wrote {page}" in told.err
    assert "a red fox" in page.read_text("utf-8")
    with Image.open(grid) as image:
        assert image.width > 500
    assert main([*words, "--html", str(page)]) == 3
    assert "is there already" in capsys.readouterr().err
    assert main([*words, "--by", "word", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [each["text"] for each in document["phrases"]] == ["a", "red", "fox", "snow"]
    assert len(document["pictures"][0]["cells"]) == 4
    assert document["at_steps"] == [1, 2]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["a fox", "--pipeline", "./nope"], 3, "no pipeline './nope'"),
        (
            ["a red fox, snow", "--phrases", "red, dog"],
            3,
            "the prompt has no “dog” in it; there is “a red fox”, “snow”",
        ),
        (["none.png"], 3, "none.png: no such file; give a picture that is there, or a prompt"),
        (["", "--negative", ""], 3, "the prompt has no phrase in it"),
        (["a fox", "--prompt", "a dog"], 2, "--prompt is for a PICTURE"),
        (["a fox", "--stock", "--dialect", "a1111"], 2, "leave out --dialect"),
        (["a fox", "--phrases", " , "], 2, "--phrases holds none"),
        (["a fox", "--phrases", "fox", "--by", "word"], 2, "leave one of them out"),
        (["a fox", "--html", "no/where.html"], 3, "there is no folder no"),
        (["fox.png", "-n", "2"], 2, "--count 2 is for a prompt that is drawn"),
    ],
)
def test_bad_input_is_one_line_before_a_model_is_loaded(
    words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("clipcond.workflows.explain._pipeline", never)
    start = time.process_time()
    assert main(["explain", *words]) == code
    assert time.process_time() - start < 1
    told = capsys.readouterr()
    assert told.out == ""
    lines = told.err.splitlines()
    assert lines[0].startswith("error: ")
    assert said in lines[0]
    assert len(lines) == (1 if code == 3 else 2)


def test_a_picture_without_a_prompt_says_how_to_give_one(tmp_path: Path, picture: Path) -> None:
    bare = tmp_path / "bare.png"
    Image.new("RGB", (8, 8)).save(bare)
    with pytest.raises(ImageError, match=r"carries no prompt .*; give its prompt with --prompt TEXT"):
        run(ExplainOptions(target=str(bare)))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no")
    with pytest.raises(ImageError, match=r"broken\.png"):
        run(ExplainOptions(target=str(tmp_path / "broken.png")))
    with pytest.raises(ResourceMissing, match="no such file"):
        run(ExplainOptions(target=str(tmp_path / "gone.png"), prompt=PromptOptions(prompt="a fox")))
    with pytest.raises(ConfigError, match="has no “dog” in it"):
        run(ExplainOptions(target=str(picture), phrases=("dog",)))
    with pytest.raises(OutputExists, match="is there already"):
        run(ExplainOptions(target="a fox", png=bare))
    with pytest.raises(OptionsError, match="name the same file"):
        ExplainOptions(target="a fox", png=bare, html=bare)
