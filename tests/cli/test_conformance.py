"""`clipcond conformance`: stand-ins of the documented signatures, the installed compel, and what is missing or wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clipcond.cli import main
from clipcond.workflows.conformance import ConformanceOptions, run
from clipcond.workflows.conformance_cases import CASES, words

# each encodes as a stock pipeline does, which reads weights as text, cuts at 75 tokens, and here refuses an empty prompt
SD_EMBED = """
def get_weighted_text_embeddings_sd15(pipe, prompt="", neg_prompt="", pad_last_block=False, clip_skip=0):
    assert pad_last_block
    if not prompt:
        raise ValueError("no prompt\\x1b[31m, and a second line\\nthat nobody needs")
    states = pipe.encode_prompt(prompt, "cpu", 1, True, negative_prompt=neg_prompt)
    if "wow" in prompt:
        return [each * float("nan") for each in states]
    return [each[0] for each in states] if "artgerm" in prompt else states
"""
LPW = """
def get_weighted_text_embeddings(
    pipe, prompt, uncond_prompt=None, max_embeddings_multiples=3, no_boseos_middle=False, skip_parsing=False,
    skip_weighting=False,
):
    return pipe.encode_prompt([prompt], "cpu", 1, True, negative_prompt=[uncond_prompt])
"""


@pytest.fixture
def stand_ins(tmp_path: Path) -> Iterator[Path]:
    """A folder with a module for each tool that is not installed here."""
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith(("sd_embed", "lpw_stable"))}
    (tmp_path / "sd_embed").mkdir()
    (tmp_path / "sd_embed" / "__init__.py").write_text("", encoding="utf-8")
    (tmp_path / "sd_embed" / "embedding_funcs.py").write_text(SD_EMBED, encoding="utf-8")
    (tmp_path / "lpw_stable_diffusion.py").write_text(LPW, encoding="utf-8")
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith(("sd_embed", "lpw_stable"))]:
        del sys.modules[name]
    sys.modules.update(before)


@pytest.mark.parametrize("tool", ["sd_embed", "lpw"])
def test_each_verdict_of_a_stand_in(tool: str, stand_ins: Path) -> None:
    found = run(ConformanceOptions(tool, stand_ins))
    outcomes = {each.case: each for each in found.outcomes}
    assert set(outcomes) == {case.name for case in CASES if case.a1111 is not None}
    assert str(stand_ins.resolve()) not in sys.path
    for same in ("plain", "negative empty", "unicode", "75 tokens"):
        assert outcomes[same].verdict == "same", outcomes[same]
        assert outcomes[same].difference < 1e-4
    weighted = outcomes["weight up"]
    assert weighted.verdict == "differs"
    first = {"sd_embed": (2, "red"), "lpw": (0, "BOS")}[tool]  # A1111 brings the mean back, which moves every position
    assert (weighted.first.side, weighted.first.chunk, weighted.first.position, weighted.first.token) == (
        "prompt",
        0,
        *first,
    )
    long = outcomes["76 tokens"]
    assert (long.verdict, long.lengths) == ("differs", (77, 154))
    if tool == "sd_embed":
        assert outcomes["both empty"].verdict == "cannot"
        assert outcomes["both empty"].message.startswith("ValueError: no prompt")
        assert "\x1b" not in outcomes["both empty"].message
        assert outcomes["exclamation marks"].message == "gives numbers that are not finite"
        shapes = "gives tensors of shape (77, 32), (77, 32), expected two of (1, positions, 32)"
        assert outcomes["word over the border"].message == shapes
    else:
        assert outcomes["both empty"].verdict == "same"


def test_the_command_for_people_and_for_programs(stand_ins: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", "--tool", "sd_embed", "--path", str(stand_ins), "--fail-on-difference"]) == 1
    said = capsys.readouterr()
    assert "cannot   both empty" in said.out
    assert said.out.splitlines()[-1].endswith(" 3 cannot")
    assert said.err.startswith("sd_embed (no version) beside dialect a1111, weighting sd_embed")
    assert main(["conformance", "--tool", "sd_embed", "--path", str(stand_ins), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["same"] + document["differs"] + document["cannot"] == len(document["cases"])
    assert document["cases"][0]["verdict"] == "same"


def test_compel_is_the_same_but_where_it_is_known_to_differ() -> None:
    pytest.importorskip("compel")
    known = {"punctuation in brackets": "differs", "empty group": "cannot", "end token typed": "differs"}
    wanted = {*known, "weight up", "nested, up in down", "three chunks, negative of one", "weighted inversion", "blend"}
    found = run(ConformanceOptions("compel"), [case for case in CASES if case.name in wanted])
    verdicts = {each.case: each.verdict for each in found.outcomes}
    assert verdicts == {name: known.get(name, "same") for name in wanted}


@pytest.mark.parametrize(
    ("tool", "said"),
    [("sd_embed", "pip install git+https://github.com/xhinker/sd_embed.git"), ("lpw", "lpw_stable_diffusion.py of")],
)
def test_a_tool_that_is_not_there_is_one_line_that_says_how_to_get_it(
    tool: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("sd_embed", "lpw_stable_diffusion"):
        monkeypatch.setitem(sys.modules, module, None)
    assert main(["conformance", "--tool", tool]) == 3
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tool} is not there: ")
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import of_nobody_at_all", "lpw needs of_nobody_at_all, which is not installed"),
        ("from diffusers.loaders import NoSuchMixin", "lpw cannot be used here: ImportError: cannot import name"),
        ("1 / 0", "lpw cannot be used here: ZeroDivisionError: division by zero"),
    ],
)
def test_a_tool_that_does_not_import(
    source: str, said: str, stand_ins: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (stand_ins / "lpw_stable_diffusion.py").write_text(source, encoding="utf-8")
    assert main(["conformance", "--tool", "lpw", "--path", str(stand_ins)]) == 3
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tool", "webui"], "--tool is 'webui', expected one of compel, sd_embed, lpw, or a function of your own"),
        (
            ["--tool", "lpw", "--dialect", "comfy"],
            "--dialect is of a function of your own; lpw has its own, leave it out",
        ),
        (["--tool", "my:encode", "--dialect", "webui"], "--dialect is 'webui', expected one of plain, a1111, comfy"),
        (["--tool", "lpw", "--path", "no/such"], "--path is no/such, which is no folder"),
    ],
)
def test_wrong_usage(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", *options]) == 2
    assert said in capsys.readouterr().err


OWN = """
def encode(pipe, prompt, negative):
    return pipe.encode_prompt(prompt, "cpu", 1, True, negative_prompt=negative)
