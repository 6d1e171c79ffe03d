"""The job of `clipcond encode`, without its command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clipcond.diffusion.conditioning import Conditioning
from clipcond.errors import ConfigError, OptionsError, OutputExists, ResourceMissing
from clipcond.workflows.encode import EncodeOptions, run
from clipcond.workflows.events import Event, Note
from clipcond.workflows.prompt_options import PromptOptions


def options(out: Path, model: Path, *, steps: int | None = None, **prompt: Any) -> EncodeOptions:
    return EncodeOptions(out=out, model=str(model), steps=steps, prompt=PromptOptions(**prompt))


def test_the_file_and_the_result_are_one(sd_folder: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    file = tmp_path / "fox.safetensors"
    encoded = run(options(file, sd_folder, prompt="a (red:1.3) fox", dialect="auto"), events.append)
    assert events[0] == Note("dialect a1111: (red:1.3) is A1111 syntax")
    assert (encoded.prompt.dialect, encoded.to_json()["dialect"]) == ("a1111", "a1111")
    assert Conditioning.load(file).prompts == encoded.conditioning.prompts


def test_findings_are_notes_with_their_text(sd_folder: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    given = options(tmp_path / "x", sd_folder, prompt="(a:1.3) (b:1.3)", dialect="compel")
    run(given, events.append)
    note = next(event for event in events if isinstance(event, Note))
    assert note.text.startswith("prompt: ")
    assert note.text.endswith(" (2 times)")


def test_the_file_is_looked_at_first(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")
    with pytest.raises(OutputExists, match="there is there already; choose another name with --out, or --overwrite"):
        run(options(tmp_path / "there", tmp_path / "none", prompt="x"))
    with pytest.raises(ResourceMissing, match=r"there is no folder .*nowhere for x; make it"):
        run(options(tmp_path / "nowhere" / "x", tmp_path / "none", prompt="x"))


def test_prompts_that_no_file_holds(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a file holds no AND"):
        run(options(tmp_path / "x", tmp_path, prompt="a", negative_prompt="a AND b", dialect="a1111"))
    with pytest.raises(OptionsError, match="the prompt changes over the steps: say --steps N"):
        run(options(tmp_path / "x", tmp_path, prompt="a [red:blue:0.5] fox", dialect="a1111"))
    with pytest.raises(OptionsError, match="give a PROMPT"):
        options(tmp_path / "x", tmp_path)
