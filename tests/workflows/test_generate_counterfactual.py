"""`clipcond generate --weighting counterfactual` and `--replace`: pictures, what is written in them, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clipcond.errors import ConfigError, OptionsError
from clipcond.prompt.infotext import parse_infotext
from clipcond.workflows.encode import EncodeOptions
from clipcond.workflows.events import Advanced, Event, Note, Started
from clipcond.workflows.explain import ExplainOptions
from clipcond.workflows.generate import GenerateOptions, WrittenPicture, run
from clipcond.workflows.prompt_options import PromptOptions


def draw(folder: Path, out: Path, **more: Any) -> tuple[tuple[WrittenPicture, ...], list[Event]]:
    events: list[Event] = []
    return run(
        GenerateOptions(out=out, pipeline=str(folder), **({"count": 2, "steps": 3} | more)), events.append
    ), events


def pixels(pictures: tuple[WrittenPicture, ...]) -> list[bytes]:
    found = []
    for picture in pictures:
        with Image.open(picture.path) as image:
            found.append(image.tobytes())
    return found


def counterfactual(prompt: str) -> PromptOptions:
    return PromptOptions(prompt=prompt, dialect="a1111", weighting="counterfactual")


def test_weights_act_and_can_be_drawn_again_from_the_picture(sd_folder: Path, tmp_path: Path) -> None:
    pictures, events = draw(sd_folder, tmp_path / "a", prompt=counterfactual("a (red:0) fox"), batch_size=1)
    plain, _ = draw(sd_folder, tmp_path / "b", prompt=PromptOptions(prompt="a red fox"))
    assert not set(pixels(pictures)) & set(pixels(plain))
    assert Started("generating", 2 * 2 * 3, "steps") in events
    assert sum(event.count for event in events if isinstance(event, Advanced)) == 12
    again, _ = draw(
        sd_folder, tmp_path / "c", infotext=str(pictures[1].path), prompt=PromptOptions(), count=1, steps=None
    )
    assert pixels(again) == pixels(pictures)[1:]


def test_without_a_weight_it_is_the_plain_picture_and_a_note(sd_folder: Path, tmp_path: Path) -> None:
    pictures, events = draw(sd_folder, tmp_path / "a", prompt=counterfactual("a red fox"))
    plain, _ = draw(sd_folder, tmp_path / "b", prompt=PromptOptions(prompt="a red fox"))
    assert pixels(pictures) == pixels(plain)
    told = [event.text for event in events if isinstance(event, Note)]
    assert told == ["--weighting counterfactual: no phrase has a weight, so that the picture is the one without"]


def test_a_replacement_is_in_the_picture_s_own_prompt(sd_folder: Path, tmp_path: Path) -> None:
    options = {"prompt": PromptOptions(prompt="a Red fox, snow"), "replace": ("red fox = blue bird",)}
    pictures, _ = draw(sd_folder, tmp_path / "a", **options)
    assert [picture.prompt for picture in pictures] == ["a blue bird, snow"] * 2
    with Image.open(pictures[0].path) as image:
        infotext = parse_infotext(image.info["parameters"])
    assert infotext.prompt == "a blue bird, snow"
    assert infotext.settings["Replaced"] == "red fox=blue bird"
    plain, _ = draw(sd_folder, tmp_path / "b", prompt=PromptOptions(prompt="a Red fox, snow"))
    anew, _ = draw(sd_folder, tmp_path / "c", prompt=PromptOptions(prompt="a blue bird, snow"))
    assert len({pixels(each)[0] for each in (pictures, plain, anew)}) == 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"replace": ("fox",)}, "--replace 'fox': expected OLD=NEW, as in --replace 'red circle=blue star'"),
        ({"replace": ("fox=",)}, "expected OLD=NEW"),
        ({"replace": ("fox=owl",), "stock": True}, "--replace changes the PROMPT, which --stock does not have"),
        ({"replace": ("fox=owl",), "prompt": counterfactual("fox")}, "leave out --weighting counterfactual"),
    ],
)
def test_options_that_do_not_fit(more: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match=message):
        GenerateOptions(**({"out": tmp_path, "prompt": PromptOptions(prompt="a fox")} | more))


def test_a_phrase_that_is_not_there_is_said_before_the_pipeline_is_loaded(sd_folder: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    options = GenerateOptions(
        out=tmp_path / "a", pipeline=str(sd_folder), prompt=PromptOptions(prompt="a fox"), replace=("wolf=owl",)
    )
    with pytest.raises(ConfigError, match="the prompt has no “wolf” in it; there is “a fox”"):
        run(options, events.append)
    assert not any(isinstance(event, Started) for event in events)


def test_what_draws_nothing_sends_to_generate() -> None:
    message = "--weighting counterfactual acts while a picture is drawn; it is for clipcond generate"
    with pytest.raises(OptionsError, match=message):
        EncodeOptions(prompt=counterfactual("a fox"), out=Path("x"))
    with pytest.raises(OptionsError, match=message):
        ExplainOptions(target="a fox", prompt=PromptOptions(weighting="counterfactual"))
