"""`clipcond generate --regions`: pictures that carry their regions and are made again from them, and files that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from clipcond.errors import ClipCondError, OptionsError
from clipcond.images.metadata.reading import plain_prompt, read_metadata
from clipcond.rerank.picture_prompt import picture_prompt
from clipcond.workflows.events import Event, Note
from clipcond.workflows.generate import GenerateOptions, run
from clipcond.workflows.prompt_options import PromptOptions
from clipcond.workflows.regions_file import read_regions


@pytest.fixture
def file(tmp_path: Path) -> Path:
    mask = Image.new("L", (300, 200))
    mask.paste(255, (0, 0, 150, 200))
    mask.save(tmp_path / "left.png")
    regions = [
        {"prompt": "a (red:1.3) circle", "cell": "top left", "feather": 0.2},
        {"prompt": "a [blue:green:0.5] star", "mask": "left.png", "weight": 0.8},
    ]
    (tmp_path / "regions.json").write_text(
        json.dumps({"prompt": "snow", "negative_prompt": "grey", "regions": regions}), encoding="utf-8"
    )
    return tmp_path / "regions.json"


def test_a_picture_is_made_again_from_what_it_carries(file: Path, sd_folder: Path, tmp_path: Path) -> None:
    notes: list[Event] = []
    first = run(
        GenerateOptions(
            out=tmp_path / "a", regions=file, pipeline=str(sd_folder), count=2, steps=3, seed=4,
            prompt=PromptOptions(dialect="a1111"),
        )
    )  # fmt: skip
    assert (first[0].prompt, first[0].negative_prompt) == ("snow", "grey")
    (tmp_path / "left.png").unlink()  # the picture carries the mask
    again = run(
        GenerateOptions(out=tmp_path / "b", infotext=str(first[1].path), pipeline=str(sd_folder), count=1), notes.append
    )
    assert again[0].path.read_bytes() == first[1].path.read_bytes()
    assert not any("Regions" in each.text for each in notes if isinstance(each, Note))
    plain = run(
        GenerateOptions(
            out=tmp_path / "c", prompt=PromptOptions(prompt="snow", negative_prompt="grey", dialect="a1111"),
            pipeline=str(sd_folder), count=1, steps=3, seed=5,
        )
    )  # fmt: skip
    with Image.open(plain[0].path) as without, Image.open(first[1].path) as with_regions:
        assert without.tobytes() != with_regions.tobytes()


def test_rerank_reads_the_prompts_of_regions_too(file: Path, sd_folder: Path, tmp_path: Path) -> None:
    (picture,) = run(
        GenerateOptions(
            out=tmp_path / "a", regions=file, pipeline=str(sd_folder), count=1, steps=2,
            prompt=PromptOptions(dialect="a1111"),
        )
    )  # fmt: skip
    with Image.open(picture.path) as image:
        infotext = read_metadata(image).infotext
        found = picture_prompt(picture.path, image, decoded=False)
        assert found is not None
    assert infotext is not None
    assert plain_prompt(infotext) == "snow, a red circle, a blue star"
    assert (found.text, found.negative) == ("snow, a red circle, a blue star", "grey")


def test_a_prompt_on_the_command_line_wins_over_the_file_s(file: Path, sd_folder: Path, tmp_path: Path) -> None:
    (picture,) = run(
        GenerateOptions(
            out=tmp_path / "a", regions=file, pipeline=str(sd_folder), count=1, steps=2,
            prompt=PromptOptions(prompt="a fox", negative_prompt="", dialect="a1111"),
        )
    )  # fmt: skip
    assert (picture.prompt, picture.negative_prompt) == ("a fox", "")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{oops", "is no JSON"),
        ("[]", "expected"),
        ('{"regions": 3}', "expected"),
        ('{"regions": [{"prompt": "a", "cell": "center"}], "model": 1}', "'model'"),
        ('{"regions": [{"prompt": "a", "cell": "center"}], "prompt": 1}', "prompt is no text"),
        ('[{"prompt": "a", "cell": "center", "size": 1}]', "region 1 has 'size'"),
        ('[{"prompt": "a", "box": [0, 0, 2, 2]}]', "not in the picture"),
        ('[{"prompt": "a", "mask": "nowhere.png"}]', "nowhere.png"),
    ],
)
def test_files_that_hold_no_regions(content: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "regions.json").write_text(content, encoding="utf-8")
    with pytest.raises(ClipCondError, match=says) as caught:
        read_regions(tmp_path / "regions.json")
    assert "\n" not in str(caught.value)


def test_options_that_do_not_go_with_regions(tmp_path: Path) -> None:
    for more in ({"stock": True}, {"expand": True}, {"conditioning": tmp_path}):
        with pytest.raises(OptionsError, match="--regions FILE does not go with"):
            GenerateOptions(out=tmp_path, regions=tmp_path, prompt=PromptOptions(prompt="a"), **more)  # type: ignore[arg-type]