"""


def test_a_function_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own_encoder.py").write_text(OWN, encoding="utf-8")
    options = ["conformance", "--tool", "own_encoder:encode", "--path", str(tmp_path)]
    assert main([*options, "--dialect", "plain", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["tool"], found["dialect"], found["weighting"], found["chunking"]) == (
        "own_encoder:encode", "plain", "none", "hard",
    )  # fmt: skip
    verdicts = {each["case"]: each["verdict"] for each in found["cases"]}
    assert [verdicts[name] for name in ("plain", "weight up", "77 tokens")] == ["same", "same", "differs"]
    assert main([*options, "--weighting", "comfi"]) == 3
    assert "unknown weighting 'comfi'; did you mean 'comfy'?" in capsys.readouterr().err
    assert main(["conformance", "--tool", "own_encoder:decode", "--path", str(tmp_path)]) == 3
    assert "own_encoder:decode cannot be used here: AttributeError" in capsys.readouterr().err
    assert main(["conformance", "--tool", "of_nobody:encode"]) == 3
    assert "write encode(pipe, prompt, negative) in of_nobody.py, and give its folder" in capsys.readouterr().err


def test_the_words_of_the_cases_are_a_token_each() -> None:
    from clipcond.prompt.tokenizer import token_ids

    assert [len(token_ids(words(count))) for count in (1, 9, 75, 150)] == [1, 9, 75, 150]
