import json
from pathlib import Path

import pytest

from clipcond.cli import main


def test_a_table_for_people(dual_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["drift", "--before", str(dual_folder), "--after", str(dual_folder), "--target", "sd15"]
    assert main(given) == 0
    said = capsys.readouterr().out
    assert "clip_l of sd15 on 40 prompts; layer read: hidden_states[-1] with the final norm" in said
    assert 'the empty prompt ""' in said
    assert "no difference in weights, rows or outputs" in said


def test_a_limit_that_is_passed_exits_with_1_after_the_report(
    dual_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from clipcond.models.load import load_open_clip_folder
    from clipcond.models.open_clip_folder import read_config, write_open_clip_folder

    model = load_open_clip_folder(dual_folder)
    model.transformer.resblocks[0].mlp.c_fc.weight.data.neg_()
    write_open_clip_folder(model, read_config(dual_folder), tmp_path / "other")
    given = ["drift", "--before", str(dual_folder), "--after", str(tmp_path / "other"), "--target", "sd15", "--json"]
    assert main([*given, "--fail-over", "words=1e-9", "--fail-over", "bos=2"]) == 1
    said = capsys.readouterr()
    assert list(json.loads(said.out)["failed"]) == ["words"]
    assert "words is 0." in said.err
    assert main([*given, "--fail-over", "words=nonsense"]) == 2
    assert main([*given[:-3], "--target", "sd9"]) == 2


def test_a_page_is_written_and_never_over_another_unasked(
    dual_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "drift.html"
    given = [
        "drift",
        "--before",
        str(dual_folder),
        "--after",
        str(dual_folder),
        "--target",
        "sdxl",
        "--html",
        str(page),
    ]
    assert main(given) == 0
    assert "The words of clip_l turned by 0" in page.read_text("utf-8")
    assert f"page: {page}" in capsys.readouterr().err
    assert main(given) == 3
    assert "say --overwrite" in capsys.readouterr().err
    assert main([*given, "--overwrite"]) == 0
