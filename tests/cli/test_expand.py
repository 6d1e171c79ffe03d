"""`clipcond expand`."""

from __future__ import annotations

import json

import pytest

from clipcond.cli import main


def test_all_combinations_are_a_prompt_per_line(capsys) -> None:
    assert main(["expand", "a {red|blue} {fox|cat}", "--all"]) == 0
    assert capsys.readouterr() == ("a red fox\na red cat\na blue fox\na blue cat\n", "")


def test_prompt_i_is_the_one_of_seed_plus_i(capsys) -> None:
    assert main(["expand", "{a|b|c|d|e|f} fox", "-n", "5", "--seed", "3"]) == 0
    several = capsys.readouterr().out.splitlines()
    alone = []
    for seed in range(3, 8):
        main(["expand", "{a|b|c|d|e|f} fox", "--seed", str(seed)])
        alone += capsys.readouterr().out.splitlines()
    assert several == alone
    assert len(set(several)) > 1


def test_lists_of_a_folder_and_warnings(tmp_path, capsys) -> None:
    (tmp_path / "mine.txt").write_text("scarlet\n")
    assert main(["expand", "a __mine__ __nope__ fox", "--wildcards", str(tmp_path)]) == 0
    seen = capsys.readouterr()
    assert seen.out == "a scarlet __nope__ fox\n"
    assert seen.err == "warning unknown-wildcard: there is no list 'nope'\n"
    assert main(["expand", "a __nope__", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["prompts"] == ["a __nope__"]
    assert document["warnings"][0]["code"] == "unknown-wildcard"


def test_a_line_is_a_prompt(capsys) -> None:
    assert main(["expand", "a\n{b}"]) == 0
    assert capsys.readouterr().out == "a b\n"


@pytest.mark.parametrize("options", [["--count", "0"], ["--limit", "0"]])
def test_wrong_usage_is_2(options: list[str], capsys) -> None:
    assert main(["expand", "a", *options]) == 2


def test_a_folder_that_is_not_there_is_3(tmp_path, capsys) -> None:
    assert main(["expand", "__a__", "--wildcards", str(tmp_path / "no")]) == 3
    assert capsys.readouterr().err.count("\n") == 1
